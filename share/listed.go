package share

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"go.etcd.io/bbolt"
)

// What others may be told of without asking for it by name or ID. The catalog has
// an index of that, in the order in which it is told, and by audience, so that a
// peer's question costs what that peer may see, and not what there is.

// asker is a peer that asks this one, and how it is reached.
type asker struct {
	id  peer.ID
	via node.Via
}

// allows reports whether the asker may know of a share.
func (a asker) allows(r shareRecord) bool { return r.Scope.allows(a.id, a.via) }

// audience is those who may know of a share: one of the index's parts.
type audience struct {
	lan bool    // only who is reached over the LAN
	to  peer.ID // only this identity; empty: anybody
}

// audiences are those that the asker belongs to.
func (a asker) audiences() []audience {
	to := []audience{{}, {to: a.id}}
	if a.via == node.ViaLAN {
		to = append(to, audience{lan: true}, audience{lan: true, to: a.id})
	}
	return to
}

// prefix is what the index's keys of one audience begin with; none is another's.
func (a audience) prefix() []byte {
	b := []byte{0}
	if a.lan {
		b[0] = 1
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(a.to)))
	return append(b, a.to...)
}

// listable reports whether a share may stand in a list at all.
func (r shareRecord) listable() bool { return r.Envelope != nil && !r.Scope.Unlisted }

func listedKey(r shareRecord) []byte {
	return append(audience{r.Scope.LANOnly, r.Scope.To}.prefix(), r.key.bytes()...)
}

func listShare(tx *bbolt.Tx, r shareRecord) error {
	if !r.listable() {
		return nil
	}
	expires := binary.BigEndian.AppendUint64(nil, uint64(r.Expires.Unix()))
	return errors.Join(tx.Bucket(bucketListed).Put(listedKey(r), expires), postWords(tx, r))
}

func unlistShare(tx *bbolt.Tx, r shareRecord) error {
	return errors.Join(tx.Bucket(bucketListed).Delete(listedKey(r)), unpostWords(tx, r))
}

// makeListed makes the index of a catalog that has none yet.
func makeListed(tx *bbolt.Tx) error {
	if tx.Bucket(bucketListed) != nil {
		return nil
	}
	if _, err := tx.CreateBucket(bucketListed); err != nil {
		return err
	}
	return tx.Bucket(bucketShares).ForEach(func(k, v []byte) error {
		r, err := decodeShare(k, v)
		if err != nil || r.Stage != stageLive {
			return err
		}
		return listShare(tx, r)
	})
}

// newestShare stands before the newest share.
const newestShare shareKey = math.MaxUint64

// listedBefore returns the newest share listed for any of the given audiences
// that was added before the one with key before. ok is false when there is none.
// Whether its manifest has expired is for the caller to see.
func (c *catalog) listedBefore(to []audience, before shareKey) (r shareRecord, ok bool, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketListed).Cursor()
		var newest []byte
		for _, a := range to {
			prefix := a.prefix()
			k, _ := cursor.Seek(append(prefix, before.bytes()...))
			if k == nil {
				k, _ = cursor.Last()
			} else {
				k, _ = cursor.Prev()
			}
			if bytes.HasPrefix(k, prefix) && bytes.Compare(k[len(prefix):], newest) > 0 {
				newest = k[len(prefix):]
			}
		}
		if newest == nil {
			return nil
		}
		r, _, err = getShare(tx, newest)
		r.key, ok = shareKey(binary.BigEndian.Uint64(newest)), err == nil
		return err
	})
	return r, ok, err
}

// countListed counts what is listed for the given audiences at time now, up to
// max. It reads keys and expiry dates only, and stops at max: a quarter of a
// millisecond for 10,000.
func (c *catalog) countListed(to []audience, now time.Time, max int) (n int, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketListed).Cursor()
		for _, a := range to {
			prefix := a.prefix()
			for k, v := cursor.Seek(prefix); n < max && bytes.HasPrefix(k, prefix); k, v = cursor.Next() {
				if int64(binary.BigEndian.Uint64(v)) >= now.Unix() {
					n++
				}
			}
		}
		return nil
	})
	return n, err
}

