package share

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
)

// listPeer runs a peer that answers the n-th request for a list with what answer
// returns for it.
func listPeer(t *testing.T, answer func(n int, q metaRequest) []byte) peer.AddrInfo {
	t.Helper()
	var mu sync.Mutex
	n := 0
	return startRaw(t, nil, handlers{metaProtocol: func(_ context.Context, s network.Stream) error {
		in := newLineReader(s)
		for {
			line, err := readLine(in)
			if err != nil {
				return err
			}
			q, err := decodeMetaRequest(line)
			if err != nil || q.Op != opList {
				t.Errorf("asked %q, want a list", line)
			}
			mu.Lock()
			n++
			a := answer(n, q)
			mu.Unlock()
			if _, err := s.Write(a); err != nil {
				return err
			}
		}
	}}).AddrInfo()
}

func listEnd(total int, next string) []byte {
	return fmt.Appendf(nil, `{"end":true,"total":%d,"next":%q}`+"\n", total, next)
}

func TestSharesOfBlamesWhoTellsLies(t *testing.T) {
	asker, _ := startPeer(t, node.Config{NoDHT: true})
	p := newPublisher(t)
	line := func(i int) []byte {
		return manifestLine(p.sign(t, p.manifest(Name(fmt.Sprint("file ", i)), numberID(i), 10)))
	}
	always := func(answer []byte) func(int, metaRequest) []byte {
		return func(int, metaRequest) []byte { return answer }
	}
	lies := map[string]func(n int, q metaRequest) []byte{
		"negative total":           always(listEnd(-1, "")),
		"absurd total":             always(listEnd(listTotalMax+1, "")),
		"total beyond all numbers": always([]byte(`{"end":true,"total":1e40}` + "\n")),
		"total of a half":          always([]byte(`{"end":true,"total":0.5}` + "\n")),
		"total as text":            always([]byte(`{"end":true,"total":"3"}` + "\n")),
		"less than it shows":       always(append(line(1), listEnd(0, "")...)),
		"no total":                 always(append(line(1), endLine...)),
		"two totals":               always([]byte(`{"end":true,"total":1,"total":2}` + "\n")),
		"long cursor":              always(listEnd(5, strings.Repeat("c", cursorMax+1))),
		"cursor as a number":       always([]byte(`{"end":true,"total":1,"next":7}` + "\n")),
		"the same cursor again":    always(listEnd(5, "c")),
		"the same page again":      always(slices.Concat(line(1), listEnd(5, "c"))),
		"cursors that go round":    func(n int, _ metaRequest) []byte { return append(line(n), listEnd(9, fmt.Sprint(n%5))...) },
		"empty pages without end":  func(n int, _ metaRequest) []byte { return listEnd(9, fmt.Sprint(n)) },
		"one manifest without end": func(n int, _ metaRequest) []byte { return append(line(1), listEnd(9, fmt.Sprint(n))...) },
		"good page, then a bad manifest": func(n int, _ metaRequest) []byte {
			return append([][]byte{line(1), manifestLine([]byte(`{}`))}[min(n-1, 1)], listEnd(9, "c")...)
		},
		"end cut off":  func(n int, _ metaRequest) []byte { return append(line(1), `{"end":true,"to`+"\n"...) },
		"65 manifests": always(append(bytes.Repeat(line(1), metaManifestsMax+1), listEnd(65, "")...)),
	}
	for _, lie := range manifestLies {
		if lie.name == "another name" { // any is good here
			continue
		}
		answer := append(lie.answer(t, p, "report.pdf", numberID(1)), listEnd(1000, "")...)
		lies[lie.name] = always(answer)
	}
	for name, answer := range lies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			liar := listPeer(t, answer)
			got, err := asker.lib.SharesOf(t.Context(), liar, 1000)
			wantCorrupt(t, err, liar.ID)
			if !cmp.Equal(got, Shared{}) {
				t.Errorf("SharesOf = %+v, want nothing of a liar's answer", got)
			}
		})
	}
}

