package raftlog

import (
	"errors"

	"golang.org/x/sys/windows"
)

// IsFull reports whether err says that there is no space, or none for us.
func IsFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}
