package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// times returns how often a test of random damage does it.
func times(atLength, usually, inShort int) int {
	switch {
	case *long:
		return atLength
	case testing.Short():
		return inShort
	}
	return usually
}

// image is a member's directory: contents by name.
type image map[string][]byte

func readImage(t testing.TB, dir string) image {
	t.Helper()
	im := image{}
	for _, pattern := range []string{"*", logDir + "/*", snapshotsDir + "/*"} {
		names, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, name := range names {
			if b, err := os.ReadFile(name); err == nil && filepath.Base(name) != spareName {
				if strings.HasSuffix(name, ".wal") { // what is allocated and not written may go
					b = append(bytes.TrimRight(b, "\x00"), make([]byte, 256)...)
				}
				rel, _ := filepath.Rel(dir, name)
				im[rel] = b
			}
		}
	}
	return im
}

// write puts im in place of what dir holds.
func (im image) write(t testing.TB, dir string) {
	t.Helper()
	os.RemoveAll(dir)
	for name, b := range im {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// with returns im with one file replaced.
func (im image) with(name string, b []byte) image {
	other := image{name: b}
	for n, b := range im {
		if n != name {
			other[n] = b
		}
	}
	return other
}

// lastSegment returns the name of the segment being written.
func (im image) lastSegment() (last string) {
	for name := range im {
		if strings.HasSuffix(name, ".wal") && name > last {
			last = name
		}
	}
	return last
}

// tornImages stores entries to acked in several segments and then one batch more,
// and returns what was on the disk before and after it.
func tornImages(t *testing.T, dir string, acked uint64, n int) (before, after image) {
	l, _ := mustOpen(t, dir, small)
	mustStore(t, l, 1, acked, 9)
	l.SetCommitted(acked)
	if err := l.writeWatermark(); err != nil {
		t.Fatal(err)
	}
	before = readImage(t, dir)
	mustStore(t, l, acked+1, acked+uint64(n), n)
	after = readImage(t, dir)
	l.Close()
	return before, after
}

// mustOpenTorn opens a member that crashed while it wrote the entries from
// acked+1 to end, has it write others in their place, and opens it again.
func mustOpenTorn(t *testing.T, dir string, acked, end uint64, what string) {
	t.Helper()
	l, _, err := Open(dir, small)
	if err != nil {
		t.Fatalf("%s: Open: %v", what, err)
	}
	first, last := bounds(l)
	if last != acked && last != end {
		t.Fatalf("%s: the log holds %d to %d, want 1 to %d or %d", what, first, last, acked, end)
	}
	mustHold(t, l, min(1, last), last)
	mustStore(t, l, last+1, last+1, 1) // shorter: covers part of the torn one
	l.Close()
	l, _, err = Open(dir, small)
	if err != nil {
		t.Fatalf("%s: Open after another batch: %v", what, err)
	}
	mustHold(t, l, 1, last+1)
	l.Close()
}

func TestTornTailOpens(t *testing.T) {
	for _, tt := range []struct {
		name  string
		acked uint64
		n     int
	}{
		{"first batch of a log", 0, 6},
		{"amid a segment", 90, 6},
		{"batch that closes a segment", 0, 0}, // found below
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.n == 0 {
				tt.acked, tt.n = closingBatch(t), 6
			}
			dir := filepath.Join(t.TempDir(), "m")
			before, after := tornImages(t, dir, tt.acked, tt.n)
			name := before.lastSegment() // the batch that closes it makes a new one
			whole := after[name]
			start := len(bytes.TrimRight(before[name], "\x00"))
			start = (start + 7) &^ 7
			end := len(bytes.TrimRight(whole, "\x00"))
			if end-start < 300 {
				t.Fatalf("the last batch has %d bytes, want 300 to tear", end-start)
			}
			rng := seeded(t)
			torn, step := 0, times(1, 10, 40)
			for at := start + rng.IntN(step); at < end; at += step {
				b := bytes.Clone(whole)
				clear(b[at:])
				before.with(name, b).write(t, dir)
				mustOpenTorn(t, dir, tt.acked, tt.acked+uint64(tt.n), fmt.Sprintf("cut at byte %d of %d", at-start, end-start))
				torn++

				// The disk may write sectors in any order.
				b = bytes.Clone(whole)
				for p := start; p < end; p += 64 {
					if rng.IntN(2) == 0 {
						clear(b[p:min(p+64, end)])
					}
				}
				before.with(name, b).write(t, dir)
				mustOpenTorn(t, dir, tt.acked, tt.acked+uint64(tt.n), "holes")
				torn++
			}
			t.Logf("%d torn tails, all opened", torn)
		})
	}
}