func TestSharesOfPagesOnUpToItsLimit(t *testing.T) {
	asker, _ := startPeer(t, node.Config{NoDHT: true})
	p := newPublisher(t)
	lines := make([][]byte, 1100)
	for i := range lines {
		lines[i] = manifestLine(p.sign(t, p.manifest(Name(fmt.Sprint("file ", i)), numberID(i), int64(i))))
	}
	var asked atomic.Int32
	endless := listPeer(t, func(_ int, q metaRequest) []byte {
		first := 0
		if q.After != "" {
			fmt.Sscanf(q.After, "after %d", &first)
		}
		asked.Add(1)
		page := lines[first:min(first+64, len(lines))]
		return append(slices.Concat(page...), listEnd(listTotalMax, fmt.Sprintf("after %d", first+len(page)))...)
	})
	for _, tt := range []struct {
		limit, want int
		asked       int32
	}{
		{-1, 1, 1}, {0, 1, 1}, {1, 1, 1}, {20, 20, 1}, {64, 64, 1}, {65, 65, 2}, {200, 200, 4}, {1000, 1000, 16}, {1 << 40, 1000, 16},
	} {
		asked.Store(0)
		got, err := asker.lib.SharesOf(t.Context(), endless, tt.limit)
		if err != nil || len(got.First) != tt.want || asked.Load() != tt.asked || !got.More || got.Total != listTotalMax {
			t.Fatalf("limit %d: %d shares after %d questions, more %v, total %d, %v, want %d after %d", tt.limit, len(got.First), asked.Load(), got.More, got.Total, err, tt.want, tt.asked)
		}
		for i, s := range got.First {
			if want := (Listed{Name(fmt.Sprint("file ", i)), numberID(i), KindFile, int64(i), p.id, ""}); s != want {
				t.Fatalf("limit %d: share %d is %+v, want %+v", tt.limit, i, s, want)
			}
		}
	}
}

func TestSharesOfShowsDuplicatesOnce(t *testing.T) {
	asker, _ := startPeer(t, node.Config{NoDHT: true})
	p, q := newPublisher(t), newPublisher(t)
	a := manifestLine(p.sign(t, p.manifest("a", numberID(1), 1)))
	again := manifestLine(q.sign(t, q.manifest("a", numberID(1), 1)))
	renamed := manifestLine(p.sign(t, p.manifest("b", numberID(1), 1)))
	other := manifestLine(p.sign(t, p.manifest("a", numberID(2), 1)))
	from := listPeer(t, func(_ int, q metaRequest) []byte {
		switch q.After {
		case "":
			return slices.Concat(a, again, renamed, listEnd(6, "2"))
		case "2":
			return slices.Concat(again, a, listEnd(6, "3")) // nothing new, and more
		}
		return slices.Concat(other, listEnd(6, ""))
	})
	got, err := asker.lib.SharesOf(t.Context(), from, 64)
	want := Shared{Total: 6, First: []Listed{
		{"a", numberID(1), KindFile, 1, p.id, ""}, {"b", numberID(1), KindFile, 1, p.id, ""}, {"a", numberID(2), KindFile, 1, p.id, ""},
	}}
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("SharesOf = %+v, %v, want %+v", got, err, want)
	}
	got, err = asker.lib.SharesOf(t.Context(), from, 2)
	want.First, want.More = want.First[:2], true
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("SharesOf two = %+v, %v, want %+v", got, err, want)
	}
}

