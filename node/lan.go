package node

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/p2pshare/p2pshare/node/internal/lan"
	"golang.org/x/sync/errgroup"
)

const (
	// hereEvery is how often a peer says that it is still here, give or take a
	// tenth: three in a row are rarely lost, and a packet every ten seconds would
	// keep radios awake.
	hereEvery = 30 * time.Second
	// hereSoon is how long a change of what is offered waits for others, and
	// hereGap the least time between two datagrams because of changes.
	hereSoon = 200 * time.Millisecond
	hereGap  = 5 * time.Second
	// lanTick is how often it is looked whether a neighbor has gone, or a flood is
	// over.
	lanTick = time.Second
	// nonceBucket is how long one nonce is asked for. An echo of it, or of the one
	// before, is fresh.
	nonceBucket = 10 * time.Second
	// answerGrowth is how many times as long as a question the answer to one who
	// has not proved to be there may be, as far as that is due to addresses.
	answerGrowth = 3
	// answerAgain is how soon one sender is answered again: it sends a hello on
	// every interface and in both families.
	answerAgain = 100 * time.Millisecond
)

// helloAt are the moments of a peer's hellos, from its start: datagrams get
// lost.
var helloAt = []time.Duration{0, 300 * time.Millisecond, time.Second}

// localNet is this peer's place on its local networks.
type localNet struct {
	node   *Node
	beacon *lan.Beacon
	start  time.Time
	boot   int64        // start, in Unix milliseconds
	count  atomic.Int64 // of datagrams sent
	rev    atomic.Int64
	secret [sha256.Size]byte
	poke   chan lanPoke // capacity 8: what to say soon; one too many is dropped
	limits lanLimits
	echoes echoes

	mu        sync.Mutex
	neighbors *neighbors          // guarded by mu
	answered  map[visit]time.Time // guarded by mu: unknown senders, lately
	wants     map[*want]struct{}  // guarded by mu
	change    chan struct{}       // guarded by mu: closed and replaced when neighbors change
}

// visit is a peer from one start to its end, as it is heard from one address:
// its recorded datagrams, sent again from elsewhere, are another's.
type visit struct {
	peer peer.ID
	boot int64
	from netip.Addr
}

// lanPoke asks the announcing loop to say something.
type lanPoke int

const (
	pokeHello lanPoke = iota
	pokeHere
)

// newLocalNet opens the sockets, once the host listens.
func newLocalNet(n *Node) (*localNet, error) {
	now := time.Now()
	l := &localNet{
		node: n, start: now, boot: now.UnixMilli(), poke: make(chan lanPoke, 8),
		neighbors: newNeighbors(), answered: map[visit]time.Time{},
		wants: map[*want]struct{}{}, change: make(chan struct{}),
	}
	l.limits.init(now)
	if _, err := rand.Read(l.secret[:]); err != nil {
		return nil, err
	}
	var err error
	l.beacon, err = lan.Open(lan.Config{Port: n.cfg.LANPort, Usable: l.listensOn})
	return l, err
}

// listensOn reports whether this peer listens on an address of this host.
func (l *localNet) listensOn(a netip.Addr) bool {
	return slices.ContainsFunc(l.node.host.Network().ListenAddresses(), func(m ma.Multiaddr) bool {
		on, ok := IPOf(m)
		return ok && on.Is4() == a.Is4() && (on == a.WithZone("") || on.IsUnspecified())
	})
}

// IPOf is the IP address that a multiaddr begins with, an IPv4 address as such.
func IPOf(a ma.Multiaddr) (netip.Addr, bool) {
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Addr{}, false
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}

// run listens and announces until ctx ends, and then says goodbye.
func (l *localNet) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.beacon.Run(ctx, l.receive) })
	g.Go(func() error {
		l.announce(ctx)
		return nil
	})
	err := g.Wait()
	if l.announces() {
		l.say(presence{Type: presenceBye})
	}
	return errors.Join(err, l.beacon.Close())
}

// announces reports whether this peer tells others that it is there.
func (l *localNet) announces() bool { return l.node.cfg.Role != RoleVisitor }

// announce says hello, and from then on that this peer is here, until ctx ends.
func (l *localNet) announce(ctx context.Context) {
	hellos := 0 // how many of the burst were said
	next := time.NewTimer(0)
	var due time.Time // when next fires
	in := func(d time.Duration) {
		due = time.Now().Add(d)
		next.Reset(d)
	}
	if !l.announces() {
		hellos = len(helloAt)
		next.Stop()
	}
	tick := time.NewTicker(lanTick)
	defer next.Stop()
	defer tick.Stop()
	said := time.Now()
	begin := func() {
		hellos = 0
		in(0)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.expire(time.Now())
			if l.limits.recovered(time.Now()) && l.announces() {
				begin() // whoever came during the flood answers now
			}
		case <-l.beacon.Changed():
			begin()
		case p := <-l.poke:
			switch {
			case p == pokeHello:
				begin()
			case hellos == len(helloAt) && l.announces():
				// Changes without pause must not put it off for ever.
				if soon := max(hereSoon, hereGap-time.Since(said)); soon < time.Until(due) {
					in(soon)
				}
			}
		case <-next.C:
			said = time.Now()
			if hellos == len(helloAt) {
				l.say(presence{Type: presenceHere})
			} else {
				l.say(presence{Type: presenceHello, Ask: l.nonce("", said)})
				hellos++
			}
			switch {
			case hellos < len(helloAt):
				in(helloAt[hellos] - helloAt[hellos-1])
			case l.announces():
				in(hereEvery*9/10 + mathrand.N(hereEvery/5))
			}
		}
	}
}

