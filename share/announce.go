package share

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
	"golang.org/x/sync/errgroup"
)

// Announced says which networks were sent the records of a share.
type Announced string

const (
	AnnouncedLAN     Announced = "lan"
	AnnouncedDHT     Announced = "dht"
	AnnouncedBoth    Announced = "both"
	AnnouncedNone    Announced = "none"    // no network has a peer
	AnnouncedPending Announced = "pending" // it takes longer than a command should
)

const (
	// announceWait is how long Announce waits for the network.
	announceWait = time.Second
	// announceMax bounds one share's plain announcement, begun by Announce or
	// by keepAnnounced.
	announceMax = 30 * time.Second
	// announceAgainMax is how many shares are announced again at once when the
	// network was (re-)entered; the sweep reaches the others in its turn.
	announceAgainMax = 256
	// fileKeysMax is how many files of one directory are announced by ID.
	fileKeysMax = 10_000
	// refreshEvery is how often manifests near their expiry are signed again,
	// and how often LAN-only shares, which the sweep does not know, are
	// announced again: twice within the 48 hours of a record.
	refreshEvery = 20 * time.Hour
)

// chooseWordsAfter is how long after the last share that brought more words than are
// announced they are chosen anew: many may be added one after another.
const chooseWordsAfter = 10 * time.Minute

// keys are the DHT keys under which one share is found.
type keys struct {
	first []multihash.Multihash // the name's and the ID's: announced at once
	words []multihash.Multihash // of the name: left to the sweep
	pairs []wordPair            // of the name's words: left to the sweep
	files []multihash.Multihash // of a directory's files: left to the sweep
	reach node.Reach

	record *nameRecord // of the publisher's name, or nil; see value.go
}

func (l *Library) keysOf(r shareRecord) (keys, error) {
	k := keys{first: []multihash.Multihash{r.Name.Key(), r.ID.Multihash()}, reach: r.reach(), record: l.recordOf(r)}
	k.pairs = r.sweptPairs()
	var err error
	if k.words, err = l.catalog.wordKeysOf(r); err != nil || r.Kind != KindDir {
		return k, err
	}
	largest := newLargest(fileKeysMax)
	err = l.catalog.shareFiles(r.key, func(id content.ID, size int64) {
		if id != r.ID && id != r.Attrs {
			largest.offer(id, size)
		}
	})
	for _, id := range largest.ids() {
		k.files = append(k.files, id.Multihash())
	}
	return k, err
}

// Announce sends the provider records of a share that Add returned, and waits
// for it at most a second; what takes longer goes on by itself while Run runs.
// The local network needs no records: whoever asks there is answered.
func (l *Library) Announce(ctx context.Context, s Share) Announced {
	r, ok, err := l.catalog.byPath(s.Path)
	if err != nil || !ok {
		return AnnouncedNone
	}
	k, err := l.keysOf(r)
	if err != nil {
		return AnnouncedNone
	}
	l.keepProviding(k)
	ctx, cancel := context.WithTimeout(ctx, announceWait)
	defer cancel()
	lan := len(l.node.Neighbors()) > 0
	var sent int
	if l.node.WaitDHT(ctx) {
		sent, err = l.provide(ctx, k)
	}
	switch {
	case sent > 0 && lan:
		return AnnouncedBoth
	case sent > 0:
		return AnnouncedDHT
	case errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded):
		l.announceLater(r.key)
		return AnnouncedPending
	case lan:
		return AnnouncedLAN
	}
	return AnnouncedNone
}

// provide announces a share's name and ID now, and publishes its name's record.
func (l *Library) provide(ctx context.Context, k keys) (sent int, err error) {
	counts := make([]int, len(k.first))
	g, ctx := errgroup.WithContext(ctx)
	for i, key := range k.first {
		g.Go(func() error {
			n, err := l.node.Provide(ctx, key, k.reach)
			counts[i] = n
			return err
		})
	}
	g.Go(func() error {
		l.putRecord(ctx, k)
		return nil
	})
	err = g.Wait()
	return min(counts[0], counts[1]), err
}

// keepProviding hands a share's keys to the sweep, which never announces
// LAN-only ones: it knows no scope.
func (l *Library) keepProviding(k keys) {
	if k.reach != node.ReachAll {
		return
	}
	err := errors.Join(l.node.KeepProviding(k.first...), l.node.KeepProviding(k.files...))
	if l.wordCount.Add(int64(len(k.words))) <= wordsMax {
		err = errors.Join(err, l.node.KeepProviding(k.words...))
	} else {
		select {
		case l.overWords <- struct{}{}: // another choice is made, in a while
		default:
		}
	}
	if l.pairCount.Add(int64(len(k.pairs))) <= pairsMax {
		err = errors.Join(err, l.node.KeepProviding(pairKeys(k.pairs)...))
	}
	if err != nil {
		l.log.Warn("keep announcing", "err", err)
	}
}

