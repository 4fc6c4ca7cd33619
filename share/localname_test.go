package share

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"golang.org/x/text/unicode/norm"
)

var (
	linuxSystem   = localSystem{}
	darwinSystem  = localSystem{foldCase: true}
	windowsSystem = localSystem{reserved: true, foldCase: true}
)

func TestNamesWindowsCantHold(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"CON", "CON_"}, {"con", "con_"}, {"Prn", "Prn_"}, {"AUX", "AUX_"}, {"NUL", "NUL_"},
		{"COM0", "COM0_"}, {"com9", "com9_"}, {"LPT1", "LPT1_"}, {"COM¹", "COM¹_"}, {"lpt³", "lpt³_"},
		{"CONIN$", "CONIN$_"}, {"conout$", "conout$_"},
		{"CON.txt", "CON_.txt"}, {"nul.tar.gz", "nul_.tar.gz"}, {"NUL .txt", "NUL _.txt"}, {"COM1 ", "COM1_"},
		{"CON_", "CON_"}, {"CONS", "CONS"}, {"COM", "COM"}, {"COM10", "COM10"}, {"COM⁴", "COM⁴"}, {"a.CON", "a.CON"},
		{`a<b>c:d"e|f?g*h`, "a_b_c_d_e_f_g_h"}, {"CON:", "CON_"}, {"file:stream", "file_stream"},
		{"dot.", "dot_"}, {"dots. .", "dots___"}, {"...", "___"}, {"space ", "space_"}, {" lead", " lead"}, {".profile", ".profile"},
		{"LONGNA~1.TXT", "LONGNA~1_.TXT"}, {"a~12", "a~12_"}, {"a~b", "a~b"}, {"a~1.html", "a~1.html"}, {"longer-name~1", "longer-name~1"},
		{"naïve 日本語 👍.txt", "naïve 日本語 👍.txt"},
		{"NUL." + strings.Repeat("x", 251), "NUL_." + strings.Repeat("x", 250)},
		{"NUL." + strings.Repeat("x", 249) + ".y", "NUL_." + strings.Repeat("x", 249)},
	} {
		got, renamed := windowsSystem.name(Name(tt.in))
		if got != tt.want || renamed != (tt.in != tt.want) {
			t.Errorf("name(%q) = %q, renamed %v, want %q", tt.in, got, renamed, tt.want)
		}
		for _, sys := range []localSystem{linuxSystem, darwinSystem} {
			if got, renamed := sys.name(Name(tt.in)); got != tt.in || renamed {
				t.Errorf("%+v.name(%q) = %q, renamed %v, want no change", sys, tt.in, got, renamed)
			}
		}
	}
}

func TestListingBecomesLocalPaths(t *testing.T) {
	for _, tt := range []struct {
		what    string
		listing []string // sorted
		darwin  []string
		windows []string
	}{
		{
			"case only",
			[]string{"README.md", "Readme.md", "readme.md"},
			[]string{"README.md", "Readme (2).md", "readme (3).md"},
			[]string{"README.md", "Readme (2).md", "readme (3).md"},
		},
		{
			"directories by case only are kept apart",
			[]string{"Src/a", "Src/b", "src/a", "src/c/d"},
			[]string{"Src/a", "Src/b", "src (2)/a", "src (2)/c/d"},
			[]string{"Src/a", "Src/b", "src (2)/a", "src (2)/c/d"},
		},
		{
			"siblings before and after a directory's contents",
			[]string{"A.txt", "a.txt", "a/A", "a/a", "a/b/C", "a/b/c", "a/c", "a0", "b"},
			[]string{"A.txt", "a (2).txt", "a/A", "a/a (2)", "a/b/C", "a/b/c (2)", "a/c", "a0", "b"},
			[]string{"A.txt", "a (2).txt", "a/A", "a/a (2)", "a/b/C", "a/b/c (2)", "a/c", "a0", "b"},
		},
		{
			"a number that is taken, and one that comes later",
			[]string{"A", "A (2)", "a", "a (3)"},
			[]string{"A", "A (2)", "a (3)", "a (3) (2)"},
			[]string{"A", "A (2)", "a (3)", "a (3) (2)"},
		},
		{
			"reserved names meet the names made for them",
			[]string{"CON", "CON_", "con.txt/x", "x:", "x?"},
			[]string{"CON", "CON_", "con.txt/x", "x:", "x?"},
			[]string{"CON_", "CON_ (2)", "con_.txt/x", "x_", "x_ (2)"},
		},
		{
			"a name that is a file and a directory",
			[]string{"a", "a/b"},
			[]string{"a", "a (2)/b"},
			[]string{"a", "a (2)/b"},
		},
		{
			"same name in other directories",
			[]string{"x/A", "y/a", "z/A"},
			[]string{"x/A", "y/a", "z/A"},
			[]string{"x/A", "y/a", "z/A"},
		},
		{
			"what file systems fold, or skip",
			[]string{"STRASSE", "i\u200d", "straße", "ı", "\u0390", "\u03aa\u0301"},
			[]string{"STRASSE", "i\u200d", "straße (2)", "ı (2)", "\u0390", "\u03aa\u0301 (2)"},
			[]string{"STRASSE", "i\u200d", "straße (2)", "ı (2)", "\u0390", "\u03aa\u0301 (2)"},
		},
		{
			"hidden and many dots",
			[]string{".GIT", ".git", "A.tar.gz", "a.tar.gz"},
			[]string{".GIT", ".git (2)", "A.tar.gz", "a.tar (2).gz"},
			[]string{".GIT", ".git (2)", "A.tar.gz", "a.tar (2).gz"},
		},
	} {
		t.Run(tt.what, func(t *testing.T) {
			order := slices.Clone(tt.listing)
			slices.Sort(order)
			if !slices.Equal(order, tt.listing) {
				t.Fatalf("the table's listing is not sorted: %q", order)
			}
			for _, on := range []struct {
				sys  localSystem
				want []string
			}{{linuxSystem, tt.listing}, {darwinSystem, tt.darwin}, {windowsSystem, tt.windows}} {
				got := localize(t, on.sys, tt.listing)
				if !slices.Equal(got, on.want) {
					t.Errorf("on %+v %q became\n %q, want\n %q", on.sys, tt.listing, got, on.want)
				}
			}
		})
	}
}

