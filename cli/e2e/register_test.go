package e2e

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/p2pshare/p2pshare/share/content"
)

// A group's names are, to its clients, registers with compare-and-set. A value is
// what a name is bound to: the number of the write that did it, as each write
// binds a content of its own. So the log index that a write expects stands for
// the value that was made there.
type value uint64

const (
	unbound value = 0
	anyway  value = math.MaxUint64 // as expectation: whatever is there
)

// content is the content ID that stands for the value.
func (v value) content() (id content.ID) {
	binary.BigEndian.PutUint64(id[:], uint64(v))
	return id
}

func valueOf(id content.ID) value { return value(binary.BigEndian.Uint64(id[:])) }

// operation is what a client asks for: a read, or a write of value, unbound for an
// unpin, where expect is.
type operation struct {
	name          string
	read          bool
	expect, value value
}

// outcome is what became of it.
type outcome struct {
	value   value // read, or there instead of what was expected
	refused bool  // the write: something else was there
	unknown bool  // the write may be done at any time after it began, or never
}

// register is one name.
var register = porcupine.Model{
	Init: func() any { return unbound },
	Step: func(state, input, output any) (bool, any) {
		is, op, out := state.(value), input.(operation), output.(outcome)
		met := op.expect == anyway || op.expect == is
		switch {
		case op.read:
			return out.value == is, is
		case out.refused:
			return !met && out.value == is, is
		case !met:
			return out.unknown, is
		}
		return true, op.value
	},
	Partition: func(history []porcupine.Operation) (parts [][]porcupine.Operation) {
		at := map[string]int{}
		for _, op := range history {
			name := op.Input.(operation).name
			i, known := at[name]
			if !known {
				i = len(parts)
				at[name], parts = i, append(parts, nil)
			}
			parts[i] = append(parts[i], op)
		}
		return parts
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %+v", input, output) },
}

// history is what clients saw.
type history struct {
	began time.Time

	mu      sync.Mutex
	ops     []porcupine.Operation // guarded by mu
	writes  value                 // guarded by mu: values given out
	wrong   error                 // guarded by mu: the first answer that no group may give
	indices map[value]uint64      // guarded by mu: where each value was made
}

func newHistory() *history { return &history{began: time.Now(), indices: map[value]uint64{}} }

func (h *history) now() int64 { return int64(time.Since(h.began)) }

// next returns a value that no write has had yet.
func (h *history) next() value {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes++
	return h.writes
}

// add takes in an operation that began at call and has just ended.
func (h *history) add(client int, call int64, op operation, out outcome) {
	end := h.now()
	if out.unknown {
		end = math.MaxInt64
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: op, Call: call, Output: out, Return: end})
}

// saw tells that a value was made at a log index. A write that is done twice is
// seen at two.
func (h *history) saw(v value, index uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if was, known := h.indices[v]; known && was != index && h.wrong == nil {
		h.wrong = fmt.Errorf("write %d was done at log index %d and at %d", v, was, index)
	}
	h.indices[v] = index
}

// failed tells of an answer that no group may give.
func (h *history) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.wrong == nil {
		h.wrong = err
	}
}

// err is the first answer that no group may give, nil if there was none.
func (h *history) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.wrong
}

// relevant is the history without the pins of unknown outcome whose value nobody
// saw. It is linearizable if and only if the whole one is: such a pin can as well
// come after everything else, and nothing depends on it before, as unpins name the
// value that they expect. Each of them would double the orders to try.
func (h *history) relevant() (ops []porcupine.Operation, unknown int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := map[value]bool{unbound: true}
	for _, op := range h.ops {
		seen[op.Input.(operation).expect] = true
		seen[op.Output.(outcome).value] = true
	}
	for _, op := range h.ops {
		if op.Output.(outcome).unknown {
			if !seen[op.Input.(operation).value] {
				continue
			}
			unknown++
		}
		ops = append(ops, op)
	}
	return ops, unknown
}

// telling is the history without the reads of a value that others of that value stand
// for. A pinned value is there once, from its write to the next: that all reads of it
// met it holds if and only if the one that began last did, and the one that ended
// first. Many at once, all alike, are as many orders to try as they have subsets.
func telling(ops []porcupine.Operation) (kept []porcupine.Operation) {
	began, ended := map[value]int{}, map[value]int{} // where in ops those two are
	for i, op := range ops {
		v, read := op.Output.(outcome).value, op.Input.(operation).read
		if !read || v == unbound {
			continue
		}
		if j, is := began[v]; !is || op.Call > ops[j].Call {
			began[v] = i
		}
		if j, is := ended[v]; !is || op.Return < ops[j].Return {
			ended[v] = i
		}
	}
	for i, op := range ops {
		v, read := op.Output.(outcome).value, op.Input.(operation).read
		if !read || v == unbound || began[v] == i || ended[v] == i {
			kept = append(kept, op)
		}
	}
	return kept
}

