package share

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
	"github.com/p2pshare/p2pshare/share/internal/swarm"
)

// sink takes verified chunk groups. Its methods may be called from several
// goroutines, write for one index only once.
type sink interface {
	// admit is called first, with the size as a source claims it: an error
	// ends the fetch before anything is asked for that is as large as that.
	admit(size int64) error
	// prepare is called once, before any write, with the proven size and
	// outboard (nil for one group), and returns which groups the sink holds
	// already; nil: none.
	prepare(size int64, o *content.Outboard) (*swarm.Bitfield, error)
	write(index int64, data []byte) error
}

// prover is a sink that may have the last chunk group at hand, which then is not
// fetched to prove the size.
type prover interface {
	// proof returns the group, verified, or nil.
	proof(size int64, o *content.Outboard) ([]byte, error)
}

// fetchSizeMax is the largest content that is fetched: its outboard, 128 KiB a
// GiB, is held in memory, and 512 MiB of that are as much as a stranger's word
// about a size should cost.
const fetchSizeMax = 4 << 40

// fetch gets one content from a crowd into a sink. size is what is known of
// the content's size from a listing, or -1. It returns the size, and
// ErrBadListing when it is not the one from the listing.
//
// Nothing reaches the sink that was not verified against id.
type fetch struct {
	crowd  *crowd
	meter  *meter
	id     content.ID
	size   int64
	sink   sink
	window int64 // of the sink's order, 0 for none
	// onDemand fetches only what Focus says, and opened, if set, is called when it can.
	onDemand bool
	opened   func()

	outboard *content.Outboard // nil for one group

	share bool                 // others may have what the sink holds already, while the rest comes
	kept  func(*transfer) bool // takes over the transfer's end, if it likes; may be nil

	start time.Time
	get   context.Context // of run: dials outlast the source that told of a peer
	have  *swarm.Bitfield // of the sink, once it is prepared
	live  *transfer       // that others follow, or nil

	mu       sync.Mutex                           // guards all below
	download *swarm.Download                      // nil before the size is known
	progress chan struct{}                        // closed and replaced when something settled
	numbers  map[source]swarm.Source              // of those who take part
	cancels  map[swarm.Request]context.CancelFunc // of what is asked for now
	next     swarm.Source                         // the next one's number
	news     time.Duration                        // when a group came last, or word of one
	sinkErr  error                                // why nothing can be written any more
}

// run gets the content: from another get of this peer that is at it already,
// and itself when there is none, or when that one gives up.
func (f *fetch) run(ctx context.Context) (int64, error) {
	f.start, f.get = time.Now(), ctx
	for {
		t, mine := f.enter(ctx)
		if mine {
			f.live = t
			err := f.lead(ctx)
			f.end(err)
			return f.size, err
		}
		whole, err := f.follow(ctx, t)
		t.release()
		if whole || err != nil {
			return f.size, err
		}
	}
}

// lead gets the content from the crowd.
func (f *fetch) lead(ctx context.Context) error {
	f.progress = make(chan struct{})
	f.numbers = map[source]swarm.Source{}
	f.cancels = map[swarm.Request]context.CancelFunc{}
	if f.have != nil { // what came from another get stays
		if err := f.begin(); err != nil {
			return err
		}
		return f.drive(ctx, nil)
	}
	opener, first, err := f.open(ctx)
	if err != nil {
		return err
	}
	if err := f.prepare(); err != nil {
		return err
	}
	if err := f.begin(); err != nil {
		return err
	}
	// The group that proved the size is not asked for again.
	last := f.have.Len() - 1
	if !f.have.Has(last) && (f.window == 0 || last == 0) {
		if err := f.accept(opener, 0, last, first); err != nil {
			return err
		}
	}
	return f.drive(ctx, opener)
}

// prepare has the sink look what it holds.
func (f *fetch) prepare() (err error) {
	if f.have, err = f.sink.prepare(f.size, f.outboard); err != nil {
		return err
	}
	if f.have == nil {
		f.have = swarm.NewBitfield(content.GroupCount(f.size))
	}
	f.meter.begin(PhaseFetching, f.size)
	for i := f.have.NextSet(0); i < f.have.Len(); i = f.have.NextSet(i + 1) {
		f.meter.held(int64(content.GroupLen(f.size, i)))
	}
	return nil
}

// begin starts the decisions, and lets others follow.
func (f *fetch) begin() error {
	c := swarm.Config{Window: f.window, OnDemand: f.onDemand, Seed: rand.Uint64()}
	if f.crowd.library != nil {
		c.Self = tagOf(f.crowd.library.node.ID())
	}
	f.download = swarm.New(f.have, c)
	if f.opened != nil {
		f.opened()
	}
	return f.live.begin(f)
}

// end ends what others follow, at once or, if it went well, when kept lets go of
// it: till then it is in no catalog.
func (f *fetch) end(err error) {
	if f.live == nil {
		return
	}
	if err == nil && f.kept != nil && f.kept(f.live) {
		return
	}
	f.crowd.library.exit(f.live)
}

// withdraw cancels the requests that need no answer. The caller holds f.mu.
func (f *fetch) withdraw() {
	for _, r := range f.download.Pointless(f.now()) {
		if cancel := f.cancels[r]; cancel != nil {
			cancel()
		}
	}
}

// focus has only these groups fetched, of a fetch on demand, in that order.
func (f *fetch) focus(spans []content.Span) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.download.Focus(spans)
	f.withdraw()
	f.settled()
}

// lost notes that the sink has lost a group.
func (f *fetch) lost(index int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.download.Lost(index)
}

func (f *fetch) now() time.Duration { return time.Since(f.start) }

// accept writes a verified group, if it is new.
func (f *fetch) accept(s source, number swarm.Source, index int64, data []byte) error {
	f.mu.Lock()
	fresh := false
	if f.sinkErr == nil {
		f.news = f.now()
		fresh = f.download.Arrived(number, index, f.news)
	}
	f.withdraw()
	err := f.sinkErr
	f.mu.Unlock()
	if !fresh {
		return err
	}
	if err := f.sink.write(index, data); err != nil {
		f.mu.Lock()
		f.sinkErr = err
		f.mu.Unlock()
		return err
	}
	f.live.wrote(index)
	f.crowd.gave(s, int64(len(data)))
	f.meter.add(int64(len(data)))
	return nil
}
