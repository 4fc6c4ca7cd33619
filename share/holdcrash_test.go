package share

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// What a crash can leave, state by state, and what Open makes of it.
func TestOpenBringsTheStoreInOrder(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{})
	var shares []Share
	for i := range 3 {
		shares = append(shares, sharer.add(t, sharer.write(t, fmt.Sprint(i), randomBytes(1<<20+i, fmt.Sprint("order", i))), AddOptions{}))
	}
	sharer.write(t, "tree/own", randomBytes(3000, "own"))
	sharer.write(t, "tree/shared", randomBytes(1<<20, "order0"))
	tree := sharer.add(t, filepath.Join(sharer.dir, "tree"), AddOptions{})
	a, b := shares[0], shares[1]
	for name, test := range map[string]struct {
		crash      func(t *testing.T, l *Library) error
		held       []content.ID
		unfinished int
	}{
		"nothing": {func(t *testing.T, l *Library) error { return nil }, []content.ID{a.ID, b.ID, tree.ID}, 0},
		"begun, and nothing came": {func(t *testing.T, l *Library) error {
			return l.catalog.putHold(shares[2].ID, holdRecord{stage: holdFetching, kind: KindFile})
		}, []content.ID{a.ID, b.ID, tree.ID}, 1},
		"some came": {func(t *testing.T, l *Library) error {
			dir := l.store.newDir(shares[2].ID)
			return errors.Join(l.catalog.putHold(shares[2].ID, holdRecord{stage: holdFetching, kind: KindFile}),
				os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, partialName(shares[2].ID.Hex())), make([]byte, 5000), 0o600))
		}, []content.ID{a.ID, b.ID, tree.ID}, 1},
		"in its place, and not recorded": {func(t *testing.T, l *Library) error {
			path := l.store.path(shares[2].ID)
			return errors.Join(l.catalog.putHold(shares[2].ID, holdRecord{stage: holdFetching, kind: KindFile}),
				os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, make([]byte, 5000), 0o600))
		}, []content.ID{a.ID, b.ID, tree.ID}, 1},
		"recorded, and its directory not removed": {func(t *testing.T, l *Library) error {
			dir := l.store.newDir(a.ID)
			return errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "x"), make([]byte, 5000), 0o600))
		}, []content.ID{a.ID, b.ID, tree.ID}, 0},
		"to be dropped": {func(t *testing.T, l *Library) error {
			r, _, err := l.catalog.hold(tree.ID)
			r.stage = holdDropping
			return errors.Join(err, l.catalog.putHold(tree.ID, r))
		}, []content.ID{a.ID, b.ID}, 0},
		"dropped, and its files not removed": {func(t *testing.T, l *Library) error {
			r, _, err := l.catalog.hold(tree.ID)
			r.stage = holdDropping
			err = errors.Join(err, l.catalog.putHold(tree.ID, r))
			gone, _, more, err2 := l.catalog.removeParts(tree.ID)
			if more || len(gone) != 2 { // the third is another one, too
				t.Errorf("removeParts = %d contents, more %v, want 2", len(gone), more)
			}
			return errors.Join(err, err2)
		}, []content.ID{a.ID, b.ID}, 0},
		"something of somebody else's": {func(t *testing.T, l *Library) error {
			dir := filepath.Join(l.store.dir, "new", "strange")
			return errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "x"), nil, 0o600))
		}, []content.ID{a.ID, b.ID, tree.ID}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			holder, stop := startPeer(t, node.Config{Dir: home})
			for _, s := range []Share{a, b, tree} {
				holder.hold(t, s.ID, sharer.from(s))
			}
			if err := test.crash(t, holder.lib); err != nil {
				t.Fatal(err)
			}
			stop()
			holder, _ = startPeer(t, node.Config{Dir: home})
			holder.mustBeInOrder(t)
			held := holder.holding(t)
			if len(held) != len(test.held) {
				t.Errorf("held: %v, want %d", held, len(test.held))
			}
			for _, id := range test.held {
				if _, ok := held[id]; !ok {
					t.Errorf("%s is not held any more", id)
				}
				if found, err := holder.lib.Scrub(t.Context(), id, ScrubOptions{}); err != nil || found.Damaged != 0 {
					t.Errorf("Scrub(%s) = %+v, %v", id, found, err)
				}
			}
			var unfinished []content.ID
			for h, err := range holder.lib.Unfinished(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				unfinished = append(unfinished, h.ID)
			}
			if len(unfinished) != test.unfinished {
				t.Errorf("unfinished: %v, want %d", unfinished, test.unfinished)
			}
			// All that it says to use goes with what it holds.
			for _, id := range append(unfinished, test.held...) {
				if err := holder.lib.Release(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
			if u, n := holder.lib.Usage(), treeSize(t, holder.lib.store.dir); u.Used != 0 || u.Overhead != 0 || n != 0 {
				t.Errorf("after all was released: %+v, %d bytes on the disk", u, n)
			}
		})
	}
}

