package coord

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"golang.org/x/sync/errgroup"
)

// Quorum is how many voters there are, and how many of them answer.
type Quorum struct {
	Voters int
	Up     int
}

// Majority is how many voters decide.
func (q Quorum) Majority() int { return q.Voters/2 + 1 }

// CanLose is how many more may fail before the group can't decide.
func (q Quorum) CanLose() int { return max(0, q.Up-q.Majority()) }

// Proposal is a change of who is in a group: with Peer alone that it goes, with
// Role that it loses that role, with Admit that somebody comes.
type Proposal struct {
	Peer  Peer
	Role  Roles
	Admit Admission
}

// Plan is what a change would make of a group.
type Plan struct {
	Before, After Quorum
	NewLeader     bool     // the leader goes, and another is elected
	Warnings      []string // for people
	// Unsafe tells why the change costs safety: one that has no other way should
	// not be made without asking. "" for a change that costs nothing.
	Unsafe string
}

// view is what a plan is made of.
type view struct {
	members []Member
	up      map[Peer]bool
	leader  Peer
	admins  int
}

// judge tells what a proposal makes of the group.
func judge(v view, p Proposal) Plan {
	plan := Plan{Before: quorumOf(v.members, v.up)}
	plan.After = plan.Before
	admins := v.admins
	i := slices.IndexFunc(v.members, func(m Member) bool { return m.Peer == p.Peer })
	switch {
	case p.Admit != 0:
		plan.admit(v, p.Admit)
	case i < 0 && p.Role == 0:
		plan.warn("%s is no member: there is nobody to remove", p.Peer)
		return plan
	case p.Role != 0:
		if p.Role.Has(RoleAdmin) && i >= 0 && v.members[i].Roles.Has(RoleAdmin) {
			admins--
		}
	default:
		plan.remove(v, v.members[i])
		if v.members[i].Roles.Has(RoleAdmin) {
			admins--
		}
	}
	switch {
	case admins == v.admins:
	case admins == 0:
		plan.unsafe("the group would be left without an admin, which it does not allow")
	case admins == 1:
		plan.unsafe("one admin would be left, one disk away from needing the recovery key")
	}
	plan.warnOf(v)
	return plan
}

func quorumOf(members []Member, up map[Peer]bool) (q Quorum) {
	for _, m := range members {
		if m.Vote == Voter {
			q.Voters++
			if up[m.Peer] {
				q.Up++
			}
		}
	}
	return q
}

// remove plans that a member goes.
func (plan *Plan) remove(v view, m Member) {
	if m.Vote != Voter {
		return
	}
	plan.NewLeader = m.Peer == v.leader
	plan.After.Voters--
	if v.up[m.Peer] {
		plan.After.Up--
	}
	before, after := plan.Before, plan.After
	switch {
	case after.Voters == 0:
		plan.unsafe("no voter would be left")
	case after.Up < after.Majority():
		plan.unsafe("%d of %d voters would be up, and it takes %d to decide", after.Up, after.Voters, after.Majority())
	case before.CanLose() > 0 && after.CanLose() == 0:
		plan.unsafe("none of the %d voters left could fail any more", after.Voters)
	}
}

// admit plans that somebody comes.
func (plan *Plan) admit(v view, as Admission) {
	if as != AsVoter && as != AsVoterAtOnce {
		return
	}
	coming := 1
	for _, m := range v.members {
		if m.Vote == Learner && m.MayVote {
			coming++ // waits for another one
		}
	}
	n := min(coming, votersMax-plan.Before.Voters)
	if as == AsVoter && n > 0 && (plan.Before.Voters+n)%2 == 0 {
		n--
	}
	if n <= 0 && plan.Before.Voters >= votersMax {
		plan.warn("the group has %d voters, and takes no more: it waits as learner", plan.Before.Voters)
	} else if n <= 0 {
		plan.warn("%d voters would be an even count: it waits as learner until another one is invited, or --force invites it", plan.Before.Voters+1)
	}
	plan.After.Voters += max(0, n)
	plan.After.Up += max(0, n)
}

