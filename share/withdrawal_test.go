package share

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
)

// awaitWord waits until the DHTs have a word of publisher's on a name that is, or is
// not, a withdrawal.
func (p *testPeer) awaitWord(t *testing.T, publisher peer.ID, name Name, withdrawn bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		last := word{withdrawn: !withdrawn}
		p.lib.findRecord(ctx, publisher, name, func(w word) { last = w })
		if last.withdrawn == withdrawn {
			return
		}
	}
	t.Fatalf("the DHTs do not learn that %s is withdrawn: %t", name, withdrawn)
}

// TestAWithdrawnNameIsNotFound has a publisher stop sharing a name, and go away.
func TestAWithdrawnNameIsNotFound(t *testing.T) {
	net := startNetwork(t, 2)
	holder, getter := net[1], net[2]
	ann, stopAnn := startPeer(t, node.Config{Bootstrap: []peer.AddrInfo{net[0].AddrInfo()}})
	if !ann.WaitDHT(t.Context()) {
		t.Fatal("the publisher did not enter the DHT")
	}
	data := []byte("the report\n")
	path := ann.write(t, "report.pdf", data)
	s := ann.add(t, path, AddOptions{})
	stays := ann.add(t, ann.write(t, "plan.txt", []byte("the plan")), AddOptions{})
	holder.add(t, holder.write(t, "something else.bin", data), AddOptions{})
	what := ann.ID().String() + "/report.pdf"
	must := func() {
		t.Helper()
		getter.dir = t.TempDir()
		if got, err := getter.get(t, what, GetOptions{NoServe: true}); err != nil || got.ID != s.ID {
			t.Fatalf("Get = %s, %v, want %s", got.ID, err, s.ID)
		}
	}
	must()
	remove := func() {
		t.Helper()
		if _, err := ann.lib.Remove(t.Context(), "report.pdf"); err != nil {
			t.Fatal(err)
		}
		getter.awaitWord(t, ann.ID(), "report.pdf", true)
	}
	gone := func() {
		t.Helper()
		getter.dir = t.TempDir()
		_, err := getter.get(t, what, GetOptions{NoServe: true})
		if !errors.Is(err, ErrNotFound) || !errors.Is(err, ErrWithdrawn) || errors.Is(err, ErrUnreachable) {
			t.Errorf("Get of what was withdrawn = %v, want ErrNotFound, and that it was withdrawn", err)
		}
	}
	remove()
	if _, err := getter.get(t, ann.ID().String()+"/plan.txt", GetOptions{NoServe: true}); err != nil {
		t.Errorf("Get of %s, which was not withdrawn: %v", stays.Name, err)
	}

	// It can be shared again, and counts again, also where the withdrawal was seen.
	ann.add(t, path, AddOptions{})
	getter.awaitWord(t, ann.ID(), "report.pdf", false)
	must()
	remove()
	stopAnn()
	gone()

	// Nor does it keep strangers from the bare name, as one would that can't be asked.
	if _, err := getter.lib.TrustPeer(ann.ID(), "ann"); err != nil {
		t.Fatal(err)
	}
	other := holder.add(t, holder.write(t, "report.pdf", []byte("the holder's")), AddOptions{})
	getter.dir = t.TempDir()
	if got, err := getter.get(t, "report.pdf", GetOptions{NoServe: true}); err != nil || got.ID != other.ID {
		t.Errorf("Get of the bare name = %s, %v, want %s", got.ID, err, other.ID)
	}
	gone()
}

