package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"net/url"
	"time"
)

// ErrNoPeer is returned by Connect when no peer answers for the home: run one.
var ErrNoPeer = errors.New("no peer is running")

// ErrGone is returned when the peer went away before its answer was complete:
// whether it did what it was asked is not known. Ask again, of whoever runs
// then.
var ErrGone = errors.New("the running peer stopped")

// connectTimeout bounds Connect: a peer that has accepted the connection and
// says nothing is starting, or stopping, or stuck.
const connectTimeout = 5 * time.Second

// Client asks the running peer of one home. Its methods are safe for
// concurrent use, and return ErrGone, an *Error, or the context's error.
type Client struct {
	http  *http.Client
	hello Hello
}

// Connect finds the running peer of home. It returns ErrNoPeer when there is
// none, or when the one there is neither answers nor ends.
func Connect(ctx context.Context, home string) (*Client, error) {
	path := dialPath(home)
	c := &Client{http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
		DisableCompression: true,
		MaxIdleConns:       1,
	}}}
	bounded, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	err := c.fetch(bounded, pathID, &c.hello)
	var refused *Error
	switch {
	case err == nil:
		return c, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(err, &refused), errors.Is(err, fs.ErrPermission):
		return nil, err
	}
	return nil, fmt.Errorf("%w: %w", ErrNoPeer, err)
}

// Hello is what the peer told of itself when the connection was made.
func (c *Client) Hello() Hello { return c.hello }

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Add shares a path. on is called for progress and warnings, in order.
func (c *Client) Add(ctx context.Context, req AddRequest, on func(Event)) (*Added, error) {
	return runStream[*Added](ctx, c, http.MethodPost, pathShares, req, on, nil)
}

// Get fetches a content. on is called for progress and notes; the bytes of a
// request with Stream are written to out.
func (c *Client) Get(ctx context.Context, req GetRequest, out io.Writer, on func(Event)) (*Done, error) {
	return runStream[*Done](ctx, c, http.MethodPost, pathTransfers, req, on, out)
}

// GetDetached begins a get that goes on in the peer, and returns once it has
// been accepted.
func (c *Client) GetDetached(ctx context.Context, req GetRequest) (*Accepted, error) {
	req.Detached = true
	return runStream[*Accepted](ctx, c, http.MethodPost, pathTransfers, req, func(Event) {}, nil)
}

// Transfers lists what is moving, in both directions.
func (c *Client) Transfers(ctx context.Context) iter.Seq2[Transfer, error] {
	return list[Transfer](ctx, c, pathTransfers)
}

// ChangeTransfer does one op on a transfer: pause, resume or cancel.
func (c *Client) ChangeTransfer(ctx context.Context, op string, req TransferRequest) (*TransferChanged, error) {
	return runStream[*TransferChanged](ctx, c, http.MethodPost, pathTransfers+"/"+op, req, func(Event) {}, nil)
}

// Limits tells how fast bytes may move and how many may be kept, once what req sets is set.
func (c *Client) Limits(ctx context.Context, req LimitsRequest) (*Limits, error) {
	return runStream[*Limits](ctx, c, http.MethodPost, pathLimits, req, func(Event) {}, nil)
}

// Verify reads again what is shared or held. on is called with each *Verified, and with
// *Progress. What is damaged still in the end is an *Error.
func (c *Client) Verify(ctx context.Context, req VerifyRequest, on func(Event)) (*VerifyDone, error) {
	return runStream[*VerifyDone](ctx, c, http.MethodPost, pathVerify, req, on, nil)
}

// ServeLink serves a link until ctx ends or it expires, and tells on of it.
func (c *Client) ServeLink(ctx context.Context, req ServeLinkRequest, on func(Event)) (*LinkExpired, error) {
	return runStream[*LinkExpired](ctx, c, http.MethodPost, pathServeLink, req, on, nil)
}

// Collect removes what is of no use in the store.
func (c *Client) Collect(ctx context.Context) (*Collected, error) {
	return runStream[*Collected](ctx, c, http.MethodPost, pathCollect, CollectRequest{}, func(Event) {}, nil)
}

// NewSession has the peer let one browser in.
func (c *Client) NewSession(ctx context.Context) (*Session, error) {
	return runStream[*Session](ctx, c, http.MethodPost, pathSessions, SessionRequest{}, func(Event) {}, nil)
}

