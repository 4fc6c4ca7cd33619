package pinset

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/p2pshare/p2pshare/share/content"
)

// someCommands are of every op.
func someCommands() []Command {
	h := header(1, "12D3KooWann")
	return []Command{
		&Found{Header: h, Group: Digest{1}, Name: `Büro <&> "\ ` + "\u2028é…", Recovery: Key{2}, Addrs: []string{"/ip4/10.0.0.1/tcp/1", "/x"}, NoStore: true},
		&SetPin{Header: h, Name: "A", Lookup: "a", ID: idOf(1), Kind: KindDir, Size: IntMax, Replicas: 64, Expires: 5, Expect: ExpectAny},
		&SetPin{Header: h, ID: idOf(1), Kind: KindFile, Replicas: 1, Source: &Source{Peer: "p", Addrs: []string{"/a"}}, Expect: 77},
		&SetPin{Header: h, ID: idOf(1), Kind: KindFile, Replicas: 1, Source: &Source{Peer: "p"}},
		&Unpin{Header: h, Lookup: "a", Expect: 3}, &Unpin{Header: h, ID: new(idOf(2)), Expect: ExpectAny},
		&SetMember{Header: h, Peer: "p"},
		&SetMember{Header: h, Peer: "p", Vote: Voter, MayVote: new(true), Roles: new(Roles(0)), Capacity: new(int64(0)), Zone: new(""), Addrs: new([]string{}), NoStore: new(false)},
		&SetMember{Header: h, Peer: "p", Vote: Learner, MayVote: new(false), Roles: new(RoleAdmin | RoleStorage), Capacity: new(int64(9)), Zone: new("z"), Addrs: new([]string{"/a", "/b"}), NoStore: new(true)},
		&Remove{h, "p"}, &Grant{h, "p", RoleStorage}, &Revoke{h, "p", RoleWriter},
		&Invite{h, Key{1}, AsStorage, 6}, &Join{Header: h, Token: Key{1}, Zone: "z"}, &Uninvite{h, Key{1}},
		&Expire{h}, &Mark{h, 6, Digest{1}},
		&Epoch{Header: h, Epoch: 2, Members: []EpochMember{{"a", Voter}, {"b", Learner}}, Admin: "a", Signature: new(Signature{1})},
		&Epoch{Header: h, Epoch: 2, Members: []EpochMember{{"a", Voter}}},
		&Found{Header: h, Group: Digest{1}, Name: "office", Recovery: Key{2}, Grace: 5000},
		&SetPin{Header: h, ID: idOf(1), Kind: KindFile, Replicas: ReplicasAll},
		&Copies{Header: h, Peer: "p", Held: []content.ID{idOf(1)}},
		&Copies{Header: h, Peer: "p", Gone: []content.ID{idOf(3), idOf(2)}, Held: []content.ID{idOf(1)}, Unproven: []content.ID{idOf(4)}},
		&Away{Header: h, Away: []Peer{"p", "q"}},
		&Away{Header: h, Back: []Peer{"p"}, Unproven: []Peer{"q"}, Proven: []Peer{"r"}},
		&Settings{Header: h, Grace: new(int64(60_000))},
	}
}

// TestPayloadIsWhatTheTagsSay compares with encoding/json.
func TestPayloadIsWhatTheTagsSay(t *testing.T) {
	seen := map[Op]bool{}
	for _, c := range someCommands() {
		seen[c.Op()] = true
		f, err := EncodeCommand(c)
		if err != nil {
			t.Errorf("EncodeCommand(%s): %v", c.Op(), err)
			continue
		}
		var want bytes.Buffer
		e := json.NewEncoder(&want)
		e.SetEscapeHTML(false)
		if err := e.Encode(c); err != nil {
			t.Fatal(err)
		}
		if got := string(f[frameHeaderBytes:]) + "\n"; got != want.String() {
			t.Errorf("payload is\n%s, want\n%s", got, want.String())
		}
		back, err := DecodeCommand(f)
		if err != nil {
			t.Errorf("DecodeCommand(%s): %v", f, err)
		} else if diff := cmp.Diff(c, back); diff != "" {
			t.Errorf("%s comes back as another (-want +got):\n%s", c.Op(), diff)
		}
	}
	for op := OpFound; opWords.known(op); op++ {
		if !seen[op] || newCommand(op).Op() != op {
			t.Errorf("%s is not tested, or has another number", op)
		}
	}
}

