package share

import (
	"io/fs"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// birthTime tells when the file at path, which info is of, was made. It is not ok
// where the file system does not know, or path is another file by now.
func birthTime(path string, info fs.FileInfo) (time.Time, bool) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BTIME|unix.STATX_INO, &st)
	known, ok := info.Sys().(*syscall.Stat_t)
	if err != nil || !ok || st.Mask&unix.STATX_BTIME == 0 || st.Ino != known.Ino {
		return time.Time{}, false
	}
	return time.Unix(st.Btime.Sec, int64(st.Btime.Nsec)), true
}