// TestAnotherShareOfANameKeepsItsRecord removes one of two shares of a name, and makes a
// share one for a single peer, which has no record.
func TestAnotherShareOfANameKeepsItsRecord(t *testing.T) {
	p, _ := startPeer(t, node.Config{NoDHT: true})
	withdrawn := func(want ...Name) {
		t.Helper()
		pending, err := p.lib.catalog.withdrawals(time.Now())
		if err != nil || len(pending) != len(want) {
			t.Fatalf("withdrawn are %+v, %v, want %v", pending, err, want)
		}
		for i, w := range pending {
			if w.Name != want[i] || !w.Expires.After(time.Now()) || w.Seq > time.Now().UnixMilli()+2 {
				t.Errorf("withdrawal %+v, want one of %s", w.withdrawal, want[i])
			}
		}
	}
	one := p.write(t, "one", []byte("one"))
	two := p.write(t, "two", []byte("two"))
	p.add(t, one, AddOptions{Name: "report.pdf"})
	p.add(t, two, AddOptions{Name: "Report.pdf"})
	if _, err := p.lib.Remove(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	withdrawn()
	p.add(t, two, AddOptions{Name: "Report.pdf", Scope: Scope{To: newPublisher(t).id}})
	withdrawn("Report.pdf")
	if _, err := p.lib.Remove(t.Context(), two); err != nil { // it had no record any more
		t.Fatal(err)
	}
	withdrawn("Report.pdf")
	s := p.add(t, two, AddOptions{Name: "report.pdf"})
	withdrawn()
	records, err := p.lib.catalog.byName(nameDigest(s.Name), 8)
	if err != nil || len(records) != 1 {
		t.Fatalf("%d shares of the name, %v", len(records), err)
	}
	p.add(t, p.write(t, "three", []byte("three")), AddOptions{Name: "other.pdf"})
	if _, err := p.lib.Remove(t.Context(), "other.pdf"); err != nil {
		t.Fatal(err)
	}
	withdrawn("other.pdf")
	// A share with a record in fewer DHTs, or none, neither ends that nor keeps it from
	// being said.
	four := p.write(t, "four", []byte("four"))
	p.add(t, four, AddOptions{Name: "other.pdf", Scope: Scope{LANOnly: true}})
	withdrawn("other.pdf")
	if _, err := p.lib.Remove(t.Context(), four); err != nil {
		t.Fatal(err)
	}
	pending, err := p.lib.catalog.withdrawals(time.Now())
	if err != nil || len(pending) != 1 || pending[0].LANOnly {
		t.Errorf("withdrawn are %+v, %v, want one in all DHTs", pending, err)
	}
	p.add(t, four, AddOptions{Name: "other.pdf"})
	withdrawn()
	p.add(t, p.write(t, "five", []byte("five")), AddOptions{Name: "other.pdf", Scope: Scope{LANOnly: true}})
	if _, err := p.lib.Remove(t.Context(), four); err != nil {
		t.Fatal(err)
	}
	withdrawn("other.pdf")
	if later, err := p.lib.catalog.withdrawals(time.Now().Add(manifestLife + 2*clockSkew)); err != nil || len(later) != 0 {
		t.Errorf("after their time %+v are withdrawn, %v", later, err)
	}
	withdrawn()
}

// TestAWithdrawalLeavesWhatIsSharedWithSome: who may have another share of the name gets
// it from its publisher.
func TestAWithdrawalLeavesWhatIsSharedWithSome(t *testing.T) {
	net := startNetwork(t, 2)
	ann, bob := net[1], net[2]
	s := ann.add(t, ann.write(t, "for bob", []byte("for bob")), AddOptions{Name: "report.pdf", Scope: Scope{To: bob.ID()}})
	ann.add(t, ann.write(t, "for all", []byte("for all")), AddOptions{Name: "report.pdf"})
	bob.awaitWord(t, ann.ID(), "report.pdf", false)
	if _, err := ann.lib.Remove(t.Context(), filepath.Join(ann.dir, "for all")); err != nil {
		t.Fatal(err)
	}
	bob.awaitWord(t, ann.ID(), "report.pdf", true)
	for range 3 { // the record may come before the publisher's answer, or after
		bob.dir = t.TempDir()
		if got, err := bob.get(t, ann.ID().String()+"/report.pdf", GetOptions{NoServe: true}); err != nil || got.ID != s.ID {
			t.Errorf("Get of what is still shared with this peer = %s, %v, want %s", got.ID, err, s.ID)
		}
	}
}
