package pinset

import (
	"iter"
	"slices"
)

// A table is a sorted set of records in a copy-on-write B+tree: the records are
// in the leaves, and an inner node holds, for each child, a record that none of
// the child's is less than. Clone is O(1); after it both sides copy a node
// before they change it, once, so that each is read while the other changes.
//
// The records themselves are never changed once they are in a table.
//
// Nodes are allowed to be less full than in the textbook: a node is merged with
// its neighbor when both fit into one, and dropped when it is empty. That keeps
// deletion short, and no path is longer than the inserts made it.
//
// Of our own, because it is shorter than what a module would bring (google/btree
// has a locked free list and callbacks, tidwall/btree a lock), and leaves filled
// by ascending inserts, as Decode makes them, are full here and half full there.
type table[T any] struct {
	compare func(a, b T) int
	key     func(T) uint32 // in the same order as far as it goes; nil for none
	root    *node[T]       // nil when empty
	length  int
	owner   *owner
}

// owner marks the nodes that one table alone refers to, and may change in place.
type owner struct{ _ byte }

type node[T any] struct {
	owner    *owner
	items    []T        // of a leaf, its records; else the lower bound of each child
	keys     []uint32   // of items, so that a search need not go to each; nil without
	children []*node[T] // nil in a leaf
}

// Items of a node: their pointers are 512 bytes. One place is spare, for what
// makes a node too full before it is split.
const (
	nodeMax   = 63
	nodeSmall = nodeMax / 4
)

func newTable[T any](compare func(a, b T) int) table[T] {
	return table[T]{compare: compare, owner: new(owner)}
}

func (t *table[T]) keyOf(r T) uint32 {
	if t.key == nil {
		return 0
	}
	return t.key(r)
}

// clone returns a table with the same records.
func (t *table[T]) clone() table[T] {
	c := *t
	t.owner, c.owner = new(owner), new(owner)
	return c
}

// get returns the record for which at is 0. at tells how a record compares to
// the one that is sought, whose key is key: -1 when it is less.
func (t *table[T]) get(key uint32, at func(T) int) (r T, found bool) {
	for n := t.root; n != nil; {
		if n.children != nil {
			n = n.children[n.child(key, at)]
			continue
		}
		if i, found := n.search(key, at); found {
			return n.items[i], true
		}
		break
	}
	return r, false
}

// search returns where in n.items the sought record is, or would be.
func (n *node[T]) search(key uint32, at func(T) int) (i int, found bool) {
	if n.keys != nil {
		return n.searchKeys(key, at)
	}
	low, high := 0, len(n.items)
	for low < high {
		middle := int(uint(low+high) >> 1)
		switch c := at(n.items[middle]); {
		case c == 0:
			return middle, true
		case c < 0:
			low = middle + 1
		default:
			high = middle
		}
	}
	return low, false
}

func (n *node[T]) searchKeys(key uint32, at func(T) int) (i int, found bool) {
	i, _ = slices.BinarySearch(n.keys, key)
	for ; i < len(n.keys) && n.keys[i] == key; i++ {
		if c := at(n.items[i]); c >= 0 {
			return i, c == 0
		}
	}
	return i, false
}

// child returns which child of an inner node has the sought record if any has.
func (n *node[T]) child(key uint32, at func(T) int) int {
	i, found := n.search(key, at)
	if found {
		return i
	}
	return max(0, i-1)
}

// set inserts r, in place of the record that is equal in order if there is one.
func (t *table[T]) set(r T) (old T, replaced bool) {
	if t.root == nil {
		t.root = t.node(nil, false)
	}
	t.root = t.mutable(t.root)
	old, replaced = t.insert(t.root, r)
	if left := t.root; len(left.items) > nodeMax {
		right := t.split(left, r)
		t.root = t.node([]T{left.items[0], right.items[0]}, true)
		t.root.children = append(t.root.children, left, right)
	}
	if !replaced {
		t.length++
	}
	return old, replaced
}

func (t *table[T]) insert(n *node[T], r T) (old T, replaced bool) {
	key, at := t.keyOf(r), func(x T) int { return t.compare(x, r) }
	last := len(n.items) - 1
	behind := last >= 0 && at(n.items[last]) < 0 // as ascending records are
	if n.children == nil {
		i, found := last+1, false
		if !behind {
			i, found = n.search(key, at)
		}
		if found {
			old, n.items[i] = n.items[i], r
			return old, true
		}
		t.add(n, i, r)
		return old, false
	}
	i := last
	if !behind {
		i = n.child(key, at)
	}
	if t.compare(r, n.items[i]) < 0 { // it becomes the least of all
		n.items[i] = r
		if n.keys != nil {
			n.keys[i] = key
		}
	}
	c := t.mutable(n.children[i])
	n.children[i] = c
	old, replaced = t.insert(c, r)
	if len(c.items) > nodeMax {
		right := t.split(c, r)
		t.add(n, i+1, right.items[0])
		n.children = slices.Insert(n.children, i+1, right)
	}
	return old, replaced
}

