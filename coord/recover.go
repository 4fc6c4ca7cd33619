package coord

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/coord/internal/raftlog"
)

// Standing is how far a member's log goes.
type Standing struct {
	Peer     Peer   `json:"peer"`
	Vote     Vote   `json:"vote"`
	Self     bool   `json:"self,omitempty"`
	Answers  bool   `json:"answers"`
	LastTerm uint64 `json:"last_term"` // of the log's last entry
	Last     uint64 `json:"last"`      // its index
	Leader   Peer   `json:"leader,omitempty"`
	Problem  string `json:"problem,omitempty"` // why it does not answer
}

// behind compares logs as Raft does (dissertation, §3.6.1).
func (s Standing) behind(o Standing) bool {
	return s.LastTerm < o.LastTerm || s.LastTerm == o.LastTerm && s.Last < o.Last
}

// Survey is what a member can find out about a group that may have lost its quorum.
type Survey struct {
	Epoch   uint64        // that the group is in
	Admin   bool          // this peer is one: it needs no recovery key
	Split   error         // two recoveries began the epoch: ErrSplit. Members is empty then
	Members []Standing    // this one first
	Age     time.Duration // since this member heard from a leader; negative when it has not
}

// Leader returns who leads, as far as this member or any voter knows, "" for nobody.
func (s Survey) Leader() Peer {
	for _, m := range s.Members {
		if m.Leader != "" && (m.Self || m.Vote == Voter) {
			return m.Leader
		}
	}
	return ""
}

// Ahead returns a voter whose log is ahead of this member's, "" if there is none
// among those that answer.
func (s Survey) Ahead() Peer {
	if len(s.Members) == 0 {
		return ""
	}
	best := s.Members[0]
	for _, m := range s.Members[1:] {
		if m.Answers && m.Vote == Voter && best.behind(m) {
			best = m
		}
	}
	if best.Self {
		return ""
	}
	return best.Peer
}

// surveyWait bounds asking the members.
const surveyWait = 5 * time.Second

// Survey asks all members for their logs. It needs no quorum.
func (c *Coord) Survey(ctx context.Context, id GroupID) (Survey, error) {
	g, err := c.group(id)
	if err != nil {
		return Survey{}, err
	}
	f := g.known()
	if f.Split != nil {
		return Survey{Epoch: f.Epoch, Admin: slices.Contains(f.Admins, c.self()), Split: f.Split.err()}, nil
	}
	m, err := g.running()
	if err != nil {
		return Survey{}, err
	}
	s := Survey{Epoch: f.Epoch, Age: m.age()}
	self := c.self()
	m.fsm.view(func(state *pinset.State) {
		s.Admin = state.Roles(self).Has(pinset.RoleAdmin)
		for _, x := range state.Members() {
			s.Members = append(s.Members, Standing{Peer: x.Peer, Vote: x.Vote, Self: x.Peer == self})
		}
	})
	slices.SortStableFunc(s.Members, func(a, b Standing) int {
		return cmp.Or(boolOrder(b.Self)-boolOrder(a.Self), int(b.Vote)-int(a.Vote))
	})
	if len(s.Members) == 0 || !s.Members[0].Self {
		return Survey{}, fmt.Errorf("%w: it has not learned yet who is in the group", ErrStopped)
	}
	ctx, cancel := context.WithTimeout(ctx, surveyWait)
	defer cancel()
	var wg sync.WaitGroup
	for i := range s.Members {
		wg.Go(func() { g.stand(ctx, &s.Members[i]) })
	}
	wg.Wait()
	return s, nil
}

func boolOrder(b bool) int {
	if b {
		return 1
	}
	return 0
}

// stand asks one member for its log.
func (g *Group) stand(ctx context.Context, s *Standing) {
	id, err := peer.Decode(string(s.Peer))
	if err != nil {
		s.Problem = err.Error()
		return
	}
	st, err := g.c.Client(g.id).StatusOf(ctx, id)
	if err != nil {
		s.Problem = err.Error()
		return
	}
	s.Answers, s.LastTerm, s.Last, s.Leader = true, st.LastTerm, st.Last, st.Leader
}

// RecoverOptions say how to go on without a quorum.
type RecoverOptions struct {
	// Key is the private half of the group's recovery key. Nil: this peer is an
	// admin, and signs itself.
	Key ed25519.PrivateKey
	// Seen is this member's Standing as a person saw it and agreed to. The log must
	// end there still.
	Seen Standing
	// Behind agrees to go on with this member's log although one that answers is
	// ahead of it.
	Behind bool
}

// Errors of Recover, besides ErrDenied for who may not.
var (
	// ErrHasLeader: somebody leads, so that nothing is lost.
	ErrHasLeader = errors.New("the group has a leader: there is nothing to recover")
	// ErrAhead: another member's log goes further. Recover there.
	ErrAhead = errors.New("another member's log goes further")
	// ErrMoved: this member's log has grown since it was looked at.
	ErrMoved = errors.New("the member's log has changed since it was shown")
)