// crashRounds is for long runs: go test -run TestKilledHolder -crash-rounds 200
var crashRounds = flag.Int("crash-rounds", 4, "how often the holder is killed")

// crashSeed repeats a run.
var crashSeed = flag.Uint64("crash-seed", 0, "seed of the kills; 0: by the clock")

func TestKilledHolderLosesAndLeaksNothing(t *testing.T) {
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-crash-seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	sharer, _ := startPeer(t, node.Config{})
	var shares []Share
	for i, size := range []int{0, 300_000, 6 << 20} {
		shares = append(shares, sharer.add(t, sharer.write(t, fmt.Sprint(i), randomBytes(size, fmt.Sprint("kill", i))), AddOptions{}))
	}
	for d := range 2 {
		for i := range 400 {
			sharer.write(t, fmt.Sprintf("d%d/%d", d, i), randomBytes((i%100)*2000, fmt.Sprint("k", i+d*100)))
		}
		shares = append(shares, sharer.add(t, filepath.Join(sharer.dir, fmt.Sprintf("d%d", d)), AddOptions{}))
	}
	home := t.TempDir()
	arg := sharer.AddrInfo().Addrs[0].String() + " " + sharer.ID().String()
	for _, s := range shares {
		arg += fmt.Sprintf(" %s,%s,%d", s.ID, s.Kind, s.Size)
	}
	for round := range *crashRounds {
		said := runKilled(t, home, arg, random)
		holder, stop := startPeer(t, node.Config{Dir: home})
		holder.mustBeInOrder(t)
		held := holder.holding(t)
		for id, whole := range said {
			if _, ok := held[id]; ok != whole {
				t.Errorf("round %d: the holder had said held: %v of %s, and it is %v", round, whole, id, ok)
			}
		}
		for id := range held {
			if found, err := holder.lib.Scrub(t.Context(), id, ScrubOptions{}); err != nil || found.Damaged != 0 {
				t.Errorf("round %d: Scrub(%s) = %+v, %v", round, id, found, err)
			}
		}
		u, lies := holder.lib.Usage(), treeSize(t, holder.lib.store.dir)
		if lies > u.Used+u.Overhead {
			t.Errorf("round %d: %d bytes are there, and %d + %d are counted", round, lies, u.Used, u.Overhead)
		}
		stop()
	}
	// It can go on from there.
	holder, _ := startPeer(t, node.Config{Dir: home})
	for _, s := range shares {
		holder.hold(t, s.ID, sharer.from(s))
	}
	holder.mustBeInOrder(t)
}

// runKilled runs a holder on home that holds and releases at random, and kills it. It
// returns which contents it had said to hold, or not to, last, when it was at work on
// them no more.
func runKilled(t *testing.T, home, arg string, random *rand.Rand) map[content.ID]bool {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledHolderItself$")
	cmd.Env = append(os.Environ(), "P2PSHARE_TEST_KILLED="+home, "P2PSHARE_TEST_ARG="+arg,
		fmt.Sprintf("P2PSHARE_TEST_SEED=%d", random.Uint64()))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	after := random.Int64N(int64(400 * time.Millisecond)) // when in its work is the chance of it
	said := map[content.ID]bool{}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		what, text, _ := strings.Cut(lines.Text(), " ")
		id, err := content.Parse(text)
		if err != nil {
			if what == "FAIL" {
				t.Error(lines.Text())
			}
			continue
		}
		once.Do(func() { time.AfterFunc(time.Duration(after), func() { cmd.Process.Kill() }) })
		switch what {
		case "at":
			delete(said, id)
		case "held":
			said[id] = true
		case "released":
			said[id] = false
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the holder ended before it was killed")
	}
	return said
}

