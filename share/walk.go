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
	link  bool   // it is a symbolic link to what info tells of
	info  fs.FileInfo
}

// walker visits a directory in the order of its listing: sorted by the bytes
// of the whole path. Within one directory that is the order of the names, with
// '/' behind those of directories that hold something.
type walker struct {
	root    *os.Root
	hidden  bool
	exclude []pattern
	skip    func(local string, id fileIdentity, dir bool) bool // never share these
	warn    func(format string, args ...any)
	visit   func(walked) error
	enter   func(local string) // if set, called before a directory is read
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

// children lists what of directory dir ("." or "a/b") is to be shared, in no order.
// It calls each for every entry, until it returns false.
func (w *walker) children(dir string, exclude []pattern, each func(walked) bool) ([]pattern, error) {
	if w.enter != nil {
		w.enter(dir)
	}
	// Looking names up from their directory, not from the root, saves an open and a
	// close of it for each.
	in, err := w.root.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	d, err := in.Open(".")
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1) // ReadDir looks at each entry, in a Root
	d.Close()
	if err != nil {
		return nil, err
	}
	base := ""
	if dir != "." {
		base = dir + "/"
	}
	if slices.Contains(names, ignoreFile) {
		exclude = append(slices.Clip(exclude), w.readIgnore(base)...)
	}
	for _, name := range names {
		if c, ok := w.child(in, base, name, exclude); ok && !each(c) {
			break
		}
	}
	return exclude, nil
}

// stat looks at entry name of in, which is the directory base. It follows links,
// but never out of the root.
func (w *walker) stat(in *os.Root, base, name string) (info fs.FileInfo, link bool, err error) {
	info, err = in.Lstat(name)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		info, err = w.root.Stat(base + name)
		link = true
	}
	return info, link, err
}

// child judges one directory entry. What is left out for a reason that the
// person has not given is warned of.
func (w *walker) child(in *os.Root, base, name string, exclude []pattern) (walked, bool) {
	local := base + name
	if !w.hidden && strings.HasPrefix(name, ".") || name == ignoreFile || holdsPartialName(name) {
		return walked{}, false
	}
	info, link, err := w.stat(in, base, name)
	if err != nil {
		if link {
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
	if w.skip(local, sysIdentity(info), info.IsDir()) {
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
	return walked{local: local, path: p, dir: info.IsDir(), link: link, info: info}, true
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
	var found []walked
	exclude, err := w.children(dir, exclude, func(c walked) bool {
		found = append(found, c)
		return true
	})
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
func (w *walker) holds(dir string, exclude []pattern, chain []fileIdentity) (found bool, err error) {
	var warnings []string
	quiet := *w
	quiet.warn = func(format string, args ...any) { warnings = append(warnings, fmt.Sprintf(format, args...)) }
	_, err = quiet.children(dir, exclude, func(c walked) bool {
		// A directory in it is an entry, or holds one, unless it leads in a circle.
		found = !c.dir || !slices.ContainsFunc(chain, sysIdentity(c.info).sameFile)
		if !found {
			quiet.warn(circle, Escape(c.local))
		}
		return !found
	})
	if err != nil || found {
		return found, err
	}
	for _, text := range warnings {
		w.warn("%s", text)
	}
	return false, nil
}
