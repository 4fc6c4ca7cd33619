package share

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

// Mirrors at the other end of a real HTTP server on loopback: honest ones, and
// every way to be another kind.

// honestMirror serves data by ranges.
func honestMirror(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
}

// rangeOf is what a request asks for.
func rangeOf(r *http.Request) (first, last int64) {
	fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
	return first, last
}

// treeSource has the outboard of data and its last group, and gives nothing
// else: the rest must come from mirrors.
type treeSource struct{ *madeSource }

func (s treeSource) span(ctx context.Context, id content.ID, size int64, span content.Span, fn func(int64, []byte) error) error {
	if span.End() == content.GroupCount(size) && span.Count == 1 {
		return s.madeSource.span(ctx, id, size, span, fn)
	}
	return errNotHeld
}

// openedMirror returns a mirror that has answered.
func openedMirror(t *testing.T, url string, id content.ID) *mirror {
	t.Helper()
	m := mirrorAt(t, url, id, true)
	if err := m.open(t.Context()); err != nil {
		t.Fatalf("open: %v", err)
	}
	return m
}

func TestFetchFromAMirrorWithAPeersTree(t *testing.T) {
	data := randomBytes(70*content.GroupSize+5, "mirror")
	id, o := nameContent(t, data)
	s, conns := countedServer(t, func(w http.ResponseWriter, r *http.Request) {
		for key, want := range map[string]string{"User-Agent": "p2pshare", "Accept-Encoding": "identity"} {
			if got := r.Header.Get(key); got != want {
				t.Errorf("a request has %s %q, want %q", key, got, want)
			}
		}
		if len(r.Header) != 3 {
			t.Errorf("a request has headers %v, want Range and two more", r.Header)
		}
		honestMirror(data)(w, r)
	})
	m := openedMirror(t, s.URL, id)
	c, sink := crowdOf(id, m, treeSource{&madeSource{id: "peer", data: data, outboard: o}}), &memorySink{}
	c.mirrors = []*mirror{m}
	if _, err := newFetch(id, c, sink).run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(sink.data, data) {
		t.Error("what came is not what is there")
	}
	stats, _, _ := c.report()
	if len(stats) == 0 || stats[0].Mirror != s.URL || stats[0].Peer != "" || stats[0].Via != ViaMirror || stats[0].Bytes != 70*content.GroupSize {
		t.Errorf("report = %+v, want all but the last group from the mirror", stats)
	}
	if n := conns.Load(); n > 2 { // one, and a last one when the end found a request under way
		t.Errorf("%d connections were made", n)
	}
}

func TestFetchOfOneGroupNeedsAMirrorOnly(t *testing.T) {
	for _, size := range []int{1, 1024, content.GroupSize} {
		data := randomBytes(size, "small")
		id, _ := nameContent(t, data)
		s, _ := countedServer(t, honestMirror(data))
		sink := &memorySink{}
		if _, err := newFetch(id, crowdOf(id, openedMirror(t, s.URL, id)), sink).run(t.Context()); err != nil || !bytes.Equal(sink.data, data) {
			t.Errorf("%d bytes from a mirror alone: %v", size, err)
		}
	}
}

func TestFetchFromMirrorsOnlySaysWhatIsMissing(t *testing.T) {
	data := randomBytes(content.GroupSize+1, "no tree")
	id, _ := nameContent(t, data)
	s, _ := countedServer(t, honestMirror(data))
	_, err := newFetch(id, crowdOf(id, openedMirror(t, s.URL, id)), &memorySink{}).run(t.Context())
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "a mirror has it, and nobody the tree") {
		t.Errorf("run = %v, want ErrUnreachable that names the tree", err)
	}
}

// A mirror is one of one content: it is not asked for another, as a file of the
// same directory.
func TestMirrorHoldsOneContent(t *testing.T) {
	data := randomBytes(100, "one")
	id, _ := nameContent(t, data)
	other, _ := nameContent(t, data[:50])
	s, _ := countedServer(t, honestMirror(data))
	m := openedMirror(t, s.URL, id)
	if _, err := m.size(t.Context(), other); !errors.Is(err, errNotHeld) {
		t.Errorf("size of another content: %v, want errNotHeld", err)
	}
	if err := m.span(t.Context(), other, 100, content.Span{Count: 1}, nil); !errors.Is(err, errNotHeld) {
		t.Errorf("span of another content: %v, want errNotHeld", err)
	}
}

