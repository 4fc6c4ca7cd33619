package pinset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Errors of [DecodeCommand], and so of [State.Apply]. The member must stop: it
// can't know what the others make of the command.
var (
	// ErrUnknownCommand is of a version or op that this build does not have: a
	// newer one is needed.
	ErrUnknownCommand = errors.New("unknown command")
	// ErrBadCommand is of bytes that no build writes: the log is damaged.
	ErrBadCommand = errors.New("bad command")
)

// ErrInvalidCommand is of a command that Apply would answer Invalid whatever the
// state: a field is missing or beyond its limit.
var ErrInvalidCommand = errors.New("invalid command")

const frameHeaderBytes = 6

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// EncodeCommand returns c as a frame. The error wraps [ErrInvalidCommand].
func EncodeCommand(c Command) ([]byte, error) {
	if reason := checkCommand(c); reason != "" {
		return nil, fmt.Errorf("%w: %s: %s", ErrInvalidCommand, c.Op(), reason)
	}
	payload, err := encodePayload(c)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %v", ErrInvalidCommand, c.Op(), err)
	}
	frame := frame(c.Op(), payload)
	if len(frame) > CommandBytesMax {
		return nil, fmt.Errorf("%w: %s: %d bytes, at most %d", ErrInvalidCommand, c.Op(), len(frame), CommandBytesMax)
	}
	return frame, nil
}

func frame(op Op, payload []byte) []byte {
	f := make([]byte, frameHeaderBytes, frameHeaderBytes+len(payload))
	f[0], f[1] = commandVersion, byte(op)
	f = append(f, payload...)
	binary.BigEndian.PutUint32(f[2:], frameSum(f))
	return f
}

func frameSum(f []byte) uint32 {
	return crc32.Update(crc32.Checksum(f[:2], castagnoli), castagnoli, f[frameHeaderBytes:])
}

// DecodeCommand reads a frame, which it does not keep. The error wraps
// [ErrUnknownCommand] or [ErrBadCommand]. Fields may be beyond their limits.
func DecodeCommand(f []byte) (Command, error) {
	if len(f) < frameHeaderBytes || len(f) > CommandBytesMax {
		return nil, fmt.Errorf("%w: %d bytes, want %d to %d", ErrBadCommand, len(f), frameHeaderBytes, CommandBytesMax)
	}
	if sum := frameSum(f); binary.BigEndian.Uint32(f[2:]) != sum {
		return nil, fmt.Errorf("%w: its checksum is %x, want %08x", ErrBadCommand, f[2:6], sum)
	}
	if f[0] != commandVersion {
		return nil, fmt.Errorf("%w: version %d, this build knows version %d", ErrUnknownCommand, f[0], commandVersion)
	}
	c := newCommand(Op(f[1]))
	if c == nil {
		return nil, fmt.Errorf("%w: number %d, this build knows 1 to %d", ErrUnknownCommand, f[1], len(opWords)-1)
	}
	if err := decodePayload(f[frameHeaderBytes:], c); err != nil {
		return nil, fmt.Errorf("%w: %s: %v", ErrBadCommand, c.Op(), err)
	}
	return c, nil
}

// Statement is what a recovery key signs to begin e, in the group of that ID.
// It is an envelope's signed bytes of kind "epoch", whose content is the
// canonical JSON {"v":1,"group","epoch","state","members","admin"?}.
func (e *Epoch) Statement(group Digest) []byte {
	p := &payload{b: []byte("p2pshare/envelope/1\x00epoch\x00")}
	v := int64(1)
	integer(p, "v", &v)
	p.plain("group", &group)
	e.statement(p)
	p.literal("}")
	if p.err != nil {
		panic("pinset: epoch: " + p.err.Error()) // its fields were checked
	}
	return p.b
}

// checkCommand returns why c is invalid in any state, "" if it is not.
func checkCommand(c Command) string {
	h := c.header()
	return first(
		unless(h.Client != Client{}, "client is zero"),
		checkRange("seq", h.Seq, 1, IntMax),
		checkPeer("by", h.By),
		checkRange("at", h.At, 1, IntMax),
		c.check(),
	)
}

