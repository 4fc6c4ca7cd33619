//go:build unix

package raftlog

import (
	"errors"
	"syscall"
)

// IsFull reports whether err says that there is no space, or none for us.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
