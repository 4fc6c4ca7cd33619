package share

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multihash"
	"github.com/p2pshare/p2pshare/share/content"
)

func (l *Library) serveMeta(ctx context.Context, s network.Stream) error {
	in, out := newLineReader(s), bufio.NewWriter(s)
	for {
		if err := s.SetReadDeadline(time.Now().Add(metaIdle)); err != nil {
			return err
		}
		line, err := readLine(in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.SetWriteDeadline(time.Now().Add(writeStall)); err != nil {
			return err
		}
		if l.book.blocked(s.Conn().RemotePeer(), zeroID) {
			return errors.Join(writeLine(s, metaAnswer{End: true, Error: "refused"}), ErrRefused)
		}
		if err := errors.Join(l.answerMeta(ctx, out, line, askerAt(s)), out.Flush()); err != nil {
			return err
		}
	}
}

func (l *Library) answerMeta(ctx context.Context, w io.Writer, line []byte, from asker) error {
	q, err := decodeMetaRequest(line)
	if err != nil {
		return writeLine(w, metaAnswer{End: true, Error: "malformed request"})
	}
	if q.Op == opHaves {
		return l.answerHaves(ctx, w, q, from)
	}
	if l.visitor {
		return writeLine(w, metaAnswer{End: true, Error: "a visitor, who shares nothing"})
	}
	if q.Op == opList {
		return l.answerList(ctx, w, q.After, from)
	}
	if q.Op == opSearch {
		return l.answerSearch(ctx, w, q.Query, from)
	}
	records, err := l.asked(q)
	if err != nil {
		return writeLine(w, metaAnswer{End: true, Error: err.Error()})
	}
	for _, r := range records {
		if !from.allows(r) || l.book.blocked("", r.ID) || r.Envelope == nil || time.Until(r.Expires) < 0 || !l.servable(r) {
			continue
		}
		if err := writeLine(w, metaAnswer{Manifest: r.Envelope.Encode()}); err != nil {
			return err
		}
	}
	return writeLine(w, metaAnswer{End: true, Kind: l.kindHeld(q)})
}

// kindHeld is what a content is that is held for others, without a manifest: to ask
// for its ID is to know of it.
func (l *Library) kindHeld(q metaRequest) Kind {
	id, err := content.Parse(q.ID)
	if q.Op != opID || err != nil {
		return ""
	}
	h, ok, err := l.Held(id)
	if !ok || err != nil || h.Adopted {
		return ""
	}
	return h.Kind
}

// servable tells whether a share is still on disk, as far as a look at it can
// tell: a manifest for what can't be served would send others on a fool's
// errand. A file whose times have changed counts: serving it hashes it again.
func (l *Library) servable(r shareRecord) bool {
	state, err := l.state(r)
	return err == nil && (state == StateShared || state == stateTouched)
}

var errUnknownOp = errors.New("unknown op")

func (l *Library) asked(q metaRequest) ([]shareRecord, error) {
	switch q.Op {
	case opName:
		raw, err := hex.DecodeString(q.Key)
		if err != nil {
			return nil, errors.New("key is not hexadecimal")
		}
		d, err := multihash.Decode(raw)
		if err != nil || d.Code != multihash.SHA2_256 || len(d.Digest) != 32 {
			return nil, errors.New("key is no name's")
		}
		return l.catalog.byName([32]byte(d.Digest), metaManifestsMax)
	case opID:
		id, err := content.Parse(q.ID)
		if err != nil {
			return nil, errors.New("malformed content ID")
		}
		return l.catalog.byID(id, metaManifestsMax)
	}
	return nil, errUnknownOp
}