// warnOf tells what is not as it should be afterwards.
func (plan *Plan) warnOf(v view) {
	q := plan.After
	if q.Voters%2 == 0 && q.Voters > 0 {
		plan.warn("%d voters are an even count: no more of them may fail than of %d", q.Voters, q.Voters-1)
	}
	if q.Voters < 3 {
		plan.warn("with fewer than 3 voters none may fail")
	}
	for _, m := range v.members {
		if m.Vote == Voter && !v.up[m.Peer] {
			plan.warn("voter %s is down now", m.Peer)
		}
	}
}

func (plan *Plan) warn(format string, args ...any) {
	plan.Warnings = append(plan.Warnings, fmt.Sprintf(format, args...))
}

// unsafe notes the first reason.
func (plan *Plan) unsafe(format string, args ...any) {
	if plan.Unsafe == "" {
		plan.Unsafe = fmt.Sprintf(format, args...)
	}
}

// Plan tells what a change would make of the group, and the members before and
// after it, for Moves. It asks every voter whether it is up.
func (cl *Client) Plan(ctx context.Context, p Proposal) (plan Plan, before, after []Member, err error) {
	st, _, err := cl.Status(ctx)
	if err != nil {
		return plan, nil, nil, err
	}
	before, _, err = cl.Members(ctx, ReadOptions{Stale: true})
	if err != nil {
		return plan, nil, nil, err
	}
	v := view{members: before, leader: st.Leader, admins: st.Admins, up: map[Peer]bool{}}
	for p := range cl.Poll(ctx, before) {
		v.up[p] = true
	}
	plan = judge(v, p)
	switch {
	case p.Admit == AsVoter || p.Admit == AsVoterAtOnce || p.Admit == AsStorage:
		after = append(slices.Clone(before), newcomer(before))
	case p.Admit == 0 && p.Role == 0:
		after = slices.DeleteFunc(slices.Clone(before), func(m Member) bool { return m.Peer == p.Peer })
	default:
		after = before
	}
	return plan, before, after, nil
}

// newcomer stands for a member that nobody knows yet, with a usual capacity.
func newcomer(members []Member) Member {
	m := Member{Peer: "newcomer", Vote: Learner, Roles: RoleReader | RoleStorage}
	holders := int64(0)
	for _, x := range members {
		if x.Roles.Has(RoleStorage) && x.Capacity > 0 {
			m.Capacity += (x.Capacity - m.Capacity) / (holders + 1)
			holders++
		}
	}
	return m
}

// Poll asks members how they are, all at once. It returns those that answered.
func (cl *Client) Poll(ctx context.Context, members []Member) map[Peer]Status {
	ctx, cancel := context.WithTimeout(ctx, pollWait)
	defer cancel()
	var mu sync.Mutex
	found := map[Peer]Status{}
	var tasks errgroup.Group
	tasks.SetLimit(pollsMax)
	for _, m := range members {
		tasks.Go(func() error {
			id, err := peer.Decode(string(m.Peer))
			if err != nil {
				return nil
			}
			if st, err := cl.StatusOf(ctx, id); err == nil {
				mu.Lock()
				defer mu.Unlock()
				found[m.Peer] = st
			}
			return nil
		})
	}
	tasks.Wait()
	return found
}

// Moves counts the pins, and those of them whose planned holders differ between
// two sets of members, as far as this peer knows the pins.
func (cl *Client) Moves(ctx context.Context, before, after []Member) (pins, moved int, err error) {
	var list []pinset.Pin
	for p, err := range cl.Pins(ctx, ReadOptions{Stale: true}) {
		if err != nil {
			return len(list), 0, err
		}
		list = append(list, pinset.Pin{ID: p.ID, Kind: p.Kind, Size: p.Size, Replicas: p.Replicas, By: p.By, Index: p.Index})
	}
	moved, _ = pinset.Imagine(holdersOf(before), list).Moves(pinset.Imagine(holdersOf(after), list))
	return len(list), moved, nil
}

func holdersOf(members []Member) (list []pinset.Member) {
	for _, m := range members {
		if m.Roles.Has(RoleStorage) {
			list = append(list, pinset.Member{Peer: m.Peer, Capacity: m.Capacity, Zone: m.Zone, NoStore: m.NoStore})
		}
	}
	return list
}
