//go:build darwin || freebsd || netbsd

package share

import (
	"io/fs"
	"syscall"
	"time"
)

// birthTime tells when a file was made, of which info is.
func birthTime(_ string, info fs.FileInfo) (time.Time, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Birthtimespec.Sec <= 0 {
		return time.Time{}, false
	}
	return time.Unix(st.Birthtimespec.Unix()), true
}
