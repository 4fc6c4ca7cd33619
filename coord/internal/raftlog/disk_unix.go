//go:build unix

package raftlog

import (
	"errors"
	"syscall"
)

// isFull reports whether err says that there is no space, or none for us.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
