package coord

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
)

// change is a change of Raft's configuration by one member.
type change int

const (
	addLearner change = iota
	addVoter
	demote
	remove
)

// configure commits one change of the configuration.
func (m *member) configure(ctx context.Context, c change, p pinset.Peer) error {
	id, address, wait := raft.ServerID(p), raft.ServerAddress(p), m.timing.scale(changeTimeout)
	var f raft.IndexFuture
	switch c {
	case addLearner:
		f = m.raft.AddNonvoter(id, address, 0, wait)
	case addVoter:
		f = m.raft.AddVoter(id, address, 0, wait)
	case demote:
		f = m.raft.DemoteVoter(id, 0, wait)
	case remove:
		f = m.raft.RemoveServer(id, 0, wait)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return leadership(await(ctx, f))
}

// transfer hands leadership to another voter.
func (m *member) transfer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, m.timing.scale(handOverTimeout))
	defer cancel()
	return leadership(await(ctx, m.raft.LeadershipTransfer()))
}

// transferToAny hands leadership to another voter at random. Raft picks the most
// advanced, which may be the same one again and again.
func (m *member) transferToAny(ctx context.Context) error {
	voters := slices.DeleteFunc(m.servers(), func(s server) bool {
		return !s.voter || s.id == pinset.Peer(m.carrier.LocalAddr())
	})
	if len(voters) == 0 {
		return errors.New("there is no other voter")
	}
	to := voters[rand.IntN(len(voters))].id
	ctx, cancel := context.WithTimeout(ctx, m.timing.scale(handOverTimeout))
	defer cancel()
	return leadership(await(ctx, m.raft.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(to))))
}

// hurry has this member stand for election sooner when the leader's streams have
// all ended: a process that died leaves that behind at once, and Raft by itself
// goes by silence alone. It is a hint, not more: if the leader is well, who else
// hears it does not grant the pre-vote.
func (m *member) hurry(lost peer.ID) {
	if lost == m.leader() && !m.leads() {
		m.hurried.Store(time.Now().UnixNano())
		m.setPatience(leaseTimeout)
	}
}

// calm takes hurry back once a leader has been heard since.
func (m *member) calm() {
	if since := m.hurried.Load(); since > 0 && (m.leads() || m.raft.LastContact().UnixNano() > since) {
		m.hurried.Store(0)
		m.setPatience(electionTimeout)
	}
}

// setPatience says how long a leader may be silent. Raft allows no less than
// leaseTimeout, and draws 1 to 2 times that.
func (m *member) setPatience(d time.Duration) {
	c := m.raft.ReloadableConfig()
	if d = m.timing.scale(d); c.HeartbeatTimeout == d {
		return
	}
	c.HeartbeatTimeout = d
	if err := m.raft.ReloadConfig(c); err != nil {
		panic(fmt.Sprintf("Raft refuses our heartbeat timeout of %v: %v", d, err))
	}
}
