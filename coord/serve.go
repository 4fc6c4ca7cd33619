package coord

import (
	"bufio"
	"context"
	"errors"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/node"
	"golang.org/x/sync/errgroup"
)

// serveRaft serves a Raft stream of any of this node's groups.
func (c *Coord) serveRaft(ctx context.Context, s network.Stream) error {
	from := s.Conn().RemotePeer()
	o, _, err := c.admit(s, func(o opening) admission {
		g, err := c.group(o.Group)
		if err != nil {
			return noSuchGroup
		}
		return g.admitRaft(from, o)
	})
	if err != nil {
		return err
	}
	g, err := c.group(o.Group)
	if err != nil {
		return err
	}
	m, err := g.voting()
	if err != nil {
		return err
	}
	return m.carrier.serve(ctx, s)
}

// admit is admit, for a stranger when there is room.
func (c *Coord) admit(s network.Stream, decide func(opening) admission) (opening, admission, error) {
	if !c.acquainted(s.Conn().RemotePeer()) {
		select {
		case c.opening <- struct{}{}:
			defer func() { <-c.opening }()
		default:
			return opening{}, admission{}, errors.New("too many strangers open streams at once")
		}
	}
	return admit(s, decide)
}

// acquainted says whether a peer is or was in any of the groups.
func (c *Coord) acquainted(p peer.ID) bool {
	for _, g := range c.Groups() {
		if g.acquainted(g.known(), p) {
			return true
		}
	}
	return false
}

var noSuchGroup = admission{Error: RefusedGroup, Message: "this peer is not in that group"}

// serveGroup serves a stream of requests.
func (c *Coord) serveGroup(ctx context.Context, s network.Stream) error {
	from := s.Conn().RemotePeer()
	o, a, err := c.admit(s, func(o opening) admission {
		g, err := c.group(o.Group)
		if err != nil {
			return noSuchGroup
		}
		return g.admitGroup(from, o)
	})
	if a.joins {
		defer func() { <-c.joiners }()
	}
	if err != nil {
		return err
	}
	defer context.AfterFunc(c.streams, func() { s.Reset() })()
	limits := memberLimits
	if g, err := c.group(o.Group); err == nil && !a.joins {
		g.reports.connected(pinset.Peer(from.String()), 1)
		defer g.reports.connected(pinset.Peer(from.String()), -1)
	}
	if a.joins {
		limits = joinerLimits
		defer time.AfterFunc(joinerWait, func() { s.Reset() }).Stop()
	}
	return serveRequests(ctx, s, limits, func(ctx context.Context, r request) answer {
		if a.joins && r.Op != opJoin {
			return answer{Tag: r.Tag, Error: wordDenied, Message: "who has no role in the group may only join it"}
		}
		g, err := c.group(o.Group) // which may have been left and joined again
		if err != nil {
			return answer{Tag: r.Tag, Error: wordStopped, Message: err.Error()}
		}
		if g.known().Epoch != o.Epoch {
			s.Reset() // what it was let in as is over
			return answer{Tag: r.Tag, Error: wordStopped, Message: "a new epoch of the group has begun"}
		}
		done := g.serve(ctx, pinset.Peer(from.String()), a.Nonce, r)
		if done.Error == wordDenied && !a.joins && g.hasRemoved(from) {
			s.Reset() // it is told why when it comes again
		}
		return done
	})
}

// streamLimits bound what one stream of requests takes of this peer.
type streamLimits struct {
	line  int // bytes of a request
	works int // requests at work at once: further ones wait unread
	pages int // of those, how many may fill a page: that is held until it is written
}

var (
	memberLimits = streamLimits{requestMax, requestsMax, pagesAtOnce}
	joinerLimits = streamLimits{joinMax, 1, 1}
)

// serveRequests reads requests until the stream ends, and writes the answers as
// they come.
func serveRequests(ctx context.Context, s network.Stream, limits streamLimits, do func(context.Context, request) answer) error {
	in := bufio.NewReaderSize(s, 64<<10)
	out := newLineWriter(s)
	var heard time.Time
	ctx, cancel := context.WithCancel(ctx)
	var tasks errgroup.Group
	tasks.SetLimit(limits.works)
	pages := make(chan struct{}, limits.pages)
	defer tasks.Wait()
	defer cancel() // nobody is there any more for what is at work
	for {
		if now := time.Now(); now.Sub(heard) > groupIdle/10 { // a deadline is a timer: not for each line
			if err := s.SetReadDeadline(now.Add(groupIdle)); err != nil {
				return err
			}
			heard = now
		}
		line, err := readLine(in, limits.line)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var r request
		if err := node.DecodeStrict(line, &r); err != nil {
			return err
		}
		tasks.Go(func() error {
			if isRead(r.Op) && r.Op != opResolve {
				select {
				case pages <- struct{}{}:
					defer func() { <-pages }()
				case <-ctx.Done():
					return nil
				}
			}
			return out.write(do(ctx, r))
		})
	}
}

// readLine reads a line of at most max bytes.
func readLine(in *bufio.Reader, max int) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > max:
			return nil, errors.New("the line is too long")
		case err == nil:
			return line[:len(line)-1], nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}
