package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

func testApp() (a *app, out, err *strings.Builder) {
	out, err = new(strings.Builder), new(strings.Builder)
	a = &app{io: IO{Out: out, Err: err, Env: func(string) string { return "" }}, out: bufio.NewWriter(out)}
	return a, out, err
}

func TestReport(t *testing.T) {
	a, out, err := testApp()
	a.report(control.Errorf(control.CodeNotFound, "first").WithHint("one\ntwo"))
	a.report(errors.New("second"))
	if a.code != control.CodeNotFound {
		t.Errorf("code = %d, want that of the first error", a.code)
	}
	if want := "p2pshare: first\nhint: one\nhint: two\np2pshare: second\n"; err.String() != want || out.Len() > 0 {
		t.Errorf("stderr = %q, stdout = %q, want %q and nothing", err, out, want)
	}
}

func TestReportJSON(t *testing.T) {
	a, out, err := testApp()
	a.json = true
	a.report(fmt.Errorf("%q: %w", "x", share.ErrExists))
	want := `{"event":"error","code":9,"reason":"refused","message":"\"x\": target exists with other content","hint":"save elsewhere with -o PATH, or replace it with --force"}` + "\n"
	if out.String() != want || !strings.HasPrefix(err.String(), "p2pshare: ") {
		t.Errorf("stdout = %s stderr = %s, want %s and the same for people", out, err, want)
	}
}

func TestReportShowsCandidates(t *testing.T) {
	a, _, err := testApp()
	a.report(&share.AmbiguousError{Name: "x\x1b", Candidates: []share.Candidate{
		{ID: content.ID{0xab}, Name: "x\x1b", Size: 2048, Publishers: []peer.ID{"p"}, Tier: 3, Reachable: true, Networks: 1},
		{ID: content.ID{0xcd}, Name: "x\x1b", Publishers: []peer.ID{"p", "q"}, Tier: 3, Networks: 2},
		{ID: content.ID{0xef}, Name: "x\x1b", Publishers: []peer.ID{"p", "q", "r"}, Tier: 3, Networks: 1, Mixed: "Latin, Greek"},
	}})
	if a.code != control.CodeAmbiguous {
		t.Errorf("code = %d, want %d", a.code, control.CodeAmbiguous)
	}
	for _, want := range []string{`  x\x1b#ab000000  2.0 KiB  stranger  2w `, "#cd000000  0 B      stranger  2 publishers ", "stranger  1 publisher (3 identities)",
		"not reachable\n", "not reachable; mixes Latin, Greek\n", "\nhint: "} {
		if !strings.Contains(err.String(), want) {
			t.Errorf("stderr lacks %q:\n%s", want, err)
		}
	}
	if strings.Contains(err.String(), "\x1b") {
		t.Errorf("stderr has a raw escape: %q", err)
	}
}

func TestInterruptWinsOverWhatItCaused(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want control.Code
	}{
		{errors.New("stream reset"), control.CodeInterrupted},
		{context.Canceled, control.CodeInterrupted},
		{context.DeadlineExceeded, control.CodeInterrupted},
		{share.ErrExists, control.CodeRefused},
	} {
		if got := control.ErrorOf(interrupted(tt.err)).Code; got != tt.want {
			t.Errorf("interrupted(%v) has code %d, want %d", tt.err, got, tt.want)
		}
	}
}