// Recover begins a new epoch of a group that has lost its quorum for good, with
// this member as only voter. Members that answer now, and are in no group of their
// own, come along as learners; all others are out, and are refused and told when
// they return. What is in this member's log counts as committed; what others have
// committed without it is lost. In a group that is split it is how a person decides
// for this side: the others stay stopped, and can leave and join again.
//
// Errors: ErrHasLeader, ErrAhead, ErrMoved, ErrDenied, those of the disk, and that
// of ctx, after which the epoch may have begun all the same.
func (c *Coord) Recover(ctx context.Context, id GroupID, o RecoverOptions) (epoch uint64, err error) {
	g, err := c.group(id)
	if err != nil {
		return 0, err
	}
	survey, err := c.Survey(ctx, id)
	if err != nil {
		return 0, err
	}
	if survey.Split == nil {
		switch self := survey.Members[0]; {
		case survey.Leader() != "":
			return 0, ErrHasLeader
		case survey.Ahead() != "" && !o.Behind:
			return 0, fmt.Errorf("%w: that of %s", ErrAhead, survey.Ahead())
		case self.Last != o.Seen.Last || self.LastTerm != o.Seen.LastTerm:
			return 0, ErrMoved
		}
	}
	key, err := g.known().epochKey(o.Key, c.node.Key(), c.self())
	if err != nil {
		return 0, err
	}
	if err := g.command(ctx, func(ctx context.Context) error { return g.renew(key, survey) }); err != nil {
		return 0, err
	}
	return g.known().Epoch, g.awaitLead(ctx)
}

// awaitLead waits until this member, the only voter, leads.
func (g *Group) awaitLead(ctx context.Context) error {
	tick := time.NewTicker(retryMax)
	defer tick.Stop()
	for {
		if m, err := g.running(); err == nil && m.leads() {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// renew begins the next epoch on this member, while Raft does not run. A crash
// leaves the old epoch, or one that begin finishes.
func (g *Group) renew(key crypto.PrivKey, survey Survey) error {
	files, err := openFiles(g.dir, g.id)
	if err != nil {
		return err
	}
	defer files.close()
	next, err := files.renew(g.known(), key, g.survivors(survey), g.c.self())
	if err != nil {
		return err
	}
	if err := g.change(func(f *groupFile) {
		next.Members, next.Split, next.Former = f.Members, nil, nil
		for _, k := range slices.Concat(f.Members, f.Former) {
			if !next.has(k.Peer) {
				next.Former = append(next.Former, k)
			}
		}
		*f = next
	}); err != nil {
		return err
	}
	g.c.links.drop(g.id)
	g.log.Warn("this member begins a new epoch of the group", "epoch", next.Epoch)
	return g.finish(files)
}

// renew has the state begin the next epoch with those members, of whom voter is
// the one that votes, and returns what group.json is to say.
func (f *groupFiles) renew(known groupFile, key crypto.PrivKey, members []pinset.EpochMember, voter pinset.Peer) (groupFile, error) {
	if len(known.Epochs) >= epochsMax {
		return known, fmt.Errorf("the group has had %d epochs, which is all it can have: make a new group", known.Epoch)
	}
	c := &pinset.Epoch{Epoch: known.Epoch + 1, State: f.state.Hash(), Members: members}
	if !slices.Contains(known.Admins, voter) {
		c.Admin = voter
	}
	e, err := sealEpoch(key, known.ID, c)
	if err != nil {
		return known, err
	}
	r, err := known.mayBegin(e, c.Epoch, known.Admins)
	if err != nil {
		return known, err
	}
	recovery, err := known.recoveryPeer()
	if err != nil {
		return known, err
	}
	known.Epochs = slices.Clone(known.Epochs)
	known.enter(e, r)
	return known, f.apply(r.command(e, recovery, voter, time.Now().UnixMilli()))
}

// survivors are the members of the next epoch: this one votes.
func (g *Group) survivors(survey Survey) []pinset.EpochMember {
	list := []pinset.EpochMember{{Peer: g.c.self(), Vote: pinset.Voter}}
	for _, m := range survey.Members {
		if m.Answers && !m.Self {
			list = append(list, pinset.EpochMember{Peer: m.Peer, Vote: pinset.Learner})
		}
	}
	slices.SortFunc(list, func(a, b pinset.EpochMember) int { return cmp.Compare(a.Peer, b.Peer) })
	return list
}

// begin brings Raft's files to the epoch that group.json says has begun: the voter
// of its record takes its state along, the others begin anew.
func (g *Group) begin(ctx context.Context) error {
	f := g.known()
	e := f.Epochs[len(f.Epochs)-1].Record
	r, err := openEpoch(e, g.id, f.Epoch)
	if err != nil {
		return err
	}
	if r.voteOf(g.c.self()) != pinset.Voter {
		reason := "epoch " + strconv.FormatUint(f.Epoch, 10) + " of the group began without its vote"
		if err := raftlog.Wipe(g.dir, raftlog.Rejoin{Reason: reason}); err != nil {
			return err
		}
		return g.change(func(f *groupFile) { f.Begin = false })
	}
	files, err := openFiles(g.dir, g.id)
	if err != nil {
		return err
	}
	defer files.close()
	if info, _ := files.state.Group(); info.Epoch < f.Epoch {
		recovery, err := f.recoveryPeer()
		if err != nil {
			return err
		}
		if err := files.apply(r.command(e, recovery, g.c.self(), time.Now().UnixMilli())); err != nil {
			return err
		}
	}
	return g.finish(files)
}

// finish writes the state of the new epoch, and says so in group.json.
func (g *Group) finish(files *groupFiles) error {
	if err := files.write(g.c.self()); err != nil {
		return err
	}
	return g.change(func(f *groupFile) { f.Begin = false })
}