// closingBatch returns how many entries precede the batch of 6 that closes the
// first segment.
func closingBatch(t *testing.T) uint64 {
	for acked := uint64(90); acked < 200; acked++ {
		dir := t.TempDir()
		l, _ := mustOpen(t, dir, small)
		info := l.state.segments()[0]
		closed := func() bool {
			b, err := os.ReadFile(filepath.Join(dir, logDir, segment.FileName(info)))
			if err != nil {
				t.Fatal(err)
			}
			tail, err := readTail(b, info)
			return err == nil && tail.index > 0
		}
		mustStore(t, l, 1, acked, 9)
		before := closed()
		mustStore(t, l, acked+1, acked+6, 6)
		l.Close()
		if !before && closed() {
			return acked
		}
	}
	t.Fatal("no batch closes the first segment")
	return 0
}

// A flip in an acknowledged batch looks to raft-wal like the torn end of the
// log, from where it forgets the rest. That it is not can be seen without a
// watermark, as long as a later batch is there.
func TestFlipBeforeTheLastBatchIsNoTornTail(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	l, _ := mustOpen(t, dir, Config{})
	mustStore(t, l, 1, 12, 3)
	im := readImage(t, dir)
	l.Close()
	name := im.lastSegment()
	used := len(bytes.TrimRight(im[name], "\x00"))
	lastBatch := 0
	for at := segmentHeader; at < used; {
		kind, payload, _ := frame(im[name], at)
		at += frameHeader + len(payload) + pad(len(payload))
		if kind == frameCommit && at < used {
			lastBatch = at
		}
	}
	for at := 0; at < lastBatch; at++ {
		b := bytes.Clone(im[name])
		b[at] ^= 1 << (at % 8)
		// Three bytes of a commit mean nothing to anyone.
		if tail, err := readTail(b, l.state.segments()[0]); err == nil && tail.entries != 12 {
			t.Errorf("flip in byte %d of %d: %d entries and no error", at, lastBatch, tail.entries)
		}
	}
	b := bytes.Clone(im[name])
	b[50] ^= 1
	im.with(name, b).write(t, dir)
	_, _, err := Open(dir, Config{})
	if d := (*DamagedError)(nil); !errors.As(err, &d) || d.Last != 0 {
		t.Errorf("Open = %v, want a DamagedError with no entries", err)
	}
	if got := readImage(t, dir); cmp.Diff(im.with(name, b), got) != "" {
		t.Error("Open changed what it calls damaged")
	}
}

func TestFlippedBitsAreNeverBelieved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	l, snapshots := mustOpen(t, dir, small)
	mustStore(t, l, 1, 400, 7)
	if err := errors.Join(l.SetUint64([]byte("CurrentTerm"), 7), l.Set([]byte("LastVoteCand"), []byte("peer"))); err != nil {
		t.Fatal(err)
	}
	l.SetCommitted(400)
	contents := map[string]string{}
	for _, index := range []uint64{100, 200} {
		text := strings.Repeat(fmt.Sprint("state of ", index), 500)
		contents[mustSnapshot(t, snapshots, index, 1+index/100, text)] = text
	}
	l.Close()
	im := readImage(t, dir)
	var names []string
	for name := range im {
		names = append(names, name)
	}
	flips := times(1000, 100, 30)
	rng := seeded(t)
	outcomes := map[string]int{}
	for range flips {
		name := names[rng.IntN(len(names))]
		b := bytes.Clone(im[name])
		used := len(bytes.TrimRight(b, "\x00"))
		at := rng.IntN(used)
		b[at] ^= 1 << rng.IntN(8)
		im.with(name, b).write(t, dir)
		outcomes[readDamaged(t, dir, contents, fmt.Sprintf("byte %d of %s", at, name))]++
	}
	t.Logf("%d flips: %v", flips, outcomes)
}

