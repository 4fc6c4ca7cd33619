package coord

import (
	"reflect"
	"slices"
	"time"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
)

// keep notes an answer about names, or about the group. It is written when it is
// news, and else once in a while: the age that is told after a restart may be too
// great, but not too small.
func (f *follower) keep(news bool, change func(*keptNames)) {
	f.mu.Lock()
	change(&f.names)
	if !news && time.Since(f.saved) < keptSaveWait {
		f.mu.Unlock()
		return
	}
	f.saved = time.Now()
	names := f.names
	f.mu.Unlock()
	if err := f.save(namesFileName, names); err != nil {
		f.c.log.Warn("what a followed group answered can't be kept", "group", f.file.Name, "err", err)
	}
}

// keepName notes what a name means; nil for nothing.
func (f *follower) keepName(lookup string, b *Binding, index uint64) {
	if b != nil && !plausible(*b) || len(lookup) > pinset.LookupBytesMax {
		return
	}
	f.mu.Lock()
	was, known := f.names.Names[lookup]
	f.mu.Unlock()
	if b == nil && !known {
		return // strangers' names are many
	}
	news := !known || (was.Binding == nil) != (b == nil) || b != nil && *was.Binding != *b
	f.keep(news, func(k *keptNames) {
		k.keep(lookup, keptName{Binding: b, Index: index, At: time.Now().UnixMilli()})
	})
}

// keepPins notes a list; nil stands for the one that is kept, which is still so.
func (f *follower) keepPins(list *keptPins, index uint64) error {
	f.mu.Lock()
	if list != nil {
		f.pins = *list
	}
	old := time.Since(time.UnixMilli(f.pins.At)) > keptSaveWait
	f.pins.Index, f.pins.At = index, time.Now().UnixMilli()
	pins := f.pins
	f.mu.Unlock()
	if list == nil && !old {
		return nil
	}
	return f.save(pinsFileName, pins)
}

// resolve is what a name last meant.
func (f *follower) resolve(lookup string) (Binding, Freshness, error) {
	f.mu.Lock()
	names, pins := f.names, f.pins
	f.mu.Unlock()
	b, index, at, err := resolveKept(names, pins, lookup)
	return b, keptSince(index, at), err
}

// keptSince is what an answer of that time is worth.
func keptSince(index uint64, at int64) Freshness {
	age := time.Duration(-time.Millisecond)
	if at > 0 {
		age = max(0, time.Since(time.UnixMilli(at)))
	}
	return Freshness{Index: index, Stale: true, Age: age}
}

func (f *follower) keptPage() (PinPage, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return PinPage{Pins: f.pins.Pins, Freshness: keptSince(f.pins.Index, f.pins.At), Cut: f.pins.More}, f.pins.At > 0
}

func (f *follower) keptStatus() (Status, Freshness, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.names.Status == nil {
		return Status{}, Freshness{}, false
	}
	return *f.names.Status, keptSince(f.names.Status.Applied, f.names.At), true
}

func (f *follower) keptMembers() ([]Member, Freshness, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.names.Status == nil || len(f.names.Members) == 0 {
		return nil, Freshness{}, false
	}
	return f.names.Members, keptSince(f.names.Status.Applied, f.names.At), true
}

func (f *follower) keepStatus(st Status) {
	f.mu.Lock()
	was := f.names.Status
	f.mu.Unlock()
	news := was == nil || was.Commit != st.Commit || was.Leader != st.Leader
	f.keep(news, func(k *keptNames) { k.Status, k.At = &st, time.Now().UnixMilli() })
	if err := f.keepWhere(nil, st.Epoch); err != nil {
		f.c.log.Warn("where a followed group is can't be kept", "group", f.file.Name, "err", err)
	}
}

// keepMembers notes who is in the group, and asks those from now on.
func (f *follower) keepMembers(all []Member) {
	if len(all) == 0 || slices.ContainsFunc(all, func(m Member) bool { return !plausibleMember(m) }) {
		return
	}
	f.mu.Lock()
	news := !reflect.DeepEqual(f.names.Members, all)
	f.mu.Unlock()
	f.keep(news, func(k *keptNames) { k.Members = all })
	if err := f.keepWhere(all, 0); err != nil {
		f.c.log.Warn("where a followed group is can't be kept", "group", f.file.Name, "err", err)
	}
}

// pinCollector makes a keptPins of a list as it comes.
type pinCollector struct {
	list keptPins
	room int
}

func (p *pinCollector) add(pin Pin) {
	size := 0
	for _, n := range pin.Names {
		size += len(n)
	}
	if len(p.list.Pins) == keptPinsMax || p.room < size || !plausiblePin(pin) {
		p.list.More = true
		return
	}
	p.room -= size
	pin.Source = nil
	p.list.Pins = append(p.list.Pins, pin)
}