func TestMirrorsThatLie(t *testing.T) {
	data := randomBytes(3*content.GroupSize+7, "lies")
	id, o := nameContent(t, data)
	honest := honestMirror(data)
	// part answers with any headers and body, and without a Content-Length if
	// the body says so.
	part := func(w http.ResponseWriter, contentRange string, length int64, body []byte) {
		w.Header().Set("Content-Range", contentRange)
		if length >= 0 {
			w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
		}
		w.WriteHeader(http.StatusPartialContent)
		w.Write(body)
	}
	true1 := func(r *http.Request) (string, []byte) {
		first, last := rangeOf(r)
		return fmt.Sprintf("bytes %d-%d/%d", first, last, len(data)), data[first : last+1]
	}
	for _, tt := range []struct {
		what   string
		reason string
		liar   bool // it is named as one
		lie    func(w http.ResponseWriter, r *http.Request)
	}{
		// Which group is asked for first depends on who else has been asked by then.
		{"wrong bytes", "does not match", true, func(w http.ResponseWriter, r *http.Request) {
			cr, body := true1(r)
			body = bytes.Clone(body)
			body[len(body)/9] ^= 0x10
			part(w, cr, int64(len(body)), body)
		}},
		{"200 and all of it", "status 200 where 206", false, func(w http.ResponseWriter, r *http.Request) { w.Write(data) }},
		{"not found", "status 404", false, func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }},
		{"416", "status 416", false, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", len(data)))
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		}},
		{"no Content-Range", "0 values of Content-Range", true, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusPartialContent)
			w.Write(data)
		}},
		{"two of them", "2 values of Content-Range", true, func(w http.ResponseWriter, r *http.Request) {
			cr, body := true1(r)
			w.Header().Add("Content-Range", "bytes 0-0/1")
			w.Header().Add("Content-Range", cr)
			w.WriteHeader(http.StatusPartialContent)
			w.Write(body)
		}},
		{"another range", "another range", true, func(w http.ResponseWriter, r *http.Request) {
			first, last := rangeOf(r)
			part(w, fmt.Sprintf("bytes %d-%d/%d", first+1, last+1, len(data)), last-first+1, data[first+1:])
		}},
		{"a longer range", "another range", true, func(w http.ResponseWriter, r *http.Request) {
			part(w, fmt.Sprintf("bytes 0-%d/%d", len(data)-1, len(data)), int64(len(data)), data)
		}},
		{"an open total", "another range", true, func(w http.ResponseWriter, r *http.Request) {
			first, last := rangeOf(r)
			part(w, fmt.Sprintf("bytes %d-%d/*", first, last), last-first+1, data[first:last+1])
		}},
		{"another size", "had", true, func(w http.ResponseWriter, r *http.Request) {
			first, last := rangeOf(r)
			part(w, fmt.Sprintf("bytes %d-%d/%d", first, last, len(data)+1), last-first+1, data[first:last+1])
		}},
		{"gzip anyway", "encodes", true, func(w http.ResponseWriter, r *http.Request) {
			cr, body := true1(r)
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			z.Write(body)
			z.Close()
			w.Header().Set("Content-Encoding", "gzip")
			part(w, cr, int64(b.Len()), b.Bytes())
		}},
		{"less than promised", "were asked for", true, func(w http.ResponseWriter, r *http.Request) {
			cr, body := true1(r)
			part(w, cr, int64(len(body)-1), body[:len(body)-1])
		}},
		{"more than promised", "were asked for", true, func(w http.ResponseWriter, r *http.Request) {
			cr, body := true1(r)
			part(w, cr, int64(len(body)+1), append(bytes.Clone(body), 0))
		}},
		{"a connection that breaks", "EOF", false, func(w http.ResponseWriter, r *http.Request) {
			cr, body := true1(r)
			part(w, cr, int64(len(body)), body[:len(body)-1])
			panic(http.ErrAbortHandler)
		}},
		{"an end before its time", "EOF", false, func(w http.ResponseWriter, r *http.Request) {
			cr, body := true1(r)
			part(w, cr, -1, body[:len(body)-1])
		}},
		{"silence", errMirrorStalls.Error(), false, func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}},
		{"silence in the middle", errMirrorStalls.Error(), false, func(w http.ResponseWriter, r *http.Request) {
			cr, body := true1(r)
			part(w, cr, int64(len(body)), body[:content.GroupSize/2])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}},
		{"a drop at a time", errMirrorStalls.Error(), false, func(w http.ResponseWriter, r *http.Request) {
			cr, body := true1(r)
			part(w, cr, int64(len(body)), nil)
			for i := range body {
				if _, err := w.Write(body[i : i+1]); err != nil || http.NewResponseController(w).Flush() != nil {
					return
				}
				select {
				case <-r.Context().Done():
					return
				case <-time.After(time.Millisecond):
				}
			}
		}},
		{"headers without end", "headers exceeded", false, func(w http.ResponseWriter, r *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			io.WriteString(c, "HTTP/1.1 206 Partial Content\r\n")
			for i := 0; err == nil; i++ {
				_, err = fmt.Fprintf(c, "X-%d: %s\r\n", i, strings.Repeat("x", 1000))
			}
		}},
		{"no HTTP", "malformed HTTP", false, func(w http.ResponseWriter, r *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			io.WriteString(c, "220 mail.example.org ESMTP\r\n\r\n")
		}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			var asked atomic.Int64
			s, _ := countedServer(t, func(w http.ResponseWriter, r *http.Request) {
				if first, last := rangeOf(r); last == first {
					honest(w, r) // it lies when it is used
					return
				}
				asked.Add(1) // one connection: one at a time
				tt.lie(w, r)
			})
			m := openedMirror(t, s.URL, id)
			if tt.reason == errMirrorStalls.Error() {
				m.stall = 200 * time.Millisecond
			}
			c, sink := crowdOf(id, m, treeSource{&madeSource{id: "peer", data: data, outboard: o}}), &memorySink{}
			c.mirrors = []*mirror{m}
			var notes []string
			c.meter.notes = func(line string) { notes = append(notes, line) }
			_, err := newFetch(id, c, sink).run(t.Context())
			_, peers, mirrors := c.report()
			if want := []string{s.URL}; tt.liar != slices.Equal(mirrors, want) || len(peers) != 0 {
				t.Errorf("corrupt are the mirrors %q and the peers %v", mirrors, peers)
			}
			if tt.liar != errors.Is(err, ErrCorrupt) || !tt.liar && !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), s.URL) {
				t.Errorf("run = %v, want that it names the mirror", err)
			}
			if len(notes) != 1 || !strings.Contains(notes[0], tt.reason) || !strings.Contains(notes[0], s.URL) {
				t.Errorf("notes are %q, want one with %q", notes, tt.reason)
			}
			if n := asked.Load(); n != 1 {
				t.Errorf("it was asked %d times, want once", n)
			}
			for i := range content.GroupCount(int64(len(data))) {
				got := sink.data[i*content.GroupSize:][:content.GroupLen(int64(len(data)), i)]
				if want := data[i*content.GroupSize:][:len(got)]; !bytes.Equal(got, want) && !bytes.Equal(got, make([]byte, len(got))) {
					t.Errorf("group %d has wrong bytes", i)
				}
			}
		})
	}
}

