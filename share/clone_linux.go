package share

import (
	"os"

	"golang.org/x/sys/unix"
)

// cloneFile makes to share from's blocks, where the file system can (btrfs, XFS,
// bcachefs), and reports whether it did. Then to holds what from held, and is as
// long.
func cloneFile(to, from *os.File) bool {
	return unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) == nil
}

// dataRuns calls fn for each run of f, from its start to its end, that is no
// hole. Where holes can't be told, that is the whole file.
func dataRuns(f *os.File, size int64, fn func(start, end int64)) {
	for at := int64(0); at < size; {
		start, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return // holes from here on
		}
		if err != nil {
			fn(at, size)
			return
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil || end <= start {
			end = size
		}
		fn(start, end)
		at = end
	}
}
