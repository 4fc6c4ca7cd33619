//go:build linux

package raftlog

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("needs a small file system, which root may mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	c := Config{SegmentSize: 512 << 10}
	member := filepath.Join(dir, "m")
	l, snapshots := mustOpen(t, member, c)
	acked := uint64(0)
	store := func() error {
		e := entry(acked + 1)
		e.Data = make([]byte, 4096)
		err := l.StoreLog(e)
		if err == nil {
			acked++
		}
		return err
	}
	if err := l.Room(); err != nil {
		t.Fatalf("Room on an empty disk: %v", err)
	}
	for range 10 {
		if err := store(); err != nil {
			t.Fatal(err)
		}
	}

	// Another program takes what is left.
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer ballast.Close()
	buf := make([]byte, 64<<10)
	for err == nil {
		_, err = ballast.Write(buf)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}

	// Proposals are refused after one change of segments, Raft's own entries fit.
	for l.Room() == nil {
		if err := store(); err != nil {
			t.Fatalf("StoreLog with room: %v", err)
		}
	}
	if err := l.Room(); !errors.Is(err, ErrDiskFull) {
		t.Fatalf("Room = %v, want ErrDiskFull", err)
	}
	more := 0
	for err = store(); err == nil; err = store() {
		more++
	}
	if !errors.Is(err, ErrDiskFull) {
		t.Fatalf("StoreLog = %v, want ErrDiskFull", err)
	}
	if more < 50 {
		t.Errorf("%d entries of 4 KiB fit after Room refused, want most of a segment", more)
	}
	t.Logf("%d entries stored, %d of them after Room refused", acked, more)

	// Reads go on, and so do votes, the watermark and compaction.
	var e raft.Log
	for i := uint64(1); i <= acked; i++ {
		if err := l.GetLog(i, &e); err != nil {
			t.Fatalf("GetLog(%d) on a full disk: %v", i, err)
		}
	}
	if err := errors.Join(l.SetUint64([]byte("CurrentTerm"), 9), l.Set([]byte("LastVoteCand"), []byte("b"))); err != nil {
		t.Errorf("a vote on a full disk: %v", err)
	}
	l.SetCommitted(acked)
	if err := l.writeWatermark(); err != nil {
		t.Errorf("the watermark on a full disk: %v", err)
	}
	if k, err := snapshots.Create(1, acked, 1, members, 1, nil); err == nil {
		k.Write(make([]byte, 4<<20))
		if err := k.Close(); !errors.Is(err, ErrDiskFull) {
			t.Errorf("a snapshot on a full disk: %v, want ErrDiskFull", err)
		}
	}
	if err := l.DeleteRange(acked-5, acked); !errors.Is(err, ErrDiskFull) {
		t.Errorf("DeleteRange that needs a segment = %v, want ErrDiskFull", err)
	}
	if err := l.Err(); err != nil {
		t.Fatalf("the log has stopped: %v", err)
	}

	// A restart on the full disk.
	l.Close()
	l, _ = mustOpen(t, member, c)
	if first, last := bounds(l); first != 1 || last != acked {
		t.Fatalf("after a restart on a full disk the log holds %d to %d, want 1 to %d", first, last, acked)
	}

	if err := l.Room(); !errors.Is(err, ErrDiskFull) {
		t.Errorf("Room after a restart on a full disk = %v, want ErrDiskFull", err)
	}

	// Room again.
	if err := ballast.Truncate(0); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * askAgain)
	for err = l.Room(); err != nil && time.Now().Before(deadline); err = l.Room() {
		time.Sleep(askAgain / 10) // no event tells
	}
	if err != nil {
		t.Fatalf("Room with room: %v", err)
	}
	for range 100 {
		if err := store(); err != nil {
			t.Fatalf("StoreLog with room again: %v", err)
		}
	}
	l.Close()
	l, _ = mustOpen(t, member, c)
	if first, last := bounds(l); first != 1 || last != acked || l.Committed() == 0 {
		t.Errorf("in the end the log holds %d to %d, want 1 to %d", first, last, acked)
	}
	l.Close()
}