// What answering lists may cost. A question is cheap, and its answer is not:
// decoding and looking at 64 shares takes 4 ms, and at 512 that turn out to be
// gone 20 ms (BenchmarkList, on two busy cores). To keep answers would help
// against who asks for one page in a loop, and not against who asks for all of
// them. So answers are bounded, each and together; a flood makes lists slow to
// come, or refused, and nothing else.
const (
	// listLooksMax is how many shares are looked at for one page. Where a disk is
	// gone with all that was shared from it, pages are short, or empty.
	listLooksMax = 512
	// listRest is how many times as long as an answer took the next one is put
	// off: all lists together take a fifth of one processor at most.
	listRest = 4
	// listRestMax is for answers that took long because a disk is slow.
	listRestMax = time.Second
	// listWait is how long a request waits for its turn before it is told to ask
	// again later. It is less than the 4 s that an asker of ours has.
	listWait = 2 * time.Second
)

// lister is what answering lists takes, beside the catalog.
type lister struct {
	cursors cursors
	turns   turns
}

func newLister() lister {
	secret := make([]byte, 16)
	rand.Read(secret)
	block, err := aes.NewCipher(secret)
	if err != nil {
		panic(err) // the length is right
	}
	return lister{cursors{block}, newTurns()}
}

// answerList answers one opList.
func (l *Library) answerList(ctx context.Context, w io.Writer, after string, from asker) error {
	before := newestShare
	if after != "" {
		var ok bool
		if before, ok = l.lister.cursors.parse(after); !ok {
			return writeLine(w, metaAnswer{End: true, Error: "unknown cursor"})
		}
	}
	var page bytes.Buffer
	var err error
	if !l.lister.turns.take(ctx, func() { err = l.writePage(&page, before, from) }) {
		return writeLine(w, metaAnswer{End: true, Error: "busy: ask again later"})
	}
	if err != nil {
		return err
	}
	_, err = page.WriteTo(w)
	return err
}

// writePage writes the page of shares that were added before the one with key
// before.
func (l *Library) writePage(w io.Writer, before shareKey, from asker) error {
	to := from.audiences()
	total, err := l.catalog.countListed(to, time.Now(), listTotalMax)
	if err != nil {
		return err
	}
	end := metaAnswer{End: true}
	shown := 0
	for looked := 0; ; looked++ {
		r, ok, err := l.catalog.listedBefore(to, before)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if shown == metaManifestsMax || looked == listLooksMax {
			end.Next = l.lister.cursors.format(before)
			break
		}
		before = r.key
		if !from.allows(r) || !r.listable() || time.Until(r.Expires) < 0 || !l.servable(r) {
			continue
		}
		if err := writeLine(w, metaAnswer{Manifest: r.Envelope.Encode()}); err != nil {
			return err
		}
		shown++
	}
	end.Total = max(total, shown) // some may have come since they were counted
	return writeLine(w, end)
}

// cursors turns keys of shares into what strangers may see, and back: the key,
// and as many zeros, in one block of AES under a secret of this process. In the
// clear, keys would tell how many shares there are between those listed.
type cursors struct{ cipher.Block }

func (c cursors) format(k shareKey) string {
	b := append(k.bytes(), make([]byte, 8)...)
	c.Encrypt(b, b)
	return hex.EncodeToString(b)
}

// parse returns what format was given. ok is false for what it has not returned.
func (c cursors) parse(s string) (k shareKey, ok bool) {
	var b [aes.BlockSize]byte
	if len(s) != hex.EncodedLen(len(b)) {
		return 0, false
	}
	if _, err := hex.Decode(b[:], []byte(s)); err != nil {
		return 0, false
	}
	c.Decrypt(b[:], b[:])
	return shareKey(binary.BigEndian.Uint64(b[:])), binary.BigEndian.Uint64(b[8:]) == 0
}

// turns lets one thing be done at a time, with a rest after it. It has capacity
// 1, and holds when the next may begin while none is being done.
type turns chan time.Time

func newTurns() turns {
	t := make(turns, 1)
	t <- time.Time{}
	return t
}

// take calls fn when its turn has come. It returns false, and has not called
// it, when that takes longer than listWait, or ctx ends.
func (t turns) take(ctx context.Context, fn func()) bool {
	ctx, cancel := context.WithTimeout(ctx, listWait)
	defer cancel()
	var next time.Time
	select {
	case next = <-t:
	case <-ctx.Done():
		return false
	}
	select {
	case <-time.After(time.Until(next)):
	case <-ctx.Done():
		t <- next
		return false
	}
	start := time.Now()
	defer func() { t <- time.Now().Add(min(listRest*time.Since(start), listRestMax)) }()
	fn()
	return true
}
