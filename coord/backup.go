package coord

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/node"
)

// A backup is a line, an envelope of kind "backup" of who made it, whose content is
// a backupHeader, and the state as pinset encodes it. Nothing follows. It holds no
// secret that lets anyone into the group.
type backupHeader struct {
	V      int           `json:"v"`
	Group  GroupID       `json:"group"`
	Name   string        `json:"name"`
	Epoch  uint64        `json:"epoch"`
	Term   uint64        `json:"term"`
	Index  uint64        `json:"index"` // the last log index that is in it
	At     int64         `json:"at"`    // Unix milliseconds
	State  pinset.Digest `json:"state"` // its Hash
	Size   int64         `json:"size"`  // of the encoded state, in bytes
	SHA256 pinset.Digest `json:"sha256"`

	Record node.Envelope `json:"record"` // the founding record
	Epochs []knownEpoch  `json:"epochs,omitempty"`
}

const (
	backupFormat  = 1
	backupSizeMax = 16 << 30
)

// ErrBackup says that a file is no backup, or not as it was written.
var ErrBackup = errors.New("not a whole backup of a group")

// Backup tells what is in one.
type Backup struct {
	Group GroupID
	Name  string
	Epoch uint64
	Index uint64    // log index
	At    time.Time // when it was made
	By    peer.ID   // who signed it
	Admin bool      // who was an admin of the group then
	Pins  int
	Names int
	// Members are those of then.
	Members int
	// Stale: the group had no quorum, so that there may have been more.
	Stale bool
}

// Backup writes the group as it is to w: all that was committed before the call,
// or, without a quorum, all that this member knows.
func (c *Coord) Backup(ctx context.Context, id GroupID, w io.Writer) (Backup, error) {
	g, err := c.group(id)
	if err != nil {
		return Backup{}, err
	}
	m, err := g.running()
	if err != nil {
		return Backup{}, err
	}
	stale, err := g.catchUp(ctx, m)
	if err != nil {
		return Backup{}, err
	}
	state, f := m.fsm.clone(), g.known()
	info, founded := state.Group()
	if !founded || info.Epoch != f.Epoch {
		return Backup{}, fmt.Errorf("%w: it is being brought up to date", ErrStopped)
	}
	var size counter
	sum := sha256.New()
	if err := state.Encode(io.MultiWriter(&size, sum)); err != nil {
		return Backup{}, err
	}
	h := backupHeader{V: backupFormat, Group: id, Name: info.Name, Epoch: info.Epoch, Term: m.term(), Index: state.Index(),
		At: time.Now().UnixMilli(), State: state.Hash(), Size: int64(size), SHA256: pinset.Digest(sum.Sum(nil)),
		Record: f.Record, Epochs: f.Epochs}
	data, err := json.Marshal(h)
	if err != nil {
		return Backup{}, err
	}
	e, err := node.Seal(c.node.Key(), node.KindBackup, data)
	if err != nil {
		return Backup{}, err
	}
	out := bufio.NewWriterSize(w, 1<<20)
	if _, err := out.Write(append(e.Encode(), '\n')); err != nil {
		return Backup{}, err
	}
	if err := errors.Join(state.Encode(out), out.Flush()); err != nil {
		return Backup{}, err
	}
	b := h.tell(e.Sender, state)
	b.Stale = stale
	return b, nil
}

