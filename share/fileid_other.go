//go:build unix && !linux && !darwin && !freebsd && !netbsd

package share

import "syscall"

// changeTime is left out here: files are then known by size, time and inode.
func changeTime(*syscall.Stat_t) int64 { return 0 }
