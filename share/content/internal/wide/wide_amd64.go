//go:build !purego

package wide

import "golang.org/x/sys/cpu"

//go:generate go run -modfile=../../../../.tools.mod gen.go -out wide_amd64.s -stubs stubs_amd64.go -pkg wide

// Supported reports whether this processor and its system can run Chunks and
// Parents.
func Supported() bool { return cpu.X86.HasAVX512F }
