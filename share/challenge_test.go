package share

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
)

func TestChallenge(t *testing.T) {
	sharer, stop := startPeer(t, node.Config{})
	holder, _ := startPeer(t, node.Config{})
	voter, _ := startPeer(t, node.Config{})     // who holds nothing
	empty, _ := startPeer(t, node.Config{})     // who is accused
	closed, shut := startPeer(t, node.Config{}) // who is gone
	gone := closed.AddrInfo()
	shut()

	large := randomBytes(5<<20, "challenge")
	for i := range 50 {
		sharer.write(t, fmt.Sprintf("tree/%d", i), randomBytes(i*9000, fmt.Sprint("c", i)))
	}
	shares := []Share{
		sharer.add(t, sharer.write(t, "large", large), AddOptions{}),
		sharer.add(t, sharer.write(t, "small", large[:1000]), AddOptions{}),
		sharer.add(t, sharer.write(t, "none", nil), AddOptions{}),
		sharer.add(t, filepath.Join(sharer.dir, "tree"), AddOptions{}),
	}
	for _, s := range shares {
		holder.hold(t, s.ID, sharer.from(s))
	}
	for _, s := range shares {
		for who, asks := range map[string]*testPeer{"a holder": holder, "one that holds nothing": voter} {
			for range 5 {
				if err := asks.lib.Challenge(t.Context(), s.ID, s.Kind, sharer.AddrInfo()); err != nil {
					t.Errorf("%s challenges the sharer for %s: %v", who, s.Name, err)
				}
			}
			err := asks.lib.Challenge(t.Context(), s.ID, s.Kind, empty.AddrInfo())
			if !errors.Is(err, ErrUnproven) || errors.Is(err, ErrUnreachable) {
				t.Errorf("%s challenges who has nothing for %s: %v, want ErrUnproven", who, s.Name, err)
			}
			err = asks.lib.Challenge(t.Context(), s.ID, s.Kind, gone)
			if !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrUnproven) {
				t.Errorf("%s challenges who is gone for %s: %v, want ErrUnreachable", who, s.Name, err)
			}
		}
		if err := voter.lib.Challenge(t.Context(), s.ID, s.Kind, holder.AddrInfo()); err != nil {
			t.Errorf("the holder is challenged for %s: %v", s.Name, err)
		}
	}

	// A liar keeps records and outboards, and no bytes.
	stop()
	for _, s := range shares {
		if s.Name == "none" {
			continue
		}
		if err := voter.lib.Challenge(t.Context(), s.ID, s.Kind, peer.AddrInfo{ID: holder.ID(), Addrs: holder.AddrInfo().Addrs}); err != nil {
			t.Errorf("before: %v", err)
		}
	}
	err := filepath.WalkDir(holder.lib.store.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return errors.Join(os.Truncate(path, 0), os.Truncate(path, info.Size()))
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range shares {
		if s.Name == "none" {
			continue
		}
		if err := voter.lib.Challenge(t.Context(), s.ID, s.Kind, holder.AddrInfo()); !errors.Is(err, ErrUnproven) {
			t.Errorf("the liar is challenged for %s: %v, want ErrUnproven", s.Name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := voter.lib.Challenge(ctx, shares[0].ID, KindFile, holder.AddrInfo()); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnproven) {
		t.Errorf("a challenge that was cancelled = %v", err)
	}
}

func TestPickPartIsByGroups(t *testing.T) {
	parts := listedIn([]byte("ize\":12}\n" +
		string(appendEntry(nil, Entry{Path: "a", Kind: KindFile, ID: contentID(nil), Size: 1})) +
		string(appendEntry(nil, Entry{Path: "b", Kind: KindDir})) +
		string(appendEntry(nil, Entry{Path: "c", Kind: KindFile, ID: contentID(nil), Size: 99 << 18})) +
		`{"path":"d","ki`))
	if len(parts) != 2 {
		t.Fatalf("listedIn = %v, want two files", parts)
	}
	large := 0
	for range 1000 {
		if pickPart(parts).size > 1 {
			large++
		}
	}
	if large < 950 {
		t.Errorf("of 100 groups 99 are in one file, and it was picked %d times of 1000", large)
	}
}
