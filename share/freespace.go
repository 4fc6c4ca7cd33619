package share

// FreeSpace is how many bytes are free for this user where dir, which exists, is; -1 when
// the system does not tell.
func FreeSpace(dir string) int64 { return freeSpace(dir) }
