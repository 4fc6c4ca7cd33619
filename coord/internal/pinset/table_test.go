package pinset

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// check walks a tree and returns its records; it fails where a node is out of
// shape.
func (t *table[T]) check(test *testing.T) []T {
	test.Helper()
	var walk func(n *node[T], depth int) int
	walk = func(n *node[T], depth int) int {
		if len(n.items) == 0 || len(n.items) > nodeMax {
			test.Fatalf("a node has %d items", len(n.items))
		}
		if t.key != nil && len(n.keys) != len(n.items) {
			test.Fatalf("a node has %d items and %d keys", len(n.items), len(n.keys))
		}
		if n.children == nil {
			return depth
		}
		if len(n.children) != len(n.items) {
			test.Fatalf("a node has %d items and %d children", len(n.items), len(n.children))
		}
		below := walk(n.children[0], depth+1)
		for _, c := range n.children[1:] {
			if d := walk(c, depth+1); d != below {
				test.Fatalf("leaves at depths %d and %d", below, d)
			}
		}
		return below
	}
	if t.root != nil {
		walk(t.root, 0)
	}
	return slices.Collect(t.all())
}

func TestTableIsASortedSet(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		tree := newTable(func(a, b *int) int { return cmp.Compare(*a, *b) })
		if seed%2 == 1 { // keys that tell apart only some
			tree.key = func(v *int) uint32 { return uint32(*v / 7) }
		}
		model := map[int]bool{}
		type pair struct {
			table table[*int]
			want  []int
		}
		var clones []pair
		sorted := func() []int {
			list := make([]int, 0, len(model))
			for v := range model {
				list = append(list, v)
			}
			slices.Sort(list)
			return list
		}
		for step := range 20_000 {
			v := rng.IntN(3000)
			if seed%5 == 0 && step < 3000 {
				v = step // ascending, as a log
			}
			at := func(x *int) int { return cmp.Compare(*x, v) }
			growing := step/4000%2 == 0
			if growing == (rng.IntN(4) > 0) {
				if _, replaced := tree.set(&v); replaced != model[v] {
					t.Fatalf("seed %d: set(%d) replaced %t, want %t", seed, v, replaced, model[v])
				}
				model[v] = true
			} else {
				if _, found := tree.remove(tree.keyOf(&v), at); found != model[v] {
					t.Fatalf("seed %d: remove(%d) found %t, want %t", seed, v, found, model[v])
				}
				delete(model, v)
			}
			w := rng.IntN(3000)
			if _, found := tree.get(tree.keyOf(&w), func(x *int) int { return cmp.Compare(*x, w) }); found != model[w] {
				t.Fatalf("seed %d: get(%d) found %t, want %t", seed, w, found, model[w])
			}
			if step%3000 == 0 {
				clones = append(clones, pair{tree.clone(), sorted()})
			}
		}
		clones = append(clones, pair{tree, sorted()})
		for i, c := range clones {
			got := c.table.check(t)
			if !slices.EqualFunc(got, c.want, func(a *int, b int) bool { return *a == b }) || c.table.length != len(c.want) {
				t.Fatalf("seed %d: clone %d has %d records, of %d, want %d", seed, i, len(got), c.table.length, len(c.want))
			}
			from := rng.IntN(3000)
			least, _ := slices.BinarySearch(c.want, from)
			for x := range c.table.from(func(x *int) int { return cmp.Compare(*x, from) }) {
				if *x != c.want[least] {
					t.Fatalf("seed %d: from(%d) yields %d, want %d", seed, from, *x, c.want[least])
				}
				least++
			}
			if least != len(c.want) {
				t.Fatalf("seed %d: from(%d) ends early", seed, from)
			}
		}
	}
}
