package coord

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/share/content"
)

func (c *closed) fill(b []byte) {
	for i := range b {
		b[i] = byte(c.rng.Uint32())
	}
}

// request is one of that op that would be done if it came from who may.
func (c *closed) request(o op) request {
	r := request{Op: o}
	id := content.Root([]byte("a"))
	switch o {
	case opResolve:
		r.Lookup = "na"
	case opPins, opStatus, opMembers, opLog, opRejoin:
		return r
	case opPin:
		p := pinOf(fmt.Sprint(c.rng.Uint32()))
		r.Name, r.Lookup, r.ID, r.Kind, r.Size, r.Replicas, r.Expect = string(p.Name), p.Name.Lookup(), &p.ID, p.Kind, p.Size, 3, ExpectAny
	case opUnpin:
		r.ID, r.Expect = &id, ExpectAny
	case opInvite:
		var k pinset.Key
		c.fill(k[:])
		r.Token, r.Admit, r.TTL = &k, AsVoter, time.Hour.Milliseconds()
	case opRemove:
		r.Peer = Peer(c.peers[theThird].n.ID().String())
	case opGrant:
		r.Peer, r.Role = Peer(c.peers[theStranger].n.ID().String()), RoleAdmin
	case opRevoke:
		r.Peer, r.Role = Peer(c.peers[theReader].n.ID().String()), RoleReader
	case opUpdate:
		r.Addrs = []string{"/ip4/10.9.9.9/tcp/1"}
	case opReport:
		r.Report = &report{Held: []content.ID{id}}
	case opSet:
		r.Grace = GraceDefault.Milliseconds()
	case opHolding:
		r.IDs = []content.ID{id}
	case opJoin:
		var k pinset.Key
		var s pinset.Signature
		c.fill(k[:])
		c.fill(s[:])
		r.Token, r.Signature = &k, &s
	}
	c.fill(r.Client[:])
	r.Seq = 1 + c.rng.Uint64N(1<<40)
	return r
}

// mutate gives up to three fields of a request any value of their type, but Op, Tag
// and those that are kept.
func (c *closed) mutate(r *request, kept ...string) {
	v := reflect.ValueOf(r).Elem()
	for range 1 + c.rng.IntN(3) {
		i := c.rng.IntN(v.NumField())
		if name := v.Type().Field(i).Name; name != "Op" && name != "Tag" && !slices.Contains(kept, name) {
			c.any(v.Field(i))
		}
	}
	if r.Op == opRemove && slices.ContainsFunc(c.peers, func(p *testPeer) bool { return Peer(p.n.ID().String()) == r.Peer }) {
		r.Peer = c.g.c.self() // who removes itself leaves, which is another op
	}
}