// withdraw stops announcing keys that no other share needs, and withdraws the name.
func (l *Library) withdraw(k keys) error {
	if k.record != nil {
		if err := l.withdrawName(k.record, k.reach); err != nil {
			return err
		}
	}
	stop, err := l.unneeded(k)
	if err != nil {
		return err
	}
	return l.node.StopProviding(stop...)
}

// unneeded returns those of k's keys that the sweep has for no share.
func (l *Library) unneeded(k keys) ([]multihash.Multihash, error) {
	var stop []multihash.Multihash
	for _, key := range slices.Concat(k.first, k.words, k.files) {
		needed, err := l.needsKey(key)
		if err != nil {
			return nil, err
		}
		if !needed {
			stop = append(stop, key)
		}
	}
	for _, p := range k.pairs {
		needed, err := l.catalog.needsPair(p)
		if err != nil {
			return nil, err
		}
		if !needed {
			stop = append(stop, p.key())
		}
	}
	return stop, nil
}

// needsKey reports whether the sweep should have key. Shares for the LAN only
// need nothing of it.
func (l *Library) needsKey(key multihash.Multihash) (bool, error) {
	var shares []shareRecord
	if id, err := content.FromMultihash(key); err == nil {
		if _, stored, err := l.catalog.stored(id); stored || err != nil {
			return stored, err
		}
		if _, shares, err = l.catalog.files(id); err != nil {
			return false, err
		}
	} else {
		d, err := multihash.Decode(key)
		if err != nil {
			return false, err
		}
		if needed, err := l.catalog.needsWord([32]byte(d.Digest)); needed || err != nil {
			return needed, err
		}
		if shares, err = l.catalog.byName([32]byte(d.Digest), lookupMax); err != nil {
			return false, err
		}
	}
	return slices.ContainsFunc(shares, shareRecord.swept), nil
}

// swept reports whether the sweep is to announce a share.
func (r shareRecord) swept() bool { return !r.Scope.LANOnly }

// reach is where a share is announced.
func (r shareRecord) reach() node.Reach {
	if r.Scope.LANOnly {
		return node.ReachLAN
	}
	return node.ReachAll
}

// announceLater asks keepAnnounced to announce a share. When 64 wait already
// it is left to the sweep.
func (l *Library) announceLater(key shareKey) {
	select {
	case l.announce <- key:
	default:
	}
}

// keepAnnounced keeps every share findable until ctx ends: the sweep is given
// the whole set at the start, the newest shares are announced whenever a
// network is entered, and manifests are renewed.
func (l *Library) keepAnnounced(ctx context.Context) error {
	if err := l.resetProviding(ctx); err != nil && ctx.Err() == nil {
		l.log.Warn("restore announcements", "err", err)
	}
	refresh := time.NewTicker(refreshEvery)
	defer refresh.Stop()
	if err := l.renew(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.keepRecords(ctx) })
	g.Go(func() error { return l.announceChanges(ctx, refresh.C) })
	return g.Wait()
}

// announceChanges is the part of keepAnnounced that waits for what happens.
func (l *Library) announceChanges(ctx context.Context, refresh <-chan time.Time) error {
	var choose <-chan time.Time // when the words are chosen anew
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case key := <-l.announce:
			err = l.announceShares(ctx, func(r shareRecord) bool { return r.key == key })
		case <-l.node.Changed():
			l.withdrawSoon()
			err = l.announceNewest(ctx)
		case <-l.overWords:
			if choose == nil {
				choose = time.After(chooseWordsAfter)
			}
		case <-choose:
			choose = nil
			err = l.resetProviding(ctx)
		case <-refresh:
			err = l.renew(ctx)
			if err == nil {
				err = l.announceShares(ctx, func(r shareRecord) bool { return r.Scope.LANOnly })
			}
		}
		if err != nil && ctx.Err() == nil {
			l.log.Warn("announce", "err", err)
		}
	}
}

