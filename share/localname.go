package share

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// localSystem is what a system can't hold of a listing. The zero value holds
// everything a Name may be.
type localSystem struct {
	// reserved: device names, the characters <>:"|?* and trailing dots and
	// spaces mean something else, and short names (LONGNA~1.TXT) may be aliases.
	reserved bool
	// foldCase: names that differ by case only are one file. Set it with reserved:
	// what replaces reserved characters may make two names one as well.
	foldCase bool
}

// systemOf is what an operating system, named as runtime.GOOS, does on the file system
// it formats by itself. A case-sensitive volume on macOS gets renamed files it could have
// held; the reverse, a FAT or NTFS volume mounted on Linux, is not known here.
func systemOf(goos string) localSystem {
	switch goos {
	case "windows":
		return localSystem{reserved: true, foldCase: true}
	case "darwin", "ios":
		return localSystem{foldCase: true}
	}
	return localSystem{}
}

// name returns how n is called here, when nothing else is beside it. It is at
// most 255 bytes long, and n itself wherever that can be held.
func (sys localSystem) name(n Name) (local string, renamed bool) {
	local = string(n)
	if sys.reserved {
		local = unreserved(local)
	}
	return local, local != string(n)
}

// localizer maps the paths of one listing to local paths, one at a time, so that
// no two of them are one file here. It is for one goroutine.
//
// Give it every path of the listing, wanted or not, in the listing's order,
// which is by bytes: then the result depends on nothing else, and a get that is
// resumed or narrowed calls each file the same. Of siblings that collide the
// first keeps its name.
//
// In that order the paths below "a" stand together, but not next to "a": "a.txt"
// comes before "a/b". So siblings are compared over the whole of their
// directory, and what is kept is a hash for each sibling seen so far of every
// directory on the current path, forgotten when its directory is left: about
// 40 bytes a sibling, and nothing at all for the zero localSystem.
type localizer struct {
	sys  localSystem
	last Path
	dirs []localDir // from the root to the directory of the last path
}

// localDir is a directory on the current path.
type localDir struct {
	name  string // of the directory in the listing, "" for the root
	local string // its local path with a '/' at the end, "" for the root
	taken map[siblingKey]struct{}
	// next is the first number to try for a sibling that must be told apart, by
	// what the number goes into. Without it a hostile directory costs the square
	// of its size.
	next map[siblingKey]int
}

// siblingKey stands for all names that could be one file: a hash, so that long
// names cost no more than short ones, and a cryptographic one, so that nobody
// can make names collide for others.
type siblingKey [16]byte

func newLocalizer(sys localSystem) *localizer {
	return &localizer{sys: sys, dirs: []localDir{{}}}
}

// path returns the local path of p, separated by '/' and below the directory
// that receives the listing, and whether it differs from p. It fails when p
// does not come after the last path: the listing is not sorted.
func (l *localizer) path(p Path) (local string, renamed bool, err error) {
	if l.sys == (localSystem{}) {
		return string(p), false, nil
	}
	if p <= l.last {
		return "", false, fmt.Errorf("listing is not sorted: \"%s\" after \"%s\"",
			escapeCut(string(p), 80), escapeCut(string(l.last), 80))
	}
	l.last = p

	parts := strings.Split(string(p), "/")
	above, name := parts[:len(parts)-1], parts[len(parts)-1]
	depth := 1 // of the directories, those that p is in too
	for depth < len(l.dirs) && depth <= len(above) && l.dirs[depth].name == above[depth-1] {
		depth++
	}
	clear(l.dirs[depth:])
	l.dirs = l.dirs[:depth]
	for _, dir := range above[depth-1:] {
		parent := &l.dirs[len(l.dirs)-1]
		l.dirs = append(l.dirs, localDir{name: dir, local: parent.local + parent.take(l.sys, dir) + "/"})
	}
	dir := &l.dirs[len(l.dirs)-1]
	local = dir.local + dir.take(l.sys, name)
	return local, local != string(p), nil
}