// localize maps a sorted listing, and checks what path promises of any.
func localize(t *testing.T, sys localSystem, listing []string) []string {
	t.Helper()
	l := newLocalizer(sys)
	var locals []string
	seen := make(map[string]string)
	for _, p := range listing {
		local, renamed, err := l.path(Path(p))
		if err != nil {
			t.Fatal(err)
		}
		if renamed != (local != p) {
			t.Errorf("path(%q) = %q, renamed %v", p, local, renamed)
		}
		if sys == linuxSystem && local != p {
			t.Errorf("path(%q) = %q on Linux", p, local)
		}
		if strings.Count(local, "/") != strings.Count(p, "/") {
			t.Errorf("path(%q) = %q, at another depth", p, local)
		}
		for part := range strings.SplitSeq(local, "/") {
			again, _ := sys.name(Name(part))
			if len(part) > 255 || !utf8.ValidString(part) || again != part {
				t.Errorf("path(%q) = %q, which can't be held", p, local)
			}
		}
		if sys.foldCase {
			key := strings.ToLower(norm.NFD.String(local))
			if other, ok := seen[key]; ok {
				t.Errorf("%q and %q are both %q", other, p, local)
			}
			seen[key] = p
		}
		locals = append(locals, local)
	}
	return locals
}

// TestSavedUnderTheRulesOfEachSystem saves for real what a stranger named, under the rules
// of each system; all of these names can be made on this disk.
func TestSavedUnderTheRulesOfEachSystem(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	for _, name := range []string{"album/CON", "album/a~1.txt", "album/dot.", "album/aux.d/x: y", "album/README", "album/readme"} {
		sharer.write(t, name, []byte(name))
	}
	if files, err := os.ReadDir(filepath.Join(sharer.dir, "album")); err != nil || len(files) != 6 {
		t.Skip("this disk can't hold the names themselves")
	}
	sharer.add(t, filepath.Join(sharer.dir, "album"), AddOptions{})
	sharer.add(t, sharer.write(t, "nul.txt", []byte("nul")), AddOptions{})
	for _, on := range []struct {
		what   string
		sys    localSystem
		album  []string // in the order of the listing
		single string
		sent   []string // what is received as aux.txt, twice
	}{
		{"linux", linuxSystem, []string{"CON", "README", "a~1.txt", "aux.d/x: y", "dot.", "readme"}, "nul.txt", []string{"aux.txt", "aux (1).txt"}},
		{"darwin", darwinSystem, []string{"CON", "README", "a~1.txt", "aux.d/x: y", "dot.", "readme (2)"}, "nul.txt", []string{"aux.txt", "aux (1).txt"}},
		{"windows", windowsSystem, []string{"CON_", "README", "a~1_.txt", "aux_.d/x_ y", "dot_", "readme (2)"}, "nul_.txt", []string{"aux_.txt", "aux (1).txt"}},
	} {
		t.Run(on.what, func(t *testing.T) {
			p, _ := startPeer(t, node.Config{NoDHT: true})
			p.lib.system = on.sys
			from := GetOptions{Peers: []peer.AddrInfo{sharer.AddrInfo()}}
			for range 2 { // the second finds all of it in its place
				if _, err := p.get(t, "album", from); err != nil {
					t.Fatal(err)
				}
			}
			var saved []string
			for i, want := range []string{"CON", "README", "a~1.txt", "aux.d/x: y", "dot.", "readme"} {
				mustBe(t, filepath.Join(p.dir, "album", filepath.FromSlash(on.album[i])), []byte("album/"+want))
			}
			fs.WalkDir(os.DirFS(filepath.Join(p.dir, "album")), ".", func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					saved = append(saved, path)
				}
				return err
			})
			if want := slices.Sorted(slices.Values(on.album)); !slices.Equal(slices.Sorted(slices.Values(saved)), want) {
				t.Errorf("the directory holds %q, want %q", saved, want)
			}
			got, err := p.get(t, "nul.txt", from)
			if err != nil || filepath.Base(got.Path) != on.single {
				t.Errorf("nul.txt was saved as %s, %v, want %s", got.Path, err, on.single)
			}
			for _, want := range on.sent {
				if path, _, err := p.lib.Receive(p.dir, "aux.txt", strings.NewReader("x"), 1); err != nil || filepath.Base(path) != want {
					t.Errorf("aux.txt was received as %s, %v, want %s", path, err, want)
				}
			}
		})
	}
}

