package share

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestFileIdentityRoundTrip(t *testing.T) {
	for _, f := range []fileIdentity{
		{},
		{dev: 1, ino: 2, size: 3, mtime: 4, ctime: 5},
		{dev: math.MaxUint64, ino: math.MaxUint64, size: math.MaxInt64, mtime: -1, ctime: math.MinInt64},
	} {
		b := f.append(nil)
		if len(b) != fileIdentityLen {
			t.Errorf("%+v takes %d bytes, want %d", f, len(b), fileIdentityLen)
		}
		if got := decodeFileIdentity(b); got != f {
			t.Errorf("%+v comes back as %+v", f, got)
		}
	}
}

func TestSettledForgetsAFileThatMayChangeWithinTheTick(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(d time.Duration) int64 { return start.Add(d).UnixNano() }
	for _, tt := range []struct {
		what    string
		in      fileIdentity
		settled bool
	}{
		{"long ago", fileIdentity{mtime: at(-time.Hour), ctime: at(-time.Hour)}, true},
		{"just now", fileIdentity{mtime: at(0), ctime: at(0)}, false},
		{"old time, changed just now", fileIdentity{mtime: at(-time.Hour), ctime: at(-time.Millisecond)}, false},
		{"time from the future", fileIdentity{mtime: at(time.Hour), ctime: at(-time.Hour)}, false},
		{"no ctime on this system, long ago", fileIdentity{mtime: at(-time.Hour)}, true},
		{"no ctime on this system, just now", fileIdentity{mtime: at(0)}, false},
	} {
		if got := tt.in.settled(start) == tt.in; got != tt.settled {
			t.Errorf("%s: recognised again = %v, want %v", tt.what, got, tt.settled)
		}
	}
}

func TestSysIdentityTellsFilesApart(t *testing.T) {
	dir := t.TempDir()
	a, b := writeFile(t, dir, "a", "x"), writeFile(t, dir, "b", "x")
	identify := func(path string) fileIdentity {
		id, err := identifyPath(path)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	link := filepath.Join(dir, "link")
	if err := os.Link(a, link); err != nil {
		t.Skipf("no hard links here: %v", err)
	}
	before := identify(a)
	if !before.sameFile(identify(link)) || before.sameFile(identify(b)) {
		t.Error("a hard link is another file, or another file the same")
	}
	if err := os.Chtimes(a, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if after := identify(a); after == before || !after.sameFile(before) {
		t.Errorf("after a change of time %+v, before %+v: want the same file, changed", after, before)
	}
	if (fileIdentity{}).sameFile(fileIdentity{}) {
		t.Error("two files without number are the same")
	}
	if _, _, err := openShared(func(flag int) (*os.File, error) { return os.OpenFile(dir, flag, 0) }); err == nil {
		t.Error("openShared takes a directory")
	}
}