// say multicasts p on every link, with the addresses that are good there, and
// sends it to those neighbors by unicast that no multicast comes from: none may
// reach them either.
func (l *localNet) say(p presence) {
	err := l.beacon.Multicast(func(link lan.Link) []byte { return l.seal(p, link, lan.DatagramMax) })
	if err != nil {
		l.node.log.Debug("multicast", "type", p.Type, "err", err)
	}
	l.mu.Lock()
	deaf := l.neighbors.deaf(time.Now())
	l.mu.Unlock()
	for _, to := range deaf {
		l.tell(p, to, l.beacon.LinkTo(to.Addr()))
	}
}

// tell sends p to one address on link.
func (l *localNet) tell(p presence, to netip.AddrPort, link lan.Link) {
	data := l.seal(p, link, lan.DatagramMax)
	if data == nil {
		return
	}
	if err := l.beacon.Send(data, to); err != nil {
		l.node.log.Debug("send on the local network", "type", p.Type, "to", to, "err", err)
	}
}

// seal completes and signs p for a link.
func (l *localNet) seal(p presence, link lan.Link, max int) []byte {
	p.Boot, p.N, p.Time, p.Rev = l.boot, l.count.Add(1), time.Now(), l.rev.Load()
	if l.announces() {
		p.Alias = l.node.cfg.Alias
		p.Addrs = l.addrsOn(link)
	}
	data, err := p.sealWithin(l.node.key, max)
	if err != nil {
		l.node.log.Warn("sign a datagram", "err", err)
		return nil
	}
	return data
}

// addrsOn are the addresses at which others on a link can dial this peer.
func (l *localNet) addrsOn(link lan.Link) []ma.Multiaddr {
	var addrs []ma.Multiaddr
	for _, m := range l.node.host.Network().ListenAddresses() {
		on, ok := IPOf(m)
		if !ok {
			continue
		}
		for _, p := range link.Prefixes {
			ip := p.Addr()
			if ip.Is4() != on.Is4() || !on.IsUnspecified() && on != ip || ip.Is6() && ip.IsLinkLocalUnicast() {
				continue // libp2p dials no link-local address
			}
			addrs = append(addrs, withIP(m, ip))
		}
	}
	slices.SortStableFunc(addrs, func(a, b ma.Multiaddr) int { return dialClass(a) - dialClass(b) })
	return addrs
}

// withIP is m with another IP address.
func withIP(m ma.Multiaddr, ip netip.Addr) ma.Multiaddr {
	host, err := manet.FromIP(ip.AsSlice())
	if err != nil {
		return m
	}
	_, rest := ma.SplitFirst(m)
	return host.Encapsulate(rest)
}

// addrsOf are the addresses that a datagram brings and that are on its link.
func addrsOf(p presence, d lan.Datagram) []ma.Multiaddr {
	var addrs []ma.Multiaddr
	source := d.From.Addr().WithZone("")
	for _, m := range p.Addrs {
		ip, ok := IPOf(m)
		if !ok || dialClass(m) == classOther || relayed(m) {
			continue
		}
		if ip.IsUnspecified() && ip.Is4() == source.Is4() {
			m, ip = withIP(m, source), source
		}
		if ip.IsLinkLocalUnicast() && ip.Is6() || !d.Link.OnLink(ip) {
			continue
		}
		addrs = append(addrs, m)
	}
	return addrs
}

// receive takes a datagram.
func (l *localNet) receive(d lan.Datagram) {
	now := time.Now()
	if d.Own {
		l.echoes.note(d)
		return
	}
	l.mu.Lock()
	known := l.neighbors.byIP[d.From.Addr()] > 0
	l.mu.Unlock()
	if !l.limits.admit(d.From.Addr(), known, now) {
		return
	}
	sender, p, err := openPresence(d.Data)
	if err != nil || sender == l.node.ID() {
		return
	}
	h := heard{sender: sender, presence: p, from: d.From, link: d.Link.Name, group: d.Group, addrs: addrsOf(p, d),
		proven: l.fresh(p.Echo, sender, now), answers: l.fresh(p.Echo, "", now)}
	l.mu.Lock()
	what := l.neighbors.hear(h, now)
	if what >= heardChange {
		close(l.change)
		l.change = make(chan struct{})
	}
	l.mu.Unlock()
	l.note(what, h)
	if what == heardNothing || what == heardLeft {
		return
	}
	if p.Type == presenceHave && (h.proven || h.answers) {
		l.deliver(h, now)
	}
	l.answer(what, h, d, now)
}

