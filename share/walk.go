package share

import (
	"bufio"
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// ignoreFile lists patterns of entries to leave out of a shared directory.
const ignoreFile = ".p2pignore"

// ignoreLinesMax bounds what is read of an ignore file.
const ignoreLinesMax = 10_000

// walked is one entry that a walk found worth sharing.
type walked struct {
	local string // path on disk, relative to the root, with '/'
	path  Path   // path in the listing
	dir   bool   // an empty directory
	info  fs.FileInfo
}

// walker visits a directory in the order of its listing: sorted by the bytes
// of the whole path. Within one directory that is the order of the names, with
// '/' behind those of directories that hold something.
type walker struct {
	root    *os.Root
	hidden  bool
	exclude []pattern
	skip    func(local string, id fileIdentity) bool // never share these
	warn    func(format string, args ...any)
	visit   func(walked) error
}

// pattern leaves out entries: of any directory when it has no '/', of the
// directory it was given for otherwise. Source: path.Match; a final '/' means
// directories only. There is no negation. Both sides are compared in NFC, so
// that a pattern means the name that is seen, however the disk spells it.
type pattern struct {
	glob    string
	base    string // directory it is relative to, "" or ending in '/'
	dirOnly bool
	deep    bool // matches names anywhere below base
}

func newPattern(text, base string) (pattern, error) {
	p := pattern{base: base}
	text, p.dirOnly = strings.CutSuffix(text, "/")
	p.deep = !strings.Contains(text, "/")
	p.glob = normalForm(norm.NFC, strings.TrimPrefix(text, "/"))
	if _, err := path.Match(p.glob, ""); err != nil || p.glob == "" {
		return p, fmt.Errorf("%q is no pattern", Escape(text))
	}
	return p, nil
}

func (p pattern) matches(local string, dir bool) bool {
	rel, below := strings.CutPrefix(local, p.base)
	if !below || p.dirOnly && !dir {
		return false
	}
	if p.deep {
		rel = path.Base(rel)
	}
	ok, _ := path.Match(p.glob, normalForm(norm.NFC, rel))
	return ok
}

// children lists what of directory dir ("." or "a/b") is to be shared, sorted
// as the listing wants it.
func (w *walker) children(dir string, exclude []pattern) ([]walked, []pattern, error) {
	d, err := w.root.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	entries, err := d.ReadDir(-1)
	d.Close()
	if err != nil {
		return nil, nil, err
	}
	base := ""
	if dir != "." {
		base = dir + "/"
	}
	for _, e := range entries {
		if e.Name() == ignoreFile {
			exclude = append(slices.Clip(exclude), w.readIgnore(base)...)
		}
	}
	var found []walked
	for _, e := range entries {
		if c, ok := w.child(base, e, exclude); ok {
			found = append(found, c)
		}
	}
	return found, exclude, nil
}

// child judges one directory entry. What is left out for a reason that the
// person has not given is warned of.
func (w *walker) child(base string, e fs.DirEntry, exclude []pattern) (walked, bool) {
	local := base + e.Name()
	if !w.hidden && strings.HasPrefix(e.Name(), ".") || e.Name() == ignoreFile {
		return walked{}, false
	}
	info, err := w.root.Stat(local) // follows links, but never out of the root
	if err != nil {
		if e.Type()&fs.ModeSymlink != 0 {
			w.warn("left out %s: the symbolic link leads out of the directory, or nowhere", Escape(local))
		} else {
			w.warn("left out %s: %s", Escape(local), Escape(err.Error()))
		}
		return walked{}, false
	}
	for _, p := range exclude {
		if p.matches(local, info.IsDir()) {
			return walked{}, false
		}
	}
	if w.skip(local, sysIdentity(info)) {
		w.warn("left out %s: it belongs to a home of p2pshare", Escape(local))
		return walked{}, false
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		w.warn("left out %s: it is %s", Escape(local), describeMode(info.Mode()))
		return walked{}, false
	}
	p, err := ParsePath(local)
	if err != nil {
		w.warn("left out %s: %s", Escape(local), err)
		return walked{}, false
	}
	return walked{local: local, path: p, dir: info.IsDir(), info: info}, true
}

func (w *walker) readIgnore(base string) []pattern {
	f, _, err := openShared(func(flag int) (*os.File, error) { return w.root.OpenFile(base+ignoreFile, flag, 0) })
	if err != nil {
		w.warn("%s: %s", Escape(base+ignoreFile), Escape(err.Error()))
		return nil
	}
	defer f.Close()
	var patterns []pattern
	lines := bufio.NewScanner(f)
	n := 1
	for ; lines.Scan(); n++ {
		if n > ignoreLinesMax {
			w.warn("%s: only its first %d lines count", Escape(base+ignoreFile), ignoreLinesMax)
			break
		}
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		p, err := newPattern(text, base)
		if err != nil {
			w.warn("%s:%d: %s", Escape(base+ignoreFile), n, err)
			continue
		}
		patterns = append(patterns, p)
	}
	if err := lines.Err(); err != nil {
		w.warn("%s: what follows line %d does not count: %s", Escape(base+ignoreFile), n-1, Escape(err.Error()))
	}
	return patterns
}

// walk visits everything below the root. It returns the first error of visit,
// or of reading the root itself; a directory further down that can't be read
// is warned of.
func (w *walker) walk() error {
	info, err := w.root.Stat(".")
	if err != nil {
		return err
	}
	return w.dir(".", w.exclude, []fileIdentity{sysIdentity(info)})
}

// dir visits directory dir. chain are the directories on the way to it: a
// symbolic link to one of them would never end.
func (w *walker) dir(dir string, exclude []pattern, chain []fileIdentity) error {
	found, exclude, err := w.children(dir, exclude)
	if err != nil {
		if dir == "." {
			return err
		}
		w.warn("left out %s: %s", Escape(dir), Escape(err.Error()))
		return nil
	}
	type sorted struct {
		walked
		key   string
		empty bool
	}
	order := make([]sorted, 0, len(found))
	for _, c := range found {
		s := sorted{walked: c, key: string(c.path)}
		if c.dir {
			id := sysIdentity(c.info)
			if slices.ContainsFunc(chain, id.sameFile) {
				w.warn(circle, Escape(c.local))
				continue
			}
			holds, err := w.holds(c.local, exclude, append(slices.Clip(chain), id))
			if err != nil {
				w.warn("left out %s: %s", Escape(c.local), Escape(err.Error()))
				continue
			}
			if s.empty = !holds; holds {
				s.key += "/"
			}
		}
		order = append(order, s)
	}
	// Of twins, which have one path, the same one comes first on every system.
	slices.SortFunc(order, func(a, b sorted) int {
		return cmp.Or(strings.Compare(a.key, b.key), strings.Compare(a.local, b.local))
	})
	seen := make(map[Path]string, len(order))
	for _, s := range order {
		if other, ok := seen[s.path]; ok {
			w.warn("left out %s: its name is that of %s in another spelling", Escape(s.local), Escape(other))
			continue
		}
		seen[s.path] = s.local
		if s.dir && !s.empty {
			err = w.dir(s.local, exclude, append(slices.Clip(chain), sysIdentity(s.info)))
		} else {
			err = w.visit(s.walked)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// circle is why a directory is left out that is on the way to itself.
const circle = "left out %s: the symbolic link leads to a directory around it"

// holds reports whether a walk of dir would visit anything. If not, dir is an
// empty directory, which is not walked, and holds warns of what was left out.
func (w *walker) holds(dir string, exclude []pattern, chain []fileIdentity) (bool, error) {
	var warnings []string
	quiet := *w
	quiet.warn = func(format string, args ...any) { warnings = append(warnings, fmt.Sprintf(format, args...)) }
	children, _, err := quiet.children(dir, exclude)
	if err != nil {
		return false, err
	}
	for _, c := range children {
		// A directory in it is an entry, or holds one, unless it leads in a circle.
		if !c.dir || !slices.ContainsFunc(chain, sysIdentity(c.info).sameFile) {
			return true, nil
		}
		quiet.warn(circle, Escape(c.local))
	}
	for _, text := range warnings {
		w.warn("%s", text)
	}
	return false, nil
}
