package share

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/p2pshare/p2pshare/share/content"
	"github.com/p2pshare/p2pshare/share/internal/swarm"
)

// transfers are the gets under way into files, one a content: other gets of the
// same content follow them, and other peers are served from them.
type transfers struct {
	mu   sync.Mutex
	byID map[content.ID]*transfer // guarded by mu
}

// transfer is a get under way whose sink can be read: what of it has been
// verified and written can be had from here. A nil *transfer is one that nobody
// can follow.
type transfer struct {
	id     content.ID
	crowd  *crowd
	ctx    context.Context // the get's: of what the peers who ask for it are offered to
	public bool            // served to other peers
	// onDemand marks what readers have of a content: more of it comes only when one
	// of them asks for it. crowd and ctx are nil.
	onDemand bool

	mu       sync.Mutex // guards all below
	size     int64
	outboard *content.Outboard
	segments func() []content.CV // of outboard
	file     groupFile           // of its own; nil before begin
	have     *swarm.Bitfield     // what is in file
	over     bool                // nothing will be added
	users    int                 // the get, and who follows or serves from it; file is closed by the last
	change   chan struct{}       // closed and replaced when any of this changes
}

// groupFile is where the groups of a content are read, at their places in it.
type groupFile interface {
	io.ReaderAt
	io.Closer
}

// readable is a sink whose verified groups can be read back.
type readable interface {
	// reopen returns the file they are in, opened once more.
	reopen() (*os.File, error)
}

// reopen implements readable.
func (p *partial) reopen() (*os.File, error) { return p.root.Open(p.temp) }

// enter makes f the get of its content that others follow, if its sink can be
// read, or returns the one there is, to be released.
func (f *fetch) enter(ctx context.Context) (t *transfer, mine bool) {
	library := f.crowd.library
	if library == nil {
		return nil, true
	}
	library.transfers.mu.Lock()
	defer library.transfers.mu.Unlock()
	if t := library.transfers.byID[f.id]; t != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.onDemand || f.have == nil {
			t.users++
			return t, false
		} // else it has given what it has
	}
	if _, ok := f.sink.(readable); !ok {
		return nil, true
	}
	t = &transfer{id: f.id, crowd: f.crowd, ctx: ctx, public: f.share, users: 1, change: make(chan struct{})}
	library.transfers.byID[f.id] = t
	return t, true
}

// exit ends t's part: nobody finds it any more, and who follows it knows that
// nothing will be added.
func (l *Library) exit(t *transfer) {
	if t == nil {
		return
	}
	l.transfers.forget(t)
	t.mu.Lock()
	t.over = true
	t.changed()
	t.mu.Unlock()
	t.release()
}

// forget has nobody find t any more.
func (ts *transfers) forget(t *transfer) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.byID[t.id] == t { // else another get has its place
		delete(ts.byID, t.id)
	}
}

// offer has others find t, unless there is a get of its content.
func (ts *transfers) offer(t *transfer) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.byID[t.id] == nil {
		ts.byID[t.id] = t
	}
}

// find returns the transfer of id, to be released, or nil.
func (ts *transfers) find(id content.ID) *transfer {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t := ts.byID[id]
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == nil {
		return nil
	}
	t.users++
	return t
}

// serving returns the transfer of id that other peers are served from, to be
// released, or nil. What this peer shares already is served to those that allow
// lets through, and nobody else because it is being got.
func (l *Library) serving(id content.ID, allow func(shareRecord) bool) *transfer {
	t := l.transfers.find(id)
	if t == nil || t.public && l.mayServe(id, allow) && !(t.onDemand && l.hasWhole(id)) {
		return t
	}
	t.release()
	return nil
}

// hasWhole tells whether a content is shared from here or held: then that is served,
// and not what readers have of it.
func (l *Library) hasWhole(id content.ID) bool {
	files, _, err := l.catalog.files(id)
	if err != nil || len(files) > 0 {
		return true
	}
	_, stored, err := l.catalog.stored(id)
	return stored || err != nil
}

// mayServe tells whether what is being got may be served to those that allow lets
// through.
func (l *Library) mayServe(id content.ID, allow func(shareRecord) bool) bool {
	_, shares, err := l.catalog.files(id)
	return err == nil && (len(shares) == 0 || slices.ContainsFunc(shares, allow))
}

// transferring tells whether a content is served while it comes whose digest
// begins with prefix.
func (l *Library) transferring(prefix []byte, allow func(shareRecord) bool) bool {
	var ids []content.ID
	l.transfers.mu.Lock()
	for id, t := range l.transfers.byID {
		if t.public && string(id[:min(len(prefix), len(id))]) == string(prefix) {
			ids = append(ids, id)
		}
	}
	l.transfers.mu.Unlock()
	return slices.ContainsFunc(ids, func(id content.ID) bool { return l.mayServe(id, allow) })
}

func (t *transfer) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users--; t.users == 0 && t.file != nil {
		t.file.Close()
	}
}

