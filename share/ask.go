package share

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
)

// askMeta sends one request to p and calls fn with each manifest of the
// answer, after checking it. A manifest that must not be believed, and an
// error of fn, end it. It returns the answer's last line.
func (l *Library) askMeta(ctx context.Context, p peer.AddrInfo, q metaRequest, fn func(Manifest, node.Envelope, node.Via) error) (metaAnswer, error) {
	if err := l.node.Connect(ctx, p); err != nil {
		return metaAnswer{}, err
	}
	return l.askConnected(ctx, p, q, fn)
}

// askConnected is askMeta of a peer that is connected.
func (l *Library) askConnected(ctx context.Context, p peer.AddrInfo, q metaRequest, fn func(Manifest, node.Envelope, node.Via) error) (metaAnswer, error) {
	s, err := l.node.Open(ctx, p.ID, metaProtocol, node.OpenOptions{Relay: true})
	if err != nil {
		return metaAnswer{}, err
	}
	defer s.Reset()
	via := node.ViaStream(s)
	stop := context.AfterFunc(ctx, func() { s.Reset() })
	defer stop()
	end, err := readManifests(s, q, func(m Manifest, e node.Envelope) error { return fn(m, e, via) })
	var bad *CorruptError
	if errors.As(err, &bad) {
		bad.Peer = p.ID
	}
	if ctx.Err() != nil && bad == nil {
		err = ctx.Err()
	}
	return end, err
}

func readManifests(s io.ReadWriter, q metaRequest, fn func(Manifest, node.Envelope) error) (end metaAnswer, err error) {
	if err := writeLine(s, q); err != nil {
		return end, err
	}
	stream := &failing{Reader: s}
	in := newLineReader(stream)
	for count := 0; ; count++ {
		line, err := readLine(in)
		if err != nil && stream.err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return end, err // the network's fault
		}
		var a metaAnswer
		if err == nil {
			a, err = decodeMetaAnswer(line)
		}
		if err != nil {
			return end, &CorruptError{Reason: err.Error()}
		}
		if a.End {
			if a.Error != "" {
				return end, fmt.Errorf("peer answers: %q", Escape(a.Error[:min(len(a.Error), errorTextMax)]))
			}
			return a, nil
		}
		if count == metaManifestsMax {
			return end, &CorruptError{Reason: "its answer does not end"}
		}
		if len(a.Manifest) > valueMax { // one has no more, and many are kept
			return end, &CorruptError{Reason: "its manifest is too long"}
		}
		e, err := node.DecodeEnvelope(a.Manifest)
		if err != nil {
			return end, &CorruptError{Reason: err.Error()}
		}
		m, err := OpenManifest(e, time.Now())
		if err != nil {
			return end, &CorruptError{Reason: err.Error()}
		}
		if err := fn(m, e); err != nil {
			return end, err
		}
	}
}

// failing remembers whether its Reader has failed.
type failing struct {
	io.Reader
	err error
}

func (f *failing) Read(p []byte) (n int, err error) {
	n, err = f.Reader.Read(p)
	if err != nil {
		f.err = err
	}
	return n, err
}
