package share

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// Upload is what goes to one peer.
type Upload struct {
	Peer  peer.ID
	Via   node.Via
	ID    content.ID // what it asked for last
	Name  Name       // empty when the library knows none
	Bytes int64      // since it opened its first stream
	Rate  int64      // bytes a second, lately
}

// uploads counts what each peer is sent that has a data stream open. Its methods
// are safe for concurrent use; the zero value is empty.
type uploads struct {
	mu     sync.Mutex
	byPeer map[peer.ID]*upload // guarded by mu, and so is what it leads to
}

type upload struct {
	via     node.Via
	streams int
	id      content.ID
	bytes   int64
	lately  window
}

// enter opens a stream, and leave closes it.
func (u *uploads) enter(p peer.ID, via node.Via) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.byPeer == nil {
		u.byPeer = map[peer.ID]*upload{}
	}
	if u.byPeer[p] == nil {
		u.byPeer[p] = &upload{}
	}
	u.byPeer[p].streams++
	u.byPeer[p].via = via
}

func (u *uploads) leave(p peer.ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.byPeer[p].streams--; u.byPeer[p].streams == 0 {
		delete(u.byPeer, p)
	}
}

// sent counts bytes of id that go to p, which has a stream open.
func (u *uploads) sent(p peer.ID, id content.ID, bytes int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	to := u.byPeer[p]
	to.id = id
	to.bytes += int64(bytes)
	now := time.Now()
	if n := len(to.lately); n == 0 || now.Sub(to.lately[n-1].at) >= progressEvery {
		to.lately.rate(now, to.bytes)
	}
}

// Uploads lists what goes to other peers, to whom the most first.
func (l *Library) Uploads() ([]Upload, error) {
	list := l.uploads.list(time.Now())
	for i := range list {
		records, err := l.catalog.byID(list[i].ID, 1)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			list[i].Name = r.Name
		}
	}
	return list, nil
}

func (u *uploads) list(now time.Time) []Upload {
	u.mu.Lock()
	defer u.mu.Unlock()
	var list []Upload
	for p, to := range u.byPeer {
		if to.bytes > 0 {
			list = append(list, Upload{Peer: p, Via: to.via, ID: to.id, Bytes: to.bytes, Rate: to.lately.rate(now, to.bytes)})
		}
	}
	slices.SortFunc(list, func(a, b Upload) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Peer, b.Peer))
	})
	return list
}