func (c *closed) any(v reflect.Value) {
	switch x := v.Addr().Interface().(type) {
	case *pinset.Kind:
		*x = pinset.Kind(c.rng.IntN(3))
		return
	case *pinset.Roles:
		*x = pinset.Roles(c.rng.IntN(16))
		return
	case *pinset.Admission:
		*x = pinset.Admission(c.rng.IntN(5))
		return
	}
	switch v.Kind() {
	case reflect.String:
		texts := []string{"", "stale", " ", "\x1b[2J", "na", "\u202e", "../../etc", strings.Repeat("ü", 300), strings.Repeat("&", 200), // a joiner's line is short
			string(c.g.c.self()), c.peers[theReader].n.ID().String(), c.id.String()}
		v.SetString(texts[c.rng.IntN(len(texts))])
	case reflect.Uint64:
		v.SetUint([]uint64{0, 1, c.rng.Uint64(), 1<<64 - 1, pinset.IntMax}[c.rng.IntN(5)])
	case reflect.Int, reflect.Int64:
		v.SetInt([]int64{0, 1, -1, c.rng.Int64(), -1 << 63, 1<<63 - 1, pinset.IntMax}[c.rng.IntN(7)])
	case reflect.Bool:
		v.SetBool(c.rng.IntN(2) == 0)
	case reflect.Uint8:
		v.SetUint(uint64(c.rng.Uint32() & 0xff))
	case reflect.Array:
		for i := range v.Len() {
			c.any(v.Index(i))
		}
	case reflect.Pointer:
		if c.rng.IntN(3) == 0 {
			v.SetZero()
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		c.any(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			c.any(v.Field(i))
		}
	case reflect.Slice:
		n := []int{0, 1, 8, 9, 200}[c.rng.IntN(5)]
		if k := v.Type().Elem().Kind(); k == reflect.Array || k == reflect.Struct { // of 70 bytes each
			n = min(n, 9)
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range min(n, 4) {
			c.any(v.Index(i))
		}
	}
}

// joinBy has a peer join by a token, on a stream of its own, with what is signed
// changed.
func (c *closed) joinBy(who, whom int, t Token, change func(statement *joining)) (answer, error) {
	joins := slices.IndexFunc(c.openings(who), func(o opening) bool { return o.Join })
	if joins < 0 {
		joins = 0
	}
	k, err := c.dial(who, joins, whom)
	if err != nil {
		return answer{}, err
	}
	r := c.request(opJoin)
	c.fill(r.Nonce[:])
	j := joining{c.id, c.g.Epoch(), Peer(c.peers[who].n.ID().String()), Peer(c.peers[whom].n.ID().String()), r.Nonce, k.nonce}
	if change != nil {
		change(&j)
	}
	key := t.public()
	signature := pinset.Signature(ed25519.Sign(t.key(), joinStatement(j.group, j.epoch, j.joiner, j.member, j.theirs, j.ours)))
	r.Token, r.Signature = &key, &signature
	return k.ask(c.t.Context(), r)
}

type joining struct {
	group          GroupID
	epoch          uint64
	joiner, member Peer
	theirs, ours   nonce
}

func (c *closed) refuseTokens() {
	good := c.invite(AsReader)
	used := c.invite(AsReader)
	if a, err := c.joinBy(theForger, theAdmin, used, nil); err != nil || a.Error != "" {
		c.t.Fatalf("join by a good token: %+v, %v", a, err)
	}
	expired, err := c.peers[theAdmin].Client(c.id).Invite(c.t.Context(), AsVoter, time.Second)
	if err != nil {
		c.t.Fatal(err)
	}
	mine := c.invite(AsReader)
	if a, err := c.joinBy(theLeftOut, theAdmin, mine, nil); err != nil || a.Error != "" {
		c.t.Fatalf("join by a good token: %+v, %v", a, err)
	}
	if err := c.peers[theAdmin].Client(c.id).Remove(c.t.Context(), c.peers[theLeftOut].n.ID()); err != nil {
		c.t.Fatal(err)
	}
	time.Sleep(5 * time.Minute)
	forged := func() (t Token) { c.fill(t.seed[:]); return t }
	other := Peer(c.peers[theWriter].n.ID().String())
	for _, x := range []struct {
		name   string
		who    int
		token  func() Token
		change func(*joining)
	}{
		{"one that was used", theStranger, func() Token { return used }, nil},
		{"one that the same peer used, which was removed since", theLeftOut, func() Token { return mine }, nil},
		{"one that has expired", theStranger, func() Token { return expired }, nil},
		{"a forged one", theStranger, forged, nil},
		{"a good one, by a member", theMember, func() Token { return good }, nil},
		{"a signature for another joiner", theStranger, func() Token { return good }, func(j *joining) { j.joiner = other }},
		{"a signature for another member", theStranger, func() Token { return good }, func(j *joining) { j.member = other }},
		{"a signature for another stream", theStranger, func() Token { return good }, func(j *joining) { c.fill(j.ours[:]) }},
		{"a signature with another nonce", theStranger, func() Token { return good }, func(j *joining) { c.fill(j.theirs[:]) }},
		{"a signature for another group", theStranger, func() Token { return good }, func(j *joining) { c.fill(j.group[:]) }},
		{"a signature for the epoch before", theStranger, func() Token { return good }, func(j *joining) { j.epoch-- }},
		{"a signature for a later epoch", theStranger, func() Token { return good }, func(j *joining) { j.epoch = c.rng.Uint64() }},
	} {
		before := c.now()
		for range c.cases {
			a, err := c.joinBy(x.who, c.server(x.who), x.token(), x.change)
			c.refused("join: "+x.name, a, err)
		}
		c.unchanged("join: "+x.name, before)
	}
	if a, err := c.joinBy(theStranger, theVoter, good, nil); err != nil || a.Error != "" {
		c.t.Errorf("join by a good token: %+v, %v", a, err)
	}
}

// allow sends what may be done. What takes somebody out comes last.
func (c *closed) allow(ops []op) {
	last := []op{opRemove, opRevoke, opRejoin, opLeave}
	slices.SortStableFunc(ops, func(a, b op) int { return slices.Index(last, a) - slices.Index(last, b) })
	for _, o := range ops {
		for _, who := range allowedOps[o] {
			if o == opJoin {
				continue // refuseTokens ends with one
			}
			for _, whom := range []int{theAdmin, theThird} {
				if whom == who {
					whom = theVoter
				}
				r := c.request(o)
				switch {
				case whom == theThird && (o == opRejoin || o == opLeave):
					continue // it was done
				case o == opUnpin:
					c.pin(theAdmin, c.id, "a")
				case o == opRemove:
					r.Peer = Peer(c.peers[theForger].n.ID().String())
					if whom == theThird {
						r.Peer = Peer(c.peers[theStranger].n.ID().String())
					}
				case o == opRevoke && whom == theThird:
					r.Peer, r.Role = Peer(c.peers[theWriter].n.ID().String()), RoleWriter
				case o == opGrant && whom == theThird:
					r.Role = RoleWriter
				}
				c.done(o, who, whom, r)
			}
		}
	}
}

// done reports a request that was not done. An election may come between.
func (c *closed) done(o op, who, whom int, r request) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%s by the %s is done", o, closedPeerNames[who]), func() bool {
		a, err := c.send(who, 0, whom, r)
		if err == nil {
			err = a.err()
		}
		if answered := (*AnswerError)(nil); errors.As(err, &answered) && answered.word == wordNotLeader {
			whom = theAdmin // a member without a vote does not pass it on
			return false
		}
		if err != nil && !errors.Is(err, ErrNoLeader) && !errors.Is(err, errLost) {
			c.t.Fatalf("%s by the %s: %v", o, closedPeerNames[who], err)
		}
		return err == nil
	})
	synctest.Wait()
}
