package share

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// tryLock locks f for this process, and reports false when another open file
// has it locked. The lock ends with f.
func tryLock(f *os.File) (bool, error) {
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	// The locked byte lies far behind any content, so that others can read.
	at := &windows.Overlapped{OffsetHigh: 1 << 30}
	err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}

// checkSpace is left to the write itself on Windows.
func checkSpace(*os.File, int64) error { return nil }

// noSpace gives errors of a full disk our own name.
func noSpace(err error) error {
	if errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

func umask() fs.FileMode { return 0 }

// freeSpace is how many bytes are free for us where dir is, or -1.
func freeSpace(dir string) int64 {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return -1
	}
	var free, total, all uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, &total, &all); err != nil {
		return -1
	}
	return int64(free)
}

// allocated is how much of the disk a file takes, at most.
func allocated(info fs.FileInfo) int64 { return info.Size() }
