package coord

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// A home keeps each group that it follows in a directory of its own. Each file is
// a sealedFile.
//
//	followed/<64 hex>/follow.json   followFile: without it there is no following
//	followed/<64 hex>/names.json    keptNames: the last answers, one by one
//	followed/<64 hex>/pins.json     keptPins: the last list
const (
	followedDir    = "followed"
	followFileName = "follow.json"
	namesFileName  = "names.json"
	pinsFileName   = "pins.json"
	followFormat   = 1
	keptFileMax    = 64 << 20
)

// Limits of what is kept of one group.
const (
	keptNamesMax = 4096     // those that were asked for longest ago go first
	keptPinsMax  = 20_000   // of a longer list only its beginning is kept
	keptPinBytes = 16 << 20 // of names, in the list
	keptSaveWait = time.Minute
)

// sealedFile is a JSON value with its BLAKE3.
type sealedFile struct {
	V    int             `json:"v"`
	Sum  string          `json:"sum"` // of the bytes of Body
	Body json.RawMessage `json:"body"`
}

// followFile is where a followed group is.
type followFile struct {
	ID      GroupID       `json:"id"`
	Name    string        `json:"name"` // the local one
	Epoch   uint64        `json:"epoch"`
	Members []knownMember `json:"members"` // whom to ask, voters first
}

// keptNames are the last answers of the group's members.
type keptNames struct {
	Names   map[string]keptName `json:"names,omitempty"` // by lookup form
	Status  *Status             `json:"status,omitempty"`
	Members []Member            `json:"members,omitempty"`
	At      int64               `json:"at"` // Unix milliseconds: of Status and Members
}

type keptName struct {
	Binding *Binding `json:"binding,omitempty"` // nil: the name meant nothing
	Index   uint64   `json:"index"`
	At      int64    `json:"at"`
}

type keptPins struct {
	Pins  []Pin  `json:"pins"`
	More  bool   `json:"more,omitempty"` // the list was longer
	Index uint64 `json:"index"`
	At    int64  `json:"at"` // 0: there is no list
}

// resolve finds what a lookup form last meant, in the newer of the two that know.
func resolveKept(names keptNames, pins keptPins, lookup string) (b Binding, index uint64, at int64, err error) {
	n, asked := names.Names[lookup]
	listed := pins.At > n.At || !asked && pins.At > 0
	if listed {
		i := slices.IndexFunc(pins.Pins, func(p Pin) bool { return nameOf(p, lookup) != "" })
		switch {
		case i < 0 && !pins.More:
			return b, pins.Index, pins.At, ErrNotFound
		case i >= 0:
			p := pins.Pins[i]
			b = Binding{Name: nameOf(p, lookup), ID: p.ID, Kind: p.Kind, Size: p.Size, By: p.By, Index: p.Index}
			if asked && n.Binding != nil && n.Binding.ID == p.ID {
				b = *n.Binding // it knows who bound the name, and when
			}
			return b, pins.Index, pins.At, nil
		}
	}
	switch {
	case asked && n.Binding == nil:
		return b, n.Index, n.At, ErrNotFound
	case asked:
		return *n.Binding, n.Index, n.At, nil
	}
	return b, 0, 0, errNothingKept
}

// errNothingKept says that a follower never had an answer.
var errNothingKept = errors.New("nothing is kept of its answers")

// nameOf returns that of a pin's names which has a lookup form, "" if none.
func nameOf(p Pin, lookup string) string {
	for _, n := range p.Names {
		if l, err := share.LookupForm(n); err == nil && l == lookup {
			return n
		}
	}
	return ""
}

// keep adds an answer, and lets the oldest go.
func (k *keptNames) keep(lookup string, n keptName) {
	names := map[string]keptName{} // a copy: the last one may be being written
	oldest := ""
	for l, x := range k.Names {
		names[l] = x
		if oldest == "" || x.At < names[oldest].At {
			oldest = l
		}
	}
	if _, known := names[lookup]; !known && len(names) >= keptNamesMax {
		delete(names, oldest)
	}
	names[lookup] = n
	k.Names = names
}

// plausible says whether a member's word is within the limits of a group's state.
// It keeps a hostile member from filling the home.
func plausible(b Binding) bool {
	return len(b.Name) <= pinset.NameBytesMax && len(b.By) <= pinset.PeerBytesMax && !b.ID.IsZero()
}

func plausiblePin(p Pin) bool {
	return len(p.Names) <= pinset.NamesPerPinMax && len(p.By) <= pinset.PeerBytesMax &&
		!slices.ContainsFunc(p.Names, func(n string) bool { return len(n) > pinset.NameBytesMax })
}

func plausibleMember(m Member) bool {
	return validPeer(m.Peer) && len(m.Zone) <= pinset.ZoneBytesMax && len(m.By) <= pinset.PeerBytesMax &&
		len(m.Addrs) <= pinset.AddrsMax &&
		!slices.ContainsFunc(m.Addrs, func(a string) bool { return len(a) > pinset.AddrBytesMax })
}

func plausibleStatus(s Status) bool {
	return len(s.Name) <= pinset.NameBytesMax && len(s.Leader) <= pinset.PeerBytesMax &&
		len(s.Peer) <= pinset.PeerBytesMax && len(s.Voters) <= pinset.MembersMax &&
		!slices.ContainsFunc(s.Voters, func(p Peer) bool { return len(p) > pinset.PeerBytesMax })
}

// writeSealed replaces a file. A crash leaves the old or the new one.
func writeSealed(dir, name string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	data, err := json.Marshal(sealedFile{V: followFormat, Sum: content.Root(body).Hex(), Body: body})
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, name), data)
}

// readSealed reads what writeSealed wrote. fs.ErrNotExist.
func readSealed(dir, name string, v any) error {
	path := filepath.Join(dir, name)
	info, err := os.Stat(path)
	if err == nil && info.Size() > keptFileMax {
		err = fmt.Errorf("%s is too long", path)
	}
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var f sealedFile
	if err := node.DecodeStrict(data, &f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case f.V != followFormat:
		return fmt.Errorf("%s is of version %d, this program reads %d: use a newer p2pshare", path, f.V, followFormat)
	case f.Sum != content.Root(f.Body).Hex():
		return fmt.Errorf("%s is damaged: its checksum is wrong", path)
	}
	if err := node.DecodeStrict(f.Body, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// readKept reads answers that were kept. Damaged ones are as good as none.
func readKept(dir, name string, v any) error {
	err := readSealed(dir, name, v)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (f followFile) check(dir string) error {
	if strings.ToLower(filepath.Base(dir)) != f.ID.String() || f.Name == "" || len(f.Members) > pinset.MembersMax {
		return fmt.Errorf("%s is of another group", filepath.Join(dir, followFileName))
	}
	return nil
}