func TestSharesOfReturnsWhatCameBeforeAnError(t *testing.T) {
	asker, _ := startPeer(t, node.Config{NoDHT: true})
	p := newPublisher(t)
	line := manifestLine(p.sign(t, p.manifest("a", numberID(1), 1)))
	waiting := make(chan struct{}, 1)
	from := listPeer(t, func(n int, q metaRequest) []byte {
		switch {
		case q.After == "":
			return append(line, listEnd(3, []string{"busy", "silent"}[n/2])...)
		case q.After == "busy":
			return []byte(`{"end":true,"error":"busy\u001b[2J"}` + "\n")
		}
		waiting <- struct{}{}
		return nil
	})
	want := Shared{First: []Listed{{"a", numberID(1), KindFile, 1, p.id, ""}}, Total: 3, More: true}
	got, err := asker.lib.SharesOf(t.Context(), from, 64)
	if err == nil || !strings.Contains(err.Error(), "busy") || strings.Contains(err.Error(), "\x1b") || errors.Is(err, ErrCorrupt) || !cmp.Equal(got, want) {
		t.Errorf("SharesOf a busy peer = %+v, %v, want %+v, and its word", got, err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-waiting
		cancel()
	}()
	got, err = asker.lib.SharesOf(ctx, from, 64)
	if !errors.Is(err, context.Canceled) || !cmp.Equal(got, want) {
		t.Errorf("SharesOf a silent peer = %+v, %v, want %+v, canceled", got, err, want)
	}
}

func TestSharesOfARealPeer(t *testing.T) {
	const files = 130 // three answers have them
	sharer, stop := startPeer(t, node.Config{NoDHT: true})
	asker, _ := startPeer(t, node.Config{NoDHT: true})
	other, _ := startPeer(t, node.Config{NoDHT: true})
	sharesOf := func(p *testPeer, limit int) Shared {
		t.Helper()
		got, err := p.lib.SharesOf(t.Context(), sharer.AddrInfo(), limit)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := sharesOf(asker, 64); !cmp.Equal(got, Shared{}) {
		t.Errorf("an empty peer shares %+v", got)
	}

	var want []Listed // newest first
	add := func(name string, s Scope) {
		t.Helper()
		r := addTo(t, sharer.lib, sharer.write(t, name, []byte(name)), AddOptions{Scope: s})
		want = append([]Listed{{r.Name, r.ID, r.Kind, r.Size, sharer.ID(), ""}}, want...)
	}
	for i := range files {
		add(fmt.Sprintf("file %d", i), Scope{})
	}
	add("lan", Scope{LANOnly: true}) // loopback counts as such
	add("yours", Scope{To: asker.ID()})
	addTo(t, sharer.lib, sharer.write(t, "unlisted", []byte("u")), AddOptions{Scope: Scope{Unlisted: true}})
	sharer.write(t, "album/1.jpg", []byte("1"))
	r := addTo(t, sharer.lib, filepath.Join(sharer.dir, "album"), AddOptions{})
	want = append([]Listed{{"album", r.ID, KindDir, 1, sharer.ID(), ""}}, want...)
	if got := sharesOf(asker, 20); !cmp.Equal(got, Shared{want[:20], files + 3, true}) {
		t.Errorf("the first 20 are %+v", got)
	}
	if got := sharesOf(asker, 1000); !cmp.Equal(got, Shared{want, files + 3, false}) {
		t.Errorf("all are %+v, want %+v", got, want)
	}
	others := slices.Delete(slices.Clone(want), 1, 2)
	if got := sharesOf(other, files+2); !cmp.Equal(got, Shared{others, files + 2, false}) {
		t.Errorf("what another peer sees is %+v, want %+v", got, others)
	}
	if _, err := sharer.lib.Remove(t.Context(), "album"); err != nil {
		t.Fatal(err)
	}
	if got := sharesOf(asker, 1); !cmp.Equal(got, Shared{want[1:2], files + 2, true}) {
		t.Errorf("without the album the first is %+v", got)
	}

	// What the other gets, it tells of, with the publisher's name.
	if _, err := other.get(t, "file 7", GetOptions{Peers: []peer.AddrInfo{sharer.AddrInfo()}}); err != nil {
		t.Fatal(err)
	}
	got, err := asker.lib.SharesOf(t.Context(), other.AddrInfo(), 64)
	if want := (Shared{First: []Listed{want[len(want)-8]}, Total: 1}); err != nil || !cmp.Equal(got, want) {
		t.Errorf("the getter shares %+v, %v, want %+v", got, err, want)
	}

	info := sharer.AddrInfo()
	stop()
	late, _ := startPeer(t, node.Config{NoDHT: true})
	if got, err := late.lib.SharesOf(t.Context(), info, 64); !errors.Is(err, ErrUnreachable) || len(got.First) != 0 {
		t.Errorf("SharesOf a stopped peer = %+v, %v, want ErrUnreachable", got, err)
	}
}
