package e2e

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
	"golang.org/x/sync/errgroup"
)

// lyingStore says that it holds whatever it is asked to, and fetches nothing.
type lyingStore struct {
	*share.Library

	mu   sync.Mutex
	have map[content.ID]share.Held // guarded by mu
}

func (s *lyingStore) Hold(_ context.Context, id content.ID, o share.HoldOptions) (share.Held, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have[id] = share.Held{ID: id, Kind: o.Kind, Size: o.Size, Files: 1, Bytes: o.Size, Verified: time.Now()}
	return s.have[id], nil
}

func (s *lyingStore) Release(_ context.Context, id content.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.have, id)
	return nil
}

func (s *lyingStore) Held(id content.ID) (share.Held, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.have[id]
	return x, ok, nil
}

func (s *lyingStore) Holding(context.Context) iter.Seq2[share.Held, error] {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Collect(maps.Values(s.have))
	return func(yield func(share.Held, error) bool) {
		for _, x := range list {
			if !yield(x, nil) {
				return
			}
		}
	}
}

func (s *lyingStore) Scrub(context.Context, content.ID, share.ScrubOptions) (share.Scrubbed, error) {
	return share.Scrubbed{}, nil
}

const liarToken = "E2E_TOKEN"

// liarRole joins a group by the token in its environment, prints its ID, and lies
// until it is told to stop.
func liarRole() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	dir, err := os.MkdirTemp("", "liar-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	n, err := node.New(ctx, node.Config{Dir: dir, NoDHT: true, NoMulticast: true, Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}})
	if err != nil {
		return err
	}
	defer n.Close()
	lib, err := share.Open(n, share.Config{})
	if err != nil {
		return err
	}
	defer lib.Close()
	c, err := coord.Open(n, coord.Config{Store: &lyingStore{Library: lib, have: map[content.ID]share.Held{}}})
	if err != nil {
		return err
	}
	defer c.Close()
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return n.Run(ctx) })
	tasks.Go(func() error { return lib.Run(ctx) })
	tasks.Go(func() error { return c.Run(ctx) })
	tasks.Go(func() error {
		<-n.Listening()
		token, err := coord.ParseToken(os.Getenv(liarToken))
		if err != nil {
			return err
		}
		if _, err := c.Join(ctx, token, "", coord.MemberOptions{Capacity: 1 << 30}); err != nil {
			return err
		}
		fmt.Println(n.ID())
		return nil
	})
	return tasks.Wait()
}

// TestLiarIsReplaced has a member say that it holds what it has never fetched. The
// others find out by challenges, and hold themselves what it was to.
func TestLiarIsReplaced(t *testing.T) {
	besideOthers(t)
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	h := newHolders(t, holdersOptions{count: 4, grace: time.Minute, capacity: func(int) string { return "1G" }, daemon: []string{"--scrub", "20m"}})
	token := h.members[0].group(t, "invite", "--role", "storage").text("token")
	c := roleCommand(t, "", "liar")
	c.Env = append(c.Env, liarToken+"="+token)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
	})
	var id string
	if _, err := fmt.Fscanln(out, &id); err != nil {
		t.Fatalf("the liar has not joined: %v", err)
	}
	h.pinMany(30, func() int64 { return 1 + h.sizes.Int64N(100<<10) })
	lied := time.Now()
	shown := func() bool {
		for _, m := range h.members[0].runPlain(t, "group", "members").events {
			if u, _ := m["unproven"].(bool); m.text("peer") == id {
				return u
			}
		}
		return false
	}
	h.await("it is found out, and others have what it lied about", 90*time.Second, func(s standing) bool {
		if s.ok < s.all || !shown() {
			return false
		}
		for _, p := range s.lines {
			if len(p.Copies) != 3 || slices.ContainsFunc(p.Copies, func(c control.PinCopy) bool { return string(c.Peer) == id }) {
				return false
			}
		}
		return true
	})
	t.Logf("found out and replaced within %s", time.Since(lied).Round(time.Millisecond))
	h.awaitStores(3)
	h.checkStores(3)
}
