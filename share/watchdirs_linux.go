package share

// watchDirsMax bounds how many directories are watched: each takes about 1 KiB of
// the kernel's memory, and a path of ours.
const watchDirsMax = 1 << 15

// watchFilesMax bounds how many files a share may have whose directories are watched.
const watchFilesMax = 1 << 62
