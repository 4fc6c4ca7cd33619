package share

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/p2pshare/p2pshare/node"
)

// refuseHome collects what the home is made of, and refuses a path that lies
// in it, by whatever way it is named.
func (a *adding) refuseHome() error {
	l := a.library
	a.own = []fileIdentity{l.home}
	for _, dir := range slices.Compact([]string{l.dir, l.node.Dir()}) {
		if dir == "" {
			continue
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		names := []string{"."}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		for _, name := range names {
			if id, err := identifyPath(filepath.Join(dir, name)); err == nil {
				a.own = append(a.own, id)
			}
		}
	}
	inside, err := insideHome(a.path, a.isOwn)
	if err == nil && inside {
		err = fmt.Errorf("it belongs to a home of p2pshare: %w", ErrNotShareable)
	}
	return err
}

// insideHome reports whether an existing path is a home of p2pshare, or lies in
// one, by whatever way it is named: one that isOwn knows, or any other.
func insideHome(path string, isOwn func(fileIdentity) bool) (bool, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false, err
	}
	for {
		if id, err := identifyPath(real); err == nil && isOwn(id) || node.IsHome(real) {
			return true, nil
		}
		parent := filepath.Dir(real)
		if parent == real {
			return false, nil
		}
		real = parent
	}
}

func (a *adding) isOwn(id fileIdentity) bool {
	for _, own := range a.own {
		if own.sameFile(id) {
			return true
		}
	}
	return false
}
