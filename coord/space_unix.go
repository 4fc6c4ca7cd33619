//go:build unix

package coord

import "golang.org/x/sys/unix"

// freeBytes is how much is free where dir is, 0 when that can't be known.
func freeBytes(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0
	}
	return int64(st.Bavail) * int64(st.Bsize)
}