// catchUp waits until this member has what was committed before the call; stale
// says that the group could not be asked.
func (g *Group) catchUp(ctx context.Context, m *member) (stale bool, err error) {
	fresh, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	a, err := g.c.Client(g.id).call(fresh, request{Op: opMembers, Limit: 1})
	if err == nil {
		err = m.fsm.wait(fresh, a.Index)
	}
	if Unavailable(err) && ctx.Err() == nil {
		return true, nil
	}
	return false, err
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

func (h backupHeader) tell(by peer.ID, s *pinset.State) Backup {
	n := s.Counts()
	return Backup{Group: h.Group, Name: h.Name, Epoch: h.Epoch, Index: h.Index, At: time.UnixMilli(h.At).UTC(), By: by,
		Admin: s.Roles(pinset.Peer(by.String())).Has(pinset.RoleAdmin), Pins: n.Pins, Names: n.Names, Members: n.Members}
}

// VerifyBackup reads a backup to its end, and tells what is in it if it is as it was
// signed. By whom is told, and not judged: whoever restores it has to. ErrBackup.
func VerifyBackup(r io.Reader) (Backup, error) {
	e, h, s, err := readBackup(r)
	if err != nil {
		return Backup{}, err
	}
	return h.tell(e.Sender, s), nil
}

func readBackup(r io.Reader) (e node.Envelope, h backupHeader, s *pinset.State, err error) {
	bad := func(format string, args ...any) (node.Envelope, backupHeader, *pinset.State, error) {
		return e, h, nil, fmt.Errorf("%w: %w", ErrBackup, fmt.Errorf(format, args...))
	}
	in := bufio.NewReaderSize(r, node.EnvelopeMax+1)
	line, err := in.ReadSlice('\n')
	if err != nil {
		return bad("its first line: %w", err)
	}
	if e, err = node.DecodeEnvelope(line[:len(line)-1]); err != nil {
		return bad("its first line: %w", err)
	}
	data, err := e.Open(node.KindBackup)
	if err == nil {
		err = node.DecodeStrict(data, &h)
	}
	switch {
	case err != nil:
		return bad("its first line: %w", err)
	case !bytes.Equal(e.Encode(), line[:len(line)-1]): // JSON has many spellings
		return bad("its first line is not as it was written")
	case h.V != backupFormat:
		return e, h, nil, fmt.Errorf("the backup is of version %d, this program reads %d: use a newer p2pshare", h.V, backupFormat)
	case h.Size < 0 || h.Size > backupSizeMax:
		return bad("it says that it has %d bytes", h.Size)
	case h.Term > pinset.IntMax: // Raft counts on
		return bad("it is of term %d", h.Term)
	}
	founded, err := h.check()
	if err != nil {
		return bad("%w", err)
	}
	sum, size := sha256.New(), counter(0)
	body := io.TeeReader(io.LimitReader(in, h.Size), io.MultiWriter(sum, &size))
	if s, err = pinset.Decode(body); err != nil {
		return bad("its state: %w", err)
	}
	if n, _ := io.Copy(io.Discard, body); n > 0 {
		return bad("%d bytes after the state", n)
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		return bad("more follows after its end")
	}
	info, _ := s.Group()
	switch {
	case int64(size) != h.Size || pinset.Digest(sum.Sum(nil)) != h.SHA256 || s.Hash() != h.State || s.Index() != h.Index ||
		GroupID(info.ID) != h.Group || info.Epoch != h.Epoch:
		return bad("its state is not the one that was signed")
	case info.Recovery != founded.Recovery || info.Founder != pinset.Peer(h.Record.Sender.String()) || info.Name != founded.Name:
		return bad("its state is not of the group that its record founded")
	}
	return e, h, s, nil
}

// check checks that the epochs follow one another from the founding record, which it
// returns.
func (h backupHeader) check() (foundingRecord, error) {
	f := groupFile{ID: h.Group, Record: h.Record}
	if groupIDOf(h.Record) != h.Group {
		return foundingRecord{}, errors.New("its founding record is of another group")
	}
	founded, err := openFounding(h.Record)
	if err != nil {
		return founded, err
	}
	if len(h.Epochs) > epochsMax || h.Epoch != uint64(len(h.Epochs))+1 {
		return founded, fmt.Errorf("it is of epoch %d, and has records of %d", h.Epoch, len(h.Epochs))
	}
	for i, k := range h.Epochs {
		if _, err := f.mayBegin(k.Record, uint64(i)+2, k.Signers); err != nil {
			return founded, err
		}
	}
	return founded, nil
}

// Restore makes this peer the only voter of the group of a backup, in a new epoch,
// known here as name; "" takes the group's own. The members of then are out, and
// told when they return. key is the group's recovery key; nil if this peer was an
// admin then. What is left here of the group goes, if it does not work any more.
// Run must be running.
//
// ErrBackup, ErrExists if this peer takes part in the group, ErrDenied.
func (c *Coord) Restore(ctx context.Context, r io.Reader, name string, key ed25519.PrivateKey) (*Group, error) {
	c.making.Lock()
	defer c.making.Unlock()
	_, h, state, err := readBackup(r)
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = h.Name
	}
	f := groupFile{ID: h.Group, Name: name, Record: h.Record, Epoch: h.Epoch, Epochs: slices.Clone(h.Epochs)}
	for p, roles := range state.Granted() {
		if roles.Has(pinset.RoleAdmin) {
			f.Admins = append(f.Admins, p)
		}
	}
	for _, m := range state.Members() {
		if m.Peer != c.self() {
			f.Former = append(f.Former, knownMember{m.Peer, m.Addrs})
		}
	}
	signer, err := f.epochKey(key, c.node.Key(), c.self())
	if err != nil {
		return nil, err
	}
	if _, err := c.group(f.ID); err == nil {
		if err := c.forget(ctx, f.ID); err != nil {
			return nil, err
		}
	}
	if err := c.checkName(name, f.ID); err != nil {
		return nil, err
	}
	files := &groupFiles{state: state, last: h.Index, term: h.Term}
	if f, err = files.renew(f, signer, []pinset.EpochMember{{Peer: c.self(), Vote: pinset.Voter}}, c.self()); err != nil {
		return nil, err
	}
	f.Members, f.Begin = []knownMember{{Peer: c.self(), Addrs: c.addrs()}}, false
	if err := files.create(filepath.Join(c.dir, f.ID.String()), c.self()); err != nil {
		return nil, err
	}
	g, err := c.add(f)
	if err != nil {
		return nil, err
	}
	return g, g.awaitLead(ctx)
}

// create writes the state to a directory that is no group yet.
func (f *groupFiles) create(dir string, voter pinset.Peer) error {
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return err
	}
	if err := f.open(dir); err != nil {
		return err
	}
	return errors.Join(f.write(voter), f.close())
}

// epochKey returns what signs the record of the next epoch: the recovery key, or
// own, that of self, who is an admin.
func (f groupFile) epochKey(recovery ed25519.PrivateKey, own crypto.PrivKey, self pinset.Peer) (crypto.PrivKey, error) {
	if recovery == nil {
		if !slices.Contains(f.Admins, self) {
			return nil, denied("this peer is no admin of the group: it takes the recovery key that was printed when the group was made")
		}
		return own, nil
	}
	record, err := openFounding(f.Record)
	if err != nil {
		return nil, err
	}
	if pinset.Key(recovery.Public().(ed25519.PublicKey)) != record.Recovery {
		return nil, denied("that is not the recovery key of this group")
	}
	return recoveryKey(recovery)
}
