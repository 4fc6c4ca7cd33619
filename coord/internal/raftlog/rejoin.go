package raftlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Rejoin is what a wiped member remembers. Raft has no such state: a voter with
// an empty log votes for anyone, and so may help to elect a leader that lacks
// what this member once acknowledged. While the record is there the member must
// not vote: not before the leader has committed, at an index above Committed, a
// configuration in which it has no vote.
type Rejoin struct {
	Reason    string `json:"reason"`    // why it was wiped, for people; at most 1 KiB is kept
	Committed uint64 `json:"committed"` // the watermark that it had, 0 when unknown
}

// reasonMax keeps the record within rejoinRoom, whatever JSON makes of it.
const reasonMax = 512

// Wipe removes a member's log, term, vote, snapshots and watermark from dir, and
// leaves r. It may be called again, on what a crash left, and keeps the highest
// Committed of all calls. The stores must be closed.
//
// A crash before the record is in place leaves everything as it was; after it, a
// member that may not vote, with or without some of its files: wipe it again.
func Wipe(dir string, r Rejoin) error {
	if old, err := ReadRejoin(dir); err == nil && old != nil {
		r.Committed = max(r.Committed, old.Committed)
	}
	r.Reason = r.Reason[:min(len(r.Reason), reasonMax)]
	payload, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := createCopies(filepath.Join(dir, rejoinName), kindRejoin, rejoinRoom, payload); err != nil {
		return err
	}
	for _, name := range []string{logDir, snapshotsDir, watermarkName} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return syncDir(dir)
}

// ReadRejoin returns the record that Wipe left, nil if there is none. A member
// whose record can not be read must not vote either.
func ReadRejoin(dir string) (*Rejoin, error) {
	whole, err := os.ReadFile(filepath.Join(dir, rejoinName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	r, err := decodeRejoin(whole)
	if err != nil {
		return nil, damage("rejoin", err, DamagedError{})
	}
	return r, nil
}

func decodeRejoin(whole []byte) (*Rejoin, error) {
	_, payload, err := newestCopy(kindRejoin, whole)
	if err != nil {
		return nil, err
	}
	var r Rejoin
	if err := json.Unmarshal(payload, &r); err != nil {
		return nil, fmt.Errorf("its checksum matches but it is not JSON: %w", err)
	}
	return &r, nil
}

// ClearRejoin lets the member vote again. A crash leaves it done or not.
func ClearRejoin(dir string) error {
	err := os.Remove(filepath.Join(dir, rejoinName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}
