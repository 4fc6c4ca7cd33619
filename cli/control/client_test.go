package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startFake serves handler, and an ID, on the socket of a new home.
func startFake(t *testing.T, handler http.HandlerFunc) (home string, stop func()) {
	t.Helper()
	home = t.TempDir()
	l, err := listenSocket(home)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathID, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"peer_id":"12D3KooWPmZov2VC7oq4XnaKCiPJmWvjwhurEGtsjFkrQPAssVG9","addrs":[],"pid":7,"service":"serving"}`)
	})
	mux.HandleFunc("/", handler)
	ctx, cancel := context.WithCancel(t.Context())
	g, ctx := errgroup.WithContext(ctx)
	serve(ctx, g, l, &guard{next: mux})
	stop = func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Errorf("serve = %v, want nil", err)
		}
	}
	t.Cleanup(stop)
	return home, stop
}

// connect connects to a real peer, whose answers are compared with openapi.json.
func connect(t *testing.T, home string) *Client {
	t.Helper()
	c := connectFake(t, home)
	c.http.Transport = conforming(t, c.http.Transport)
	return c
}

// connectFake connects to what startFake serves.
func connectFake(t *testing.T, home string) *Client {
	t.Helper()
	c, err := Connect(t.Context(), home)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestConnectTellsWhoRuns(t *testing.T) {
	home, stop := startFake(t, http.NotFound)
	if got := connectFake(t, home).Hello(); got.PID != 7 || got.Service != ServiceServing {
		t.Errorf("Hello() = %+v, want process 7, serving", got)
	}
	stop()
	if _, err := Connect(t.Context(), home); !errors.Is(err, ErrNoPeer) {
		t.Errorf("Connect to a stopped peer = %v, want ErrNoPeer", err)
	}
	if _, err := Connect(t.Context(), t.TempDir()); !errors.Is(err, ErrNoPeer) {
		t.Errorf("Connect to an empty home = %v, want ErrNoPeer", err)
	}
}

func TestStreamedGet(t *testing.T) {
	payload := bytes.Repeat([]byte("0123456789"), 70_000) // some frames
	tests := []struct {
		name    string
		answer  func(s *stream)
		want    error // nil: payload arrives and is done
		wantOut int
	}{
		{"whole", func(s *stream) { s.Write(payload); s.send(&Done{Path: "-"}) }, nil, len(payload)},
		{"with progress and news between", func(s *stream) {
			s.Write(payload[:10])
			s.note("note")
			s.sendLine(map[string]string{"event": "tomorrow"})
			s.Write(payload[10:])
			s.send(&Done{Path: "-"})
		}, nil, len(payload)},
		{"error in the middle", func(s *stream) { s.Write(payload[:10]); s.fail(Errorf(CodeIntegrity, "bad")) }, &Error{Code: CodeIntegrity}, 10},
		{"cut off between lines", func(s *stream) { s.Write(payload[:10]) }, ErrGone, 10},
		{"cut off in a frame", func(s *stream) { s.write([]byte(`{"event":"data","bytes":20}`), payload[:10]) }, ErrGone, 10},
		{"cut off in a line", func(s *stream) { s.w.Write([]byte(`{"event":"do`)) }, ErrGone, 0},
		{"nothing", func(*stream) {}, ErrGone, 0},
		{"endless line", func(s *stream) { s.w.Write(bytes.Repeat([]byte("x"), lineMax+100_000)) }, errAny, 0},
		{"frame too large", func(s *stream) { s.write([]byte(`{"event":"data","bytes":999999999}`), nil) }, errAny, 0},
		{"negative frame", func(s *stream) { s.write([]byte(`{"event":"data","bytes":-1}`), nil) }, errAny, 0},
		{"no JSON", func(s *stream) { s.write([]byte("hello"), nil) }, errAny, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			home, _ := startFake(t, func(w http.ResponseWriter, r *http.Request) {
				if _, ok := decode[GetRequest](w, r); ok {
					tt.answer(newStream(w, r, contentTypeFrames))
				}
			})
			var out bytes.Buffer
			_, err := connectFake(t, home).Get(t.Context(), GetRequest{Stream: true}, &out, func(Event) {})
			checkError(t, err, tt.want)
			if !bytes.Equal(out.Bytes(), payload[:tt.wantOut]) {
				t.Errorf("%d bytes came out, want the first %d", out.Len(), tt.wantOut)
			}
		})
	}
}

// errAny stands for any error that is none of ours.
var errAny = errors.New("any")

func checkError(t *testing.T, got, want error) {
	t.Helper()
	var gotE, wantE *Error
	switch {
	case want == nil:
		if got != nil {
			t.Errorf("error = %v, want none", got)
		}
	case want == errAny:
		if got == nil || errors.Is(got, ErrGone) {
			t.Errorf("error = %v, want one that is not ErrGone", got)
		}
	case errors.As(want, &wantE):
		if !errors.As(got, &gotE) || gotE.Code != wantE.Code {
			t.Errorf("error = %v, want code %d", got, wantE.Code)
		}
	case !errors.Is(got, want):
		t.Errorf("error = %v, want %v", got, want)
	}
}

