package share

import (
	"cmp"
	"crypto/sha256"
	"slices"
	"unicode/utf8"

	"github.com/multiformats/go-multihash"
	"go.etcd.io/bbolt"
)

// Pairs of words: a common word is in a name on most peers, and that a peer has two
// common words does not say that it has both in one name. A search that can ask a few
// dozen peers only looks by pairs first. The catalog has no index of them: the shares
// that have a pair are those that have both words.

const (
	// pairWordsMax is how many words of one name are announced in pairs: the longest,
	// which people look for rather than for numbers, articles and extensions.
	pairWordsMax = 5
	// pairsMax is how many pairs of all names are announced: those of the oldest shares,
	// so that a new one changes nothing for the others.
	pairsMax = 10_000

	pairKeyPrefix = "p2pshare/words/1\x00"
)

// wordPair is two different words, the one that sorts first being the first.
type wordPair [2]string

func pairOf(a, b string) wordPair { return wordPair{min(a, b), max(a, b)} }

// key is the DHT key for search by both words: SHA-256 of "p2pshare/words/1\x00", the
// words and a zero byte between them.
func (p wordPair) key() multihash.Multihash {
	return sha256Multihash(sha256.Sum256([]byte(pairKeyPrefix + p[0] + "\x00" + p[1])))
}

func pairKeys(pairs []wordPair) (keys []multihash.Multihash) {
	for _, p := range pairs {
		keys = append(keys, p.key())
	}
	return keys
}

// longest orders words by their length in characters, the longest first.
func longest(words []string) []string {
	words = slices.Clone(words)
	slices.SortFunc(words, func(a, b string) int {
		return cmp.Or(utf8.RuneCountInString(b)-utf8.RuneCountInString(a), cmp.Compare(a, b))
	})
	return words
}

// namePairs are the pairs by which a name is announced.
func namePairs(n Name) (pairs []wordPair) {
	words := longest(Words(n))
	words = words[:min(len(words), pairWordsMax)]
	for i, a := range words {
		for _, b := range words[i+1:] {
			pairs = append(pairs, pairOf(a, b))
		}
	}
	return pairs
}

// queryPairs are the pairs by which names with all of words are looked for: of the
// longest two, which the most names are announced by, and of the first two, which are
// the rarest.
func queryPairs(words []string) (pairs []wordPair) {
	if len(words) < 2 {
		return nil
	}
	long := longest(words)
	pairs = []wordPair{pairOf(long[0], long[1]), pairOf(words[0], words[1])}
	return slices.Compact(pairs)
}

// sweptPairs are those by which the sweep is to announce a share.
func (r shareRecord) sweptPairs() []wordPair {
	if !r.listable() || !r.swept() {
		return nil
	}
	return namePairs(r.Name)
}

// sweptPairs returns the pairs that are to be announced, max at most.
func (c *catalog) sweptPairs(max int) (pairs []wordPair, err error) {
	seen := map[wordPair]bool{}
	for r, err := range c.shares() {
		if err != nil {
			return nil, err
		}
		for _, p := range r.sweptPairs() {
			if len(pairs) == max {
				return pairs, nil
			}
			if !seen[p] {
				seen[p] = true
				pairs = append(pairs, p)
			}
		}
	}
	return pairs, nil
}

// needsPair reports whether the sweep should have a pair.
func (c *catalog) needsPair(p wordPair) (needed bool, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		j := joining{tx: tx, steps: searchStepsMax, looks: searchLooksMax, seen: map[shareKey]bool{}}
		err := j.join(p[:], nil, func(r shareRecord) bool {
			needed = slices.Contains(r.sweptPairs(), p)
			return !needed
		})
		needed = needed || j.steps <= 0 || j.looks <= 0
		return err
	})
	return needed, err
}
