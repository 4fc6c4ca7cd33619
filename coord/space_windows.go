package coord

import "golang.org/x/sys/windows"

// freeBytes is how much is free where dir is, 0 when that can't be known.
func freeBytes(dir string) int64 {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0
	}
	var free uint64
	if windows.GetDiskFreeSpaceEx(path, &free, nil, nil) != nil {
		return 0
	}
	return int64(min(free, 1<<62))
}