// What follows the range is not read, however long it goes on.
func TestMirrorWithoutEnd(t *testing.T) {
	data := randomBytes(5*content.GroupSize, "endless")
	id, o := nameContent(t, data)
	s, _ := countedServer(t, func(w http.ResponseWriter, r *http.Request) {
		first, last := rangeOf(r)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(data)))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(data[first : last+1])
		for junk := make([]byte, 64<<10); r.Context().Err() == nil; {
			if _, err := w.Write(junk); err != nil {
				return
			}
		}
	})
	m := openedMirror(t, s.URL, id)
	sink := &memorySink{}
	_, err := newFetch(id, crowdOf(id, m, treeSource{&madeSource{id: "peer", data: data, outboard: o}}), sink).run(t.Context())
	if err != nil || !bytes.Equal(sink.data, data) {
		t.Errorf("run = %v", err)
	}
}

// BenchmarkMirror fetches spans of 4 MiB from a server in this process, and
// verifies them: go test -run X -bench Mirror ./share
func BenchmarkMirror(b *testing.B) {
	const size = 64 << 20
	data := randomBytes(size, "bench")
	id, o, err := hashContent(b.Context(), bytes.NewReader(data), size, true, func(int) {})
	if err != nil {
		b.Fatal(err)
	}
	s := httptest.NewServer(honestMirror(data))
	defer s.Close()
	u, err := ParseMirror(s.URL)
	if err != nil {
		b.Fatal(err)
	}
	m := newMirror(u, id, true)
	defer m.close()
	if err := m.open(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		for first := int64(0); first < content.GroupCount(size); first += 16 {
			if err := m.span(b.Context(), id, size, content.Span{First: first, Count: 16}, o.VerifyGroup); err != nil {
				b.Fatal(err)
			}
		}
	}
}
