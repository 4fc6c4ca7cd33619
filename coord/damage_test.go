package coord

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/coord/internal/raftlog"
)

// TestFlippedBitsAreNeverSilentlyWrong flips one bit in what a member keeps (group.json
// and its copy, log, state, watermark, snapshot) and reads it as a member does when
// it starts: what comes of it is the same group, epoch and state, or the damage is
// known, which sends the member to the others as learner. 50 flips, 1,000 with -long.
func TestFlippedBitsAreNeverSilentlyWrong(t *testing.T) {
	flips := 50
	if *long {
		flips = 1000
	}
	var files map[string][]byte
	var id GroupID
	synctest.Test(t, func(t *testing.T) {
		dir, g := keptMember(t)
		files, id = readTree(t, dir), g
	})
	dir := filepath.Join(t.TempDir(), "m")
	writeTree(t, dir, files, "", nil)
	want, err := readMember(dir, id)
	if err != nil || want.pins != 40 {
		t.Fatalf("undamaged: %+v, %v, want 40 pins", want, err)
	}
	var names []string
	kinds := map[string]bool{}
	for name := range files {
		names = append(names, name)
		kinds[filepath.Ext(name)+filepath.Dir(name)] = true
	}
	if len(kinds) < 6 {
		t.Fatalf("the member keeps %q, want a file of each kind", names)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	outcomes := map[string]int{}
	for i := range flips {
		name := names[i%len(names)]
		b := bytes.Clone(files[name])
		at, bit := rng.IntN(len(b)), rng.IntN(8)
		b[at] ^= 1 << bit
		copyDir := filepath.Join(t.TempDir(), "m")
		writeTree(t, copyDir, files, name, b)
		got, err := readMember(copyDir, id)
		var d *raftlog.DamagedError
		switch {
		case errors.As(err, &d):
			outcomes["begins anew as learner"]++
		case err != nil:
			t.Errorf("bit %d of byte %d of %s: %v, want a DamagedError", bit, at, name, err)
		case !reflect.DeepEqual(got, want):
			t.Errorf("bit %d of byte %d of %s is silently wrong: %+v, want %+v", bit, at, name, got, want)
		default:
			outcomes["as before"]++
		}
		os.RemoveAll(copyDir)
	}
	t.Logf("%d flips in %d files: %v", flips, len(names), outcomes)
	if flips >= 1000 && len(outcomes) < 2 {
		t.Errorf("outcomes %v, want both kinds", outcomes)
	}
}

// kept is what a member knows after a start.
type kept struct {
	file   groupFile
	hash   pinset.Digest
	index  uint64
	pins   int
	term   uint64
	marked uint64
}

// readMember reads all that a member reads before it takes part.
func readMember(dir string, id GroupID) (k kept, err error) {
	if k.file, _, err = readGroupFile(dir, id); err != nil {
		return k, err
	}
	log, snapshots, err := raftlog.Open(dir, raftlog.Config{})
	if err != nil {
		return k, err
	}
	defer log.Close()
	f := newFSM(id, func(uint64) {}, func() {})
	metas, err := snapshots.List()
	if err != nil {
		return k, err
	}
	if len(metas) > 0 {
		_, r, err := snapshots.Open(metas[0].ID)
		if err != nil {
			return k, err
		}
		if err := f.Restore(r); err != nil {
			return k, err
		}
	}
	if err := f.catchUp(log, log.Committed()); err != nil {
		return k, err
	}
	k.term, err = log.GetUint64([]byte("CurrentTerm"))
	k.marked = log.Committed()
	f.view(func(s *pinset.State) { k.hash, k.index, k.pins = s.Hash(), s.Index(), s.Counts().Pins })
	return k, err
}

// keptMember leaves the directory of a member of three with pins in its snapshot and
// in its log.
func keptMember(t *testing.T) (dir string, id GroupID) {
	w := newWorld(t, 3)
	groups := w.found(3)
	id = groups[0].ID()
	cl := w.peers[0].Client(id)
	for i := range 40 {
		if _, err := cl.Pin(t.Context(), pinOf(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		if i != 25 {
			continue
		}
		m, err := groups[1].running()
		if err == nil {
			err = m.raft.Snapshot().Error()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w.eventually("all have all", func() bool { return w.hashesAgree(groups) })
	time.Sleep(5 * time.Second) // the watermark is on disk
	w.peers[1].crash(t)
	return groups[1].dir, id
}

// readTree reads a member's files, without the room that segments have left.
func readTree(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "spare" {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.HasSuffix(path, ".wal") {
			b = append(bytes.TrimRight(b, "\x00"), make([]byte, 64)...)
		}
		name, _ := filepath.Rel(dir, path)
		files[name] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// writeTree writes files, with b in place of one of them.
func writeTree(t *testing.T, dir string, files map[string][]byte, name string, b []byte) {
	t.Helper()
	for n, was := range files {
		if n == name {
			was = b
		}
		path := filepath.Join(dir, n)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, was, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGroupFileOutlivesTheLossOfEither(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		g := w.found(1)[0]
		w.peers[0].crash(t) // it writes no more
		want := g.known()
		for _, name := range []string{groupFileName, groupCopyName} {
			path := filepath.Join(g.dir, name)
			for what, spoil := range map[string]func() error{
				"cut":  func() error { return os.Truncate(path, 40) },
				"gone": func() error { return os.Remove(path) },
				"old": func() error {
					other := t.TempDir()
					f := want
					f.Epoch = 7
					if err := f.write(other); err != nil {
						return err
					}
					return os.Rename(filepath.Join(other, groupFileName), path)
				},
			} {
				if what == "old" && name == groupFileName {
					continue // group.json is written first: it is never the older one
				}
				if err := spoil(); err != nil {
					t.Fatal(err)
				}
				f, mended, err := readGroupFile(g.dir, g.id)
				if err != nil || mended == nil || !reflect.DeepEqual(f, want) {
					t.Errorf("%s %s: %+v, mended %v, %v, want it mended from the other", name, what, f, mended, err)
				}
				if f, mended, err = readGroupFile(g.dir, g.id); err != nil || mended != nil || !reflect.DeepEqual(f, want) {
					t.Errorf("%s %s, read again: %+v, mended %v, %v, want nothing to mend", name, what, f, mended, err)
				}
			}
		}
	})
}

// A peer with two groups, one of which it can't read, works on with the other.
func TestPeerStartsWithAGroupThatItCanNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		bad := w.found(3)[1]
		good, _, err := w.peers[1].Create(t.Context(), "home", MemberOptions{})
		if err != nil {
			t.Fatal(err)
		}
		w.peers[1].crash(t)
		for _, name := range []string{groupFileName, groupCopyName} {
			path := filepath.Join(bad.dir, name)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		w.peers[1].start(t)
		if _, err := w.peers[1].Client(good.ID()).Pin(t.Context(), pinOf("a")); err != nil {
			t.Errorf("pin in the good group: %v", err)
		}
		g, err := w.peers[1].Find(bad.ID().String())
		if err != nil || !errors.Is(g.Err(), ErrUnreadable) {
			t.Fatalf("Find = %v, %v, want a group that is ErrUnreadable", g, err)
		}
		if _, err := w.peers[1].Client(bad.ID()).Pin(t.Context(), pinOf("a")); !errors.Is(err, ErrUnreadable) {
			t.Errorf("pin in the bad group = %v, want ErrUnreadable", err)
		}

		// The remedy that its hint names.
		if err := w.peers[0].Client(bad.ID()).Remove(t.Context(), w.peers[1].n.ID()); err != nil {
			t.Fatal(err)
		}
		g = w.join(1, AsVoter)
		w.eventually("it has caught up", func() bool { return w.hashesAgree([]*Group{w.peers[0].Groups()[0], g}) })
	})
}