func (t *table[T]) add(n *node[T], i int, r T) {
	n.items = slices.Insert(n.items, i, r)
	if n.keys != nil {
		n.keys = slices.Insert(n.keys, i, t.key(r))
	}
}

// split moves the end of n to a new node. inserted made n too full: when it is
// the last, more of the like will follow, and n stays nearly full.
func (t *table[T]) split(n *node[T], inserted T) *node[T] {
	cut := len(n.items) / 2
	if t.compare(n.items[len(n.items)-1], inserted) <= 0 {
		cut = len(n.items) - 4
	}
	right := t.node(n.items[cut:], n.children != nil)
	clear(n.items[cut:])
	n.items = n.items[:cut]
	if n.keys != nil {
		n.keys = n.keys[:cut]
	}
	if n.children != nil {
		right.children = append(right.children, n.children[cut:]...)
		clear(n.children[cut:])
		n.children = n.children[:cut]
	}
	return right
}

func (t *table[T]) node(items []T, inner bool) *node[T] {
	n := &node[T]{owner: t.owner, items: append(make([]T, 0, nodeMax+1), items...)}
	if t.key != nil {
		n.keys = make([]uint32, 0, nodeMax+1)
		for _, r := range items {
			n.keys = append(n.keys, t.key(r))
		}
	}
	if inner {
		n.children = make([]*node[T], 0, nodeMax+1)
	}
	return n
}

// mutable returns n, or a copy when others may see n.
func (t *table[T]) mutable(n *node[T]) *node[T] {
	if n.owner == t.owner {
		return n
	}
	c := t.node(n.items, n.children != nil)
	c.children = append(c.children, n.children...)
	return c
}

// remove takes out the record for which at is 0, and whose key is key.
func (t *table[T]) remove(key uint32, at func(T) int) (old T, found bool) {
	if t.root == nil {
		return old, false
	}
	t.root = t.mutable(t.root)
	if old, found = t.delete(t.root, key, at); !found {
		return old, false
	}
	t.length--
	for len(t.root.children) == 1 {
		t.root = t.root.children[0]
	}
	if len(t.root.items) == 0 {
		t.root = nil
	}
	return old, true
}

func (t *table[T]) delete(n *node[T], key uint32, at func(T) int) (old T, found bool) {
	if n.children == nil {
		i, found := n.search(key, at)
		if found {
			old = n.items[i]
			n.cut(i)
		}
		return old, found
	}
	i := n.child(key, at)
	c := t.mutable(n.children[i])
	n.children[i] = c
	old, found = t.delete(c, key, at)
	switch {
	case len(c.items) == 0:
		n.drop(i)
	case len(c.items) < nodeSmall && len(n.children) > 1:
		t.merge(n, min(i, len(n.children)-2))
	}
	return old, found
}

// merge makes one of the children i and i+1 of n, when both fit into it.
func (t *table[T]) merge(n *node[T], i int) {
	if len(n.children[i].items)+len(n.children[i+1].items) > nodeMax {
		return
	}
	left, right := t.mutable(n.children[i]), n.children[i+1]
	left.items = append(left.items, right.items...)
	left.keys = append(left.keys, right.keys...)
	left.children = append(left.children, right.children...)
	n.children[i] = left
	n.drop(i + 1)
}

func (n *node[T]) drop(i int) {
	n.cut(i)
	n.children = slices.Delete(n.children, i, i+1)
}

func (n *node[T]) cut(i int) {
	n.items = slices.Delete(n.items, i, i+1)
	if n.keys != nil {
		n.keys = slices.Delete(n.keys, i, i+1)
	}
}

// all yields the records in order.
func (t *table[T]) all() iter.Seq[T] { return t.from(func(T) int { return 0 }) }

// from yields, in order, the records for which at is 0 or more. The table must
// not be changed meanwhile: a clone may.
func (t *table[T]) from(at func(T) int) iter.Seq[T] {
	return func(yield func(T) bool) {
		if t.root != nil {
			t.root.ascend(at, yield)
		}
	}
}

func (n *node[T]) ascend(at func(T) int, yield func(T) bool) bool {
	i := slices.IndexFunc(n.items, func(r T) bool { return at(r) >= 0 })
	if i < 0 {
		i = len(n.items)
	}
	if n.children == nil {
		for _, r := range n.items[i:] {
			if !yield(r) {
				return false
			}
		}
		return true
	}
	for _, c := range n.children[max(0, i-1):] {
		if !c.ascend(at, yield) {
			return false
		}
	}
	return true
}

// least returns the first record.
func (t *table[T]) least() (r T, found bool) {
	n := t.root
	if n == nil {
		return r, false
	}
	for n.children != nil {
		n = n.children[0]
	}
	return n.items[0], true
}

// greatest returns the last record.
func (t *table[T]) greatest() (r T, found bool) {
	n := t.root
	if n == nil {
		return r, false
	}
	for n.children != nil {
		n = n.children[len(n.children)-1]
	}
	return n.items[len(n.items)-1], true
}
