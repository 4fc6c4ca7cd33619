package share

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
)

// includes are the patterns of GetOptions.Include. An entry is wanted when one of
// them matches it or a directory that it is in; none: all are.
type includes []pattern

// parseIncludes reads patterns as a .p2pignore file has them: without a '/' one
// matches a name in any directory, with one a path from the root of the directory
// that is asked for, and one that ends in '/' directories only.
func parseIncludes(globs []string) (includes, error) {
	var list includes
	for _, g := range globs {
		p, err := newPattern(g, "")
		if err != nil {
			return nil, fmt.Errorf("include %w", err)
		}
		list = append(list, p)
	}
	return list, nil
}

// CheckIncludes returns an error that names the first pattern that is none.
func CheckIncludes(globs []string) error {
	_, err := parseIncludes(globs)
	return err
}

func (in includes) match(p Path, dir bool) bool {
	if len(in) == 0 {
		return true
	}
	for local := string(p); local != "."; local, dir = path.Dir(local), true {
		for _, pattern := range in {
			if pattern.matches(local, dir) {
				return true
			}
		}
	}
	return false
}

// openInPlace opens the target directory, made if need be, for a part of a
// directory: that is written in place, file by file, and a later get adds to it.
func (t *tree) openInPlace() (*os.Root, error) {
	if err := t.parent.Mkdir(t.base, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, noSpace(err)
	}
	return t.parent.OpenRoot(t.base)
}
