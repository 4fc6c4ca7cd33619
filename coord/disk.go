package coord

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/node"
)

// A home keeps each group in a directory of its own:
//
//	groups/<64 hex>/group.json   groupFile
//	groups/<64 hex>/…            raftlog's files
const (
	groupsDir     = "groups"
	groupFileName = "group.json"
	groupFileMax  = 4 << 20
	groupFormat   = 1
)

// groupFile is what a member knows of its group besides Raft's log: enough to ask
// the others when that is gone.
type groupFile struct {
	V      int           `json:"v"`
	ID     GroupID       `json:"id"`
	Name   string        `json:"name"`   // the local one: @name
	Record node.Envelope `json:"record"` // the founding record, whose hash is ID
	Epoch  uint64        `json:"epoch"`  // the latest seen

	// Members are those of the state when it was last looked at, with where they
	// were: a new member has no state, and lets these in.
	Members []knownMember `json:"members"`
	// Voters are those of Raft's configuration, Admins those of the state.
	Voters []pinset.Peer `json:"voters,omitempty"`
	Admins []pinset.Peer `json:"admins,omitempty"`

	// Epochs are how the epochs from the second on began. Former are the members
	// that the last one left out, as far as this one did that.
	Epochs []knownEpoch  `json:"epochs,omitempty"`
	Former []knownMember `json:"former,omitempty"`
	// Begin says that Raft's files are still those of the epoch before.
	Begin bool `json:"begin,omitempty"`
	// Split is there once this member has seen that one epoch began twice.
	Split *split `json:"split,omitempty"`

	// Founding is there until this member, which made the group, has founded it.
	Founding *founding `json:"founding,omitempty"`
	// Removed is there once this member was taken out of the group.
	Removed *removal `json:"removed,omitempty"`
}

type knownMember struct {
	Peer  pinset.Peer `json:"peer"`
	Addrs []string    `json:"addrs,omitempty"`
}

// founding is what the first command says besides the record.
type founding struct {
	Capacity int64  `json:"capacity"`
	Zone     string `json:"zone,omitempty"`
	NoStore  bool   `json:"no_store,omitempty"`
}

// removal tells who took this member out, and at which log index.
type removal struct {
	By    pinset.Peer `json:"by"`
	Index uint64      `json:"index"`
	Epoch uint64      `json:"epoch,omitempty"` // that a recovery began without this member
}

// parked returns why the member takes no part any more, nil while it does.
func (f groupFile) parked() error {
	switch r := f.Removed; {
	case f.Split != nil:
		return f.Split.err()
	case r == nil:
		return nil
	case r.Epoch > 0:
		return fmt.Errorf("%w: %s began epoch %d of it, after a recovery, without this peer", ErrRemoved, r.By, r.Epoch)
	default:
		return fmt.Errorf("%w: by %s, at log index %d", ErrRemoved, r.By, r.Index)
	}
}

func readGroupFile(dir string) (groupFile, error) {
	var f groupFile
	path := filepath.Join(dir, groupFileName)
	info, err := os.Stat(path)
	if err == nil && info.Size() > groupFileMax {
		err = fmt.Errorf("%s is too long", path)
	}
	if err != nil {
		return f, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return f, err
	}
	if err := node.DecodeStrict(data, &f); err != nil {
		return f, fmt.Errorf("%s: %w", path, err)
	}
	if f.V != groupFormat {
		return f, fmt.Errorf("%s is of version %d, this program reads %d: use a newer p2pshare", path, f.V, groupFormat)
	}
	return f, nil
}

// write replaces group.json. A crash leaves the old or the new one, and maybe a
// temporary file that the next write replaces.
func (f groupFile) write(dir string) error {
	f.V = groupFormat
	data, err := json.MarshalIndent(f, "", "\t")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, groupFileName)
	temp := path + ".new"
	out, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = out.Write(append(data, '\n'))
	if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename in dir last. Windows can't, and needs no such thing.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
