package share

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share/content"
	"go.etcd.io/bbolt"
)

// What this peer has seen of names stays in the catalog, in two buckets that are
// made when they are first written:
//
//	versions   SHA-256(publisher) name digest(32)  → version, JSON   the last that was got
//	sightings  name digest(32) content ID(32)      → Unix seconds(8) when a name was first seen to mean a content
//
// The first lets nobody sell an old manifest as new. The second is shown where a
// person has to choose.
var (
	bucketVersions  = []byte("versions")
	bucketSightings = []byte("sightings")
)

// Bounds of the two. What a person got is worth more than what strangers claim.
const (
	versionsMax  = 100_000
	sightingsMax = 10_000
)

// version is a manifest that was believed.
type version struct {
	ID   content.ID `json:"id"`
	Kind Kind       `json:"kind"`
	Size int64      `json:"size"`
	Seq  int64      `json:"seq"`
	At   time.Time  `json:"at"` // when it was got
}

func versionKey(publisher peer.ID, name Name) []byte {
	who, digest := sha256.Sum256([]byte(publisher)), nameDigest(name)
	return append(who[:], digest[:]...)
}

// lastVersion returns what was got last of a publisher's name.
func (c *catalog) lastVersion(publisher peer.ID, name Name) (v version, ok bool, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketVersions)
		if b == nil {
			return nil
		}
		data := b.Get(versionKey(publisher, name))
		ok = data != nil
		if !ok {
			return nil
		}
		return json.Unmarshal(data, &v)
	})
	return v, ok, err
}

// keepVersion remembers what was got of a publisher's name, unless something
// newer is remembered.
func (c *catalog) keepVersion(publisher peer.ID, name Name, v version) error {
	return c.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketVersions)
		if err != nil {
			return err
		}
		key := versionKey(publisher, name)
		if data := b.Get(key); data != nil {
			var known version
			if json.Unmarshal(data, &known) == nil && known.Seq >= v.Seq {
				return nil
			}
		}
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return putBounded(b, key, data, versionsMax)
	})
}

// putBounded puts a new entry; the one with the lowest key after it, which is any,
// makes room where there are max.
func putBounded(b *bbolt.Bucket, key, value []byte, max uint64) error {
	if b.Get(key) == nil && b.Sequence() >= max {
		cursor := b.Cursor()
		k, _ := cursor.Seek(key)
		if k == nil {
			k, _ = cursor.First()
		}
		if err := b.Delete(k); err != nil {
			return err
		}
	} else if b.Get(key) == nil { // the sequence counts entries: bbolt has no cheap count
		if err := b.SetSequence(b.Sequence() + 1); err != nil {
			return err
		}
	}
	return b.Put(key, value)
}

// deleteBounded deletes an entry that putBounded put.
func deleteBounded(b *bbolt.Bucket, key []byte) error {
	if b.Get(key) == nil {
		return nil
	}
	if err := b.Delete(key); err != nil {
		return err
	}
	return b.SetSequence(b.Sequence() - 1)
}

// firstSeen returns when each of ids was first seen under a name, and remembers
// that those which never were are seen now. When 10,000 are remembered, others make
// room.
func (c *catalog) firstSeen(name Name, ids []content.ID, now time.Time) (map[content.ID]time.Time, error) {
	seen := map[content.ID]time.Time{}
	digest := nameDigest(name)
	err := c.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketSightings)
		if err != nil {
			return err
		}
		for _, id := range ids {
			key := append(digest[:], id[:]...)
			if v := b.Get(key); len(v) == 8 {
				seen[id] = time.Unix(int64(binary.BigEndian.Uint64(v)), 0).UTC()
				continue
			}
			seen[id] = now.UTC().Truncate(time.Second)
			if err := putBounded(b, key, binary.BigEndian.AppendUint64(nil, uint64(now.Unix())), sightingsMax); err != nil {
				return err
			}
		}
		return nil
	})
	return seen, err
}

// share returns a live share.
func (c *catalog) share(key shareKey) (r shareRecord, ok bool, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		r, ok, err = getShare(tx, key.bytes())
		ok = ok && r.Stage == stageLive
		return err
	})
	return r, ok, err
}
