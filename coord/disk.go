package coord

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/node"
)

// A home keeps each group in a directory of its own:
//
//	groups/<64 hex>/group.json        sealedGroup
//	groups/<64 hex>/group.json.copy   the same again
//	groups/<64 hex>/…                 raftlog's files
//
// The copy is for the day that the disk returns something else than was written:
// without group.json a member does not know whom to ask.
const (
	groupsDir     = "groups"
	groupFileName = "group.json"
	groupCopyName = "group.json.copy"
	newSuffix     = ".new"  // of a file that is being written
	groupFileMax  = 8 << 20 // 1,000 members with the longest addresses
	groupFormat   = 1
)

// groupFile is what a member knows of its group besides Raft's log: enough to ask
// the others when that is gone.
type groupFile struct {
	ID     GroupID       `json:"id"`
	Name   string        `json:"name"`   // the local one: @name
	Record node.Envelope `json:"record"` // the founding record, whose hash is ID
	Epoch  uint64        `json:"epoch"`  // the latest seen

	// Members are those of the state when it was last looked at, with where they
	// were: a new member has no state, and lets these in.
	Members []knownMember `json:"members"`
	// Voters are those of Raft's configuration, MayVote and Admins those of the state.
	Voters  []pinset.Peer `json:"voters,omitempty"`
	MayVote []pinset.Peer `json:"may_vote,omitempty"`
	Admins  []pinset.Peer `json:"admins,omitempty"`

	// Epochs are how the epochs from the second on began. Former are the members
	// that the last one left out, as far as this one did that.
	Epochs []knownEpoch  `json:"epochs,omitempty"`
	Former []knownMember `json:"former,omitempty"`
	// Begin says that Raft's files are still those of the epoch before.
	Begin bool `json:"begin,omitempty"`
	// Split is there once this member has seen that one epoch began twice.
	Split *split `json:"split,omitempty"`

	// Capacity is what this member gives to copies, by the state when it was last looked
	// at. Adopt says that what it shares in place counts as its copy.
	Capacity int64 `json:"capacity,omitempty"`
	Adopt    bool  `json:"adopt,omitempty"`

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
	Grace    int64  `json:"grace_ms,omitempty"`
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

// sealedGroup is what group.json holds. A flipped bit in a name or an epoch would
// still be JSON.
type sealedGroup struct {
	V     int             `json:"v"`
	CRC   string          `json:"crc32c"` // of Group's bytes: 8 hex digits
	Group json.RawMessage `json:"group"`  // a groupFile
}

// readGroupFile reads group.json, and mends it or its copy from the other. The error
// is fs.ErrNotExist for what is no group, as a crash leaves while one is made, and
// ErrUnreadable for a group of which neither is whole. Other errors say nothing about
// the files, or that a newer program wrote them. mended tells what was wrong.
func readGroupFile(dir string, id GroupID) (f groupFile, mended, err error) {
	path, twin := filepath.Join(dir, groupFileName), filepath.Join(dir, groupCopyName)
	one, f, err := decodeGroupFile(path, id)
	two, g, errTwin := decodeGroupFile(twin, id)
	switch {
	case err == nil && errTwin == nil && string(one) == string(two):
		return f, nil, nil
	case err == nil: // the copy is damaged, or a crash left the one before
		return f, errors.Join(fmt.Errorf("%s is not as %s", twin, path), errTwin, replaceFile(twin, one)), nil
	case errTwin == nil:
		return g, errors.Join(err, replaceFile(path, two)), nil
	case errors.Is(err, fs.ErrNotExist) && errors.Is(errTwin, fs.ErrNotExist) && isEmpty(dir):
		return f, nil, err
	case errors.Is(err, errVersion) && errors.Is(errTwin, errVersion):
		return f, nil, err
	case isLost(err) && isLost(errTwin):
		return f, nil, fmt.Errorf("%w (%w)", ErrUnreadable, err)
	}
	return f, nil, errors.Join(err, errTwin)
}

var (
	errDamagedFile = errors.New("damaged") // of a file that is not what was written, or can't be read
	errVersion     = errors.New("use a newer p2pshare")
)

// isLost says that a file is damaged or not there, rather than that this process
// may not read it.
func isLost(err error) bool {
	return errors.Is(err, errDamagedFile) || errors.Is(err, fs.ErrNotExist)
}

func decodeGroupFile(path string, id GroupID) (data []byte, f groupFile, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, f, err
	}
	if info.Size() > groupFileMax {
		return nil, f, fmt.Errorf("%s is %w: it has %d bytes", path, errDamagedFile, info.Size())
	}
	data, err = os.ReadFile(path)
	if errors.Is(err, syscall.EIO) {
		err = fmt.Errorf("%w: %w", errDamagedFile, err)
	}
	if err != nil {
		return nil, f, err
	}
	var s sealedGroup
	err = node.DecodeStrict(data, &s)
	switch {
	case err != nil:
	case s.CRC != checksum(s.Group):
		err = errors.New("its checksum does not match")
	case s.V != groupFormat: // which the checksum does not cover: a flip, or a newer program's
		err = fmt.Errorf("it is of version %d, this program reads %d: %w", s.V, groupFormat, errVersion)
	default:
		err = node.DecodeStrict(s.Group, &f)
	}
	if err == nil && (f.ID != id || groupIDOf(f.Record) != id) {
		err = errors.New("it is of another group")
	}
	if err != nil {
		return nil, f, fmt.Errorf("%s is %w: %w", path, errDamagedFile, err)
	}
	return data, f, nil
}

// isEmpty says that dir holds nothing but files that were being written.
func isEmpty(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return filepath.Ext(e.Name()) != newSuffix })
}

func checksum(b []byte) string {
	return fmt.Sprintf("%08x", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// write replaces group.json, and then its copy. A crash leaves the old or the new
// one, maybe with the old copy, and maybe a file that the next write replaces.
func (f groupFile) write(dir string) error {
	group, err := json.Marshal(f)
	if err != nil {
		return err
	}
	data, err := json.Marshal(sealedGroup{V: groupFormat, CRC: checksum(group), Group: group})
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if err := replaceFile(filepath.Join(dir, groupFileName), data); err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, groupCopyName), data)
}

// replaceFile leaves the old contents, or the new ones, whatever happens.
func replaceFile(path string, data []byte) error {
	temp := path + newSuffix
	out, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = out.Write(data)
	if err == nil {
		err = out.Sync()
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return errors.Join(err, os.Remove(temp)) // of a full disk it would keep the last bytes
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
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