// take returns a local name for a new sibling and marks it as taken.
func (d *localDir) take(sys localSystem, name string) string {
	local, _ := sys.name(Name(name))
	if d.taken == nil {
		d.taken = make(map[siblingKey]struct{})
	}
	key := keyOfSibling(local)
	if _, taken := d.taken[key]; taken {
		local, key = d.numbered(local)
	}
	d.taken[key] = struct{}{}
	return local
}

// numbered returns name with the first free number, as "README (2).md".
func (d *localDir) numbered(name string) (string, siblingKey) {
	const numberBytesMax = len(" (10000000)")
	stem, ext := splitExt(name)
	stem = cutBytes(stem, nameBytesMax-len(ext)-numberBytesMax)
	if d.next == nil {
		d.next = make(map[siblingKey]int)
	}
	counter := keyOfSibling(stem + "/" + ext) // '/': no name has it
	for i := max(d.next[counter], 2); ; i++ {
		local := fmt.Sprintf("%s (%d)%s", stem, i, ext)
		key := keyOfSibling(local)
		if _, taken := d.taken[key]; !taken {
			d.next[counter] = i + 1
			return local, key
		}
	}
}

// keyOfSibling returns the same key for names that a file system may hold to be
// the same. File systems disagree (NTFS compares upper case by a table of its
// own, APFS folds, HFS+ also skips ignorables), so this errs on the side of
// the same: the price is a number in a name that could have gone without.
func keyOfSibling(name string) siblingKey {
	if !isASCII(name) {
		name = dropIgnorable(normalForm(norm.NFD, name))
		name = normalForm(norm.NFD, foldCase(name)) // canonical caseless match, D145
	}
	name = strings.Map(unicode.ToUpper, name) // dotless i and i
	sum := sha256.Sum256([]byte(name))
	return siblingKey(sum[:])
}

// unreserved returns name as Windows can hold it.
func unreserved(name string) string {
	name = strings.Map(func(r rune) rune {
		if strings.ContainsRune(`<>:"|?*`, r) {
			return '_'
		}
		return r
	}, name)
	if kept := strings.TrimRight(name, ". "); kept != name {
		name = kept + strings.Repeat("_", len(name)-len(kept))
	}
	base, _, _ := strings.Cut(name, ".")
	if deviceName(base) || shortName(name) {
		rest := cutBytes(name[len(base):], nameBytesMax-len(base)-1)
		name = base + "_" + strings.TrimRight(rest, ". ") // a cut may bare one
	}
	return name
}

// deviceName reports whether Windows opens a device for base, the part of a
// name before its first dot. Spaces after it do not help.
//
// Source: Microsoft, "Naming Files, Paths, and Namespaces"; CONIN$ and CONOUT$
// from "CreateFile, consoles".
func deviceName(base string) bool {
	base = strings.ToUpper(strings.TrimRight(base, " "))
	switch base {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	port, found := strings.CutPrefix(base, "COM")
	if !found {
		port, found = strings.CutPrefix(base, "LPT")
	}
	return found && utf8.RuneCountInString(port) == 1 && strings.Contains("0123456789¹²³", port)
}

// shortName reports names of the form that NTFS and FAT make up for long ones,
// up to 8 characters with ~ and a number at the end, and an extension of up to
// 3: opening one may open a sibling with quite another name.
func shortName(name string) bool {
	base, ext, _ := strings.Cut(name, ".")
	if len(base) > 8 || len(ext) > 3 {
		return false
	}
	stem := strings.TrimRight(base, "0123456789")
	return len(stem) < len(base) && strings.HasSuffix(stem, "~")
}

// splitExt splits name before its last dot. A dot at the start, or one that is
// far from the end, begins no extension.
func splitExt(name string) (stem, ext string) {
	const extBytesMax = 32
	i := strings.LastIndexByte(name, '.')
	if i <= 0 || len(name)-i > extBytesMax {
		return name, ""
	}
	return name[:i], name[i:]
}

// cutBytes returns the start of s, of at most bytesMax bytes and whole characters.
func cutBytes(s string, bytesMax int) string {
	if len(s) <= bytesMax {
		return s
	}
	for !utf8.RuneStart(s[bytesMax]) {
		bytesMax--
	}
	return s[:bytesMax]
}