// note makes what was heard of a neighbor known to whoever reads the log.
func (l *localNet) note(what hearing, h heard) {
	switch what {
	case heardNew:
		l.node.log.Info("neighbor joined", "peer", h.sender, "link", h.link)
	case heardLeft:
		l.node.log.Info("neighbor left", "peer", h.sender)
	}
}

// answer says what a datagram calls for: that this peer is here, to one who has
// just come; what it has, to one who asks; and an echo, to one who asks by
// unicast for it. A sender that is not known is asked for one too.
func (l *localNet) answer(what hearing, h heard, d lan.Datagram, now time.Time) {
	unknown := what == heardUnknown
	reply := presence{Type: presenceHere, Echo: echoOf(h.Ask, h.sender)}
	switch {
	case h.Type == presenceHave || h.Type == presenceBye:
		if h.Ask == "" || d.Group {
			return
		}
	case h.Type == presenceWant:
		reply.Type = presenceHave
	case d.Group && !unknown && len(h.Addrs) > 0:
		return // we know each other
	case !d.Group && h.Ask == "" && !(unknown && h.answers):
		return // it asks for nothing, and is nobody whom we have asked for
	}
	if !l.announces() && reply.Type != presenceHave && len(h.Addrs) == 0 {
		return // neither is anybody's neighbor
	}
	if unknown && !l.mayAnswer(h, now) {
		return
	}
	if h.Type == presenceWant {
		if reply.Want = l.matches(h); len(reply.Want) == 0 {
			return
		}
	}
	max := lan.DatagramMax
	if unknown {
		max = min(max, answerGrowth*len(d.Data))
		if len(h.Addrs) > 0 {
			reply.Ask = l.nonce(h.sender, now)
		}
	}
	data := l.seal(reply, d.Link, max)
	if data == nil {
		return
	}
	if err := l.beacon.Answer(d, data); err != nil {
		l.node.log.Debug("answer on the local network", "type", reply.Type, "to", d.From, "err", err)
	}
}

// mayAnswer bounds the answers to those who have not proved to be there, and
// whom a forged source would make us send to.
func (l *localNet) mayAnswer(h heard, now time.Time) bool {
	if !l.limits.admitAnswer(h.from.Addr(), now) {
		return false
	}
	if h.Type == presenceWant || !h.group {
		return true // it is a question of its own each time
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	who := visit{h.sender, h.Boot, h.from.Addr()}
	if now.Sub(l.answered[who]) < answerAgain {
		return false
	}
	if len(l.answered) >= neighborsMax {
		clear(l.answered)
	}
	l.answered[who] = now
	return true
}

// expire forgets neighbors that were not heard for long.
func (l *localNet) expire(now time.Time) {
	l.mu.Lock()
	gone := l.neighbors.expire(now)
	if len(gone) > 0 {
		close(l.change)
		l.change = make(chan struct{})
	}
	l.mu.Unlock()
	for _, p := range gone {
		l.node.log.Info("neighbor left", "peer", p)
	}
}

// nonce is what a peer is asked to echo now; what all are asked to for the empty
// ID. It is not kept, but made again to check an echo: a flood of strangers can't
// fill any memory.
func (l *localNet) nonce(asked peer.ID, now time.Time) string {
	return l.nonceAt(asked, l.bucketAt(now))
}

// bucketAt numbers the times for which nonces are good. It goes by the time
// since the start, not by the clock: one that is set back would make recorded
// echoes fresh again.
func (l *localNet) bucketAt(now time.Time) int64 { return int64(now.Sub(l.start) / nonceBucket) }

func (l *localNet) nonceAt(asked peer.ID, bucket int64) string {
	mac := hmac.New(sha256.New, l.secret[:])
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(bucket)))
	mac.Write([]byte(asked))
	return hex.EncodeToString(mac.Sum(nil)[:8])
}

// fresh reports whether an echo is that of a nonce of the last ten to twenty
// seconds, which asked was asked for, or all were for the empty ID.
func (l *localNet) fresh(echo string, asked peer.ID, now time.Time) bool {
	if echo == "" {
		return false
	}
	bucket := l.bucketAt(now)
	return slices.ContainsFunc([]int64{bucket, bucket - 1}, func(b int64) bool {
		return hmac.Equal([]byte(echo), []byte(echoOf(l.nonceAt(asked, b), l.node.ID())))
	})
}

// LANChanged tells the neighbors, soon, that what this peer offers has changed.
func (n *Node) LANChanged() {
	if l := n.lanNow(); l != nil {
		l.rev.Add(1)
		l.prod(pokeHere)
	}
}

// prod asks the announcing loop to say something.
func (l *localNet) prod(p lanPoke) {
	select {
	case l.poke <- p:
	default: // as much waits already
	}
}

// lanNow is the local network, nil before it is open and where there is none.
func (n *Node) lanNow() *localNet { return n.lan.Load() }
