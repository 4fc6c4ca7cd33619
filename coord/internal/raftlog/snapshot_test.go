package raftlog

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

var members = raft.Configuration{Servers: []raft.Server{
	{Suffrage: raft.Voter, ID: "12D3KooWA", Address: "12D3KooWA"},
	{Suffrage: raft.Nonvoter, ID: "12D3KooWB", Address: "12D3KooWB"},
}}

func mustSnapshots(t testing.TB, dir string) *Snapshots {
	t.Helper()
	s, err := openSnapshots(filepath.Join(dir, snapshotsDir), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustSnapshot(t testing.TB, s *Snapshots, index, term uint64, contents string) string {
	t.Helper()
	k, err := s.Create(1, index, term, members, index/2, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(k, strings.NewReader(contents)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return k.ID()
}

func listed(t testing.TB, s *Snapshots) (ids []string) {
	t.Helper()
	metas, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range metas {
		ids = append(ids, m.ID)
	}
	return ids
}

func TestSnapshotsKeepsTheNewestTwo(t *testing.T) {
	dir := t.TempDir()
	_, s := mustOpen(t, dir, small)
	big := strings.Repeat("contents ", 300_000)
	mustSnapshot(t, s, 9, 1, "old")
	b := mustSnapshot(t, s, 10, 1, big)
	c := mustSnapshot(t, s, 10, 1, "")
	want := &raft.SnapshotMeta{Version: 1, ID: b, Index: 10, Term: 1,
		Configuration: members, ConfigurationIndex: 5, Size: int64(len(big))}
	for range 2 {
		if diff := cmp.Diff([]string{c, b}, listed(t, s)); diff != "" {
			t.Fatalf("List (-want +got):\n%s", diff)
		}
		meta, r, err := s.Open(b)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != big || r.Close() != nil {
			t.Errorf("%d bytes of contents, %v, want the %d written", len(got), err, len(big))
		}
		if diff := cmp.Diff(want, meta); diff != "" {
			t.Errorf("meta (-want +got):\n%s", diff)
		}
		s = mustSnapshots(t, dir)
	}
}

func TestUnfinishedSnapshotsAreRemoved(t *testing.T) {
	dir := t.TempDir()
	_, s := mustOpen(t, dir, small)
	for _, end := range []func(raft.SnapshotSink){
		func(k raft.SnapshotSink) { k.Cancel() },
		func(raft.SnapshotSink) {}, // a crash
	} {
		k, err := s.Create(1, 7, 1, members, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		k.Write([]byte("half"))
		end(k)
		s = mustSnapshots(t, dir)
		if entries, _ := os.ReadDir(filepath.Join(dir, snapshotsDir)); len(entries) > 0 {
			t.Errorf("left behind: %v", entries)
		}
	}
}

func TestDamagedSnapshotIsPassedOver(t *testing.T) {
	dir := t.TempDir()
	l, s := mustOpen(t, dir, small)
	old := mustSnapshot(t, s, 5, 1, strings.Repeat("old", 1000))
	bad := mustSnapshot(t, s, 8, 1, strings.Repeat("new", 1000))
	mustStore(t, l, 1, 10, 5)
	l.Close()
	path := filepath.Join(dir, snapshotsDir, bad)
	whole, _ := os.ReadFile(path)
	whole[len(whole)-5] ^= 4
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}

	if _, _, err := s.Open(bad); err == nil { // found while running
		t.Error("Open of a damaged snapshot: no error")
	}
	if diff := cmp.Diff([]string{old}, listed(t, s)); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	l, s = mustOpen(t, dir, small) // found at start
	if diff := cmp.Diff([]string{old}, listed(t, s)); diff != "" {
		t.Errorf("List after a restart (-want +got):\n%s", diff)
	}
	if len(s.Damaged()) != 1 || s.Damaged()[bad] == nil {
		t.Errorf("Damaged() = %v, want %s", s.Damaged(), bad)
	}
	mustSnapshot(t, s, 9, 1, "")
	mustSnapshot(t, s, 10, 1, "")
	if _, err := os.Stat(path); err == nil || len(s.Damaged()) > 0 {
		t.Errorf("two snapshots later it is still there: %v", s.Damaged())
	}
	l.Close()
}

func FuzzReadSnapshotHeader(f *testing.F) {
	f.Add(header{index: 7, term: 2, size: 3, configuration: raft.EncodeConfiguration(members)}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readHeader(bytes.NewReader(b))
		if err == nil && !bytes.HasPrefix(b, h.encode()) {
			t.Errorf("%x is read as %+v, which is written otherwise", b, h)
		}
	})
}
