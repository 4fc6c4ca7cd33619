package coord

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/node"
)

// export is a group's pins as a reader gets them.
func (w *world) export(i int, id GroupID) string {
	w.t.Helper()
	var b bytes.Buffer
	for p, err := range w.peers[i].Client(id).Pins(w.t.Context(), ReadOptions{}) {
		if err != nil {
			w.t.Fatal(err)
		}
		p.Wanted, p.Copies, p.Absent, p.Unproven, p.Holders, p.Lack = 0, nil, nil, nil, nil, "" // are made again
		if err := json.NewEncoder(&b).Encode(p); err != nil {
			w.t.Fatal(err)
		}
	}
	return b.String()
}

func (w *world) backup(i int, id GroupID) ([]byte, Backup) {
	w.t.Helper()
	var b bytes.Buffer
	info, err := w.peers[i].Backup(w.t.Context(), id, &b)
	if err != nil {
		w.t.Fatal(err)
	}
	return b.Bytes(), info
}

func TestRestoredGroupHasThePinsOfTheBackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5)
		id := w.found(3)[0].ID()
		w.pin(1, id, "a", "b", "c")
		if err := w.peers[0].Client(id).Grant(t.Context(), w.peers[4].n.ID(), RoleWriter); err != nil {
			t.Fatal(err)
		}
		before := w.export(2, id)
		file, info := w.backup(1, id)
		if info.Pins != 3 || info.Names != 3 || info.Members != 3 || info.Stale || info.By != w.peers[1].n.ID() || info.Admin {
			t.Errorf("backup = %+v", info)
		}
		verified, err := VerifyBackup(bytes.NewReader(file))
		if err != nil || verified != info {
			t.Errorf("VerifyBackup = %+v, %v, want %+v", verified, err, info)
		}
		w.pin(0, id, "after") // is lost

		if _, err := w.peers[0].Restore(t.Context(), bytes.NewReader(file), "", nil); !errors.Is(err, ErrExists) {
			t.Errorf("restore where the group works: %v, want ErrExists", err)
		}
		for _, i := range []int{0, 1, 2} {
			w.peers[i].crash(t)
		}
		if _, err := w.peers[3].Restore(t.Context(), bytes.NewReader(file), "", nil); !errors.Is(err, ErrDenied) {
			t.Errorf("restore by no admin without the key: %v, want ErrDenied", err)
		}
		if _, err := w.peers[3].Restore(t.Context(), bytes.NewReader(file), "", otherKey(t)); !errors.Is(err, ErrDenied) {
			t.Errorf("restore with another key: %v, want ErrDenied", err)
		}
		g, err := w.peers[3].Restore(t.Context(), bytes.NewReader(file), "", w.recovery)
		if err != nil {
			t.Fatal(err)
		}
		if after := w.export(3, id); after != before {
			t.Errorf("restored:\n%swant\n%s", after, before)
		}
		if g.Name() != "office" || g.known().Epoch != 2 {
			t.Errorf("restored as %q, epoch %d", g.Name(), g.known().Epoch)
		}
		w.pin(3, id, "d")
		w.peers[3].crash(t)
		w.peers[3].start(t)
		w.pin(3, id, "e")
		if r := w.rolesOf(w.groupOf(3), w.peers[4].self()); !r.Has(RoleWriter) {
			t.Errorf("roles of a writer that is no member: %s", r)
		}
		for _, i := range []int{0, 1, 2} {
			w.peers[i].start(t)
			w.eventually("it knows that it is out", func() bool { return errors.Is(w.groupOf(i).known().parked(), ErrRemoved) })
		}
		// A second backup and restore carries the epoch along.
		file, _ = w.backup(3, id)
		if _, err := w.peers[4].Restore(t.Context(), bytes.NewReader(file), "other", w.recovery); err != nil {
			t.Fatal(err)
		}
		w.eventually("the third epoch has put the second out", func() bool { return errors.Is(w.groupOf(3).known().parked(), ErrRemoved) })
	})
}

func TestAdminRestoresOnAWipedDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		id := w.found(1)[0].ID()
		w.pin(0, id, "a", "b")
		before := w.export(0, id)
		file, _ := w.backup(0, id)
		w.peers[0].crash(t)
		w.peers[0].dir = t.TempDir()
		w.peers[0].start(t)
		if _, err := w.peers[0].Restore(t.Context(), bytes.NewReader(file), "", nil); err != nil {
			t.Fatal(err)
		}
		if after := w.export(0, id); after != before {
			t.Errorf("restored:\n%swant\n%s", after, before)
		}
	})
}

func TestBackupWithoutQuorumIsWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		id := w.found(3)[0].ID()
		w.pin(0, id, "a")
		w.peers[1].crash(t)
		w.peers[2].crash(t)
		w.awaitNoLeader(0, id)
		if _, info := w.backup(0, id); !info.Stale || info.Pins != 1 {
			t.Errorf("backup = %+v, want a stale one of 1 pin", info)
		}
	})
}

func TestBackupThatWasChangedIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		id := w.found(1)[0].ID()
		for i := range 20 {
			w.pin(0, id, string(rune('a'+i)))
		}
		file, _ := w.backup(0, id)
		refused := func(what string, data []byte) {
			t.Helper()
			if _, err := VerifyBackup(bytes.NewReader(data)); !errors.Is(err, ErrBackup) {
				t.Errorf("%s: %v, want ErrBackup", what, err)
			}
		}
		random := rand.New(rand.NewPCG(1, 2))
		first := bytes.IndexByte(file, '\n')
		for i := range first + 1 + 1000 { // the whole first line, and 1,000 of the rest
			at := i
			if i > first {
				at = first + 1 + random.IntN(len(file)-first-1)
			}
			changed := bytes.Clone(file)
			changed[at] ^= 1 << random.IntN(8)
			refused("a flipped bit", changed)
		}
		for range 100 {
			refused("a file that was cut", file[:random.IntN(len(file))])
		}
		refused("a file that goes on", append(bytes.Clone(file), 0))
		refused("nothing", nil)
		// The header of one who is no member, over the same state.
		e, h, _, err := readBackup(bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		for name, change := range map[string]func(*backupHeader){
			"another group":     func(h *backupHeader) { h.Group[0] ^= 1 },
			"another epoch":     func(h *backupHeader) { h.Epoch++ },
			"another index":     func(h *backupHeader) { h.Index++ },
			"a shorter state":   func(h *backupHeader) { h.Size-- },
			"a longer state":    func(h *backupHeader) { h.Size++ },
			"another sum":       func(h *backupHeader) { h.SHA256[0] ^= 1 },
			"another state":     func(h *backupHeader) { h.State[0] ^= 1 },
			"too long a state":  func(h *backupHeader) { h.Size = 1 << 60 },
			"no founder":        func(h *backupHeader) { h.Record = e },
			"records to itself": func(h *backupHeader) { h.Epoch, h.Epochs = 2, []knownEpoch{{Record: h.Record}} },
		} {
			changed := h
			change(&changed)
			data, err := json.Marshal(changed)
			if err != nil {
				t.Fatal(err)
			}
			e, err := node.Seal(w.peers[0].n.Key(), node.KindBackup, data)
			if err != nil {
				t.Fatal(err)
			}
			refused(name, append(append(e.Encode(), '\n'), file[first+1:]...))
		}
	})
}

func TestBackupOfAStateThatTheRecordDidNotFoundIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		g := w.found(1)[0]
		file, _ := w.backup(0, g.ID())
		_, h, state, err := readBackup(bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		info, _ := state.Group()
		evil := w.peers[1]
		forge := func(term uint64, change func(*pinset.Found)) []byte {
			c := &pinset.Found{Header: pinset.Header{Client: pinset.Client{1}, Seq: 1, By: info.Founder, At: 1}, Group: info.ID, Name: info.Name, Recovery: info.Recovery}
			change(c)
			frame, err := pinset.EncodeCommand(c)
			if err != nil {
				t.Fatal(err)
			}
			s := pinset.New()
			if _, err := s.Apply(1, frame); err != nil {
				t.Fatal(err)
			}
			var body bytes.Buffer
			if err := s.Encode(&body); err != nil {
				t.Fatal(err)
			}
			f := h
			f.Term, f.Index, f.State, f.Size, f.SHA256 = term, 1, s.Hash(), int64(body.Len()), sha256.Sum256(body.Bytes())
			data, err := json.Marshal(f)
			if err != nil {
				t.Fatal(err)
			}
			e, err := node.Seal(evil.n.Key(), node.KindBackup, data)
			if err != nil {
				t.Fatal(err)
			}
			return append(append(e.Encode(), '\n'), body.Bytes()...)
		}
		if _, err := VerifyBackup(bytes.NewReader(forge(1, func(*pinset.Found) {}))); err != nil {
			t.Errorf("a state as it was founded: %v", err)
		}
		for name, file := range map[string][]byte{
			"recovery key": forge(1, func(c *pinset.Found) { c.Recovery[0] ^= 1 }),
			"founder":      forge(1, func(c *pinset.Found) { c.By = Peer(evil.n.ID().String()) }),
			"name":         forge(1, func(c *pinset.Found) { c.Name = "other" }),
			"term":         forge(1<<63, func(*pinset.Found) {}),
		} {
			if _, err := VerifyBackup(bytes.NewReader(file)); !errors.Is(err, ErrBackup) {
				t.Errorf("backup with another %s: %v, want ErrBackup", name, err)
			}
		}
	})
}