// readDamaged reads all that a member has, and says what came of it.
func readDamaged(t *testing.T, dir string, contents map[string]string, what string) string {
	t.Helper()
	l, snapshots, err := Open(dir, small)
	if err != nil {
		if d := (*DamagedError)(nil); !errors.As(err, &d) {
			t.Errorf("%s: Open: %v, want a DamagedError", what, err)
		}
		return "damaged"
	}
	defer l.Close()
	outcome := "all right"
	if first, last := bounds(l); first != 1 || last != 400 {
		t.Errorf("%s: the log holds %d to %d, want 1 to 400", what, first, last)
	}
	for i := uint64(1); i <= 400; i++ {
		var e raft.Log
		if err := l.GetLog(i, &e); err != nil {
			outcome = "read error"
		} else if !same(entry(i), &e) {
			t.Errorf("%s: entry %d is silently wrong (-want +got):\n%s", what, i, cmp.Diff(*entry(i), e))
		}
	}
	term, err1 := l.GetUint64([]byte("CurrentTerm"))
	vote, err2 := l.Get([]byte("LastVoteCand"))
	if err1 != nil || err2 != nil || term != 7 || string(vote) != "peer" || l.Committed() != 400 {
		t.Errorf("%s: term %d, vote %q, committed to %d, want 7, peer and 400 (%v)", what, term, vote, l.Committed(), errors.Join(err1, err2))
	}
	metas, err := snapshots.List()
	if err != nil {
		t.Errorf("%s: List: %v", what, err)
	}
	if len(metas)+len(snapshots.Damaged()) != len(contents) {
		t.Errorf("%s: %d snapshots and %d damaged, want %d together", what, len(metas), len(snapshots.Damaged()), len(contents))
	}
	if len(snapshots.Damaged()) > 0 {
		outcome = "snapshot passed over"
	}
	for _, m := range metas {
		meta, r, err := snapshots.Open(m.ID)
		if err != nil {
			t.Errorf("%s: a listed snapshot: %v", what, err)
			continue
		}
		got, _ := io.ReadAll(r)
		r.Close()
		if string(got) != contents[m.ID] || !strings.HasPrefix(m.ID, fmt.Sprintf("%020d-%020d", meta.Index, meta.Term)) ||
			cmp.Diff(members, meta.Configuration) != "" {
			t.Errorf("%s: snapshot %s is silently wrong: %+v", what, m.ID, meta)
		}
	}
	return outcome
}

func TestMissingFilesAreDamage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	l, _ := mustOpen(t, dir, small)
	mustStore(t, l, 1, 400, 7)
	l.SetCommitted(400)
	l.Close()
	im := readImage(t, dir)
	for name := range im {
		less := im.with(name, nil)
		delete(less, name)
		less.write(t, dir)
		l, _, err := Open(dir, small)
		if d := (*DamagedError)(nil); !errors.As(err, &d) {
			t.Errorf("without %s: Open = %v, want a DamagedError", name, err)
			l.Close()
		}
	}
}

func TestOpenErrorsThatAreNoDamage(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may read everything")
	}
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, small)
	mustStore(t, l, 1, 4, 4)
	l.Close()
	if err := os.Chmod(filepath.Join(dir, watermarkName), 0); err != nil {
		t.Fatal(err)
	}
	_, _, err := Open(dir, small)
	if d := (*DamagedError)(nil); err == nil || errors.As(err, &d) {
		t.Errorf("Open of a watermark that may not be read = %v, want an error that is no DamagedError", err)
	}
}

func FuzzReadTail(f *testing.F) {
	dir := f.TempDir()
	l, _ := mustOpen(f, dir, small)
	mustStore(f, l, 1, 9, 3)
	im := readImage(f, dir)
	info := l.state.segments()[0]
	l.Close()
	f.Add(im[im.lastSegment()])
	f.Fuzz(func(t *testing.T, b []byte) {
		tail, err := readTail(b, info)
		if err == nil && (tail.end > int64(len(b)) || tail.entries > 0 && checkHeader(b, info) != nil) {
			t.Errorf("%x is read as %+v", b, tail)
		}
		readClosed(b, types.SegmentInfo{BaseIndex: 1, MinIndex: 1, MaxIndex: 9, IndexStart: uint64(len(b) / 2)})
	})
}

func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	l, _ := mustOpen(b, dir, Config{})
	data := make([]byte, 256)
	for i := range uint64(20_000 / 64) {
		var es []*raft.Log
		for j := range uint64(64) {
			binary.BigEndian.PutUint64(data, rand.Uint64())
			es = append(es, &raft.Log{Index: 64*i + j + 1, Term: 1, Data: bytes.Clone(data)})
		}
		if err := l.StoreLogs(es); err != nil {
			b.Fatal(err)
		}
	}
	l.Close()
	for b.Loop() {
		l, _, err := Open(dir, Config{})
		if err != nil {
			b.Fatal(err)
		}
		l.Close()
	}
}