// Remove stops sharing what req means. on is called for each *Removed.
func (c *Client) Remove(ctx context.Context, req RemoveRequest, on func(Event)) error {
	body, err := c.do(ctx, http.MethodDelete, pathShares, req)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := newLineReader(body)
	for {
		line, err := lines.next(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		e, err := decodeEvent(line)
		if err != nil {
			return err
		}
		if failed, ok := e.(*Error); ok {
			return failed
		}
		on(e)
	}
}

// Shares lists what the peer shares.
func (c *Client) Shares(ctx context.Context) iter.Seq2[Listed, error] {
	return list[Listed](ctx, c, pathShares)
}

// Entries lists what is inside a directory, at this peer or another.
func (c *Client) Entries(ctx context.Context, req EntriesRequest) iter.Seq2[Listed, error] {
	query := url.Values{"what": {req.What}, "peer": req.Peers}
	if req.Literal {
		query.Set("literal", "true")
	}
	return list[Listed](ctx, c, pathEntries+"?"+query.Encode())
}

// Peers lists the peer's connections, once it has entered the network or
// found that it can't.
func (c *Client) Peers(ctx context.Context) iter.Seq2[Conn, error] {
	return list[Conn](ctx, c, pathPeers+"?wait=true")
}

// Neighbors lists who is on the local network and what they share, after a hello to
// each address of req.Range if there is one; with req.Watch it goes on until ctx ends.
func (c *Client) Neighbors(ctx context.Context, req ProbeRequest) iter.Seq2[Neighbor, error] {
	if req.Range != "" {
		return listOf[Neighbor](ctx, c, http.MethodPost, pathNeighbors+"/probe", req)
	}
	query := url.Values{}
	if req.Watch {
		query.Set("watch", "true")
	}
	return list[Neighbor](ctx, c, pathNeighbors+"?"+query.Encode())
}

// Examine tells what is right and wrong with the peer's place on the network.
func (c *Client) Examine(ctx context.Context) iter.Seq2[Finding, error] {
	return list[Finding](ctx, c, pathDoctor)
}

// ChangeGroup does one op on a group: create, join, follow, unfollow, link, invite,
// leave, remove, grant, revoke, set, recover, backup or restore.
func (c *Client) ChangeGroup(ctx context.Context, op string, req GroupRequest) (*GroupDone, error) {
	return runStream[*GroupDone](ctx, c, http.MethodPost, pathGroups+"/"+op, req, func(Event) {}, nil)
}

// DrainGroup is ChangeGroup of a leave with Drain; on gets what remains as it gets less.
func (c *Client) DrainGroup(ctx context.Context, req GroupRequest, on func(*Drained)) (*GroupDone, error) {
	req.Drain = true
	return runStream[*GroupDone](ctx, c, http.MethodPost, pathGroups+"/leave", req, func(e Event) {
		if d, ok := e.(*Drained); ok {
			on(d)
		}
	}, nil)
}

// Survey tells what is left of a group.
func (c *Client) Survey(ctx context.Context, group string) (GroupSurvey, error) {
	for line, err := range list[GroupSurvey](ctx, c, pathGroups+"/survey?"+url.Values{"group": {group}}.Encode()) {
		return line, err
	}
	return GroupSurvey{}, ErrGone
}

// Groups tells how the groups stand that the peer is in; one of them when named.
func (c *Client) Groups(ctx context.Context, group string) iter.Seq2[GroupStatus, error] {
	return list[GroupStatus](ctx, c, pathGroups+"?"+url.Values{"group": {group}}.Encode())
}

// GroupMembers tells who is in a group; query has group, stale and fresh.
func (c *Client) GroupMembers(ctx context.Context, query url.Values) iter.Seq2[MemberLine, error] {
	return list[MemberLine](ctx, c, pathGroups+"/members?"+query.Encode())
}

// GroupLog tells who did what in a group, newest last; query has group, since,
// limit, stale and fresh.
func (c *Client) GroupLog(ctx context.Context, query url.Values) iter.Seq2[ChangeLine, error] {
	return list[ChangeLine](ctx, c, pathGroups+"/log?"+query.Encode())
}

// PlanGroup tells what a change would make of a group.
func (c *Client) PlanGroup(ctx context.Context, req PlanRequest) (*PlanDone, error) {
	return runStream[*PlanDone](ctx, c, http.MethodPost, pathGroups+"/plan", req, func(Event) {}, nil)
}

// Pin has a group pin what req means.
//
// With req.Wait on gets how far the copies are, and it returns when there are as many as
// were asked for.
func (c *Client) Pin(ctx context.Context, req PinRequest, on func(Event)) (*Pinned, error) {
	return runStream[*Pinned](ctx, c, http.MethodPost, pathPins, req, on, nil)
}

// Unpin takes a pin back.
func (c *Client) Unpin(ctx context.Context, req PinRequest) (*Unpinned, error) {
	return runStream[*Unpinned](ctx, c, http.MethodDelete, pathPins, req, func(Event) {}, nil)
}

// Pins lists what a group has pinned; query has group, stale and fresh.
func (c *Client) Pins(ctx context.Context, query url.Values) iter.Seq2[PinLine, error] {
	return list[PinLine](ctx, c, pathPins+"?"+query.Encode())
}

// Names lists the trust book.
func (c *Client) Names(ctx context.Context) iter.Seq2[TrustEntry, error] {
	return list[TrustEntry](ctx, c, pathNames)
}

// ChangeNames does one op on the trust book: trust, untrust, forget, block or
// unblock.
func (c *Client) ChangeNames(ctx context.Context, op string, req NamesRequest) (*NamesChanged, error) {
	return runStream[*NamesChanged](ctx, c, http.MethodPost, pathNames+"/"+op, req, func(Event) {}, nil)
}

// Status tells everything about the peer at a glance. Running is left false.
func (c *Client) Status(ctx context.Context) (st Status, err error) {
	err = c.fetch(ctx, pathStatus, &st)
	return st, err
}

// fetch reads one JSON object.
func (c *Client) fetch(ctx context.Context, path string, v any) error {
	body, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, lineMax))
	if err != nil {
		return goneUnlessDone(ctx, err)
	}
	return json.Unmarshal(data, v)
}

