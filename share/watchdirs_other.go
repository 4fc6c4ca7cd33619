//go:build !linux

package share

// watchDirsMax bounds how many directories are watched: each takes 64 KiB on Windows.
const watchDirsMax = 512

// watchFilesMax bounds how many files a share may have whose directories are watched:
// where kqueue does it, each file is kept open.
const watchFilesMax = 1000
