package lan

import (
	"errors"
	"syscall"
)

// sharePort lets several processes of a host have the group's port; each gets
// a copy of what is sent to the group.
func sharePort(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(syscall.Handle(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	})
	return errors.Join(err, failed)
}
