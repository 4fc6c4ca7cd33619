package share

import (
	"os"

	"golang.org/x/sys/unix"
)

// startWriteback has the system begin to write out what f was given, and does not
// wait until that is done.
func startWriteback(f *os.File) {
	c, err := f.SyscallConn()
	if err != nil {
		return
	}
	// An error is told by the fsync at the end.
	c.Control(func(fd uintptr) { unix.SyncFileRange(int(fd), 0, 0, unix.SYNC_FILE_RANGE_WRITE) })
}