func TestDecodeCommandRefuses(t *testing.T) {
	good := must(EncodeCommand(&Grant{header(1, "ann"), "bob", RoleWriter}))
	payload := string(good[frameHeaderBytes:])
	for _, f := range [][]byte{
		frame(0, good[frameHeaderBytes:]), frame(17, good[frameHeaderBytes:]), frame(18, nil), frame(255, nil),
	} {
		if _, err := DecodeCommand(f); !errors.Is(err, ErrUnknownCommand) {
			t.Errorf("op %d is %v, want %v", f[1], err, ErrUnknownCommand)
		}
	}
	next := bytes.Clone(good)
	next[0]++
	binary.BigEndian.PutUint32(next[2:], frameSum(next))
	if _, err := DecodeCommand(next); !errors.Is(err, ErrUnknownCommand) || !strings.Contains(err.Error(), "version 2, this build knows version 1") {
		t.Errorf("the next version is %v, want %v", err, ErrUnknownCommand)
	}
	replace := func(old, new string) string { return strings.Replace(payload, old, new, 1) }
	for what, p := range map[string]string{
		"empty":           "",
		"null":            "null",
		"cut":             payload[:len(payload)-1],
		"bytes after":     payload + " ",
		"space":           replace(",", ", "),
		"unknown field":   replace("}", `,"x":1}`),
		"missing field":   replace(`,"peer":"bob"`, ""),
		"repeated field":  replace(`"seq":1`, `"seq":1,"seq":1`),
		"order":           replace(`"peer":"bob","role":"writer"`, `"role":"writer","peer":"bob"`),
		"case of a field": replace(`"seq"`, `"Seq"`),
		"upper case hex":  replace("07", "0A"),
		"escape":          replace("bob", `b\u006fb`),
		"bad escape":      replace("bob", `b\xb`),
		"surrogate":       replace("bob", `\ud800`),
		"invalid UTF-8":   replace("bob", "b\xffb"),
		"control":         replace("bob", "b\x01b"),
		"leading zero":    replace(`"seq":1`, `"seq":01`),
		"float":           replace(`"seq":1`, `"seq":1.0`),
		"exponent":        replace(`"seq":1`, `"seq":1e0`),
		"minus one":       replace(`"seq":1`, `"seq":-1`),
		"minus two":       replace(`"seq":1`, `"seq":-2`),
		"minus zero":      replace(`"seq":1`, `"seq":-0`),
		"long number":     replace(`"seq":1`, `"seq":11111111111111111`),
		"text for number": replace(`"seq":1`, `"seq":"1"`),
		"unknown role":    replace("writer", "owner"),
		"role in a list":  replace("writer", "writer,admin"),
		"role twice":      replace("writer", "writer,writer"),
		"not closed":      replace(`"bob"`, `"bob`),
	} {
		if p == payload {
			t.Errorf("%s: the test changes nothing", what)
		}
		if c, err := DecodeCommand(frame(OpGrant, []byte(p))); !errors.Is(err, ErrBadCommand) {
			t.Errorf("%s: %v, %v, want %v", what, c, err, ErrBadCommand)
		}
	}
	for _, n := range []int{0, frameHeaderBytes - 1, CommandBytesMax + 1} {
		if _, err := DecodeCommand(make([]byte, n)); !errors.Is(err, ErrBadCommand) {
			t.Errorf("%d bytes: %v, want %v", n, err, ErrBadCommand)
		}
	}
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			s := New()
			if _, err := s.Apply(1, bad); err == nil || s.Index() != 0 {
				t.Errorf("bit %d of byte %d flipped is applied", bit, i)
			}
		}
	}
	optional := must(EncodeCommand(&SetPin{Header: header(1, "ann"), ID: idOf(1), Kind: KindFile, Replicas: 1}))[frameHeaderBytes:]
	for _, add := range []string{`"name":"",`, `"lookup":"",`} {
		p := bytes.Replace(optional, []byte(`"id"`), []byte(add+`"id"`), 1)
		if _, err := DecodeCommand(frame(OpPin, p)); !errors.Is(err, ErrBadCommand) {
			t.Errorf("%s is %v, want %v", p, err, ErrBadCommand)
		}
	}
}