// do sends a request and returns the body of a good answer; the error of a bad
// one is an *Error.
func (c *Client) do(ctx context.Context, method, path string, req any) (io.ReadCloser, error) {
	var payload io.Reader
	if req != nil {
		data, err := encode(req)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://p2pshare"+path, payload)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, goneUnlessDone(ctx, err)
	}
	if answer.StatusCode == http.StatusOK {
		return answer.Body, nil
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(io.LimitReader(answer.Body, lineMax))
	if err != nil {
		return nil, goneUnlessDone(ctx, err)
	}
	if e, _ := decodeEvent(data); e != nil {
		if failed, ok := e.(*Error); ok {
			return nil, failed
		}
	}
	return nil, Errorf(CodeFailed, "the running peer answered %q", answer.Status).
		WithHint("it may be of another version: restart it")
}

// goneUnlessDone tells a connection that broke from one that we ended.
func goneUnlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrGone, err)
}

// runStream sends a request and reads events until the final one, which must
// be a T. Data goes to out.
func runStream[T Event](ctx context.Context, c *Client, method, path string, req any, on func(Event), out io.Writer) (final T, err error) {
	body, err := c.do(ctx, method, path, req)
	if err != nil {
		return final, err
	}
	defer body.Close()
	lines := newLineReader(body)
	for {
		line, err := lines.next(ctx)
		if err == io.EOF {
			err = goneUnlessDone(ctx, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return final, err
		}
		e, err := decodeEvent(line)
		if err != nil {
			return final, err
		}
		switch e := e.(type) {
		case nil:
		case T:
			return e, nil
		case *Error:
			return final, e
		case *Data:
			if err := lines.copyData(ctx, out, e.Bytes); err != nil {
				return final, err
			}
		default:
			on(e)
		}
	}
}

// list reads the lines of a listing.
func list[T any](ctx context.Context, c *Client, path string) iter.Seq2[T, error] {
	return listOf[T](ctx, c, http.MethodGet, path, nil)
}

// listOf reads the lines of the answer to a request.
func listOf[T any](ctx context.Context, c *Client, method, path string, req any) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		body, err := c.do(ctx, method, path, req)
		if err != nil {
			yield(zero, err)
			return
		}
		defer body.Close()
		lines := newLineReader(body)
		for {
			line, err := lines.next(ctx)
			if err == io.EOF {
				return
			}
			var v T
			if err == nil {
				v, err = decodeListed[T](line)
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// decodeListed reads a line of a listing, or the error that ends it.
func decodeListed[T any](line []byte) (v T, err error) {
	if bytes.HasPrefix(line, []byte(`{"event":"error"`)) {
		e, err := decodeEvent(line)
		if err == nil {
			err = e.(*Error)
		}
		return v, err
	}
	if err := json.Unmarshal(line, &v); err != nil {
		return v, fmt.Errorf("read answer of the running peer: %w", err)
	}
	return v, nil
}
