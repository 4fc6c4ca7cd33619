package coord

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

func TestRetriesComeInTurnsWhenManyFail(t *testing.T) {
	for _, x := range []struct {
		count, failing int
		first, last    time.Duration // after all have failed so often, at one time
	}{
		{1, 1, time.Second, time.Second},
		{2, 1, 2 * time.Second, 2 * time.Second},
		{5, 1, 16 * time.Second, 16 * time.Second},
		{6, 1, 30 * time.Second, 30 * time.Second},
		{1000, 1, 30 * time.Second, 30 * time.Second},
		{1, 10_000, time.Second, time.Second}, // for a source that comes a little late
		{2, 10, 2 * time.Second, 10 * time.Second},
		{6, 10, 30 * time.Second, 30 * time.Second},
		{2, 10_000, 2 * time.Second, 10_000 * time.Second},
		{6, 10_000, 30 * time.Second, 10_000 * time.Second},
	} {
		list := retries{of: map[content.ID]try{}}
		now := time.Unix(0, 0)
		for n := range x.count {
			now = now.Add(24 * time.Hour)
			for i := range x.failing {
				list.failed(content.ID{byte(i), byte(i >> 8)}, now)
			}
			if n+1 < x.count {
				continue
			}
			first, last := list.of[content.ID{}].after.Sub(now), time.Duration(0)
			for _, y := range list.of {
				first, last = min(first, y.after.Sub(now)), max(last, y.after.Sub(now))
			}
			if first != x.first || last != x.last {
				t.Errorf("failed %d times, %d are tried again after %v to %v, want %v to %v", x.count, x.failing, first, last, x.first, x.last)
			}
		}
	}
}

func TestTurnsOfWhatIsUnpinnedAreGivenAgain(t *testing.T) {
	list := retries{of: map[content.ID]try{}}
	now := time.Unix(0, 0)
	for n := range 2000 {
		list.failed(content.ID{byte(n % 1000), byte(n % 1000 >> 8)}, now)
	}
	clear(list.of)
	list.failed(content.ID{}, now)
	list.failed(content.ID{}, now)
	if pause := list.of[content.ID{}].after.Sub(now); pause != 2*time.Second {
		t.Errorf("the only one that fails waits %v, want 2 s", pause)
	}
}

func TestWhatWasNotTriedComesFirstAndThenWhatWaitedLongest(t *testing.T) {
	now := time.Unix(1000, 0)
	after := func(seconds time.Duration) try { return try{count: 3, after: now.Add(seconds * time.Second)} }
	ids := make([]content.ID, 6)
	for i := range ids {
		ids[i] = content.Root([]byte(fmt.Sprint(i)))
	}
	list := retries{of: map[content.ID]try{ids[0]: after(-1), ids[1]: after(1), ids[2]: after(-9), ids[4]: after(0)}}
	if got, want := list.due(ids, now), []content.ID{ids[3], ids[5], ids[2], ids[0], ids[4]}; !slices.Equal(got, want) {
		t.Errorf("due = %v, want %v", got, want)
	}
	list.succeeded(ids[3], now) // at its first try: it says nothing of the others
	if got := len(list.due(ids[:3], now)); got != 2 {
		t.Errorf("%d are due, want 2", got)
	}
	list.succeeded(ids[0], now)
	if got, want := list.due(ids[1:3], now), []content.ID{ids[2], ids[1]}; !slices.Equal(got, want) {
		t.Errorf("due after a success = %v, want %v", got, want)
	}
}

// TestMembersComeToRestWhateverNobodyHas has what nobody has tried about once a second
// in all, what somebody has fetched meanwhile, and all of it when it is there again.
func TestMembersComeToRestWhateverNobodyHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		g := w.found(1)[0]
		const count = 100
		ids := make([]content.ID, count)
		for i := range ids {
			o := pinOf(fmt.Sprint("lost", i))
			ids[i] = o.ID
			if _, err := w.peers[0].Client(g.ID()).Pin(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
		store := w.held.store(w.peers[0].n.ID())
		tried := func() int {
			store.mu.Lock()
			defer store.mu.Unlock()
			return store.tried
		}
		time.Sleep(4 * time.Minute) // pauses have grown
		before := tried()
		const length = 5 * time.Minute
		time.Sleep(length)
		if n := tried() - before; n < int(length.Seconds())/2 || n > int(length.Seconds())*11/10 {
			t.Errorf("%d contents that nobody has were tried %d times in %v, want once a second", count, n, length)
		}
		there := w.pinMany(0, g.ID(), 1, 1000)[0]
		w.eventually("what somebody has is here", func() bool { return store.has(there) })
		for _, id := range ids {
			w.held.offer(id, true)
		}
		w.eventually("all is here when it is there again", func() bool {
			return !slices.ContainsFunc(ids, func(id content.ID) bool { return !store.has(id) })
		})
	})
}
