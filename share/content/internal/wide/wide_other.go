//go:build !amd64 || purego

package wide

// Supported reports whether this processor and its system can run Chunks and
// Parents, which panic otherwise.
func Supported() bool { return false }

func chunks(*CVs, *byte, uint64, uint64, uint64, uint64) { panic("wide: not supported") }

func parents(*CVs, *[2 * Lanes][8]uint32) { panic("wide: not supported") }