// keepRecords puts value records again now and every refreshEvery until ctx ends:
// the servers that are nearest to a key come and go.
func (l *Library) keepRecords(ctx context.Context) error {
	refresh := time.NewTicker(refreshEvery)
	defer refresh.Stop()
	for {
		if err := errors.Join(l.putWithdrawals(ctx), l.refreshRecords(ctx)); err != nil && ctx.Err() == nil {
			l.log.Warn("publish names", "err", err)
		}
		for waits := true; waits; {
			select {
			case <-refresh.C:
				waits = false
			case <-l.withdrawn:
				if err := l.putWithdrawals(ctx); err != nil && ctx.Err() == nil {
					l.log.Warn("withdraw names", "err", err)
				}
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// resetProviding tells the sweep what there is to provide: the catalog is the
// truth, and what the sweep remembers of an earlier run may not be.
func (l *Library) resetProviding(ctx context.Context) error {
	var failed error
	err := l.node.ResetProviding(ctx, l.sweptKeys(&failed))
	return errors.Join(err, failed)
}

// sweptKeys yields the keys of all that the sweep is to announce. An error
// ends it, and is left in failed.
func (l *Library) sweptKeys(failed *error) iter.Seq[multihash.Multihash] {
	return func(yield func(multihash.Multihash) bool) {
		for r, err := range l.catalog.shares() {
			if err != nil {
				*failed = err
				return
			}
			if !r.swept() {
				continue
			}
			k, err := l.keysOf(r)
			if err != nil {
				*failed = err
				return
			}
			for _, key := range append(k.first, k.files...) {
				if !yield(key) {
					return
				}
			}
		}
		words, err := l.catalog.sweptWords(wordsMax)
		if err != nil {
			*failed = err
			return
		}
		pairs, err := l.catalog.sweptPairs(pairsMax)
		if err != nil {
			*failed = err
			return
		}
		l.wordCount.Store(int64(len(words)))
		l.pairCount.Store(int64(len(pairs)))
		for _, key := range slices.Concat(words, pairKeys(pairs)) {
			if !yield(key) {
				return
			}
		}
		l.heldSweptKeys(failed, yield)
	}
}

// announceNewest announces the newest shares, which nobody may know of yet.
func (l *Library) announceNewest(ctx context.Context) error {
	count := 0
	for _, err := range l.catalog.shares() {
		if err != nil {
			return err
		}
		count++
	}
	skip := max(0, count-announceAgainMax)
	return l.announceShares(ctx, func(shareRecord) bool {
		skip--
		return skip < 0
	})
}

// announceParallel is how many shares are announced at a time.
const announceParallel = 4

func (l *Library) announceShares(ctx context.Context, which func(shareRecord) bool) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(announceParallel)
	var failed error
	for r, err := range l.catalog.shares() {
		if err != nil {
			failed = err
			break
		}
		if !which(r) {
			continue
		}
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, announceMax)
			defer cancel()
			k, err := l.keysOf(r)
			if err != nil {
				return err
			}
			if _, err := l.provide(ctx, k); err != nil {
				l.log.Debug("announce", "name", r.Name, "err", err)
			}
			return nil
		})
	}
	return errors.Join(failed, g.Wait())
}

// renew signs own manifests again that have less than half of their life left, and
// then those of the same name with a higher seq: what was published last under a
// name stays the last.
func (l *Library) renew(ctx context.Context) error {
	for r, err := range l.catalog.shares() {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		if !r.Own || time.Until(r.Expires) > manifestLife/2 {
			continue
		}
		if now, ok, err := l.catalog.share(r.key); err != nil {
			return err
		} else if !ok || time.Until(now.Expires) > manifestLife/2 {
			continue // with another of its name, just now
		}
		same, err := l.catalog.byName(nameDigest(r.Name), lookupMax)
		if err != nil {
			return err
		}
		same = slices.DeleteFunc(same, func(s shareRecord) bool { return !s.Own || s.Seq < r.Seq })
		slices.SortFunc(same, func(a, b shareRecord) int { return cmp.Compare(a.Seq, b.Seq) })
		for _, s := range same {
			if _, err := l.signAndRecord(&s, func() (shareKey, error) { return 0, l.catalog.update(s) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// linkAddrsMax is how many of this peer's addresses a link carries.
const linkAddrsMax = 4

// Link is a reference to s that needs no DHT: it says where this peer is.
func (l *Library) Link(s Share) Link {
	self := l.node.AddrInfo()
	slices.SortStableFunc(self.Addrs, func(a, b ma.Multiaddr) int { return linkRank(a) - linkRank(b) })
	self.Addrs = self.Addrs[:min(len(self.Addrs), linkAddrsMax)]
	link := Link{ID: s.ID, Name: s.Name, Kind: s.Kind}
	if len(self.Addrs) > 0 {
		link.Peers = []peer.AddrInfo{self}
	}
	return link
}

// linkRank puts first what is dialled fastest and lasts: TCP before QUIC,
// IPv4 before IPv6, relays last.
func linkRank(a ma.Multiaddr) int {
	rank := 0
	for _, p := range a.Protocols() {
		switch p.Code {
		case ma.P_IP6:
			rank++
		case ma.P_UDP:
			rank += 2
		case ma.P_CIRCUIT:
			rank += 4
		}
	}
	return rank
}