// checkMax is how long the checker may take. It needs a second or two.
const checkMax = 2 * time.Minute

// check has porcupine look for an order of the operations that explains them.
func (h *history) check(t testing.TB) porcupine.CheckResult {
	t.Helper()
	all, unknown := h.relevant()
	ops := telling(all)
	began := time.Now()
	result := porcupine.CheckOperationsTimeout(register, ops, checkMax)
	t.Logf("%s: %d operations, of which %d tell something, %d of unknown outcome; checked in %v",
		result, len(all), len(ops), unknown, time.Since(began).Round(time.Millisecond))
	if result == porcupine.Illegal {
		t.Log(contradiction(ops))
	}
	return result
}

// contradiction tells which operation is the first, by its end, that no order
// explains, and what ended before it or was under way.
func contradiction(ops []porcupine.Operation) string {
	for _, part := range register.Partition(ops) {
		slices.SortFunc(part, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
		first := sort.Search(len(part), func(i int) bool {
			return porcupine.CheckOperationsTimeout(register, until(part, i), checkMax) == porcupine.Illegal
		})
		if first == len(part) {
			continue
		}
		var text strings.Builder
		fmt.Fprintln(&text, "the last of these can't be explained; times are in milliseconds:")
		known := until(part, first)
		for _, op := range known[max(0, len(known)-contradictionShown):] {
			end := fmt.Sprint(op.Return / 1e6)
			if op.Return == math.MaxInt64 {
				end = "…"
			}
			fmt.Fprintf(&text, "\tclient %2d, %d to %s: %s\n", op.ClientId, op.Call/1e6, end, register.DescribeOperation(op.Input, op.Output))
		}
		return text.String()
	}
	return "each name by itself can be explained"
}

const contradictionShown = 20

// until is what was known when the operation at i of part ended, that one last.
func until(part []porcupine.Operation, i int) (known []porcupine.Operation) {
	for _, op := range part[i+1:] {
		if op.Call <= part[i].Return && !op.Input.(operation).read {
			op.Output, op.Return = outcome{unknown: true}, math.MaxInt64
			known = append(known, op)
		}
	}
	return append(slices.Clone(part[:i]), append(known, part[i])...)
}

// TestRegisterTellsStaleReads holds the model against histories whose answer is
// known.
func TestRegisterTellsStaleReads(t *testing.T) {
	write := func(call, end int64, expect, v value, out outcome) porcupine.Operation {
		return porcupine.Operation{Input: operation{name: "a", expect: expect, value: v}, Call: call, Output: out, Return: end}
	}
	read := func(call, end int64, v value) porcupine.Operation {
		return porcupine.Operation{Input: operation{name: "a", read: true}, Call: call, Output: outcome{value: v}, Return: end}
	}
	lost := outcome{unknown: true}
	for _, test := range []struct {
		name  string
		ops   []porcupine.Operation
		legal bool
	}{
		{"read after write", []porcupine.Operation{write(1, 2, unbound, 1, outcome{}), read(3, 4, 1)}, true},
		{"stale read", []porcupine.Operation{write(1, 2, unbound, 1, outcome{}), read(3, 4, unbound)}, false},
		{"read beside write", []porcupine.Operation{write(1, 4, unbound, 1, outcome{}), read(2, 3, unbound)}, true},
		{"two from one expectation", []porcupine.Operation{write(1, 2, unbound, 1, outcome{}), write(3, 4, unbound, 2, outcome{})}, false},
		{"refused for what is there", []porcupine.Operation{write(1, 2, unbound, 1, outcome{}), write(3, 4, unbound, 2, outcome{value: 1, refused: true})}, true},
		{"refused for nothing", []porcupine.Operation{write(1, 2, unbound, 1, outcome{value: unbound, refused: true})}, false},
		{"unknown, done late", []porcupine.Operation{write(1, math.MaxInt64, unbound, 1, lost), read(2, 3, unbound), read(4, 5, 1)}, true},
		{"unknown, never done", []porcupine.Operation{write(1, math.MaxInt64, unbound, 1, lost), read(2, 3, unbound)}, true},
		{"unknown, undone", []porcupine.Operation{write(1, math.MaxInt64, unbound, 1, lost), read(2, 3, 1), read(4, 5, unbound)}, false},
		{"stale read among many", []porcupine.Operation{write(1, 2, unbound, 1, outcome{}), read(3, 9, 1), write(4, 5, 1, 2, outcome{}),
			read(4, 8, 1), read(6, 7, 1), read(3, 8, 1), read(6, 9, 2)}, false},
		{"lost write", []porcupine.Operation{write(1, 2, anyway, 1, outcome{}), write(3, 4, anyway, 2, outcome{}), read(5, 6, 1)}, false},
	} {
		h := newHistory()
		h.ops = test.ops
		if got := h.check(t) == porcupine.Ok; got != test.legal {
			t.Errorf("%s: legal = %v, want %v", test.name, got, test.legal)
		}
	}
}
