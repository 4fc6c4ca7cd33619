package coord

import (
	"slices"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

const (
	fetchRetry = time.Second // after a fetch that failed first
	// fetchRetryMax is what the pause doubles up to. It is short: a repair waits for it
	// when a source comes back.
	fetchRetryMax = 30 * time.Second
	// fetchRetryEach is how far tries of different contents are apart, from the third of
	// each on: however many contents there are that nobody has, and whenever they began
	// to fail, a member with nothing else to do rests.
	fetchRetryEach = time.Second
	// fetchHasten is how many of those that wait are tried at once when one of them
	// succeeds, whose source is back and may have others: with 1 a repair would end
	// with the first that is still missing, with 2 it soon has all places for fetches.
	fetchHasten = 2
)

// retries are the contents whose fetch failed last.
type retries struct {
	of map[content.ID]try
	// turn is the last of the turns, fetchRetryEach apart, that were given to contents.
	turn time.Time
}

// try is how often in a row a fetch failed, and when it may begin again.
type try struct {
	count int
	after time.Time
}

// due are those of missing that a fetch may begin of: first what has not been tried, and
// then what has waited longest, so that what nobody has keeps places from nothing else.
func (t *retries) due(missing []content.ID, now time.Time) []content.ID {
	var list, again []content.ID
	for _, id := range missing {
		if x, failed := t.of[id]; !failed {
			list = append(list, id)
		} else if !now.Before(x.after) {
			again = append(again, id)
		}
	}
	slices.SortStableFunc(again, func(a, b content.ID) int { return t.of[a].after.Compare(t.of[b].after) })
	return append(list, again...)
}

// failed has a content wait: for a second when it has failed for the first time, and
// then until its turn comes, which takes at most fetchRetryEach for each that fails.
func (t *retries) failed(id content.ID, now time.Time) {
	x := t.of[id]
	pause := min(fetchRetry<<min(x.count, 10), fetchRetryMax)
	x.count++
	x.after = now.Add(pause)
	t.of[id] = x
	if x.count == 1 {
		return
	}
	t.turn = later(t.turn, now).Add(fetchRetryEach)
	if last := now.Add(time.Duration(len(t.of)) * fetchRetryEach); t.turn.After(last) {
		t.turn = last // some that had turns need them no more
	}
	x.after = later(x.after, t.turn)
	t.of[id] = x
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// succeeded forgets a content, and if it had failed before, tries those now that would
// have been next.
func (t *retries) succeeded(id content.ID, now time.Time) {
	if _, failed := t.of[id]; !failed {
		return
	}
	delete(t.of, id)
	for range fetchHasten {
		next, found := content.ID{}, false
		for id, x := range t.of {
			if x.after.After(now) && (!found || x.after.Before(t.of[next].after)) {
				next, found = id, true
			}
		}
		if !found {
			return
		}
		x := t.of[next]
		x.after = now
		t.of[next] = x
	}
}
