package coord

import (
	"errors"

	"github.com/hashicorp/raft"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/coord/internal/raftlog"
)

// groupFiles are a member's state and Raft's files, while Raft does not run.
type groupFiles struct {
	log       *raftlog.Log
	snapshots *raftlog.Snapshots
	state     *pinset.State
	last      uint64 // log index
	term      uint64 // of the entry there
}

// openFiles reads the state as it is after the last entry of the log, committed or
// not: whoever is left decides that it was. The error may be a *raftlog.DamagedError.
func openFiles(dir string, id GroupID) (*groupFiles, error) {
	f := &groupFiles{}
	if err := f.open(dir); err != nil {
		return nil, err
	}
	if err := f.read(id); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *groupFiles) open(dir string) (err error) {
	f.log, f.snapshots, err = raftlog.Open(dir, raftlog.Config{})
	return err
}

func (f *groupFiles) read(id GroupID) error {
	machine := newFSM(id, func(uint64) {}, func() {})
	list, err := f.snapshots.List()
	if err != nil {
		return err
	}
	if len(list) > 0 {
		_, in, err := f.snapshots.Open(list[0].ID)
		if err != nil {
			return err
		}
		if err := machine.Restore(in); err != nil {
			return err
		}
		f.last, f.term = list[0].Index, list[0].Term
	}
	last, err := f.log.LastIndex()
	if err != nil {
		return err
	}
	for i := f.last + 1; i <= last; i++ {
		var entry raft.Log
		if err := f.log.GetLog(i, &entry); err != nil {
			return err
		}
		machine.Apply(&entry)
		if err := machine.err(); err != nil {
			return err
		}
		f.last, f.term = entry.Index, entry.Term
	}
	f.state = machine.state
	return nil
}

// apply does a command at the next log index.
func (f *groupFiles) apply(c pinset.Command) error {
	frame, err := pinset.EncodeCommand(c)
	if err != nil {
		return err
	}
	r, err := f.state.Apply(f.last+1, frame)
	if err == nil {
		err = resultError(r)
	}
	if err == nil {
		f.last++
	}
	return err
}

// write makes the state a snapshot that stands for the whole log, of a group with
// one voter and no other member as far as Raft knows.
func (f *groupFiles) write(voter pinset.Peer) error {
	f.term = max(f.term, 1)
	c := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(voter), Address: raft.ServerAddress(voter)}}}
	sink, err := f.snapshots.Create(raft.SnapshotVersionMax, f.last, f.term, c, f.last, nil)
	if err != nil {
		return err
	}
	if err := (fsmSnapshot{f.state}).Persist(sink); err != nil {
		return err
	}
	f.log.SetCommitted(f.last)
	return nil // the next Open drops the log that the snapshot stands for
}

func (f *groupFiles) close() error { return f.log.Close() }
