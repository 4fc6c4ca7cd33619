//go:build !linux && !darwin && !freebsd && !netbsd

package share

import (
	"io/fs"
	"time"
)

// birthTime is not told here.
func birthTime(string, fs.FileInfo) (time.Time, bool) { return time.Time{}, false }
