package share

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"
	"unicode"

	"github.com/multiformats/go-multihash"
	"github.com/p2pshare/p2pshare/share/content"
	"go.etcd.io/bbolt"
)

// The words of what is shared: an index in the catalog, which answers searches, and
// the choice of those that are announced in the DHT. Names of files inside a shared
// directory are in neither, and nor is what is unlisted.

// bucketWords has, for each word of each share that may be listed:
//
//	word digest(32) key(8) → announced(1) LAN only(1) length(2) to
//
// announced is 1 for the words by which the DHT may know the share, of which a name
// has wordsPerName at most; the rest is its audience, as in the index of what may be
// listed.
var bucketWords = []byte("words")

const (
	// wordsPerName is how many words of one name are announced, those of the fewest
	// other names here first. A name in Chinese has at most 169, any other 128.
	wordsPerName = 32
	// wordsMax is how many words of all names are announced, by the same rule: the
	// sweep takes some hundred lookups for them every 22 hours.
	wordsMax = 10_000
	// wordCountMax ends counting for how many names a word stands.
	wordCountMax = 1000
)

// indexWords are the words by which what has this lookup form is found, sorted: those
// of Words, and of scripts written without spaces the single letters, too.
func indexWords(form string) []string {
	words := wordsOf(form)
	if isASCII(form) {
		return words
	}
	for _, r := range form {
		if unspaced(r) && !unicode.IsMark(r) {
			words = append(words, string(r))
		}
	}
	slices.Sort(words)
	return slices.Compact(words)
}

// wordDigest is the digest inside a word's key.
func wordDigest(word string) [32]byte {
	d, err := multihash.Decode(WordKey(word))
	if err != nil {
		panic(err) // we made it
	}
	return [32]byte(d.Digest)
}

// posting is one entry of the index of words.
type posting struct {
	announced bool
	audience  []byte // as audience.prefix makes it
}

func (p posting) encode() []byte {
	b := []byte{0}
	if p.announced {
		b[0] = 1
	}
	return append(b, p.audience...)
}

func decodePosting(v []byte) (p posting) {
	if len(v) == 0 {
		return p
	}
	return posting{announced: v[0] == 1, audience: v[1:]}
}

// swept reports whether the sweep is to announce the word for this share.
func (p posting) swept() bool { return p.announced && len(p.audience) > 0 && p.audience[0] == 0 }

func postWords(tx *bbolt.Tx, r shareRecord) error {
	if !r.listable() {
		return nil
	}
	words := indexWords(r.Name.Lookup())
	if len(words) > wordsPerName {
		cursor := tx.Bucket(bucketWords).Cursor()
		words = rarest(words, func(w string) int { return countPostings(cursor, wordDigest(w)) })
	}
	p := posting{announced: true, audience: audience{r.Scope.LANOnly, r.Scope.To}.prefix()}
	for i, w := range words {
		p.announced = i < wordsPerName
		d := wordDigest(w)
		if err := tx.Bucket(bucketWords).Put(append(d[:], r.key.bytes()...), p.encode()); err != nil {
			return err
		}
	}
	return nil
}

func unpostWords(tx *bbolt.Tx, r shareRecord) error {
	for _, w := range indexWords(r.Name.Lookup()) {
		d := wordDigest(w)
		if err := tx.Bucket(bucketWords).Delete(append(d[:], r.key.bytes()...)); err != nil {
			return err
		}
	}
	return nil
}

// makeWords makes the index of a catalog that has none yet.
func makeWords(tx *bbolt.Tx) error {
	if tx.Bucket(bucketWords) != nil {
		return nil
	}
	if _, err := tx.CreateBucket(bucketWords); err != nil {
		return err
	}
	return tx.Bucket(bucketShares).ForEach(func(k, v []byte) error {
		r, err := decodeShare(k, v)
		if err != nil || r.Stage != stageLive {
			return err
		}
		return postWords(tx, r)
	})
}

// countPostings counts the shares that have a word, up to wordCountMax.
func countPostings(cursor *bbolt.Cursor, digest [32]byte) (n int) {
	for k, _ := cursor.Seek(digest[:]); n < wordCountMax && bytes.HasPrefix(k, digest[:]); k, _ = cursor.Next() {
		n++
	}
	return n
}

// countWords is countPostings for several words.
func (c *catalog) countWords(words []string) (counts map[string]int, err error) {
	counts = map[string]int{}
	err = c.db.View(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketWords).Cursor()
		for _, w := range words {
			counts[w] = countPostings(cursor, wordDigest(w))
		}
		return nil
	})
	return counts, err
}

// wordKeysOf are the keys of the words by which a share is announced.
func (c *catalog) wordKeysOf(r shareRecord) (keys []multihash.Multihash, err error) {
	if !r.listable() || !r.swept() {
		return nil, nil
	}
	err = c.db.View(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketWords)
		for _, w := range indexWords(r.Name.Lookup()) {
			d := wordDigest(w)
			if decodePosting(bucket.Get(append(d[:], r.key.bytes()...))).swept() {
				keys = append(keys, sha256Multihash(d))
			}
		}
		return nil
	})
	return keys, err
}