func TestGetTellsItsOwnWriteError(t *testing.T) {
	home, _ := startFake(t, func(w http.ResponseWriter, r *http.Request) {
		decode[GetRequest](w, r)
		s := newStream(w, r, contentTypeFrames)
		s.Write([]byte("data"))
		s.send(&Done{})
	})
	full := errors.New("disk full")
	_, err := connectFake(t, home).Get(t.Context(), GetRequest{Stream: true}, failingWriter{full}, func(Event) {})
	if !errors.Is(err, full) || errors.Is(err, ErrGone) {
		t.Errorf("Get into a full disk = %v, want %v", err, full)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestCancelEndsThePeersWork(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	home, _ := startFake(t, func(w http.ResponseWriter, r *http.Request) {
		decode[GetRequest](w, r)
		close(begun)
		<-r.Context().Done()
		close(ended)
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	client := connectFake(t, home)
	go func() {
		_, err := client.Get(ctx, GetRequest{}, nil, func(Event) {})
		failed <- err
	}()
	<-begun
	cancel()
	<-ended
	if err := <-failed; !errors.Is(err, context.Canceled) || errors.Is(err, ErrGone) {
		t.Errorf("Get = %v, want context.Canceled", err)
	}
}

func TestStopCutsRequestsOff(t *testing.T) {
	begun := make(chan struct{})
	home, stop := startFake(t, func(w http.ResponseWriter, r *http.Request) {
		decode[GetRequest](w, r)
		s := newStream(w, r, contentTypeLines)
		s.note("working")
		close(begun)
		<-r.Context().Done()
		s.fail(ErrorOf(r.Context().Err())) // must not be told as the request's end
	})
	failed := make(chan error, 1)
	client := connectFake(t, home)
	go func() {
		_, err := client.Get(t.Context(), GetRequest{}, nil, func(Event) {})
		failed <- err
	}()
	<-begun
	stop()
	if err := <-failed; !errors.Is(err, ErrGone) {
		t.Errorf("Get from a peer that stops = %v, want ErrGone", err)
	}
}

func TestListing(t *testing.T) {
	home, _ := startFake(t, func(w http.ResponseWriter, r *http.Request) {
		s := newStream(w, r, contentTypeLines)
		s.sendLine(&Listed{Name: "a"})
		s.sendLine(&Listed{Name: "b"})
		s.fail(Errorf(CodeUnreachable, "gone away"))
	})
	var names []string
	var last error
	for l, err := range connectFake(t, home).Shares(t.Context()) {
		names, last = append(names, l.Name), err
	}
	if got := strings.Join(names, ","); got != "a,b," {
		t.Errorf("listed %q, want a,b and the error", got)
	}
	checkError(t, last, &Error{Code: CodeUnreachable})
}

func TestBadRequests(t *testing.T) {
	home, _ := startFake(t, func(w http.ResponseWriter, r *http.Request) {
		if _, ok := decode[RemoveRequest](w, r); ok {
			writeJSON(w, struct{}{})
		}
	})
	client := connectFake(t, home)
	for name, tt := range map[string]struct {
		req  any
		want error
	}{
		"good":          {RemoveRequest{What: "x"}, nil},
		"unknown field": {map[string]string{"wat": "x"}, &Error{Code: CodeUsage}},
		"wrong type":    {map[string]int{"what": 1}, &Error{Code: CodeUsage}},
		"too large":     {RemoveRequest{What: strings.Repeat("x", bodyMax)}, &Error{Code: CodeUsage}},
		"no object":     {"what", &Error{Code: CodeUsage}},
	} {
		t.Run(name, func(t *testing.T) {
			body, err := client.do(t.Context(), http.MethodDelete, pathShares, tt.req)
			if body != nil {
				body.Close()
			}
			checkError(t, err, tt.want)
		})
	}
}

func TestStopCutsListingsOff(t *testing.T) {
	begun := make(chan struct{})
	home, stop := startFake(t, func(w http.ResponseWriter, r *http.Request) {
		s := newStream(w, r, contentTypeLines)
		s.sendLine(&Listed{Name: "a"})
		close(begun)
		<-r.Context().Done()
		s.abortIfCutOff()
	})
	failed := make(chan error, 1)
	client := connectFake(t, home)
	go func() {
		var last error
		for _, err := range client.Shares(t.Context()) {
			last = err
		}
		failed <- last
	}()
	<-begun
	stop()
	if err := <-failed; !errors.Is(err, ErrGone) {
		t.Errorf("listing from a peer that stops ended with %v, want ErrGone", err)
	}
}
