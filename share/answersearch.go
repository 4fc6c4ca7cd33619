package share

import (
	"bytes"
	"context"
	"io"
	"time"
)

// answerSearch answers one opSearch. As with lists, one question is answered at a
// time, and then others have their turn: all of them together take a fifth of one
// processor.
func (l *Library) answerSearch(ctx context.Context, w io.Writer, q *Query, from asker) error {
	if q == nil {
		return writeLine(w, metaAnswer{End: true, Error: "a search without a query"})
	}
	if err := q.check(); err != nil {
		return writeLine(w, metaAnswer{End: true, Error: err.Error()})
	}
	var answer bytes.Buffer
	var err error
	if !l.searches.take(ctx, func() { err = l.writeFound(&answer, *q, from) }) {
		return writeLine(w, metaAnswer{End: true, Error: "busy: ask again later"})
	}
	if err != nil {
		return err
	}
	_, err = answer.WriteTo(w)
	return err
}

// writeFound writes the manifests of what a query means.
func (l *Library) writeFound(w io.Writer, q Query, from asker) error {
	found, more, err := l.catalog.searchShares(q, from.audiences(), time.Now(), metaManifestsMax)
	if err != nil {
		return err
	}
	for _, r := range found {
		if !from.allows(r) || !l.servable(r) {
			continue
		}
		if err := writeLine(w, metaAnswer{Manifest: r.Envelope.Encode()}); err != nil {
			return err
		}
	}
	return writeLine(w, metaAnswer{End: true, Partial: more})
}