func (c *Found) check() string {
	return first(
		unless(c.Group != Digest{}, "group is zero"),
		unless(c.Recovery != Key{}, "recovery is zero"),
		checkText("name", c.Name, 1, NameBytesMax),
		checkPlace(c.Capacity, c.Zone, c.Addrs),
		unless(c.Grace == 0 || checkGrace(c.Grace) == "", checkGrace(c.Grace)),
	)
}

func checkGrace(ms int64) string { return checkRange("grace", ms, GraceMsMin, GraceMsMax) }

func (c *SetPin) check() string {
	return first(
		checkName(c.Name, c.Lookup),
		unless(!c.ID.IsZero(), "id is zero"),
		unless(kindWords.known(c.Kind), "kind is not file or dir"),
		checkRange("size", c.Size, 0, IntMax),
		checkReplicas(c.Replicas),
		checkRange("expires", c.Expires, 0, IntMax),
		checkSource(c.Source),
		checkRange("expect", c.Expect, ExpectAny, IntMax),
	)
}

func (c *Unpin) check() string {
	switch {
	case (c.Lookup == "") == (c.ID == nil):
		return "want either lookup or id"
	case c.Expect == ExpectNone:
		return "expects nothing to unpin"
	case c.ID != nil && c.ID.IsZero():
		return "id is zero"
	}
	return first(
		checkText("lookup", c.Lookup, 0, LookupBytesMax),
		checkRange("expect", c.Expect, ExpectAny, IntMax),
	)
}

func (c *SetMember) check() string {
	var capacity int64
	var zone string
	var addrs []string
	if c.Capacity != nil {
		capacity = *c.Capacity
	}
	if c.Zone != nil {
		zone = *c.Zone
	}
	if c.Addrs != nil {
		addrs = *c.Addrs
	}
	return first(
		checkPeer("peer", c.Peer),
		unless(c.Peer != Everyone, "everyone is no member"),
		unless(c.Vote == 0 || voteWords.known(c.Vote), "vote is not voter or learner"),
		unless(c.MayVote == nil || *c.MayVote || c.Vote != Voter, "is to vote, and may not"),
		unless(c.Roles == nil || *c.Roles < rolesEnd, "roles are unknown"),
		checkPlace(capacity, zone, addrs),
	)
}

func (c *Remove) check() string { return checkPeer("peer", c.Peer) }
func (c *Grant) check() string {
	return first(checkPeer("peer", c.Peer), checkRole(c.Role),
		unless(c.Peer != Everyone || c.Role == RoleReader, "everyone may be a reader, and nothing else"))
}
func (c *Revoke) check() string { return first(checkPeer("peer", c.Peer), checkRole(c.Role)) }

func (c *Invite) check() string {
	return first(
		unless(c.Token != Key{}, "token is zero"),
		unless(admissionWords.known(c.Role), "role is not voter, storage, writer, reader or voter_at_once"),
		checkRange("expires", c.Expires, 1, IntMax),
	)
}

func (c *Join) check() string {
	return first(unless(c.Token != Key{}, "token is zero"), checkPlace(c.Capacity, c.Zone, c.Addrs))
}

func (c *Uninvite) check() string { return unless(c.Token != Key{}, "token is zero") }
func (c *Expire) check() string   { return "" }
func (c *Mark) check() string     { return checkRange("index", c.Index, 0, IntMax) }

func (c *Epoch) check() string {
	if reason := first(
		checkRange("epoch", c.Epoch, 1, IntMax),
		checkRange("members", len(c.Members), 1, MembersMax),
	); reason != "" {
		return reason
	}
	voters, admin := false, c.Admin == ""
	for i, m := range c.Members {
		if reason := first(
			checkPeer("a member", m.Peer),
			unless(voteWords.known(m.Vote), "a vote is not voter or learner"),
			unless(i == 0 || c.Members[i-1].Peer < m.Peer, "members are not in order"),
		); reason != "" {
			return reason
		}
		voters = voters || m.Vote == Voter
		admin = admin || m.Peer == c.Admin
	}
	return first(unless(voters, "no member is a voter"), unless(admin, "admin is not a member"))
}

