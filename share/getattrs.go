package share

import (
	"context"
	"fmt"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

// attrsWait is how long the next bytes of attributes are waited for. They are
// worth less than the files, which wait for them.
const attrsWait = 10 * time.Second

// attrs fetches the attributes that c's manifest names, and checks them. It
// returns nil when there are none, or none that can be had.
//
// They come before the files, and not after: so each file gets its time before
// the catalog takes its identity down, of which the time is a part.
func (g *getting) attrs(ctx context.Context, c Candidate) (*listingFile, error) {
	if c.envelope.Sender == "" {
		return nil, nil
	}
	m, err := OpenManifest(c.envelope, time.Now())
	if err != nil || m.ID != c.ID || m.Attrs.IsZero() {
		return nil, nil
	}
	f, err := g.library.newListing()
	if err != nil {
		return nil, err
	}
	if err = g.fetchAttrs(ctx, m.Attrs, f); err == nil {
		return f, nil
	}
	f.discard()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	g.note("the files' times and modes are not set: %s", Escape(err.Error()))
	return nil, nil
}

func (g *getting) fetchAttrs(ctx context.Context, id content.ID, f *listingFile) (err error) {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	sink := attrsSink{listingSink{f}, time.AfterFunc(attrsWait, cancel)}
	defer sink.wait.Stop()
	fetch := &fetch{crowd: g.crowd, meter: g.meter, id: id, size: -1, sink: sink}
	f.size, err = fetch.run(waiting)
	if err != nil && waiting.Err() != nil {
		return fmt.Errorf("nothing came of them for %s: %w", attrsWait, ErrUnreachable)
	}
	if err != nil {
		return err
	}
	for _, err := range f.attrs() {
		if err != nil {
			return err
		}
	}
	return nil
}

// attrsSink writes attributes into their file.
type attrsSink struct {
	listingSink
	wait *time.Timer
}

func (s attrsSink) admit(size int64) error {
	if size > listingMax {
		return fmt.Errorf("%w: they are larger than %d bytes", errBadAttrs, listingMax)
	}
	return nil
}

func (s attrsSink) write(index int64, data []byte) error {
	s.wait.Reset(attrsWait)
	return s.listingSink.write(index, data)
}
