package control

import (
	"bytes"
	"encoding/json"
	"fmt"
)

func (*Progress) event() string        { return "progress" }
func (*Note) event() string            { return "note" }
func (*Warning) event() string         { return "warning" }
func (*Added) event() string           { return "added" }
func (*Removed) event() string         { return "removed" }
func (*Changed) event() string         { return "changed" }
func (*Data) event() string            { return "data" }
func (*Done) event() string            { return "done" }
func (*Accepted) event() string        { return "accepted" }
func (*TransferChanged) event() string { return "transfer" }
func (*Limits) event() string          { return "limits" }
func (*Ready) event() string           { return "ready" }
func (*Neighbor) event() string        { return "neighbor" }
func (*GroupDone) event() string       { return "group" }
func (*PlanDone) event() string        { return "plan" }
func (*Pinned) event() string          { return "pinned" }
func (*Unpinned) event() string        { return "unpinned" }
func (*Drained) event() string         { return "draining" }
func (*Copied) event() string          { return "copied" }
func (*Source) event() string          { return "source" }
func (*NamesChanged) event() string    { return "names" }
func (*Verified) event() string        { return "verified" }
func (*VerifyDone) event() string      { return "verify" }
func (*Collected) event() string       { return "collected" }
func (*Found) event() string           { return "found" }
func (*Searched) event() string        { return "searched" }
func (*Session) event() string         { return "session" }
func (*LoggedIn) event() string        { return "login" }
func (*Uploaded) event() string        { return "uploaded" }
func (*Error) event() string           { return "error" }

// newEvent returns an empty event of a kind, nil for one that is not known.
func newEvent(kind string) Event {
	switch kind {
	case "progress":
		return new(Progress)
	case "note":
		return new(Note)
	case "warning":
		return new(Warning)
	case "added":
		return new(Added)
	case "removed":
		return new(Removed)
	case "changed":
		return new(Changed)
	case "data":
		return new(Data)
	case "done":
		return new(Done)
	case "accepted":
		return new(Accepted)
	case "transfer":
		return new(TransferChanged)
	case "limits":
		return new(Limits)
	case "ready":
		return new(Ready)
	case "neighbor":
		return new(Neighbor)
	case "group":
		return new(GroupDone)
	case "plan":
		return new(PlanDone)
	case "pinned":
		return new(Pinned)
	case "unpinned":
		return new(Unpinned)
	case "draining":
		return new(Drained)
	case "copied":
		return new(Copied)
	case "source":
		return new(Source)
	case "names":
		return new(NamesChanged)
	case "verified":
		return new(Verified)
	case "verify":
		return new(VerifyDone)
	case "collected":
		return new(Collected)
	case "found":
		return new(Found)
	case "searched":
		return new(Searched)
	case "serving":
		return new(ServingLink)
	case "received":
		return new(Received)
	case "expired":
		return new(LinkExpired)
	case "session":
		return new(Session)
	case "login":
		return new(LoggedIn)
	case "uploaded":
		return new(Uploaded)
	case "error":
		return new(Error)
	}
	return nil
}

// EncodeEvent returns e as one JSON object without a newline, the field
// "event" first.
func EncodeEvent(e Event) ([]byte, error) {
	body, err := encode(e)
	if err != nil {
		return nil, err
	}
	line := fmt.Appendf(nil, "{%q:%q", "event", e.event())
	if rest := body[1:]; len(rest) > 1 {
		line = append(line, ',')
	}
	return append(line, body[1:]...), nil
}

// encode is json.Marshal without its escapes for HTML, which would spoil the
// & in links.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// decodeEvent reads one line. An event of an unknown kind is nil without an
// error: a newer peer may send more than this client knows.
func decodeEvent(line []byte) (Event, error) {
	var head struct {
		Event string `json:"event"`
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return nil, fmt.Errorf("read answer of the running peer: %w", err)
	}
	e := newEvent(head.Event)
	if e == nil {
		return nil, nil
	}
	if err := json.Unmarshal(line, e); err != nil {
		return nil, fmt.Errorf("read %s of the running peer: %w", head.Event, err)
	}
	return e, nil
}
