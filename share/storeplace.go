package share

import (
	"errors"
	"os"
	"path/filepath"
)

// place moves files to where the store has them. One that is there already stays:
// it may be in use. s.changing is held.
func (s *store) place(files []hashedFile) error {
	dirs := map[string]bool{}
	for _, f := range files {
		_, there, err := s.catalog.stored(f.record.id)
		if err != nil {
			return err
		}
		if there {
			if err := os.Remove(f.path); err != nil {
				return err
			}
			continue
		}
		to := s.path(f.record.id)
		dir := filepath.Dir(to)
		if !dirs[dir] {
			dirs[dir] = true
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
		}
		if err := os.Rename(f.path, to); err != nil {
			return err
		}
	}
	return syncDirs(s.dir, dirs)
}

// syncManyFrom is how many files or directories are worth a sync of the whole file
// system, where there is one.
const syncManyFrom = 16

// syncFiles has the bytes of files, which all lie in dir, on the disk.
func syncFiles(dir string, files []hashedFile) error {
	if len(files) >= syncManyFrom {
		if synced, err := syncWhole(dir); synced || err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := syncFile(f.path, os.O_RDWR); err != nil {
			return err
		}
	}
	return nil
}

// syncDirs has the names in dirs on the disk, and those of dirs in their parent.
func syncDirs(parent string, dirs map[string]bool) error {
	if len(dirs) >= syncManyFrom {
		if synced, err := syncWhole(parent); synced || err != nil {
			return err
		}
	}
	for dir := range dirs {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	if len(dirs) == 0 {
		return nil
	}
	return syncDir(parent)
}

func syncWhole(path string) (synced bool, err error) {
	d, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer d.Close()
	return syncsTrees, syncTree(d)
}

func syncFile(path string, flag int) error {
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func syncDir(path string) error {
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer root.Close()
	return syncRoot(root, ".")
}