func (c *Copies) check() string {
	count := len(c.Gone) + len(c.Held) + len(c.Unproven)
	return first(checkPeer("peer", c.Peer), checkRange("contents", count, 1, CopiesMax))
}

func (c *Away) check() string {
	lists := [][]Peer{c.Away, c.Back, c.Unproven, c.Proven}
	count := 0
	for _, list := range lists {
		count += len(list)
		for _, p := range list {
			if reason := checkPeer("a member", p); reason != "" {
				return reason
			}
		}
	}
	return checkRange("members", count, 1, MembersMax)
}

func (c *Settings) check() string {
	if c.Grace == nil {
		return "changes nothing"
	}
	return checkGrace(*c.Grace)
}

// first returns the first reason that is not empty.
func first(reasons ...string) string {
	for _, r := range reasons {
		if r != "" {
			return r
		}
	}
	return ""
}

func unless(ok bool, reason string) string {
	if ok {
		return ""
	}
	return reason
}

func checkRange[T ~int | ~int64 | ~uint64](field string, v, least, most T) string {
	if v < least || v > most {
		return fmt.Sprintf("%s is %d, want %d to %d", field, v, least, most)
	}
	return ""
}

func checkReplicas(n int64) string {
	if n == ReplicasAll {
		return ""
	}
	return checkRange("replicas", n, 1, ReplicasMax)
}

// checkText bounds a text that people see. It must be UTF-8 without control
// characters: that it is in its form was checked by who makes the command.
func checkText(field, s string, least, most int) string {
	if len(s) < least || len(s) > most {
		return fmt.Sprintf("%s has %d bytes, want %d to %d", field, len(s), least, most)
	}
	ascii := true
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return field + " has a control character"
		}
		ascii = ascii && s[i] < utf8.RuneSelf
	}
	switch {
	case ascii:
		return ""
	case !utf8.ValidString(s):
		return field + " is not UTF-8"
	case strings.ContainsFunc(s, unicode.IsControl):
		return field + " has a control character"
	}
	return ""
}

func checkName(display, lookup string) string {
	if (display == "") != (lookup == "") {
		return "name or lookup is missing"
	}
	return first(
		checkText("name", display, 0, NameBytesMax),
		checkText("lookup", lookup, 0, LookupBytesMax),
	)
}

func checkPeer(field string, p Peer) string {
	if len(p) < 1 || len(p) > PeerBytesMax {
		return fmt.Sprintf("%s has %d bytes, want 1 to %d", field, len(p), PeerBytesMax)
	}
	for i := range len(p) {
		if p[i] <= ' ' || p[i] > '~' {
			return field + " is not a peer ID"
		}
	}
	return ""
}

func checkAddrs(addrs []string) string {
	if len(addrs) > AddrsMax {
		return fmt.Sprintf("%d addresses, at most %d", len(addrs), AddrsMax)
	}
	for _, a := range addrs {
		if reason := checkText("an address", a, 1, AddrBytesMax); reason != "" {
			return reason
		}
	}
	return ""
}

func checkSource(s *Source) string {
	if s == nil {
		return ""
	}
	return first(checkPeer("the source's peer", s.Peer), checkAddrs(s.Addrs))
}

// checkPlace is of what every member tells about itself.
func checkPlace(capacity int64, zone string, addrs []string) string {
	return first(
		checkRange("capacity", capacity, 0, IntMax),
		checkText("zone", zone, 0, ZoneBytesMax),
		checkAddrs(addrs),
	)
}

func checkRole(r Roles) string {
	return unless(r > 0 && r < rolesEnd && r&(r-1) == 0, "want one role of admin, writer, reader, storage")
}