// needsWord reports whether the sweep should have the word with this digest.
func (c *catalog) needsWord(digest [32]byte) (needed bool, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketWords).Cursor()
		for k, v := cursor.Seek(digest[:]); bytes.HasPrefix(k, digest[:]) && !needed; k, v = cursor.Next() {
			needed = decodePosting(v).swept()
		}
		return nil
	})
	return needed, err
}

// sweptWords returns the keys of the words that are to be announced, max at most,
// those of the fewest shares first. It reads the whole index.
func (c *catalog) sweptWords(max int) (keys []multihash.Multihash, err error) {
	kept := newLargest(max)
	err = c.db.View(func(tx *bbolt.Tx) error {
		var last [32]byte
		shares, swept := int64(0), false
		offer := func() {
			if swept {
				kept.offer(content.ID(last), -shares)
			}
		}
		cursor := tx.Bucket(bucketWords).Cursor()
		for k, v := cursor.First(); k != nil; k, v = cursor.Next() {
			if digest := [32]byte(k); digest != last {
				offer()
				last, shares, swept = digest, 0, false
			}
			shares++
			swept = swept || decodePosting(v).swept()
		}
		offer()
		return nil
	})
	for _, id := range kept.ids() {
		keys = append(keys, sha256Multihash(id))
	}
	return keys, err
}

const (
	// searchLooksMax is how many records of shares one answer reads.
	searchLooksMax = 512
	// searchStepsMax is how many places of the index it looks at: 5 ms.
	searchStepsMax = 20_000
)

// searchShares returns up to max shares that a query means and any of the given
// audiences, nil for all there are, may know of, newest first for each alternative of words; more tells that
// there are others, or may be.
func (c *catalog) searchShares(q Query, to []audience, now time.Time, max int) (found []shareRecord, more bool, err error) {
	var allowed [][]byte
	for _, a := range to {
		allowed = append(allowed, a.prefix())
	}
	err = c.db.View(func(tx *bbolt.Tx) error {
		j := joining{tx: tx, steps: searchStepsMax, looks: searchLooksMax, seen: map[shareKey]bool{}}
		for _, words := range q.keyWords() {
			err := j.join(words, allowed, func(r shareRecord) bool {
				if !r.listable() || !r.Expires.After(now) || !q.Match(r.Name, r.Size) {
					return true
				}
				if len(found) == max {
					more = true
					return false
				}
				found = append(found, r)
				return true
			})
			if err != nil {
				return err
			}
		}
		more = more || j.steps <= 0 || j.looks <= 0
		return nil
	})
	return found, more, err
}

// joining is one look for the shares that have several words. The index has the
// shares of a word in order, so a share that one word lacks lets all others skip.
type joining struct {
	tx    *bbolt.Tx
	steps int // places that may still be looked at
	looks int // records that may still be read
	seen  map[shareKey]bool
}

// join calls fn with each share that has all of words, newest first, until fn returns
// false.
func (j *joining) join(words []string, allowed [][]byte, fn func(shareRecord) bool) error {
	cursors := make([]wordCursor, len(words))
	for i, w := range words {
		cursors[i] = wordCursor{digest: wordDigest(w), Cursor: j.tx.Bucket(bucketWords).Cursor()}
	}
	at := newestShare
	agreed := 0 // how many words, one after another, have at
	for turn := 0; j.steps > 0 && j.looks > 0; turn++ {
		j.steps--
		key, value, ok := cursors[turn%len(cursors)].atOrBefore(at)
		if !ok {
			return nil
		}
		if agreed++; key != at {
			at, agreed = key, 1
		}
		if agreed < len(words) {
			continue
		}
		agreed = 0
		audience := decodePosting(value).audience
		if !j.seen[key] && (allowed == nil || slices.ContainsFunc(allowed, func(a []byte) bool { return bytes.Equal(a, audience) })) {
			j.looks--
			r, live, err := getShare(j.tx, key.bytes())
			if err != nil {
				return err
			}
			j.seen[key] = true
			if live && r.Stage == stageLive && !fn(r) {
				return nil
			}
		}
		if key == 0 {
			return nil
		}
		at = key - 1
	}
	return nil
}

// wordCursor walks the shares of one word, backwards.
type wordCursor struct {
	*bbolt.Cursor
	digest [32]byte
}

// atOrBefore returns the share with the highest key that is at most key.
func (c *wordCursor) atOrBefore(key shareKey) (at shareKey, value []byte, ok bool) {
	want := append(c.digest[:], key.bytes()...)
	k, v := c.Seek(want)
	switch {
	case k == nil:
		k, v = c.Last()
	case !bytes.Equal(k, want):
		k, v = c.Prev()
	}
	if !bytes.HasPrefix(k, c.digest[:]) {
		return 0, nil, false
	}
	return shareKey(binary.BigEndian.Uint64(k[32:])), v, true
}
