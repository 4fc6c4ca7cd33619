package share

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
)

// A publisher's word on a name is in the DHTs, too, so that it can be had when
// the publisher is away: a value record under
//
//	/p2pshare/<peer ID, base58>/<64 hex digits: the digest in the name's key>
//
// whose value is the signed manifest, or a withdrawal; an encoded envelope of at most
// 16 KiB. It is valid when that peer signed it, for a name with that digest, and it
// can be believed at the time. Of two the higher seq counts. The publisher puts it
// again while it is up; it lasts as long as the manifest says, 30 days.
//
// Shares for one peer only and unlisted ones have no such record: a DHT server
// can read what it holds. Those for the LAN have one in the LAN's DHT.

// ValueNamespace is the first component of the keys of value records.
const ValueNamespace = "p2pshare"

// valueMax is the longest value. A manifest with four mirrors of the longest URLs
// fits.
const valueMax = 16 << 10

// ValueRecords are the node.ValueValidators that a node needs, as Config.Values,
// for the library on it to publish and to believe value records.
func ValueRecords() map[string]node.ValueValidator {
	return map[string]node.ValueValidator{ValueNamespace: nameRecords{}}
}

// nameRecords judges value records by this machine's clock.
type nameRecords struct{}

// Validate returns an error for a value that must not be under key.
func (nameRecords) Validate(key string, value []byte) error {
	publisher, digest, err := parseValueKey(key)
	if err != nil {
		return err
	}
	_, err = openValue(publisher, digest, value, time.Now())
	return err
}

// Select returns the index of the best of several valid values: that of the
// highest seq, and of those that a publisher has signed with one seq the one whose
// bytes come last, so that all servers keep the same.
func (nameRecords) Select(key string, values [][]byte) (int, error) {
	best, bestSeq := -1, int64(0)
	for i, v := range values {
		e, err := node.DecodeEnvelope(v)
		if err != nil {
			continue
		}
		w, err := openWord(e, time.Now())
		if err != nil {
			continue
		}
		if best < 0 || w.manifest.Seq > bestSeq || w.manifest.Seq == bestSeq && bytes.Compare(v, values[best]) > 0 {
			best, bestSeq = i, w.manifest.Seq
		}
	}
	if best < 0 {
		return 0, errBadValue
	}
	return best, nil
}

var errBadValue = errors.New("bad value record")

// valueKey is the key of publisher's record of the name with this digest.
func valueKey(publisher peer.ID, digest [sha256.Size]byte) string {
	return "/" + ValueNamespace + "/" + publisher.String() + "/" + hex.EncodeToString(digest[:])
}

// parseValueKey reads what valueKey writes, and nothing else: a record has one key.
func parseValueKey(key string) (publisher peer.ID, digest [sha256.Size]byte, err error) {
	rest, ok := strings.CutPrefix(key, "/"+ValueNamespace+"/")
	who, hexDigest, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || len(hexDigest) != 2*sha256.Size {
		return "", digest, fmt.Errorf("%w: malformed key", errBadValue)
	}
	if publisher, err = decodePeer(who); err != nil {
		return "", digest, fmt.Errorf("%w: no peer ID in the key", errBadValue)
	}
	if _, err := hex.Decode(digest[:], []byte(hexDigest)); err != nil || valueKey(publisher, digest) != key {
		return "", digest, fmt.Errorf("%w: malformed key", errBadValue)
	}
	return publisher, digest, nil
}

// word is what a publisher says of a name in a value record: a manifest, or that it has
// withdrawn it; then manifest has no more than the name, the publisher, seq and times.
type word struct {
	manifest  Manifest
	envelope  node.Envelope
	withdrawn bool
}

func openWord(e node.Envelope, now time.Time) (word, error) {
	m, err := OpenManifest(e, now)
	if !errors.Is(err, node.ErrBadEnvelope) {
		return word{manifest: m, envelope: e}, err
	}
	w, err := openWithdrawal(e, now)
	m = Manifest{V: w.V, Name: w.Name, Publisher: w.Publisher, Seq: w.Seq, Issued: w.Issued, Expires: w.Expires}
	return word{manifest: m, envelope: e, withdrawn: true}, err
}

// openValue verifies a value at time now.
func openValue(publisher peer.ID, digest [sha256.Size]byte, value []byte, now time.Time) (word, error) {
	bad := func(err error) (word, error) { return word{}, fmt.Errorf("%w: %w", errBadValue, err) }
	if len(value) > valueMax {
		return bad(fmt.Errorf("%d bytes, more than %d", len(value), valueMax))
	}
	e, err := node.DecodeEnvelope(value)
	if err != nil {
		return bad(err)
	}
	if e.Sender != publisher {
		return bad(errors.New("signed by another than its key names"))
	}
	if !bytes.Equal(e.Encode(), value) {
		return bad(errors.New("not in the one spelling of its envelope"))
	}
	w, err := openWord(e, now)
	if err != nil {
		return bad(err)
	}
	if nameDigest(w.manifest.Name) != digest {
		return bad(errors.New("of another name than its key"))
	}
	return w, nil
}

// nameRecord is a value record to publish.
type nameRecord struct {
	key   string
	value []byte
}

// recordOf returns the value record of a share; nil when it has none.
func (l *Library) recordOf(r shareRecord) *nameRecord {
	if !r.Own || r.Envelope == nil || r.Scope.Unlisted || r.Scope.To != "" || time.Until(r.Expires) < 0 {
		return nil
	}
	value := r.Envelope.Encode()
	if len(value) > valueMax {
		return nil
	}
	return &nameRecord{valueKey(l.node.ID(), nameDigest(r.Name)), value}
}

// putRecord publishes a share's value record now. That there is a newer one is
// no error.
func (l *Library) putRecord(ctx context.Context, k keys) {
	if k.record == nil {
		return
	}
	if _, err := l.node.PutValue(ctx, k.record.key, k.record.value, k.reach); err != nil && ctx.Err() == nil {
		l.log.Debug("publish a name", "err", err)
	}
}

// recordsMax is how many value records one refresh puts, newest shares first:
// each costs a lookup. The provider records of older shares lead to their
// manifests all the same.
const recordsMax = 10_000

// refreshRecords puts the value records of this peer's shares again, one after
// the other.
func (l *Library) refreshRecords(ctx context.Context) error {
	if !l.node.WaitDHT(ctx) {
		return nil
	}
	var own []shareKey
	for r, err := range l.catalog.shares() {
		if err != nil {
			return err
		}
		if l.recordOf(r) != nil {
			own = append(own, r.key)
		}
	}
	for i, key := range slices.Backward(own) {
		if len(own)-i > recordsMax || ctx.Err() != nil {
			return nil
		}
		r, ok, err := l.catalog.share(key)
		if err != nil {
			return err
		}
		if !ok {
			continue // removed since
		}
		one, cancel := context.WithTimeout(ctx, announceMax)
		l.putRecord(one, keys{record: l.recordOf(r), reach: r.reach()})
		cancel()
	}
	return nil
}

// findRecord asks the DHTs for publisher's value record of a name, and calls fn
// with each that is better than those before.
func (l *Library) findRecord(ctx context.Context, publisher peer.ID, name Name, fn func(word)) (found bool) {
	digest := nameDigest(name)
	for v := range l.node.Values(ctx, valueKey(publisher, digest)) {
		w, err := openValue(publisher, digest, v, time.Now())
		if err == nil { // the node's validator may be another
			found = true
			fn(w)
		}
	}
	return found
}