func TestCommandsBeyondALimitAreInvalid(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	nine := strings.Split(strings.Repeat("/a ", 9)[:26], " ")
	pin := func(change func(*SetPin)) Command {
		c := pinAs("a", 1)
		change(c)
		return c
	}
	for _, c := range []Command{
		pin(func(c *SetPin) { c.Name = long(256) }),
		pin(func(c *SetPin) { c.Name = "a\x1b" }),
		pin(func(c *SetPin) { c.Name = "" }),
		pin(func(c *SetPin) { c.Lookup = "" }),
		pin(func(c *SetPin) { c.Lookup = long(4097) }),
		pin(func(c *SetPin) { c.ID = idOf(0); c.ID[2] = 0 }),
		pin(func(c *SetPin) { c.Replicas = 0 }),
		pin(func(c *SetPin) { c.Replicas = 65 }),
		pin(func(c *SetPin) { c.Replicas = 254 }),
		pin(func(c *SetPin) { c.Replicas = 256 }),
		pin(func(c *SetPin) { c.Source = &Source{Peer: ""} }),
		pin(func(c *SetPin) { c.Source = &Source{Peer: "p", Addrs: nine} }),
		pin(func(c *SetPin) { c.Source = &Source{Peer: "p", Addrs: []string{long(129)}} }),
		pin(func(c *SetPin) { c.Source = &Source{Peer: "p", Addrs: []string{"/a\n/b"}} }),
		pin(func(c *SetPin) { c.Source = &Source{Peer: "p q"} }),
		&Unpin{Expect: ExpectAny}, &Unpin{Lookup: "a"}, &Unpin{Lookup: "a", ID: new(idOf(1)), Expect: ExpectAny},
		&Found{Name: "a", Recovery: Key{1}}, &Found{Group: Digest{1}, Recovery: Key{1}}, &Found{Group: Digest{1}, Name: "a"},
		&SetMember{}, &SetMember{Peer: Peer(long(129))}, &SetMember{Peer: "p", Zone: new(long(65))}, &SetMember{Peer: "p", Addrs: &nine},
		&SetMember{Peer: "p", Vote: Voter, MayVote: new(false)},
		&Grant{Peer: "p"}, &Grant{Peer: "p", Role: RoleAdmin | RoleReader}, &Revoke{Peer: "p"},
		&Invite{Role: AsVoter, Expires: 1}, &Invite{Token: Key{1}, Expires: 1}, &Invite{Token: Key{1}, Role: AsVoter},
		&Join{}, &Uninvite{},
		&Epoch{Epoch: 2}, &Epoch{Epoch: 2, Members: []EpochMember{{"a", Learner}}}, &Epoch{Epoch: 2, Members: []EpochMember{{"b", Voter}, {"a", Voter}}},
		&Epoch{Epoch: 2, Members: []EpochMember{{"a", Voter}}, Admin: "b"}, &Epoch{Epoch: 2, Members: make([]EpochMember, 1001)},
		&Copies{}, &Copies{Peer: "p"}, &Copies{Held: []content.ID{idOf(1)}}, &Copies{Peer: "p", Held: make([]content.ID, CopiesMax), Gone: make([]content.ID, 1)},
		&Away{}, &Away{Away: []Peer{"p q"}}, &Away{Proven: make([]Peer, MembersMax+1)}, &Away{Back: []Peer{"p", ""}},
		&Settings{}, &Settings{Grace: new(int64(0))}, &Settings{Grace: new(int64(GraceMsMin - 1))}, &Settings{Grace: new(int64(GraceMsMax + 1))},
		&Found{Group: Digest{1}, Name: "a", Recovery: Key{1}, Grace: 1},
	} {
		*c.header() = header(1, "ann")
		checkIsInvalid(t, c)
	}
	for _, h := range []Header{{}, {Client{}, 1, "a", 1}, {Client{1}, 0, "a", 1}, {Client{1}, 1, "", 1}, {Client{1}, 1, "a", 0}} {
		checkIsInvalid(t, &Expire{h})
	}
}

// checkIsInvalid checks that c is not encoded, and changes nothing if it comes.
func checkIsInvalid(t *testing.T, c Command) {
	t.Helper()
	if _, err := EncodeCommand(c); !errors.Is(err, ErrInvalidCommand) {
		t.Errorf("EncodeCommand(%+v) is %v, want %v", c, err, ErrInvalidCommand)
	}
	payload, err := encodePayload(c)
	if err != nil {
		return // such can't come
	}
	if _, err := DecodeCommand(frame(c.Op(), payload)); err != nil {
		return // nor can such
	}
	s := New()
	if r, err := s.Apply(1, frame(c.Op(), payload)); err != nil || r.Code != Invalid || r.Text == "" || s.sessions.length > 0 {
		t.Errorf("%s is %+v, %v, want %s", payload, r, err, Invalid)
	}
}

func FuzzDecodeCommand(f *testing.F) {
	for _, c := range someCommands() {
		frame := must(EncodeCommand(c))
		f.Add(frame[1], frame[frameHeaderBytes:])
	}
	f.Fuzz(func(t *testing.T, op byte, payload []byte) {
		data := frame(Op(op), payload)
		c, err := DecodeCommand(data)
		if err != nil {
			return
		}
		again, err := encodePayload(c)
		if err != nil || !bytes.Equal(again, payload) {
			t.Errorf("%s encodes to %s, %v", payload, again, err)
		}
		var loose any
		if err := json.Unmarshal(payload, &loose); err != nil {
			t.Errorf("%s is not JSON: %v", payload, err)
		}
		g := newGroup(t)
		r, err := g.Apply(2, data)
		if err != nil || !codeWords.known(r.Code) {
			t.Errorf("Apply(%s) = %+v, %v", payload, r, err)
		}
		if _, err := Decode(bytes.NewReader(encoded(t, g.State))); err != nil {
			t.Errorf("after %s the state does not decode: %v", payload, err)
		}
	})
}
