package raftlog

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/hashicorp/raft-wal/types"
)

// stateRecord is the payload of the state file, as JSON.
type stateRecord struct {
	WAL    types.PersistentState // raft-wal's table of segments
	Stable map[string][]byte     // Raft's term and vote
}

func encodeState(r stateRecord) []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings, numbers and times: no such value exists
	}
	return b
}

// state is the types.MetaStore that raft-wal keeps its table in. It is always
// open already: Open reads it before raft-wal does.
type state struct {
	fail func(error) // stops the log: raft-wal writes from a goroutine that only logs

	mu     sync.Mutex // guards all below; held while writing, which Raft does rarely
	file   *copies
	record stateRecord
}

var _ types.MetaStore = (*state)(nil)

func openState(path string, c Config, fail func(error)) (*state, error) {
	f, payload, err := openCopies(path, kindState, stateRoom, c)
	if err != nil {
		return nil, err
	}
	s := &state{file: f, fail: fail}
	if err := json.Unmarshal(payload, &s.record); err != nil {
		return nil, fmt.Errorf("its checksum matches but it is not JSON: %w", err)
	}
	return s, nil
}

// segments returns the table's rows; the caller may change them.
func (s *state) segments() []types.SegmentInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.record.WAL.Segments)
}

// Load returns the table.
func (s *state) Load(string) (types.PersistentState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record.WAL, nil
}

// CommitState replaces the table.
func (s *state) CommitState(table types.PersistentState) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.put(stateRecord{WAL: table, Stable: s.record.Stable})
}

// SetStable stores a value; nil deletes it.
func (s *state) SetStable(key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	stable := maps.Clone(s.record.Stable)
	if stable == nil {
		stable = map[string][]byte{}
	}
	if value == nil {
		delete(stable, string(key))
	} else {
		stable[string(key)] = slices.Clone(value)
	}
	return s.put(stateRecord{WAL: s.record.WAL, Stable: stable})
}

// put must be called with mu held.
func (s *state) put(r stateRecord) error {
	if err := s.file.write(encodeState(r)); err != nil {
		s.fail(fmt.Errorf("write the state: %w", err))
		return err
	}
	s.record = r
	return nil
}

// GetStable returns a value, nil if there is none.
func (s *state) GetStable(key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.record.Stable[string(key)]), nil
}

// Close closes the file.
func (s *state) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file.Close()
}
