package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/node"
)

// need says what kind of peer a command needs.
type need struct {
	service control.Service // the least that a running peer must offer
	role    node.Role       // of the peer in this process, when none runs
}

// The kinds of need there are.
var (
	needHome    = need{service: control.ServiceHome}
	needNetwork = need{service: control.ServiceNetwork, role: node.RoleVisitor}
	needServing = need{service: control.ServiceServing, role: node.RolePeer}
	needHelper  = need{service: control.ServiceServing, role: node.RoleHelper}
)

// session is a command's hold on a peer of its home.
type session struct {
	*control.Client
	// own is the peer in this process; nil when another process runs it.
	own *ownPeer
}

// homeWait is how long a command waits for a home that is locked by a peer it
// can't use: one that is starting or stopping, or that runs another command
// for a moment. Then it gives up, naming the process.
const homeWait = 10 * time.Second

// Between two attempts at a home in use. There is nothing to wait for: the lock
// of a process that ends tells nobody.
const (
	homeRetryMin = 5 * time.Millisecond
	homeRetryMax = 250 * time.Millisecond
)

// takeoversMax bounds how often a command begins again because the peer it
// used went away.
const takeoversMax = 10

// withPeer calls fn with the running peer of the home, or runs one for the
// length of fn. When a running peer goes away in the middle, and fn returns
// control.ErrGone, fn is called again with the peer that is there then: a get
// goes on from its partial file. Where that would not be sound, fn returns
// another error.
func (a *app) withPeer(ctx context.Context, s *settings, need need, fn func(context.Context, *session) error) error {
	var err error
	for range takeoversMax {
		var use *session
		if use, err = a.reach(ctx, s, need); err != nil {
			return err
		}
		if use.own != nil {
			return a.runOwn(ctx, s, use.own, fn)
		}
		a.noteUnused(s, use.Hello())
		err = fn(ctx, use)
		use.Close()
		if !isGone(err) || ctx.Err() != nil {
			return err
		}
		if hello := use.Hello(); hello.Service > control.ServiceHome { // others come and go in a moment
			a.note("the running peer (process %d) stopped; going on without it", hello.PID)
		}
	}
	return err
}

// runOwn runs the peer in this process and calls fn with a client of it, the
// same as for any other peer.
func (a *app) runOwn(ctx context.Context, s *settings, p *ownPeer, fn func(context.Context, *session) error) error {
	return p.run(ctx, func(ctx context.Context) error {
		client, err := control.Connect(ctx, s.home)
		if err != nil {
			return err
		}
		defer client.Close()
		return fn(ctx, &session{Client: client, own: p})
	})
}

// reach finds the running peer of the home, or opens one.
func (a *app) reach(ctx context.Context, s *settings, need need) (*session, error) {
	giveUp := time.NewTimer(homeWait)
	defer giveUp.Stop()
	for wait := homeRetryMin; ; wait = min(2*wait, homeRetryMax) {
		client, err := control.Connect(ctx, s.home)
		if err == nil && client.Hello().Service >= need.service {
			return &session{Client: client}, nil
		}
		if err == nil {
			client.Close()
		} else if !errors.Is(err, control.ErrNoPeer) {
			return nil, err
		}
		own, err := a.openPeer(ctx, s, need)
		if err == nil {
			return &session{own: own}, nil
		}
		if !errors.Is(err, node.ErrHomeLocked) {
			return nil, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-giveUp.C:
			return nil, err
		}
	}
}

// openAlone opens a peer for a command that must be the home's only one. A
// peer that stays is an error at once; one that is passing through is waited
// for.
func (a *app) openAlone(ctx context.Context, s *settings, need need) (*ownPeer, error) {
	use, err := a.reach(ctx, s, need)
	if err != nil {
		return nil, err
	}
	if use.own != nil {
		return use.own, nil
	}
	use.Close()
	return nil, control.ErrorOf(&node.HomeLockedError{Dir: s.home, PID: use.Hello().PID}).
		WithHint("every command uses that peer; to run another one, give it its own --home DIR")
}

// noteUnused tells that flags for running a peer were given for nothing: the
// running peer has settings of its own. --peer goes with the request.
func (a *app) noteUnused(s *settings, hello control.Hello) {
	var flags []string
	for _, row := range settingTable {
		if row.key != "peer" && row.key != "timeout" && s.values[row.key].isFlag() {
			flags = append(flags, "--"+row.flag())
		}
	}
	if len(flags) > 0 {
		a.note("%s has no effect: the running peer (process %d) has its own settings", strings.Join(flags, ", "), hello.PID)
	}
}

// note tells a person something on stderr that is no error.
func (a *app) note(format string, args ...any) {
	switch {
	case a.quiet:
	case a.json:
		a.emit(&control.Note{Message: fmt.Sprintf(format, args...)})
	default:
		fmt.Fprintf(a.io.Err, "note: "+format+"\n", args...)
	}
}
