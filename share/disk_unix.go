//go:build unix

package share

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// tryLock locks f for this process, and reports false when another open file
// has it locked. The lock ends with f.
func tryLock(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return false, nil
	case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOLCK):
		return true, nil // a file system without locks: go on without
	}
	return false, err
}

// spaceKept is left free on a disk: filling it to the last byte breaks more
// than the transfer.
const spaceKept = 1 << 20

// checkSpace returns ErrNoSpace when need bytes more will not fit where f is.
func checkSpace(f *os.File, need int64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return nil // not told: writing will tell
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	if need > 0 && need > free-spaceKept {
		return fmt.Errorf("%d bytes are needed, and %d are free: %w", need, free, ErrNoSpace)
	}
	return nil
}

// noSpace gives errors of a full disk or quota our own name.
func noSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// umask is the mask for new files, read once: reading it means setting it.
var umask = sync.OnceValue(func() fs.FileMode {
	mask := unix.Umask(0o077)
	unix.Umask(mask)
	return fs.FileMode(mask)
})

// freeSpace is how many bytes are free for us where dir is, or -1.
func freeSpace(dir string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return -1
	}
	return max(0, int64(st.Bavail)*int64(st.Bsize)-spaceKept)
}

// allocated is how much of the disk a file takes.
func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Blocks) * 512
	}
	return info.Size()
}
