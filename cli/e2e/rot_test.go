package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

// TestBitRotIsFoundAndRepaired flips a byte in each of 100 replicas behind their
// members' backs: all are found within the scrub period, and each is repaired by
// fetching less than 1 MiB. Who asks for one meanwhile gets the right bytes. Plainly it
// is 20 replicas, and files of at most 1 MiB; with -args -long files of up to 4 MiB.
func TestBitRotIsFoundAndRepaired(t *testing.T) {
	besideOthers(t)
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	flips, most, period := 20, int64(1<<20), 15*time.Second
	if *long {
		flips, most, period = 100, 4<<20, 60*time.Second
	}
	h := newHolders(t, holdersOptions{count: 3, grace: time.Minute, daemon: []string{"-v", "--scrub", period.String()}})
	h.pinMany(flips*2/3, func() int64 { return 1 + h.sizes.Int64N(most) })
	h.await("all have three copies", time.Minute, allOK)

	rng := rand.New(rand.NewPCG(3, 3))
	flipped := map[string]bool{}
	var victims []content.ID
	for _, m := range h.members {
		for name, path := range storedFiles(t, m) {
			if len(flipped) == flips || flipped[path] || rng.IntN(3) == 0 {
				continue
			}
			flipByte(t, path, rng)
			flipped[path] = true
			id, err := content.Parse("b3:" + name)
			if err != nil {
				t.Fatal(err)
			}
			victims = append(victims, id)
		}
	}
	if len(flipped) < flips*8/10 {
		t.Fatalf("%d replicas were damaged, want %d", len(flipped), flips)
	}
	rotten := time.Now()
	for i, id := range victims[:5] {
		out := filepath.Join(h.writer.dir, fmt.Sprintf("got-%d", i))
		if r := h.writer.runPlain(t, "get", id.String(), "-o", out); r.code != 0 {
			t.Errorf("get of a content with a damaged replica: exit %d\n%s", r.code, r.stderr)
			continue
		}
		if data, err := os.ReadFile(out); err != nil || idOf(data) != id {
			t.Errorf("get of a content with a damaged replica gave other bytes (%v)", err)
		}
	}
	found := func() (n int) {
		for path := range flipped {
			if data, err := os.ReadFile(path); err == nil && "b3:"+filepath.Base(path) == idOf(data).String() {
				n++
			}
		}
		return n
	}
	h.await("all are repaired", period+5*time.Second, func(s standing) bool { return found() == len(flipped) })
	t.Logf("%d damaged replicas were repaired within %s; scrub period %s", len(flipped), time.Since(rotten).Round(time.Millisecond), period)
	h.await("all count again", 20*time.Second, allOK)
	repairs := 0
	fetched := regexp.MustCompile(`msg="a copy was damaged" .*groups=(\d+) fetched=(\d+)`)
	for _, m := range h.members {
		for _, line := range fetched.FindAllStringSubmatch(m.daemon.stderr.String(), -1) {
			repairs++
			if n, _ := strconv.Atoi(line[2]); n >= 1<<20 {
				t.Errorf("a repair fetched %d bytes, want less than 1 MiB: %s", n, line[0])
			}
		}
	}
	if repairs == 0 {
		t.Error("no repair is in the logs")
	}
	t.Logf("%d repairs are in the logs", repairs)
}

func flipByte(t *testing.T, path string, rng *rand.Rand) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	at := rng.Int64N(info.Size())
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << rng.IntN(8)
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	// A disk that rots changes no times.
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
}
