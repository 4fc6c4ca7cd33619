package share

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// Listings that want out of the target directory, and target directories that
// lead out of themselves.

// dirLiar is a peer that publishes a directory whose listing is any text. It
// has the one content that lineOf names.
func dirLiar(t *testing.T, name Name, listing string) (p publisher, n *node.Node, id content.ID) {
	t.Helper()
	file := newDataLiar(t, []byte("x"), nil)
	dir := newDataLiar(t, []byte(listing), nil)
	dir.lie = func(_ *dataLiar, tag uint32, q dataRequest) []byte {
		switch q.id {
		case file.id:
			return file.honest(tag, q)
		case dir.id:
			return nil
		}
		return frame(frameError, tag, []byte{byte(codeNotHeld)})
	}
	p = newPublisher(t)
	m := p.manifest(name, dir.id, 1)
	m.Kind = KindDir
	line := manifestLine(p.sign(t, m))
	n = startRaw(t, nil, handlers{dataProtocol: dir.serve, metaProtocol: answerMeta(append(line, endLine...))})
	return p, n, dir.id
}

func lineOf(path string) string {
	return `{"path":"` + path + `","kind":"file","id":"` + content.Root([]byte("x")).String() + `","size":1}` + "\n"
}

// twisted is the line of file a with one part replaced.
func twisted(old, new string) string { return strings.Replace(lineOf("a"), old, new, 1) }

var listingLies = map[string]string{
	"climbs":                   lineOf("../../etc/passwd"),
	"unfinished file":          lineOf(".foo.p2p-part") + lineOf("foo"),
	"climbs from inside":       lineOf("a/../../b"),
	"absolute":                 lineOf("/etc/passwd"),
	"backslash":                lineOf(`..\\b`),
	"dot":                      lineOf("./a"),
	"empty component":          lineOf("a//b"),
	"ends in a slash":          lineOf("a/"),
	"no path":                  lineOf(""),
	"NUL":                      lineOf(`a\u0000b`),
	"ESC":                      lineOf(`a\u001b[31mb`),
	"bidi":                     lineOf("a\u202eb"),
	"invalid UTF-8":            lineOf("a\xffb"),
	"not in normal form":       lineOf("e\u0301"),
	"long component":           lineOf(strings.Repeat("a", 256)),
	"long path":                lineOf(strings.Repeat("a/", 3000) + "a"),
	"file and directory":       lineOf("a") + lineOf("a/b"),
	"inside a file, far off":   lineOf("a") + lineOf("a-b") + lineOf("a.txt") + lineOf("a/b"),
	"inside an empty one":      `{"path":"a","kind":"dir"}` + "\n" + lineOf("a/b"),
	"unsorted":                 lineOf("b") + lineOf("a"),
	"twice the same":           lineOf("a") + lineOf("a"),
	"white space":              twisted(",", ", "),
	"keys in another order":    twisted(`{"path":"a","kind":"file"`, `{"kind":"file","path":"a"`),
	"duplicate keys":           twisted(`"path":"a"`, `"path":"b","path":"a"`),
	"unknown key":              twisted(`"size":1`, `"size":1,"link":"/etc/passwd"`),
	"a link":                   twisted(`"file"`, `"symlink"`),
	"negative size":            twisted(`"size":1`, `"size":-1`),
	"size in another form":     twisted(`"size":1`, `"size":1e0`),
	"size out of all bounds":   twisted(`"size":1`, `"size":99999999999999999999`),
	"no newline at the end":    twisted("\n", ""),
	"carriage returns":         twisted("\n", "\r\n"),
	"not JSON":                 "hello\n",
	"line without end":         strings.Repeat("a", 100_000),
	"good first, then a climb": lineOf("a") + lineOf("b") + lineOf("b/../../c"),
	// Each size is possible, and their sum is not.
	"sum of sizes": twisted(`"size":1`, `"size":1125899906842624`) + strings.Replace(twisted(`"size":1`, `"size":1125899906842624`), `"a"`, `"b"`, 1),
	// The content is true, and its size is not what the listing says.
	"wrong size":          twisted(`"size":1`, `"size":2`),
	"size of many groups": twisted(`"size":1`, `"size":1000000`),
}

func TestGetWritesNothingOutsideTheTarget(t *testing.T) {
	getter, _ := startPeer(t, node.Config{})
	for test, listing := range listingLies {
		t.Run(test, func(t *testing.T) {
			p, liar, _ := dirLiar(t, "album", listing)
			outer := t.TempDir()
			getter.dir = filepath.Join(outer, "one", "two")
			if err := os.MkdirAll(getter.dir, 0o755); err != nil {
				t.Fatal(err)
			}
			_, err := getter.get(t, "album", GetOptions{NoServe: true, Peers: []peer.AddrInfo{liar.AddrInfo()}})
			wantCorrupt(t, err, p.id)
			if _, err := os.Lstat(filepath.Join(getter.dir, "album")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("album was saved")
			}
			for name := range readTree(t, outer) {
				if name != "one/two" && !strings.HasPrefix(name, "one/two/.album.p2p-part") {
					t.Errorf("%s was written", name)
				}
			}
			if left, err := os.ReadDir(listingDir(getter.Dir())); err != nil || len(left) > 0 {
				t.Errorf("listings left in the home: %v, %v", left, err)
			}
		})
	}
}