func TestLongNamesAreCutToMakeRoom(t *testing.T) {
	listing := []string{
		strings.Repeat("A", 251) + ".txt",
		strings.Repeat("a", 251) + ".txt",
		strings.Repeat("É", 127),
		strings.Repeat("é", 127),
	}
	for _, sys := range []localSystem{darwinSystem, windowsSystem} {
		got := localize(t, sys, listing)
		if got[1] != strings.Repeat("a", 240)+" (2).txt" || got[3] != strings.Repeat("é", 122)+" (2)" {
			t.Errorf("on %+v %q", sys, got)
		}
	}
}

func TestUnsortedListingIsRefused(t *testing.T) {
	for _, p := range []Path{"b", "a"} {
		l := newLocalizer(darwinSystem)
		l.path("b")
		if local, _, err := l.path(p); err == nil {
			t.Errorf("path(%q) after %q = %q, want an error", p, "b", local)
		}
	}
}

func TestDirectoryLeftIsForgotten(t *testing.T) {
	l := newLocalizer(windowsSystem)
	for i := range 1000 {
		if _, _, err := l.path(Path(fmt.Sprintf("a/%04d/x/y", i))); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.dirs) != 4 || len(l.dirs[2].taken) != 1 {
		t.Errorf("%d directories kept, want 4", len(l.dirs))
	}
	l.path("b")
	if len(l.dirs) != 1 || len(l.dirs[0].taken) != 2 {
		t.Errorf("%d directories kept with %d siblings, want the root with 2", len(l.dirs), len(l.dirs[0].taken))
	}
}

// All spellings of one name: without the counters this is quadratic, and takes
// minutes instead of a second.
func TestHostileDirectoryIsLinear(t *testing.T) {
	t.Parallel()
	const letters = 14
	var listing []string
	for i := range 1 << letters {
		name := []byte(strings.Repeat("A", letters) + strings.Repeat("x", 232))
		for bit := range letters {
			if i>>bit&1 == 1 {
				name[letters-1-bit] = 'a'
			}
		}
		listing = append(listing, string(name))
	}
	slices.Sort(listing)
	localize(t, windowsSystem, listing)
}

func TestLinuxKeepsNoState(t *testing.T) {
	l := newLocalizer(linuxSystem)
	var p Path = "some/path/in/a/listing.txt"
	if n := testing.AllocsPerRun(100, func() { l.path(p) }); n != 0 {
		t.Errorf("path allocates %v times, want none", n)
	}
}

func TestSystemsAreKnown(t *testing.T) {
	for goos, want := range map[string]localSystem{"linux": linuxSystem, "freebsd": linuxSystem, "darwin": darwinSystem, "ios": darwinSystem, "windows": windowsSystem} {
		if got := systemOf(goos); got != want {
			t.Errorf("systemOf(%s) = %+v, want %+v", goos, got, want)
		}
	}
}

func FuzzLocalizer(f *testing.F) {
	f.Add("README\nReadme\nCON\ncon.txt\na/b\na.txt\nA")
	f.Add("x~1\nX~1_\nx:\nx?\n...\n.. .")
	f.Fuzz(func(t *testing.T, lines string) {
		var listing []string
		for line := range strings.SplitSeq(lines, "\n") {
			if p, err := ParsePath(line); err == nil {
				listing = append(listing, string(p))
			}
		}
		slices.Sort(listing)
		listing = slices.Compact(listing)
		for _, sys := range []localSystem{linuxSystem, darwinSystem, windowsSystem} {
			localize(t, sys, listing)
		}
	})
}

func BenchmarkLocalizerFlatDirectory(b *testing.B) {
	l := newLocalizer(windowsSystem)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, _, err := l.path(Path(fmt.Sprintf("%012d.jpg", i))); err != nil {
			b.Fatal(err)
		}
	}
}
