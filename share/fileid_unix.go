//go:build unix

package share

import (
	"io/fs"
	"syscall"
)

// sysIdentity reads what the system knows a file by.
func sysIdentity(info fs.FileInfo) fileIdentity {
	id := fileIdentity{size: info.Size(), mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.dev, id.ino, id.ctime = uint64(st.Dev), uint64(st.Ino), changeTime(st)
	}
	return id
}

// openNonblock keeps an open of a FIFO from waiting for its other end.
const openNonblock = syscall.O_NONBLOCK
