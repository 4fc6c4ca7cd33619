package share

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// pipeFrom is the sharer's end of a pipe to a getter who has a name.
type pipeFrom struct {
	pipeStream
	who peer.ID
}

func (s pipeFrom) Conn() network.Conn { return namedConn{who: s.who} }

type namedConn struct {
	pipeConn
	who peer.ID
}

func (c namedConn) RemotePeer() peer.ID { return c.who }

// TestSeveralGettersOfASlowSharer has a sharer with the lowest limit there is serve
// getters with three connections each, on a clock that costs no time: nobody may
// take it for dead, and all of the rate has to be used.
func TestSeveralGettersOfASlowSharer(t *testing.T) {
	const rate = 16 << 10
	data := randomBytes(9*content.GroupSize+1000, "film")
	for _, getters := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(getters), func(t *testing.T) {
			p, _ := startPeer(t, node.Config{NoDHT: true})
			id := p.add(t, p.write(t, "film.mkv", data), AddOptions{}).ID
			synctest.Test(t, func(t *testing.T) {
				p.lib.SetLimits(rate, 0)
				defer p.lib.SetLimits(0, 0)
				ctx, cancel := context.WithCancel(t.Context())
				var serving, getting sync.WaitGroup
				defer serving.Wait()
				defer cancel()
				begun := time.Now()
				for i := range getters {
					getting.Go(func() {
						dial := func() node.Stream {
							ours, theirs := newPipe()
							serving.Go(func() { p.lib.serveData(ctx, pipeFrom{theirs, peer.ID(fmt.Sprint("getter", i))}) })
							return node.StreamOf(ours)
						}
						r := newRemote("sharer", dial())
						r.open = func(context.Context) (node.Stream, error) { return dial(), nil }
						r.widen(ctx, id)
						c := crowdOf(id, r)
						defer c.close()
						sink := &memorySink{}
						if _, err := newFetch(id, c, sink).run(ctx); err != nil {
							t.Errorf("getter %d after %s: %v", i, time.Since(begun), err)
						} else if !bytes.Equal(sink.data, data) {
							t.Errorf("getter %d has other bytes", i)
						}
					})
				}
				getting.Wait()
				least := time.Duration(getters*len(data)) * time.Second / rate
				took := time.Since(begun)
				t.Logf("%s, and at the rate %s", took, least)
				if took > least*3/2+30*time.Second {
					t.Errorf("it took %s, and at the rate it is %s", took, least)
				}
			})
		})
	}
}

// TestSlowSourceIsWaitedForAndADeadOneIsNot has a source send a frame at a rate, and
// stop for good after some bytes.
func TestSlowSourceIsWaitedForAndADeadOneIsNot(t *testing.T) {
	data := randomBytes(content.GroupSize, "slow")
	id, _ := nameContent(t, data)
	answer := newDataLiar(t, data, noLie).honest(0, dataRequest{kind: frameSpan, id: id, count: 1})
	for name, c := range map[string]struct {
		piece int           // bytes
		every time.Duration // between pieces
		stop  int           // after so many bytes
		dies  time.Duration // within so long; 0: it is waited for
	}{
		"5 KiB/s":          {1 << 10, 200 * time.Millisecond, len(answer), 0},
		"1.5 KiB/s":        {3 << 10, 2 * time.Second, len(answer), 0},
		"gusts":            {64 << 10, 15 * time.Second, len(answer), 0},
		"stalls":           {1 << 10, 200 * time.Millisecond, 100 << 10, 20*time.Second + answerStall},
		"a byte a second":  {1, time.Second, len(answer), answerStall + time.Second},
		"half of the rate": {512, time.Second, len(answer), 2*answerStall + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := newPipe()
				r := newRemote("other", node.StreamOf(ours))
				var sending sync.WaitGroup
				defer sending.Wait()
				defer r.close()
				sending.Go(func() {
					readRequest(t, theirs)
					for rest := answer[:c.stop]; len(rest) > 0; {
						n := min(c.piece, len(rest))
						if _, err := theirs.Write(rest[:n]); err != nil {
							return
						}
						rest = rest[n:]
						time.Sleep(c.every) // fake
					}
					io.Copy(io.Discard, theirs)
				})
				begun := time.Now()
				err := r.span(t.Context(), id, int64(len(data)), content.Span{Count: 1}, func(int64, []byte) error { return nil })
				took := time.Since(begun)
				if c.dies == 0 && err != nil {
					t.Errorf("given up after %s: %v", took, err)
				}
				if c.dies > 0 && (!errors.Is(err, os.ErrDeadlineExceeded) || took > c.dies) {
					t.Errorf("after %s: %v, want a deadline's error within %s", took, err, c.dies)
				}
			})
		})
	}
}
