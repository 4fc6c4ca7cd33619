package share

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
)

// TestGroupsAreAskedBeforeStrangers has a getter whose groups say various things
// about a name that a stranger shares too.
func TestGroupsAreAskedBeforeStrangers(t *testing.T) {
	stranger, _ := startPeer(t, node.Config{NoDHT: true})
	strange := stranger.add(t, stranger.write(t, "report.pdf", []byte("a stranger's")), AddOptions{})
	member, _ := startPeer(t, node.Config{NoDHT: true})
	pinned := member.add(t, member.write(t, "report.pdf", []byte("the group's")), AddOptions{})
	entry := func(group string, s Share) Indexed {
		return Indexed{Group: group, Name: s.Name, ID: s.ID, Kind: s.Kind, Size: s.Size, LogIndex: 7,
			Holders: []peer.AddrInfo{member.AddrInfo()}}
	}
	stale := entry("office", pinned)
	stale.Stale, stale.Age = true, 3*time.Second
	noQuorum := errors.New("the group has no quorum")
	for _, test := range []struct {
		name    string
		what    What
		options GetOptions
		answer  []Indexed
		err     error
		want    Share
		wantErr error
		note    string
	}{
		{name: "a bare name", answer: []Indexed{entry("office", pinned)}, want: pinned, note: "named by group office, at log index 7"},
		{name: "a group's name", what: What{Group: "office"}, answer: []Indexed{entry("office", pinned)}, want: pinned, note: "named by group office"},
		{name: "two groups agree", answer: []Indexed{entry("office", pinned), entry("home", pinned)}, want: pinned},
		{name: "two groups differ", answer: []Indexed{entry("office", pinned), entry("home", strange)}, wantErr: ErrAmbiguous},
		{name: "no group knows it", want: strange, note: "unverified name"},
		{name: "the group does not know it", what: What{Group: "office"}, err: ErrNotFound, wantErr: ErrNotFound},
		{name: "a group can't be asked", err: noQuorum, wantErr: noQuorum},
		{name: "nor is it, with Any", options: GetOptions{Any: true}, err: noQuorum, want: strange},
		{name: "nor for a publisher's name", what: What{Publisher: stranger.ID()}, err: noQuorum, want: strange},
		{name: "the last that is known", answer: []Indexed{stale}, want: pinned, note: "can't be asked just now, and this was so 3s ago"},
		{name: "the beginning of an ID that fits", what: What{Prefix: pinned.ID.Hex()[:8]}, answer: []Indexed{entry("office", pinned)}, want: pinned},
		{name: "and of one that does not", what: What{Prefix: strange.ID.Hex()[:8]}, answer: []Indexed{entry("office", pinned)}, want: strange},
	} {
		t.Run(test.name, func(t *testing.T) {
			getter, _ := startPeer(t, node.Config{NoDHT: true, Role: node.RoleVisitor})
			getter.lib.SetIndex(func(_ context.Context, group string, name Name) ([]Indexed, error) {
				if group != test.what.Group || name != "report.pdf" {
					t.Errorf("asked for %q of group %q", name, group)
				}
				return test.answer, test.err
			}, func() bool { return true })
			var notes []string
			what, o := test.what, test.options
			what.Name = "report.pdf"
			o.Dir, o.Peers = t.TempDir(), []peer.AddrInfo{stranger.AddrInfo()}
			o.Note = func(s string) { notes = append(notes, s) }
			got, err := getter.lib.Get(t.Context(), what, o)
			if !errors.Is(err, test.wantErr) {
				t.Fatalf("Get: %v, want %v", err, test.wantErr)
			}
			if err == nil && got.ID != test.want.ID {
				t.Errorf("Get brings %s, want %s", got.ID, test.want.ID)
			}
			if all := strings.Join(notes, "\n"); !strings.Contains(all, test.note) {
				t.Errorf("notes %q, want one with %q", all, test.note)
			}
		})
	}
}
