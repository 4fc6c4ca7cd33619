package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// member is a peer of a group: its home, and the daemon that runs on it.
type member struct {
	*peer
	daemon *process
	id     string
}

func startMember(t *testing.T, flags ...string) *member {
	t.Helper()
	m := newMember(t, flags...)
	m.begin(t)
	return m
}

func newMember(t *testing.T, flags ...string) *member {
	t.Helper()
	return &member{peer: newPeer(t, flags...)}
}

// begin starts the daemon for the first time.
func (m *member) begin(t *testing.T) {
	t.Helper()
	m.start(t)
	listen, _, _ := strings.Cut(m.daemon.addr(t), "/p2p/")
	m.flags = []string{"--listen", listen, "--no-lan"} // a member comes back where it was
}

func (m *member) start(t testing.TB) {
	t.Helper()
	m.daemon = m.serve(t, "daemon")
	m.id = m.daemon.ready.text("peer_id")
}

// group runs a group command on the member's daemon.
func (m *member) group(t testing.TB, args ...string) event {
	t.Helper()
	r := m.runPlain(t, append([]string{"group"}, args...)...)
	if r.code != 0 || len(r.events) == 0 {
		t.Fatalf("group %v: exit %d\n%s", args, r.code, r.stderr)
	}
	return r.events[len(r.events)-1]
}

// newGroup makes a group of count members, all voters.
func newGroup(t *testing.T, count int) []*member {
	t.Helper()
	all := []*member{startMember(t, loopback...)}
	all[0].group(t, "create", "office")
	for range count - 1 {
		token := all[0].group(t, "invite").text("token")
		m := startMember(t, loopback...)
		m.group(t, "join", token)
		all = append(all, m)
	}
	awaitGroup(t, all[0], "its voters", func(g event) bool { return int(g.number("voters_up")) == count })
	return all
}

// awaitGroup asks a member until the group is as it should be.
func awaitGroup(t testing.TB, m *member, what string, ok func(event) bool) event {
	t.Helper()
	var last event
	for deadline := time.Now().Add(commandMax); time.Now().Before(deadline); {
		if last = m.group(t, "status"); ok(last) {
			return last
		}
	}
	t.Fatalf("waited in vain for %s: %v", what, last)
	return nil
}

// pin adds a file of its own on a member and has the group pin it. It returns the
// exit code.
func (m *member) pin(t *testing.T, name string) int {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(name), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := m.runPlain(t, "add", name); r.code != 0 {
		t.Fatalf("add %s: exit %d\n%s", name, r.code, r.stderr)
	}
	return m.runPlain(t, "pin", "./"+name).code
}

// pins are the names that a member's fresh read of the group gives.
func (m *member) pins(t *testing.T) map[string]bool {
	t.Helper()
	r := m.runPlain(t, "pins", "--fresh")
	if r.code != 0 {
		t.Fatalf("pins --fresh: exit %d\n%s", r.code, r.stderr)
	}
	names := map[string]bool{}
	for _, e := range r.events {
		names[e.text("name")] = true
	}
	return names
}

// TestGroupLosesNoPinWithItsLeader kills the leader of three, again and again,
// while the others pin; then all at once.
func TestGroupLosesNoPinWithItsLeader(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	all := newGroup(t, 3)
	acked := map[string]bool{}
	pin := func(m *member, name string) {
		t.Helper()
		for deadline := time.Now().Add(commandMax); ; {
			code := m.pin(t, name)
			if code == 0 {
				acked[name] = true
				return
			}
			if code != 5 || time.Now().After(deadline) {
				t.Fatalf("pin %s: exit %d", name, code)
			}
		}
	}
	check := func(m *member, when string) {
		t.Helper()
		have := m.pins(t)
		for name := range acked {
			if !have[name] {
				t.Errorf("%s: %s was acknowledged, and is not pinned", when, name)
			}
		}
	}
	for round := range 3 {
		for i, m := range all {
			pin(m, fmt.Sprintf("before-%d-%d", round, i))
		}
		leader := awaitGroup(t, all[0], "a leader", func(g event) bool { return g.text("leader") != "" }).text("leader")
		var killed *member
		var others []*member
		for _, m := range all {
			if m.id == leader {
				killed = m
			} else {
				others = append(others, m)
			}
		}
		killed.daemon.end(t, os.Kill)
		died := time.Now()
		pin(others[0], fmt.Sprintf("after-%d", round))
		t.Logf("pinned again %v after the leader was killed", time.Since(died).Round(time.Millisecond))
		check(others[1], "without the leader")
		killed.start(t)
		awaitWhole(t, all, commandMax)
	}

	// Two of three away: nothing is decided, what is known is told.
	all[1].daemon.end(t, os.Kill)
	all[2].daemon.end(t, os.Kill)
	if code := all[0].pin(t, "in-vain"); code != 5 {
		t.Errorf("pin without quorum: exit %d, want 5", code)
	}
	if r := all[0].runPlain(t, "pins", "--fresh"); r.code != 5 {
		t.Errorf("pins --fresh without quorum: exit %d, want 5", r.code)
	}
	r := all[0].runPlain(t, "pins")
	if r.code != 0 || len(r.events) == 0 || r.events[0]["stale"] != true {
		t.Errorf("pins without quorum: exit %d, %v, want stale lines\n%s", r.code, r.events, r.stderr)
	}

	all[0].daemon.end(t, os.Kill)
	for _, m := range all {
		m.start(t)
	}
	awaitGroup(t, all[0], "a leader after all were killed", func(g event) bool { return g.text("leader") != "" && g.number("voters_up") == 3 })
	check(all[2], "after all were killed")
	if all[2].pins(t)["in-vain"] {
		t.Log("a pin that was refused was in the log of its member, and is pinned now") // allowed: it was not known to be lost
	}
}
