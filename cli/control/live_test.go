package control

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// live is two peers in a group, and clients that compare what they ask and what is
// answered with openapi.json.
type live struct {
	t           *testing.T
	ann, bob    *running
	client, his *Client     // of ann and of bob
	tcp         http.Client // of ann's TCP side, without a token
	seen        sightings
}

func startLive(t *testing.T) *live {
	port := lanPort(t)
	l := &live{t: t, bob: startWhole(t, port)}
	l.ann = startWhole(t, port, l.bob)
	l.client, l.his = connectFake(t, l.ann.home), connectFake(t, l.bob.home)
	l.tcp.Transport = &http.Transport{DisableKeepAlives: true}
	for _, c := range []*http.Client{l.client.http, l.his.http, &l.tcp} {
		c.Transport = &conformer{RoundTripper: c.Transport, t: t, requests: true, seen: &l.seen}
	}
	return l
}

// ask sends a request as a program does that has no Client, and reads the whole answer.
func (l *live) ask(client *http.Client, method, path string, want int, body string, headers ...string) []byte {
	l.t.Helper()
	base := "http://p2pshare"
	if client == &l.tcp {
		base = l.ann.server.URL()
	}
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(l.t.Context(), method, base+path, in)
	if err != nil {
		l.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := client.Do(r)
	if err != nil {
		l.t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != want {
		l.t.Errorf("%s %s: %s, %v, want %d: %s", method, path, answer.Status, err, want, data)
	}
	return data
}

// must takes the answers of a Client's methods, which have to succeed.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// listed reads a whole list, which has to have a line at least.
func listed[T any](t *testing.T, what string, lines iter.Seq2[T, error]) (all []T) {
	t.Helper()
	for line, err := range lines {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		all = append(all, line)
	}
	if len(all) == 0 {
		t.Errorf("%s: an empty list", what)
	}
	return all
}

// TestAnswersAreAsDescribed: each operation is asked for, rightly and wrongly, and what is
// answered is what openapi.json says.
func TestAnswersAreAsDescribed(t *testing.T) {
	l := startLive(t)
	t.Run("shares", l.shares)
	t.Run("neighbors", l.neighbors)
	t.Run("transfers", l.moving)
	t.Run("groups", l.groups)
	t.Run("pins", l.pins)
	t.Run("names", l.names)
	t.Run("peer", l.peer)
	t.Run("browser", l.browser)
	t.Run("link", l.link)
	t.Run("events", l.events)
	t.Run("ends", l.ends)
	t.Run("refused", l.refused)
	for path, methods := range described().Paths {
		for method, op := range methods {
			switch seen := l.seen.n[op.ID]; {
			case len(seen) == 0:
				t.Errorf("%s %s (%s) was not asked for", strings.ToUpper(method), path, op.ID)
			case seen["Error"] == 0:
				t.Errorf("%s %s (%s) was asked for nothing wrong", strings.ToUpper(method), path, op.ID)
			case len(seen) == 1:
				t.Errorf("%s %s (%s) answered with errors only", strings.ToUpper(method), path, op.ID)
			}
		}
	}
}

func (l *live) shares(t *testing.T) {
	ctx, none := t.Context(), func(Event) {}
	path := filepath.Join(l.ann.dir, "talk <b>.txt")
	os.WriteFile(path, []byte("a talk"), 0o644)
	album := filepath.Join(l.ann.dir, "album")
	os.MkdirAll(filepath.Join(album, "empty"), 0o755)
	os.WriteFile(filepath.Join(album, "one.sh"), []byte("#!/bin/sh"), 0o755)
	os.Symlink("/etc/passwd", filepath.Join(album, "leads out"))
	must(l.client.Add(ctx, AddRequest{Path: path, Note: "a note", Mirrors: []string{"https://mirror.example/talk"}}, none))(t)
	must(l.client.Add(ctx, AddRequest{Path: album, Watch: true, Scope: share.Scope{}, Exclude: []string{"*.tmp"}}, none))(t)
	listed(t, "shares", l.client.Shares(ctx))
	listed(t, "entries", l.client.Entries(ctx, EntriesRequest{What: "album"}))
	must(l.client.Verify(ctx, VerifyRequest{}, none))(t)
	os.WriteFile(filepath.Join(l.ann.dir, "gone.txt"), []byte("gone"), 0o644)
	must(l.client.Add(ctx, AddRequest{Path: filepath.Join(l.ann.dir, "gone.txt")}, none))(t)
	if err := l.client.Remove(ctx, RemoveRequest{What: "gone.txt"}, none); err != nil {
		t.Error(err)
	}
	var linked Linked
	if err := l.client.fetch(ctx, pathLink+"?what=album", &linked); err != nil || linked.Link == "" {
		t.Errorf("link: %+v, %v", linked, err)
	}
	l.ask(l.client.http, "GET", pathQR+"?text="+url.QueryEscape(linked.Link), 200, "")
	l.ask(l.client.http, "GET", pathQR, 400, "")
	l.ask(l.client.http, "POST", pathUploads+"?name=dropped.txt", 200, "dropped", "Content-Type", contentTypeBytes)
	l.ask(l.client.http, "POST", pathUploads+"?name=..", 400, "dropped", "Content-Type", contentTypeBytes)
	l.ask(l.client.http, "GET", pathOpenAPI, 200, "")
}

func (l *live) neighbors(t *testing.T) {
	meet(t, l.ann)
	l.bob.add(t, "neighbor's.txt", []byte("of a neighbor"))
	listed(t, "neighbors", l.client.Neighbors(t.Context(), ProbeRequest{}))
	listed(t, "probe", l.client.Neighbors(t.Context(), ProbeRequest{Range: "127.0.0.0/30"}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for n, err := range l.client.Neighbors(ctx, ProbeRequest{Watch: true}) {
		if err != nil || n.State != NeighborJoined {
			t.Errorf("watch: %+v, %v", n, err)
		}
		break
	}
	listed(t, "doctor", l.client.Examine(t.Context()))
	listed(t, "peers", l.client.Peers(t.Context()))
	hits := listed(t, "find", l.client.Find(t.Context(), FindRequest{Query: []string{"neighbor's"}, Explain: true}, func(Event) {}))
	if hits[0].Name != "neighbor's.txt" {
		t.Errorf("found %+v", hits)
	}
}

func (l *live) moving(t *testing.T) {
	ctx := t.Context()
	film := l.bob.add(t, "film.mp4", seeded(9*content.GroupSize, "film"))
	var out bytes.Buffer
	req := GetRequest{What: film.ID.String(), Dir: t.TempDir(), Explain: true, NoServe: true}
	must(l.client.Get(ctx, req, nil, func(Event) {}))(t)
	must(l.client.Get(ctx, req, nil, func(Event) {}))(t) // it is there already
	must(l.client.Get(ctx, GetRequest{What: "film.mp4", Stream: true, Explain: true}, &out, func(Event) {}))(t)
	rate := int64(share.LimitMin)
	must(l.client.Limits(ctx, LimitsRequest{MaxDown: &rate}))(t)
	slow := l.bob.add(t, "slow.mp4", seeded(9*content.GroupSize, "slow"))
	accepted := must(l.client.GetDetached(ctx, GetRequest{What: slow.ID.String(), Dir: t.TempDir()}))(t)
	listed(t, "transfers", l.client.Transfers(ctx))
	for _, op := range []string{"pause", "resume", "cancel"} {
		must(l.client.ChangeTransfer(ctx, op, TransferRequest{ID: accepted.ID}))(t)
	}
	rate = 0
	must(l.client.Limits(ctx, LimitsRequest{MaxDown: &rate}))(t)
	lost := content.Root([]byte("nobody has this")).String()
	failing := must(l.client.GetDetached(ctx, GetRequest{What: lost, Dir: t.TempDir()}))(t)
	for { // until it stands among those that failed, with its error
		all := listed(t, "transfers", l.client.Transfers(ctx))
		if i := slices.IndexFunc(all, func(x Transfer) bool { return x.ID == failing.ID && x.State == TransferFailed }); i >= 0 {
			if all[i].Error == nil {
				t.Error("a transfer failed without an error")
			}
			break
		}
	}
	must(l.client.Collect(ctx))(t)
}

func (l *live) groups(t *testing.T) {
	ctx := t.Context()
	do := func(op string, req GroupRequest) *GroupDone {
		t.Helper()
		return must(l.client.ChangeGroup(ctx, op, req))(t)
	}
	do("create", GroupRequest{Group: "office", Capacity: 64 << 20})
	invited := do("invite", GroupRequest{Role: "reader", TTL: 60})
	must(l.his.ChangeGroup(ctx, "join", GroupRequest{Token: invited.Token, Group: "office", NoStore: true}))(t)
	do("grant", GroupRequest{Peer: l.bob.node.ID(), Role: "writer"})
	do("revoke", GroupRequest{Peer: l.bob.node.ID(), Role: "writer"})
	do("grant", GroupRequest{Everyone: true, Role: "reader"})
	do("set", GroupRequest{Grace: 600})
	do("link", GroupRequest{})
	do("backup", GroupRequest{File: filepath.Join(t.TempDir(), "office.backup")})
	listed(t, "groups", l.client.Groups(ctx, ""))
	listed(t, "members", l.client.GroupMembers(ctx, url.Values{}))
	listed(t, "members", l.client.GroupMembers(ctx, url.Values{"stale": {"true"}}))
	listed(t, "log", l.client.GroupLog(ctx, url.Values{"limit": {"100"}}))
	must(l.client.PlanGroup(ctx, PlanRequest{Op: "remove", Peer: l.bob.node.ID()}))(t)
	if survey, err := l.client.Survey(ctx, "office"); err != nil || len(survey.Members) == 0 {
		t.Errorf("survey: %+v, %v", survey, err)
	}
}

func (l *live) pins(t *testing.T) {
	ctx := t.Context()
	done := must(l.client.Pin(ctx, PinRequest{What: "album", Replicas: 1, Wait: true}, func(Event) {}))(t)
	must(l.client.Pin(ctx, PinRequest{What: "talk <b>.txt", Replicas: coord.ReplicasAll, Expires: time.Now().Add(time.Hour)}, func(Event) {}))(t)
	listed(t, "pins", l.client.Pins(ctx, url.Values{}))
	listed(t, "pins", l.client.Pins(ctx, url.Values{"explain": {done.ID.String()}, "fresh": {"true"}}))
	must(l.client.Verify(ctx, VerifyRequest{}, func(Event) {}))(t)
	hits := listed(t, "find", l.client.Find(ctx, FindRequest{Query: []string{"album"}}, func(Event) {}))
	if !slices.Contains(hits[0].Where, "group office") {
		t.Errorf("found %+v, want the group's pin", hits)
	}
	must(l.client.Unpin(ctx, PinRequest{What: "album"}))(t)
}

func (l *live) names(t *testing.T) {
	ctx := t.Context()
	bob := l.bob.node.ID().String()
	for _, step := range []struct {
		op  string
		req NamesRequest
	}{
		{"trust", NamesRequest{Who: bob, Petname: "bob"}},
		{"trust", NamesRequest{Who: "bob", Name: "film.mp4"}},
		{"block", NamesRequest{What: content.Root([]byte("bad")).String()}},
	} {
		must(l.client.ChangeNames(ctx, step.op, step.req))(t)
	}
	listed(t, "names", l.client.Names(ctx))
	must(l.client.ChangeNames(ctx, "forget", NamesRequest{Name: "film.mp4"}))(t)
	must(l.client.ChangeNames(ctx, "unblock", NamesRequest{What: content.Root([]byte("bad")).String()}))(t)
	must(l.client.ChangeNames(ctx, "untrust", NamesRequest{Who: "bob"}))(t)
}

func (l *live) peer(t *testing.T) {
	if st := must(l.client.Status(t.Context()))(t); st.Shares == 0 {
		t.Errorf("status: %+v", st)
	}
	l.ask(l.client.http, "GET", pathID, 200, "")
}

func (l *live) browser(t *testing.T) {
	session := must(l.client.NewSession(t.Context()))(t)
	_, code, _ := strings.Cut(session.URL, "#")
	l.ask(&l.tcp, "POST", pathLogin, 200, "{}", "Authorization", "Code "+code)
	l.ask(&l.tcp, "POST", pathLogout, 200, "{}", "Authorization", "Bearer "+l.ann.server.token)
}

func (l *live) link(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var kinds []string
	req := ServeLinkRequest{What: "album", Address: "127.0.0.1", Receive: t.TempDir()}
	_, err := l.client.ServeLink(ctx, req, func(e Event) {
		kinds = append(kinds, e.event())
		switch e := e.(type) {
		case *ServingLink:
			_, code, _ := strings.Cut(e.URL, "#")
			b := newBrowser(t, e)
			b.open(code)
			b.send("sent.txt", []byte("sent"))
		case *Received:
			links := listed(t, "links", list[ServingLink](ctx, l.client, pathServeLink))
			l.ask(l.client.http, "DELETE", pathServeLink, 200, `{"url":"`+links[0].URL+`"}`)
		}
	})
	if err != nil || !slices.Equal(kinds, []string{"serving", "received"}) {
		t.Errorf("serve-link: %v, %v", kinds, err)
	}
}

func (l *live) events(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, _ := follow(t, ctx, l.client)
	for _, kind := range []string{"hello", "transfers", "shares", "groups", "pins", "links", "neighbor"} {
		again, _ := follow(t, ctx, l.client) // they come in any order
		again.next(kind, new(json.RawMessage))
	}
	events.next("hello", new(Hello))
}

// ends is what can be done once.
func (l *live) ends(t *testing.T) {
	done, err := l.his.DrainGroup(t.Context(), GroupRequest{Force: true}, func(*Drained) {})
	if err != nil || done.Did != "left" {
		t.Errorf("leave: %+v, %v", done, err)
	}
}

// refused asks for each operation in a wrong way.
func (l *live) refused(t *testing.T) {
	for path, methods := range described().Paths {
		path = strings.ReplaceAll(path, "{op}", "nonsense")
		for method := range methods {
			method = strings.ToUpper(method)
			if method == http.MethodGet {
				l.ask(&l.tcp, method, path, 401, "")
				continue
			}
			kind := "application/json"
			if path == pathUploads {
				kind = contentTypeBytes
			}
			l.ask(l.client.http, method, path, 400, `{"nonsense":1}`, "Content-Type", kind)
			l.ask(l.client.http, method, path, 415, `{}`, "Content-Type", "text/plain")
		}
	}
	l.ask(&l.tcp, "POST", pathShares, http.StatusRequestEntityTooLarge, `{"path":"`+strings.Repeat("x", bodyMax)+`"}`, "Authorization", "Bearer "+l.ann.server.token)
	for what, err := range map[string]error{
		"an unknown share":    l.client.Remove(t.Context(), RemoveRequest{What: "no such"}, func(Event) {}),
		"an unknown transfer": second(l.client.ChangeTransfer(t.Context(), "pause", TransferRequest{ID: "no such"})),
		"nobody's content":    second(l.client.Get(t.Context(), GetRequest{What: "no such", Dir: t.TempDir()}, nil, func(Event) {})),
	} {
		checkError(t, err, &Error{Code: CodeNotFound})
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func second[T any](_ T, err error) error { return err }
