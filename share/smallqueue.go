package share

import "slices"

// smallQueue decides which source is asked for which small file. It is no more
// than that: its caller sends the requests, and serialises the calls.
//
// A file waits until a source takes it, and comes back when that source can't
// give it, for one that was not asked yet. While files still come in, none is
// asked for twice; when the last has been taken, a source that has nothing else
// to do takes over what another one owes, so that a slow one holds up nobody.
type smallQueue struct {
	waiting []*smallFile
	asked   []*smallFile // and unanswered, or lately answered, in the order in which they were asked for
	undone  int          // files that were put and are neither done nor given up
	sealed  bool         // no more are put
}

// smallFile is one file of a smallQueue.
type smallFile struct {
	entry Entry
	local string // its path here
	twin  string // the path here of a file that is equal, or empty
	attrs fileAttrs

	tried []source // that were asked
	owing int      // how many of them owe an answer
	done  bool
}

// takenOverMax is how many files a source takes over at a time.
const takenOverMax = 16

// put adds a file.
func (q *smallQueue) put(f *smallFile) {
	q.waiting = append(q.waiting, f)
	q.undone++
}

// take returns up to n files that s is to be asked for now. idle says that it
// owes nothing.
func (q *smallQueue) take(s source, n int, idle bool) []*smallFile {
	var taken []*smallFile
	pick := func(f *smallFile) bool {
		if len(taken) == n || slices.Contains(f.tried, s) {
			return false
		}
		f.tried = append(f.tried, s)
		f.owing++
		taken = append(taken, f)
		return true
	}
	q.waiting = slices.DeleteFunc(q.waiting, pick)
	q.asked = slices.DeleteFunc(q.asked, func(f *smallFile) bool { return f.done || f.owing == 0 })
	if idle && q.sealed && len(q.waiting) == 0 && len(taken) == 0 {
		n = min(n, takenOverMax)
		for _, f := range slices.Backward(q.asked) { // those that were asked for first may be on the way
			if f.owing == 1 { // at most two at a time
				pick(f)
			}
		}
		return taken
	}
	q.asked = append(q.asked, taken...)
	return taken
}

// failed takes back a file that a source could not give.
func (q *smallQueue) failed(f *smallFile) {
	if f.owing--; f.owing == 0 && !f.done {
		q.waiting = append(q.waiting, f)
	}
}

// arrived notes that a file has come, and reports whether it is the first time.
func (q *smallQueue) arrived(f *smallFile) (first bool) {
	f.owing--
	if f.done {
		return false
	}
	f.done = true
	q.undone--
	return true
}

// giveUp removes and returns the waiting files that all of live were asked for.
func (q *smallQueue) giveUp(live []source) (lost []*smallFile) {
	q.waiting = slices.DeleteFunc(q.waiting, func(f *smallFile) bool {
		for _, s := range live {
			if !slices.Contains(f.tried, s) {
				return false
			}
		}
		lost = append(lost, f)
		return true
	})
	for _, f := range lost {
		f.done = true
	}
	q.undone -= len(lost)
	return lost
}

// finished reports whether every file has come or was given up.
func (q *smallQueue) finished() bool { return q.sealed && q.undone == 0 }
