package pinset

// difference returns the records that are in one of two tables only: gone from
// was, and come to is. A record that was replaced is in both. It takes no longer
// than what differs if one is made of a clone of the other: nodes that both have
// are not looked into.
func difference[T comparable](was, is *table[T]) (gone, came []T) {
	a, b := levelOf(was.root), levelOf(is.root)
	da, db := depth(was.root), depth(is.root)
	for da > 0 || db > 0 {
		if da == db {
			a, b = onlyOne(a, b)
		}
		deepA, deepB := da >= db, db >= da
		if deepA {
			a, da = below(a), da-1
		}
		if deepB {
			b, db = below(b), db-1
		}
	}
	a, b = onlyOne(a, b)
	return onlyOne(itemsOf(a), itemsOf(b))
}

func levelOf[T any](root *node[T]) []*node[T] {
	if root == nil {
		return nil
	}
	return []*node[T]{root}
}

// depth is how many levels are under n: all leaves are equally deep.
func depth[T any](n *node[T]) (d int) {
	for ; n != nil && n.children != nil; n = n.children[0] {
		d++
	}
	return d
}

func below[T any](nodes []*node[T]) (children []*node[T]) {
	for _, n := range nodes {
		children = append(children, n.children...)
	}
	return children
}

func itemsOf[T any](leaves []*node[T]) (items []T) {
	for _, n := range leaves {
		items = append(items, n.items...)
	}
	return items
}

// onlyOne returns what is in one of two lists only.
func onlyOne[T comparable](a, b []T) (onlyA, onlyB []T) {
	in := make(map[T]bool, len(a))
	for _, x := range a {
		in[x] = true
	}
	for _, x := range b {
		if in[x] {
			delete(in, x)
		} else {
			onlyB = append(onlyB, x)
		}
	}
	for _, x := range a {
		if in[x] {
			onlyA = append(onlyA, x)
		}
	}
	return onlyA, onlyB
}
