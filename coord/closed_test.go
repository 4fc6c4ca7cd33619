package coord

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/node"
)

// The peers of TestClosed. Those that are let in to the group come first.
const (
	theAdmin   = iota // a voter, and who made the group
	theVoter          //
	theThird          // a voter, too
	theLearner        // holds copies
	theMember         // a learner that reads
	theWriter         // was granted the role, and is no member
	theReader         // was granted the role, and is no member
	theStranger
	theRemoved // was a member
	theLeftOut // by a recovery
	theForger  // of a later epoch
	closedPeers
)

// allowedOps is who may do what: what is not here must be refused.
var allowedOps = map[op][]int{
	opResolve: {theAdmin, theVoter, theLearner, theMember, theWriter, theReader},
	opPins:    {theAdmin, theVoter, theLearner, theMember, theWriter, theReader},
	opStatus:  {theAdmin, theVoter, theLearner, theMember, theWriter, theReader},
	opMembers: {theAdmin, theVoter, theLearner, theMember, theWriter, theReader},
	opLog:     {theAdmin, theVoter, theLearner, theMember, theWriter, theReader},
	opPin:     {theAdmin, theVoter, theWriter},
	opUnpin:   {theAdmin, theVoter, theWriter},
	opInvite:  {theAdmin},
	opGrant:   {theAdmin},
	opRevoke:  {theAdmin},
	opRemove:  {theAdmin},
	opUpdate:  {theAdmin, theVoter, theLearner, theMember},
	opReport:  {theAdmin, theVoter, theLearner, theMember},
	opSet:     {theAdmin},
	opHolding: {theAdmin, theVoter, theLearner, theMember, theWriter, theReader},
	opRejoin:  {theVoter, theLearner, theMember}, // and theAdmin: it leads, and would stop
	opJoin:    {theStranger},                     // with a token
	opLeave:   {theVoter, theLearner, theMember}, // the last admin must stay
}

// closed is a group that is attacked.
type closed struct {
	*world
	g     *Group
	id    GroupID
	rng   *rand.Rand
	sent  int              // that were refused
	cases int              // of each kind
	conns map[[3]int]*conn // by sender, way to open, and whom
}

// TestClosed has everybody send every request, valid and with fields of any kind,
// and open Raft's streams; has those who are not voters ask for others; and uses
// tokens that are used, expired, forged or signed for something else. None is done
// that allowedOps does not list, each is told why, and the group's log does not grow.
// What it lists is done. `go test ./coord -run TestClosed -args -long` sends 1,000
// of each kind instead of 20.
func TestClosed(t *testing.T) {
	n := 20
	if *long {
		n = 1000
	}
	ops := opsOfPackage(t)
	for _, o := range ops {
		if _, listed := allowedOps[o]; !listed {
			t.Errorf("op %q is not in allowedOps", o)
		}
	}
	if len(ops) != len(allowedOps) {
		t.Errorf("%d ops, and %d in allowedOps", len(ops), len(allowedOps))
	}
	synctest.Test(t, func(t *testing.T) {
		c := newClosed(t, n)
		defer c.hangUp()
		c.refuseRequests(ops)
		c.refuseWhereReadingIsOpen(ops)
		c.refuseOrigins(ops)
		c.refuseRaft()
		c.refuseTokens()
		c.allow(ops)
		t.Logf("%d requests and streams were refused", c.sent)
	})
}

// opsOfPackage reads the constants of type op out of the source.
func opsOfPackage(t *testing.T) (ops []op) {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if of, ok := v.Type.(*ast.Ident); ok && of.Name == "op" {
				for _, x := range v.Values {
					if lit, ok := x.(*ast.BasicLit); ok {
						text, _ := strconv.Unquote(lit.Value)
						ops = append(ops, op(text))
					}
				}
			}
			return true
		})
	}
	if len(ops) == 0 {
		t.Fatal("no ops found in the source")
	}
	return ops
}

