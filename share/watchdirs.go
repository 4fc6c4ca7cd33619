package share

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// dirEvents has the system tell of changes in directories, of a bounded number of
// them. Only the loop of the watcher, and the walk that it waits for, use it.
type dirEvents struct {
	notify *fsnotify.Watcher // nil: the system tells nothing
	failed error             // why
	uses   map[string]int    // directories, and how many roots need them
}

// errWatchesMax: there are as many directories as are watched.
var errWatchesMax = fmt.Errorf("more than %d directories are not watched one by one", watchDirsMax)

// add has changes in dir told, for one more root, or for one that has it already.
// It is asked for a directory at each walk: the system lets go of one that was moved.
func (d *dirEvents) add(dir string, more bool) error {
	if d.notify == nil {
		return d.failed
	}
	if d.uses[dir] == 0 && len(d.uses) >= watchDirsMax {
		return errWatchesMax
	}
	if err := d.notify.Add(dir); err != nil {
		if errors.Is(err, syscall.ENOSPC) { // of inotify
			return errors.New("the system's limit on watched directories is reached (sysctl fs.inotify.max_user_watches)")
		}
		return err
	}
	if more {
		d.uses[dir]++
	}
	return nil
}

// release ends what add began, for one root.
func (d *dirEvents) release(dir string) {
	if d.uses[dir]--; d.uses[dir] > 0 {
		return
	}
	delete(d.uses, dir)
	if d.notify != nil {
		d.notify.Remove(dir) // one that is gone is not watched any more
	}
}