// TestKilledHolderItself is the process that is killed.
func TestKilledHolderItself(t *testing.T) {
	home := os.Getenv("P2PSHARE_TEST_KILLED")
	if home == "" {
		t.Skip("it is run by TestKilledHolderLosesAndLeaksNothing")
	}
	holder, _ := startPeer(t, node.Config{Dir: home})
	words := strings.Fields(os.Getenv("P2PSHARE_TEST_ARG"))
	source, err := ParsePeer(words[0] + "/p2p/" + words[1])
	if err != nil {
		t.Fatal(err)
	}
	var seed uint64
	fmt.Sscan(os.Getenv("P2PSHARE_TEST_SEED"), &seed)
	var say sync.Mutex
	tell := func(what string, id any) {
		say.Lock()
		defer say.Unlock()
		fmt.Println(what, id)
	}
	var all sync.WaitGroup
	contents := words[2:]
	for worker := range 2 { // one content is never with both
		all.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(worker)))
			for {
				i := random.IntN(len(contents))
				if i%2 != worker {
					continue
				}
				w := strings.Split(contents[i], ",")
				id, _ := content.Parse(w[0])
				var size int64
				fmt.Sscan(w[2], &size)
				tell("at", id)
				if random.IntN(2) == 0 {
					if err := holder.lib.Release(t.Context(), id); err != nil {
						tell("FAIL release", err)
						continue
					}
					tell("released", id)
					continue
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(10+random.IntN(400))*time.Millisecond)
				_, err := holder.lib.Hold(ctx, id, HoldOptions{Kind: Kind(w[1]), Size: size, Sources: []peer.AddrInfo{source}})
				cancel()
				switch {
				case err == nil:
					tell("held", id)
				case !slices.ContainsFunc([]error{context.DeadlineExceeded, ErrUnreachable}, func(e error) bool { return errors.Is(err, e) }):
					tell("FAIL hold", err)
				}
			}
		})
	}
	all.Wait()
}

func FuzzStoreRecords(f *testing.F) {
	f.Add(holdRecord{stage: holdWhole, kind: KindDir, adopted: true, size: 1, files: 2, bytes: 3, verified: 4}.encode())
	f.Add(partRecord{true, 5}.encode())
	f.Add(storedRecord{6, 7}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeHoldRecord(b); err == nil && string(r.encode()) != string(b) {
			t.Errorf("hold record %x is written as %x", b, r.encode())
		}
		if p, err := decodePartRecord(b); err == nil && string(p.encode()) != string(b) {
			t.Errorf("part record %x is written as %x", b, p.encode())
		}
		if s, err := decodeStoredRecord(b); err == nil && string(s.encode()) != string(b) {
			t.Errorf("stored record %x is written as %x", b, s.encode())
		}
	})
}

// The records as they are on disks out there.
func TestStoreRecordsKeepTheirForm(t *testing.T) {
	for want, got := range map[string][]byte{
		"01020201" + "0000000000000001" + "0000000000000002" + "0000000000000003" + "0000000000000004": holdRecord{
			stage: holdWhole, kind: KindDir, adopted: true, size: 1, files: 2, bytes: 3, verified: 4}.encode(),
		"01010100" + strings.Repeat("00", 32): holdRecord{stage: holdFetching, kind: KindFile}.encode(),
		"010000000000000005":                  partRecord{true, 5}.encode(),
		"00000000000000060000000000000007":    storedRecord{6, 7}.encode(),
	} {
		if fmt.Sprintf("%x", got) != want {
			t.Errorf("record is %x, want %s", got, want)
		}
	}
}
