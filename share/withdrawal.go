package share

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"go.etcd.io/bbolt"
)

// withdrawal is what a publisher says when it stops sharing a name: its value record
// would lead to the content for weeks. It takes the record's place, in an envelope of
// kind "name":
//
//	{"v":1,"name":"report.pdf","publisher":"12D3…","seq":1767…,"issued":…,"expires":…,"withdrawn":true}
//
// It ends all manifests of a lower seq, and lasts as long as the last of them. The
// publisher keeps it in the catalog meanwhile, in the bucket "withdrawals", by the
// digest in the name's key, and puts it again as it does its records.
type withdrawal struct {
	V         int       `json:"v"` // 1
	Name      Name      `json:"name"`
	Publisher peer.ID   `json:"publisher"` // the envelope's sender
	Seq       int64     `json:"seq"`       // one more than that of the manifest that it ends
	Issued    time.Time `json:"issued"`
	Expires   time.Time `json:"expires"`
	Withdrawn bool      `json:"withdrawn"` // true
}

// withdrawalsMax is how many a publisher keeps; of more the records run out.
const withdrawalsMax = 10_000

var bucketWithdrawals = []byte("withdrawals")

// openWithdrawal verifies an envelope that holds a withdrawal, at time now. The error
// matches ErrBadManifest or node.ErrBadEnvelope.
func openWithdrawal(e node.Envelope, now time.Time) (w withdrawal, err error) {
	if err := openSigned(e, node.KindName, &w); err != nil {
		return w, err
	}
	reason := faultOfName(w.Name, w.Seq, w.Issued, w.Expires, now)
	if reason == "" && !w.Withdrawn {
		reason = "it withdraws nothing"
	}
	if reason != "" {
		return w, fmt.Errorf("%w: %s", ErrBadManifest, reason)
	}
	return w, nil
}

// pendingWithdrawal is one that is put in the DHTs until it expires.
type pendingWithdrawal struct {
	Envelope node.Envelope `json:"envelope"`
	LANOnly  bool          `json:"lan_only,omitempty"`

	withdrawal `json:"-"` // what is in the envelope
}

// withdrawName says that a name which had a value record is not shared any more, unless
// another share of it has one in all the DHTs of reach.
func (l *Library) withdrawName(record *nameRecord, reach node.Reach) error {
	e, err := node.DecodeEnvelope(record.value)
	if err != nil {
		return err
	}
	m, err := OpenManifest(e, time.Now())
	if err != nil {
		return nil // it has run out by itself
	}
	l.signing.Lock()
	defer l.signing.Unlock()
	others, err := l.catalog.byName(nameDigest(m.Name), lookupMax)
	if err != nil {
		return err
	}
	for _, r := range others {
		if l.recordOf(r) != nil && (r.reach() == node.ReachAll || reach == node.ReachLAN) {
			return nil
		}
	}
	body, err := json.Marshal(withdrawal{V: manifestVersion, Name: m.Name, Publisher: m.Publisher, Seq: m.Seq + 1,
		Issued: now(), Expires: m.Expires, Withdrawn: true})
	if err != nil {
		return err
	}
	p := pendingWithdrawal{LANOnly: reach == node.ReachLAN}
	if p.Envelope, err = node.Seal(l.node.Key(), node.KindName, body); err != nil {
		return err
	}
	if err := l.catalog.keepWithdrawal(m.Name, p); err != nil {
		return err
	}
	l.withdrawSoon()
	return nil
}

// withdrawSoon has keepRecords put the withdrawals.
func (l *Library) withdrawSoon() {
	select {
	case l.withdrawn <- struct{}{}:
	default: // it is about to
	}
}

// putWithdrawals puts what is withdrawn, the latest first, and forgets what has expired.
// It ends early when there is another: who calls it does so again.
func (l *Library) putWithdrawals(ctx context.Context) error {
	pending, err := l.catalog.withdrawals(time.Now())
	if err != nil || len(pending) == 0 || !l.node.WaitDHT(ctx) {
		return err
	}
	slices.SortFunc(pending, func(a, b pendingWithdrawal) int { return b.Issued.Compare(a.Issued) })
	for _, p := range pending {
		if len(l.withdrawn) > 0 {
			return nil
		}
		reach := node.ReachAll
		if p.LANOnly {
			reach = node.ReachLAN
		}
		one, cancel := context.WithTimeout(ctx, announceMax)
		l.putRecord(one, keys{reach: reach, record: &nameRecord{valueKey(p.Publisher, nameDigest(p.Name)), p.Envelope.Encode()}})
		cancel()
	}
	return nil
}

func (c *catalog) keepWithdrawal(n Name, p pendingWithdrawal) error {
	digest := nameDigest(n)
	return c.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketWithdrawals)
		if err != nil {
			return err
		}
		var old pendingWithdrawal
		if kept := b.Get(digest[:]); kept != nil && json.Unmarshal(kept, &old) == nil && !old.LANOnly {
			p.LANOnly = false // what stands in the WAN's DHT is not over
		}
		data, err := json.Marshal(p)
		if err != nil {
			return err
		}
		return putBounded(b, digest[:], data, withdrawalsMax)
	})
}

// withdrawals returns those that have not expired, and forgets the others.
func (c *catalog) withdrawals(now time.Time) (pending []pendingWithdrawal, err error) {
	err = c.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketWithdrawals)
		if b == nil {
			return nil
		}
		var over [][]byte
		err := b.ForEach(func(key, data []byte) error {
			var p pendingWithdrawal
			err := json.Unmarshal(data, &p)
			if err == nil {
				p.withdrawal, err = openWithdrawal(p.Envelope, now)
			}
			if err != nil {
				over = append(over, key)
				return nil
			}
			pending = append(pending, p)
			return nil
		})
		for _, key := range over {
			if err == nil {
				err = deleteBounded(b, key)
			}
		}
		return err
	})
	return pending, err
}

// withdrawal returns what is kept of a name's; ok is false when it was not withdrawn, or
// that has expired.
func (c *catalog) withdrawal(n Name) (p pendingWithdrawal, ok bool, err error) {
	digest := nameDigest(n)
	err = c.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketWithdrawals)
		if b == nil || b.Get(digest[:]) == nil {
			return nil
		}
		if err := json.Unmarshal(b.Get(digest[:]), &p); err != nil {
			return err
		}
		var expired error
		p.withdrawal, expired = openWithdrawal(p.Envelope, time.Now())
		ok = expired == nil
		return nil
	})
	return p, ok, err
}

// endWithdrawal forgets that a name was withdrawn.
func (c *catalog) endWithdrawal(n Name) error {
	digest := nameDigest(n)
	return c.db.Update(func(tx *bbolt.Tx) error {
		return deleteBounded(tx.Bucket(bucketWithdrawals), digest[:])
	})
}