// newClosed makes the group: in epoch 2, after a recovery without theLeftOut.
func newClosed(t *testing.T, cases int) *closed {
	w := newWorld(t, closedPeers)
	groups := w.found(3)
	c := &closed{world: w, id: groups[0].ID(), rng: rand.New(rand.NewPCG(1, uint64(cases))), cases: cases,
		conns: map[[3]int]*conn{}}
	w.join(theLeftOut, AsVoter)
	for _, i := range []int{theVoter, theThird, theLeftOut} {
		w.peers[i].crash(t)
	}
	w.awaitNoLeader(theAdmin, c.id)
	if err := w.recover(theAdmin, c.id, RecoverOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{theVoter, theThird} {
		w.peers[i].start(t)
		w.eventually("it knows that it is out", func() bool { return errors.Is(w.groupOf(i).known().parked(), ErrRemoved) })
		w.join(i, AsVoter)
	}
	c.g = w.groupOf(theAdmin)
	w.join(theLearner, AsStorage)
	w.join(theMember, AsReader)
	w.join(theRemoved, AsWriter)
	cl := w.peers[theAdmin].Client(c.id)
	if err := errors.Join(
		cl.Grant(t.Context(), w.peers[theWriter].n.ID(), RoleWriter),
		cl.Grant(t.Context(), w.peers[theReader].n.ID(), RoleReader),
		cl.Remove(t.Context(), w.peers[theRemoved].n.ID()),
	); err != nil {
		t.Fatal(err)
	}
	w.eventually("all vote", func() bool { return len(w.voters(c.g)) == 3 })
	w.pin(theAdmin, c.id, "a", "b")
	// Who is attacked by these has no Coord of theirs that answers.
	w.peers[theRemoved].crash(t)
	w.peers[theForger].crash(t)
	c.forge()
	all := []*Group{c.g, w.groupOf(theVoter), w.groupOf(theThird), w.groupOf(theMember)}
	w.eventually("all states are equal", func() bool { return w.hashesAgree(all) })
	time.Sleep(5 * time.Minute) // until the leader has nothing left to do by itself
	return c
}

// forge has theForger show who looks at it records of later epochs, none of which
// is signed by one who may.
func (c *closed) forge() {
	self := c.peers[theForger]
	var records []node.Envelope
	for _, group := range []GroupID{c.id, {1}} {
		e, err := sealEpoch(self.n.Key(), group, &pinset.Epoch{Epoch: 3, Members: []pinset.EpochMember{{Peer: Peer(self.n.ID().String()), Vote: Voter}},
			Admin: Peer(self.n.ID().String())})
		if err != nil {
			c.t.Fatal(err)
		}
		records = append(records, e)
	}
	refuseAll(c.net.Host(self.n.ID()), admission{Error: RefusedEpoch, Epoch: 3, Message: "yours is over",
		Records: append(c.g.known().records(), records[0])})
}

// openings are the ways in which a peer may present itself. The first is the honest
// one, where there is one.
func (c *closed) openings(who int) []opening {
	now := c.g.opening()
	bare := opening{Group: c.id, Epoch: now.Epoch}
	forged := now
	forged.Record[0] ^= 1
	later := opening{Group: c.id, Epoch: 3, Record: pinset.Digest{7}}
	old := opening{Group: c.id, Epoch: 1}
	other := opening{Group: GroupID{9}, Epoch: now.Epoch}
	joins := bare
	joins.Join = true
	switch who {
	case theAdmin, theVoter, theThird, theLearner, theMember:
		return []opening{now}
	case theWriter, theReader:
		return []opening{bare, now}
	case theLeftOut:
		return []opening{old, bare, now, joins, forged, later}
	case theForger:
		return []opening{later, forged, bare, joins}
	}
	return []opening{bare, joins, now, forged, old, later, other}
}

// dial returns the stream of a peer that presents itself in the way-th way to
// another, or why that refuses.
func (c *closed) dial(who, way, whom int) (*conn, error) {
	key := [3]int{who, way, whom}
	if k := c.conns[key]; k != nil && k.alive() {
		return k, nil
	}
	to := peer.AddrInfo{ID: c.peers[whom].n.ID()}
	s, a, err := dialGroup(c.t.Context(), c.peers[who].n, to, groupProtocol, c.openings(who)[way])
	if err != nil {
		return nil, err
	}
	k := newConn(s, a.Nonce)
	go k.read()
	c.conns[key] = k
	return k, nil
}

// hangUp ends all streams.
func (c *closed) hangUp() {
	for _, k := range c.conns {
		k.stream.Reset()
		<-k.ended
	}
	clear(c.conns)
}

// send sends a request. A stream on which something else was garbled, or whose time
// is over, may have ended just now.
func (c *closed) send(who, way, whom int, r request) (a answer, err error) {
	for range 3 {
		var k *conn
		if k, err = c.dial(who, way, whom); err != nil {
			return answer{}, err
		}
		if a, err = k.ask(c.t.Context(), r); !errors.Is(err, errLost) {
			break
		}
	}
	return a, err
}

// server is a member that is asked by another peer.
func (c *closed) server(by int) int {
	all := slices.DeleteFunc([]int{theAdmin, theVoter, theThird, theMember}, func(i int) bool { return i == by })
	return all[c.rng.IntN(len(all))]
}

// snapshot is what must not change: the state's hash, and how far the log goes.
type snapshot struct {
	hash   pinset.Digest
	commit uint64
	epoch  uint64
}

func (c *closed) now() snapshot {
	m, err := c.g.running()
	if err != nil {
		c.t.Fatal(err)
	}
	_, last := m.lastEntry()
	return snapshot{hashOf(c.t, c.g), last, c.g.Epoch()}
}

// refused reports a request that was not refused, or not with a reason.
func (c *closed) refused(what string, a answer, err error) {
	c.t.Helper()
	c.sent++
	if err == nil {
		err = a.err()
	}
	var r *RefusedError
	var e *AnswerError
	switch {
	case err == nil:
		c.t.Errorf("%s: accepted: %+v", what, a)
	case errors.As(err, &r) && r.Why != "" && r.Message != "":
	case errors.As(err, &e) && e.word != "" && e.Message != "" && e.word != wordInternal:
	default:
		c.t.Errorf("%s: refused without a reason: %v", what, err)
	}
}

// unchanged reports that a kind of requests has changed what it must not.
func (c *closed) unchanged(what string, before snapshot) {
	c.t.Helper()
	if now := c.now(); now != before {
		c.t.Fatalf("%s: the group has changed: %+v, before %+v", what, now, before)
	}
}

var closedPeerNames = [closedPeers]string{"admin", "voter", "third voter", "learner", "member", "writer", "reader",
	"stranger", "removed member", "member left out", "forger of an epoch"}

func (c *closed) refuseRequests(ops []op) {
	for _, o := range ops {
		for who := theVoter; who < closedPeers; who++ {
			if slices.Contains(allowedOps[o], who) && o != opJoin || who == theThird {
				continue
			}
			before := c.now()
			what := fmt.Sprintf("%s by the %s", o, closedPeerNames[who])
			for i := range c.cases {
				r := c.request(o)
				if i%4 > 0 {
					c.mutate(&r, "Origin")
				}
				way, whom := i%len(c.openings(who)), c.server(who)
				if k, err := c.dial(who, way, whom); err == nil && i%4 == 3 {
					c.garble(what, k, r)
					continue
				}
				a, err := c.send(who, way, whom, r)
				c.refused(what, a, err)
			}
			c.unchanged(what, before)
		}
	}
}

// refuseWhereReadingIsOpen has strangers read a group that lets everyone, and do
// nothing else.
func (c *closed) refuseWhereReadingIsOpen(ops []op) {
	cl := c.peers[theAdmin].Client(c.id)
	if err := cl.SetOpen(c.t.Context(), true); err != nil {
		c.t.Fatal(err)
	}
	time.Sleep(5 * time.Minute)
	for _, o := range ops {
		before := c.now()
		what := fmt.Sprintf("%s by the stranger where everyone may read", o)
		for i := range c.cases {
			r := c.request(o)
			if isRead(o) || o == opStatus || o == opHolding {
				c.done(o, theStranger, c.server(theStranger), r)
				continue
			}
			if i%2 > 0 {
				c.mutate(&r, "Origin")
			}
			a, err := c.send(theStranger, 0, c.server(theStranger), r)
			c.refused(what, a, err)
		}
		for range c.cases {
			a, err := c.send(theRemoved, 0, c.server(theRemoved), c.request(o))
			c.refused(fmt.Sprintf("%s by the removed member where everyone may read", o), a, err)
		}
		c.unchanged(what, before)
	}
	if err := cl.SetOpen(c.t.Context(), false); err != nil {
		c.t.Fatal(err)
	}
	c.hangUp()
	time.Sleep(5 * time.Minute)
}

// garble sends a request with a field of another type: the stream ends, or it is
// refused.
func (c *closed) garble(what string, k *conn, r request) {
	data, err := json.Marshal(r)
	if err != nil {
		c.t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		c.t.Fatal(err)
	}
	names := []string{"tag", "op", "client", "seq", "id", "kind", "expect", "role", "admit", "token", "nonce", "signature", "source", "addrs"}
	fields[names[c.rng.IntN(len(names))]] = []any{nil, -1, 1e300, "x", []int{1}, map[string]int{"a": 1}, true, strings.Repeat("z", 9000)}[c.rng.IntN(8)]
	fields["origin"] = ""
	tag := k.tag.Add(1)
	if n, ok := fields["tag"].(float64); ok && n == 0 {
		fields["tag"] = tag
	}
	answers := make(chan answer, 1)
	k.mu.Lock()
	k.waiting[tag] = answers
	k.mu.Unlock()
	if data, err = json.Marshal(fields); err != nil {
		c.t.Fatal(err)
	}
	k.stream.Write(append(data, '\n'))
	select {
	case a := <-answers:
		if a.Error == "" {
			c.t.Errorf("%s: accepted: %s: %+v", what, data, a)
		}
	case <-k.ended:
	case <-time.After(time.Second): // answered under another tag
	}
}

func (c *closed) refuseOrigins(ops []op) {
	for _, o := range ops {
		for who := theLearner; who < closedPeers; who++ {
			before := c.now()
			what := fmt.Sprintf("%s by the %s, for the admin", o, closedPeerNames[who])
			for i := range c.cases {
				r := c.request(o)
				r.Origin = c.g.c.self()
				if i%3 == 1 {
					r.Origin = Peer(c.peers[theVoter].n.ID().String())
				}
				if i%3 == 2 {
					c.mutate(&r, "Origin")
				}
				a, err := c.send(who, i%len(c.openings(who)), c.server(who), r)
				c.refused(what, a, err)
			}
			c.unchanged(what, before)
		}
	}
}

func (c *closed) refuseRaft() {
	for who := theLearner; who < closedPeers; who++ {
		before := c.now()
		what := "Raft's stream of the " + closedPeerNames[who]
		for i := range c.cases {
			to := peer.AddrInfo{ID: c.peers[c.server(who)].n.ID()}
			ways := c.openings(who)
			s, _, err := dialGroup(c.t.Context(), c.peers[who].n, to, raftProtocol, ways[i%len(ways)])
			if err == nil {
				s.Reset()
			}
			c.refused(what, answer{}, err)
		}
		c.unchanged(what, before)
	}
	for who := range theLearner {
		to := (who + 1) % theLearner
		s, _, err := dialGroup(c.t.Context(), c.peers[who].n, peer.AddrInfo{ID: c.peers[to].n.ID()}, raftProtocol, c.g.opening())
		if err != nil {
			c.t.Errorf("Raft's stream of a voter: %v", err)
			continue
		}
		s.Reset()
		bare := opening{Group: c.id, Epoch: c.g.Epoch()}
		_, _, err = dialGroup(c.t.Context(), c.peers[who].n, peer.AddrInfo{ID: c.peers[to].n.ID()}, raftProtocol, bare)
		if !isRefusal(err, RefusedSplit) {
			c.t.Errorf("Raft's stream of a voter that does not know how the epoch began: %v", err)
		}
	}
}
