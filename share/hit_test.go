package share

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share/content"
)

// tells has a peer at ip tell hits of a content.
func tells(hits map[content.ID]*Hit, ip, name, data string, tier int) {
	id := content.Root([]byte(data))
	if hits[id] == nil {
		hits[id] = &Hit{ID: id, Tier: tierStrangers}
	}
	by := peer.ID("peer at " + ip)
	hits[id].take(told{manifest: Manifest{Name: Name(name), ID: id, Kind: KindFile, Size: 1, Publisher: by},
		by: peer.AddrInfo{ID: by}, network: netip.PrefixFrom(netip.MustParseAddr(ip), 24).Masked(), where: whereDHT, tier: tier})
}

func rankedNames(hits map[content.ID]*Hit) (names []Name) {
	var all []Hit
	for _, h := range hits {
		all = append(all, h.clone())
	}
	rankHits(all)
	for _, h := range all {
		names = append(names, h.Name)
	}
	return names
}

func TestHitShowsTheNoteOfWhoIsTrustedMost(t *testing.T) {
	h := &Hit{Tier: tierStrangers}
	for _, step := range []struct {
		tier int
		note string
		want string
	}{
		{tierStrangers, "", ""}, {tierStrangers, "a stranger's", "a stranger's"}, {tierStrangers, "another's", "a stranger's"},
		{tierFriends, "", "a stranger's"}, {tierFriends, "a friend's", "a friend's"}, {tierStrangers, "a third's", "a friend's"},
	} {
		h.take(told{manifest: Manifest{Name: "a", Kind: KindFile, Note: step.note}, tier: step.tier})
		if h.Note != step.want {
			t.Errorf("after %q at tier %d: %q, want %q", step.note, step.tier, h.Note, step.want)
		}
	}
}

func TestRankGivesEachNetworkItsTurn(t *testing.T) {
	// 40 peers of one network tell 500 fakes each, whose names fit better.
	for _, same := range []bool{true, false} { // all of them the same, or each its own
		hits := map[content.ID]*Hit{}
		for p := range 40 {
			for i := range 500 {
				data := fmt.Sprint("fake ", i)
				if !same {
					data += fmt.Sprint(" of ", p)
				}
				tells(hits, fmt.Sprintf("10.66.6.%d", p+1), "report", data, tierStrangers)
			}
		}
		for i := range 10 {
			tells(hits, fmt.Sprintf("10.%d.1.1", 100+i), "annual report of the honest.pdf", fmt.Sprint("honest ", i), tierStrangers)
		}
		if got := rankedNames(hits)[:11]; !slices.Equal(got[1:], slices.Repeat([]Name{"annual report of the honest.pdf"}, 10)) {
			t.Errorf("the first 11 are %q, want one fake and ten honest", got)
		}
		// One that two networks tell comes before all.
		tells(hits, "10.100.1.1", "a report that two networks tell", "honest twice", tierStrangers)
		tells(hits, "10.101.1.1", "a report that two networks tell", "honest twice", tierStrangers)
		if got := rankedNames(hits)[0]; got != "a report that two networks tell" {
			t.Errorf("the first is %q", got)
		}
	}
}

func TestRankOrder(t *testing.T) {
	hits := map[content.ID]*Hit{}
	tells(hits, "10.1.1.1", "3 a long name of a stranger", "s1", tierStrangers)
	tells(hits, "10.1.1.2", "4 stranger", "s2", tierStrangers)
	tells(hits, "10.2.1.1", "1 verified", "s3", tierStrangers)
	hits[content.Root([]byte("s3"))].Verified = true
	tells(hits, "10.3.1.1", "0 of a friend", "f", tierFriends)
	tells(hits, "10.4.1.1", "5 gone", "g", tierStrangers)
	tells(hits, "10.5.1.1", "5 gone", "g", tierStrangers)
	h := hits[content.Root([]byte("g"))]
	h.Reachable, h.failed = false, true
	tells(hits, "10.6.1.1", "5 gone", "g", tierStrangers)
	tells(hits, "10.7.1.1", "2 two networks", "two", tierStrangers)
	tells(hits, "10.8.1.1", "2 two networks", "two", tierStrangers)
	want := []Name{"0 of a friend", "1 verified", "2 two networks", "4 stranger", "3 a long name of a stranger", "5 gone"}
	if got := rankedNames(hits); !slices.Equal(got, want) {
		t.Errorf("ranked as %q, want %q", got, want)
	}
}

func TestHitShowsTheNameThatMostNetworksTell(t *testing.T) {
	hits := map[content.ID]*Hit{}
	for i := range 20 {
		tells(hits, fmt.Sprintf("10.66.6.%d", i), "report FAKE NAME", "x", tierStrangers)
	}
	tells(hits, "10.1.1.1", "report", "x", tierStrangers)
	tells(hits, "10.2.1.1", "report", "x", tierStrangers)
	h := hits[content.Root([]byte("x"))]
	if h.Name != "report" || h.Networks != 3 || len(h.Publishers) > hitPublishersMax || len(h.holders) > hitHoldersMax {
		t.Errorf("%q, told from %d networks by %d publishers", h.Name, h.Networks, len(h.Publishers))
	}
}

func TestBudget(t *testing.T) {
	const peers = searchMessagesMax - probesMax*probeHoldersMax // and lookups
	b := newBudget()
	asked := 0
	for b.forPeer() {
		asked++
	}
	if want := peers - lookupMessagesMax; asked != want {
		t.Errorf("%d peers are asked before the lookup, want %d", asked, want)
	}
	for range lookupMessagesMax {
		if !b.forLookup() {
			t.Fatal("the lookup does not get what is reserved for it")
		}
	}
	if b.forLookup() {
		t.Error("the lookup goes on")
	}
	b.endLookup()
	if b.forPeer() || b.forLookup() {
		t.Errorf("more is asked than there is")
	}
	for range probesMax {
		b.forProbe(probeHoldersMax)
	}
	if b.count() != searchMessagesMax {
		t.Errorf("%d messages, want %d", b.count(), searchMessagesMax)
	}

	b = newBudget() // a lookup that needs little leaves the rest
	for range 3 {
		b.forLookup()
	}
	b.endLookup()
	for asked = 0; b.forPeer(); asked++ {
	}
	if want := peers - 3; asked != want {
		t.Errorf("%d peers are asked after a short lookup, want %d", asked, want)
	}
	for range refundsMax + 5 { // who can't be dialled was sent nothing
		b.endDial(false)
	}
	if want := peers - refundsMax; b.count() != want {
		t.Errorf("%d messages after refunds, want %d", b.count(), want)
	}
}

// TestBudgetWaitsForDials: a search whose messages are all meant for peers that are being
// dialled still asks others in the place of those that can't be reached.
func TestBudgetWaitsForDials(t *testing.T) {
	b := newBudget()
	b.endLookup()
	asked := 0
	for b.forPeer() {
		asked++
	}
	got := make(chan bool)
	soon := func() { got <- b.forPeerSoon(t.Context()) }
	go soon()
	b.endDial(false)
	if !<-got {
		t.Error("what a dead peer gives back is not used")
	}
	for range asked - 1 {
		b.endDial(true)
	}
	go soon()
	b.endDial(true) // the last
	if <-got {
		t.Error("more peers are asked than messages allow")
	}
	b = newBudget()
	b.endLookup()
	for b.forPeer() {
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { got <- b.forPeerSoon(ctx) }()
	cancel()
	if <-got {
		t.Error("a search that is over asks on")
	}
}
