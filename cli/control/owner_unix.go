//go:build unix

package control

import (
	"io/fs"
	"os"
	"syscall"
)

// ownedByUs reports whether this user owns the file that info describes.
func ownedByUs(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid()
}
