//go:build unix

package lan

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// sharePort lets several processes of a host have the group's port; each gets
// a copy of what is sent to the group.
func sharePort(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	})
	return errors.Join(err, failed)
}