// What is a directory only by the word of whoever served it is saved as what it
// is.
func TestGetByIDTakesAFalseDirectoryForAFile(t *testing.T) {
	getter, _ := startPeer(t, node.Config{})
	listing := lineOf("../../etc/passwd")
	_, liar, id := dirLiar(t, "album", listing)
	got, err := getter.get(t, id.String(), GetOptions{NoServe: true, Peers: []peer.AddrInfo{liar.AddrInfo()}})
	if err != nil || got.Kind != KindFile {
		t.Fatalf("Get = %+v, %v, want a file", got, err)
	}
	mustBe(t, filepath.Join(getter.dir, "album"), []byte(listing))
}

// linkPlants are what somebody may have put into the directory dir that an
// album with a.txt and sub/b.txt is got into.
var linkPlants = map[string]func(dir, outside string) error{
	"the target is a link": func(dir, outside string) error {
		return os.Symlink(outside, filepath.Join(dir, "album"))
	},
	"a directory in it is a link": func(dir, outside string) error {
		return errors.Join(os.Mkdir(filepath.Join(dir, "album"), 0o755), os.Symlink(outside, filepath.Join(dir, "album/sub")))
	},
	"a relative link": func(dir, outside string) error {
		rel, err := filepath.Rel(filepath.Join(dir, "album"), outside)
		return errors.Join(err, os.Mkdir(filepath.Join(dir, "album"), 0o755), os.Symlink(rel, filepath.Join(dir, "album/sub")))
	},
	"a file in it is a link": func(dir, outside string) error {
		return errors.Join(os.Mkdir(filepath.Join(dir, "album"), 0o755), os.Symlink(filepath.Join(outside, "victim"), filepath.Join(dir, "album/a.txt")))
	},
	"a file in it is a link to nothing yet": func(dir, outside string) error {
		return errors.Join(os.Mkdir(filepath.Join(dir, "album"), 0o755), os.Symlink(filepath.Join(outside, "new"), filepath.Join(dir, "album/a.txt")))
	},
	"a partial file in it is a link": func(dir, outside string) error {
		return errors.Join(os.Mkdir(filepath.Join(dir, "album"), 0o755), os.Symlink(filepath.Join(outside, "victim"), filepath.Join(dir, "album/.a.txt.p2p-part")))
	},
	"the partial directory is a link": func(dir, outside string) error {
		return os.Symlink(outside, filepath.Join(dir, ".album.p2p-part"))
	},
	"the partial directory is a link beside it": func(dir, _ string) error {
		return errors.Join(os.Mkdir(filepath.Join(dir, "other"), 0o755), os.Symlink("other", filepath.Join(dir, ".album.p2p-part")))
	},
	"the partial directory is a file": func(dir, _ string) error {
		return os.WriteFile(filepath.Join(dir, ".album.p2p-part"), []byte("mine"), 0o644)
	},
	"a link in the partial directory": func(dir, outside string) error {
		return errors.Join(os.Mkdir(filepath.Join(dir, ".album.p2p-part"), 0o700), os.Symlink(outside, filepath.Join(dir, ".album.p2p-part/sub")))
	},
	"a file in the partial directory is a link": func(dir, outside string) error {
		return errors.Join(os.Mkdir(filepath.Join(dir, ".album.p2p-part"), 0o700),
			os.Symlink(filepath.Join(outside, "victim"), filepath.Join(dir, ".album.p2p-part/a.txt")))
	},
}

func TestGetFollowsNoLinkOutOfTheTarget(t *testing.T) {
	net := startNetwork(t, 2)
	sharer, getter := net[1], net[2]
	sharer.write(t, "album/a.txt", []byte("shared a"))
	sharer.write(t, "album/sub/b.txt", []byte("shared b"))
	sharer.add(t, filepath.Join(sharer.dir, "album"), AddOptions{})

	for name, plant := range linkPlants {
		for _, force := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				outside := t.TempDir()
				if err := os.WriteFile(filepath.Join(outside, "victim"), []byte("precious"), 0o644); err != nil {
					t.Fatal(err)
				}
				getter.dir = t.TempDir()
				if err := plant(getter.dir, outside); err != nil {
					t.Fatal(err)
				}
				_, err := getter.get(t, "album", GetOptions{Force: force, NoServe: true})
				if diff := cmp.Diff(map[string]string{"victim": "precious"}, readTree(t, outside)); diff != "" {
					t.Errorf("outside the target (-before +after):\n%s", diff)
				}
				if other, _ := os.ReadDir(filepath.Join(getter.dir, "other")); len(other) > 0 {
					t.Errorf("%v was written through a link", other)
				}
				if err == nil {
					mustBe(t, filepath.Join(getter.dir, "album/a.txt"), []byte("shared a"))
					mustBe(t, filepath.Join(getter.dir, "album/sub/b.txt"), []byte("shared b"))
				}
			})
		}
	}
}

// What an earlier get of another directory with the same name has left in the
// partial directory is neither in the way nor in the result.
func TestGetDirectoryLeavesNothingOfAnotherBehind(t *testing.T) {
	net := startNetwork(t, 2)
	sharer, getter := net[1], net[2]
	root := sharer.makeTree(t, "album", 20)
	sharer.add(t, root, AddOptions{})
	part := ".album.p2p-part/"
	getter.write(t, part+"a.txt", []byte("of the other"))
	getter.write(t, part+"gone.txt", []byte("of the other"))
	getter.write(t, part+"big.bin/was/a/directory", nil)
	getter.write(t, part+"a-b", []byte("was a file"))
	getter.write(t, part+".x.p2p-part", []byte("of a file that is not in it"))
	if _, err := getter.get(t, "album", GetOptions{NoServe: true}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(readTree(t, root), readTree(t, filepath.Join(getter.dir, "album"))); diff != "" {
		t.Errorf("the tree differs (-shared +got):\n%s", diff)
	}
}