// changed wakes who follows. The caller holds t.mu.
func (t *transfer) changed() {
	close(t.change)
	t.change = make(chan struct{})
}

// begin makes known what is there: the size and outboard are verified, and have
// is in the sink.
func (t *transfer) begin(f *fetch) error {
	if t == nil {
		return nil
	}
	file, err := f.sink.(readable).reopen()
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.size, t.outboard, t.file, t.have = f.size, f.outboard, file, f.have.Clone()
	if t.outboard != nil {
		t.segments = sync.OnceValue(t.outboard.Segments)
	}
	t.changed()
	return nil
}

// wrote notes that a group is in the file.
func (t *transfer) wrote(index int64) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.have.Set(index)
	t.changed()
}

// lost notes that a group is not in the file any more.
func (t *transfer) lost(index int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if index < t.have.Len() {
		t.have.Clear(index)
	}
}

// holds tells whether a group is in the file.
func (t *transfer) holds(index int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return index < t.have.Len() && t.have.Has(index)
}

// next returns the first group at or after i that t holds and that is not in
// have, or have's length.
func (t *transfer) next(i int64, have *swarm.Bitfield) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.have.NextBeyond(i, have)
}

// read reads a group that t holds, and verifies it once more: the file is
// under a name of the user's, who may do with it as they like.
func (t *transfer) read(index int64, buf *[content.GroupSize]byte) ([]byte, error) {
	if err := readGroup(t.file, t.size, index, buf); err != nil {
		return nil, err
	}
	data := buf[:content.GroupLen(t.size, index)]
	var err error
	if t.outboard == nil {
		err = content.VerifyData(t.id, data)
	} else {
		err = t.outboard.VerifyGroup(index, data)
	}
	if err != nil {
		return nil, fmt.Errorf("chunk group %d of a partial file: %w", index, ErrModified)
	}
	return data, nil
}

// ranges returns the runs of groups from first on that t holds, at most n, and
// where the next would begin, or 0 when there is none.
func (t *transfer) ranges(first int64, n int) (runs [][2]int64, more int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := t.have.NextSet(first); i < t.have.Len(); {
		if len(runs) == n {
			return runs, i
		}
		end := t.have.NextClear(i)
		runs = append(runs, [2]int64{i, end - i})
		i = t.have.NextSet(end)
	}
	return runs, 0
}

// ended tells whether t is no get any more: its content may be in the catalog.
func (t *transfer) ended() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over
}

// values returns chaining values of a level of a content of several groups.
func (t *transfer) values(level byte, first, count int64) []byte {
	if level == 1 {
		return content.EncodeCVs(t.segments()[first : first+count])
	}
	return t.outboard.Bytes()[32*first:][:32*count]
}

// whole tells whether t holds everything.
func (t *transfer) whole() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.have.Count() == t.have.Len()
}

// follow takes what another get of this peer brings. It returns false when that
// one has ended before all was here, or has it all and can't give it: the file was
// edited since, and nobody else is to follow it.
func (f *fetch) follow(ctx context.Context, t *transfer) (whole bool, err error) {
	f.meter.phase(PhaseFetching)
	buf := groupBuffers.Get().(*[content.GroupSize]byte)
	defer groupBuffers.Put(buf)
	for {
		t.mu.Lock()
		begun, over, change := t.file != nil, t.over, t.change
		t.mu.Unlock()
		if begun {
			if err := f.join(t); err != nil {
				return false, err
			}
			complete := t.whole()
			if err := f.copyFrom(ctx, t, buf); err != nil {
				return false, err
			}
			if f.have.Count() == f.have.Len() {
				return true, nil
			}
			if t.onDemand { // the rest is to be got
				return false, nil
			}
			if complete {
				f.crowd.library.transfers.forget(t)
				return false, nil
			}
		}
		if over {
			return false, nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// join takes over what t has proved, and prepares the sink for it.
func (f *fetch) join(t *transfer) error {
	if f.have != nil {
		return nil
	}
	if f.size >= 0 && f.size != t.size {
		return fmt.Errorf("%w: a file's size is not what it says", ErrBadListing)
	}
	if err := f.admit(t.size); err != nil {
		return err
	}
	f.size, f.outboard = t.size, t.outboard
	return f.prepare()
}

// copyFrom writes what t holds and f does not, in order, and with a window only
// up to the first that is missing in both.
func (f *fetch) copyFrom(ctx context.Context, t *transfer, buf *[content.GroupSize]byte) error {
	for i := t.next(0, f.have); i < f.have.Len() && ctx.Err() == nil; i = t.next(i+1, f.have) {
		if f.window > 0 && i != f.have.NextClear(0) {
			return nil
		}
		data, err := t.read(i, buf)
		if err != nil {
			continue // it is fetched in the end
		}
		if err := f.sink.write(i, data); err != nil {
			return err
		}
		f.have.Set(i)
		f.crowd.gave(local{library: f.crowd.library}, int64(len(data)))
		f.meter.add(int64(len(data)))
	}
	return ctx.Err()
}
