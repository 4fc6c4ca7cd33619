package raftlog

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/raft"
)

// Snapshots is a raft.SnapshotStore: a file a snapshot, the newest two of which
// are kept. raft.FileSnapshotStore would do, but nothing checks its meta file:
// a flipped bit in an index or a configuration is believed.
//
// A file is a header, the configuration, and the contents:
//
//	magic     "p2rn"
//	version   uint8    1
//	zero      3 bytes
//	index, term, configuration index, size of the contents   uint64 each
//	length    uint32   of the configuration, in raft.EncodeConfiguration's form
//	contents  uint32   their CRC
//	crc       uint32   of the 48 bytes above and the configuration
//
// Contents are checked as a whole when a snapshot is opened, not while it is
// read: a state machine must not have taken half of it when the rest is found
// damaged. At start all are opened.
//
// Its methods may be called concurrently.
type Snapshots struct {
	dir string
	log *slog.Logger

	mu      sync.Mutex       // guards below
	damaged map[string]error // by ID: passed over by List
}

var _ raft.SnapshotStore = (*Snapshots)(nil)

const (
	snapshotMagic   = "p2rn"
	snapshotVersion = 1
	snapshotHeader  = 52
	snapshotSuffix  = ".snapshot"
	tempSuffix      = ".tmp"

	// snapshotsKept is for the case that the newest is damaged: the log still
	// reaches back to the one before, if Raft's TrailingLogs is above what it
	// appends between two snapshots.
	snapshotsKept = 2

	// syncEvery is how many bytes of a snapshot are handed to the disk at once. The
	// log's writes wait behind them: 100 MB at the end would hold commits up.
	syncEvery = 4 << 20

	// configurationMax is far above what a group's members take.
	configurationMax = 1 << 20
)

// openSnapshots removes what a crash left of unfinished snapshots, and reads all
// others. One that is damaged stays where it is, and is not listed.
func openSnapshots(dir string, log *slog.Logger) (*Snapshots, error) {
	s := &Snapshots{dir: dir, log: log, damaged: map[string]error{}}
	temps, err := filepath.Glob(filepath.Join(dir, "*"+tempSuffix))
	if err != nil {
		return nil, err
	}
	for _, t := range temps {
		if err := os.Remove(t); err != nil {
			return nil, err
		}
	}
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		_, r, err := s.Open(id)
		if err == nil {
			err = r.Close()
		}
		if err != nil && s.Damaged()[id] == nil {
			return nil, err
		}
	}
	return s, nil
}

// ids returns the snapshots' IDs, which are their files' names, newest first.
func (s *Snapshots) ids() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), snapshotSuffix) {
			ids = append(ids, e.Name())
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(b, a) }) // numbers of a fixed width
	return ids, nil
}

// snapshotID names the nth snapshot of an index and term: Raft may make several.
func snapshotID(index, term uint64, n int) string {
	return fmt.Sprintf("%020d-%020d-%06d%s", index, term, n, snapshotSuffix)
}

// List returns the snapshots that are not known to be damaged, newest first.
func (s *Snapshots) List() ([]*raft.SnapshotMeta, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	var metas []*raft.SnapshotMeta
	for _, id := range ids {
		if s.Damaged()[id] != nil {
			continue
		}
		h, err := s.readHeader(id)
		switch {
		case err == nil:
			metas = append(metas, h.meta(id))
		case errors.Is(err, fs.ErrNotExist): // a newer one has just replaced it
		case s.report(id, err) != nil:
			return nil, err
		}
	}
	return metas, nil
}

// newest returns the newest good snapshot.
func (s *Snapshots) newest() (meta raft.SnapshotMeta, found bool) {
	metas, err := s.List()
	if err != nil || len(metas) == 0 {
		return raft.SnapshotMeta{}, false
	}
	return *metas[0], true
}

// Damaged returns the snapshots that were found damaged, by ID, and what was
// found. They are removed once two newer ones are there; a member should make a
// new one soon (raft.Raft.Snapshot), as a leader with none to send cannot help
// a learner.
func (s *Snapshots) Damaged() map[string]error {
	s.mu.Lock()
	defer s.mu.Unlock()
	damaged := make(map[string]error, len(s.damaged))
	for id, err := range s.damaged {
		damaged[id] = err
	}
	return damaged
}

// report remembers that a snapshot is damaged, and returns nil; or returns err if
// it says nothing about the snapshot.
func (s *Snapshots) report(id string, err error) error {
	var d *DamagedError
	if !errors.As(damage("snapshot "+id, err, DamagedError{}), &d) || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.damaged[id] == nil {
		s.damaged[id] = err
		s.log.Warn("a snapshot is damaged and passed over", "file", id, "err", err)
	}
	return nil
}

func (s *Snapshots) readHeader(id string) (header, error) {
	f, err := os.Open(filepath.Join(s.dir, id))
	if err != nil {
		return header{}, err
	}
	defer f.Close()
	return readHeader(f)
}

// Open checks a snapshot's header and contents, and returns a reader of the
// contents. The caller closes it.
func (s *Snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if filepath.Base(id) != id || !strings.HasSuffix(id, snapshotSuffix) {
		return nil, nil, fmt.Errorf("%q is not a snapshot's ID", id)
	}
	f, err := os.Open(filepath.Join(s.dir, id))
	if err != nil {
		return nil, nil, err
	}
	h, err := readAll(f)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("snapshot %s: %w", id, err), s.report(id, err), f.Close())
	}
	return h.meta(id), contents{bufio.NewReaderSize(io.LimitReader(f, h.size), 1<<20), f}, nil
}

type contents struct {
	io.Reader
	io.Closer
}

// readAll checks all of the file and leaves it at the contents' first byte.
func readAll(f *os.File) (header, error) {
	h, err := readHeader(f)
	if err != nil {
		return h, err
	}
	crc := crc32.New(castagnoli)
	n, err := io.CopyBuffer(crc, struct{ io.Reader }{f}, make([]byte, 1<<20))
	switch {
	case err != nil:
		return h, err
	case n != h.size:
		return h, fmt.Errorf("%d bytes of contents, want %d", n, h.size)
	case crc.Sum32() != h.contents:
		return h, errors.New("the checksum of its contents does not match")
	}
	_, err = f.Seek(int64(snapshotHeader+len(h.configuration)), io.SeekStart)
	return h, err
}

// header is the checked beginning of a snapshot's file.
type header struct {
	index, term, configurationIndex uint64

	configuration []byte
	size          int64
	contents      uint32 // CRC
}

func (h header) encode() []byte {
	b := make([]byte, 0, snapshotHeader+len(h.configuration))
	b = append(b, snapshotMagic...)
	b = append(b, snapshotVersion, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, h.index)
	b = binary.BigEndian.AppendUint64(b, h.term)
	b = binary.BigEndian.AppendUint64(b, h.configurationIndex)
	b = binary.BigEndian.AppendUint64(b, uint64(h.size))
	b = binary.BigEndian.AppendUint32(b, uint32(len(h.configuration)))
	b = binary.BigEndian.AppendUint32(b, h.contents)
	b = binary.BigEndian.AppendUint32(b, crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, h.configuration))
	return append(b, h.configuration...)
}

func readHeader(r io.Reader) (h header, err error) {
	defer catch(&err) // raft.DecodeConfiguration panics
	var b [snapshotHeader]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return h, err
	}
	length := binary.BigEndian.Uint32(b[40:])
	if string(b[:4]) != snapshotMagic || length > configurationMax {
		return h, errors.New("not a snapshot")
	}
	h.configuration = make([]byte, length)
	if _, err := io.ReadFull(r, h.configuration); err != nil {
		return h, err
	}
	if binary.BigEndian.Uint32(b[48:]) != crc32.Update(crc32.Checksum(b[:48], castagnoli), castagnoli, h.configuration) {
		return h, errors.New("the checksum of its header does not match")
	}
	if b[4] != snapshotVersion || b[5]|b[6]|b[7] != 0 {
		return h, fmt.Errorf("a snapshot of version %d, this program knows %d", b[4], snapshotVersion)
	}
	size := binary.BigEndian.Uint64(b[32:])
	if size > math.MaxInt64 {
		return h, fmt.Errorf("a snapshot of %d bytes", size)
	}
	h.index = binary.BigEndian.Uint64(b[8:])
	h.term = binary.BigEndian.Uint64(b[16:])
	h.configurationIndex = binary.BigEndian.Uint64(b[24:])
	h.size = int64(size)
	h.contents = binary.BigEndian.Uint32(b[44:])
	raft.DecodeConfiguration(h.configuration)
	return h, nil
}

func (h header) meta(id string) *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version:            raft.SnapshotVersionMax,
		ID:                 id,
		Index:              h.index,
		Term:               h.term,
		Configuration:      raft.DecodeConfiguration(h.configuration),
		ConfigurationIndex: h.configurationIndex,
		Size:               h.size,
	}
}

// Create begins a snapshot under a temporary name.
func (s *Snapshots) Create(version raft.SnapshotVersion, index, term uint64,
	configuration raft.Configuration, configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != raft.SnapshotVersionMax {
		return nil, fmt.Errorf("snapshots of version %d, this program knows %d", version, raft.SnapshotVersionMax)
	}
	h := header{index: index, term: term, configurationIndex: configurationIndex,
		configuration: raft.EncodeConfiguration(configuration)}
	if len(h.configuration) > configurationMax {
		return nil, fmt.Errorf("a configuration of %d bytes, at most %d", len(h.configuration), configurationMax)
	}
	f, id, err := s.create(index, term)
	if err != nil {
		return nil, err
	}
	k := &sink{store: s, id: id, header: h, file: f, buffer: bufio.NewWriterSize(f, 1<<20)}
	if _, err := k.buffer.Write(make([]byte, snapshotHeader+len(h.configuration))); err != nil { // its place
		return nil, errors.Join(err, k.Cancel())
	}
	return k, nil
}

// create makes the temporary file of the first name that is free.
func (s *Snapshots) create(index, term uint64) (*os.File, string, error) {
	for n := 0; ; n++ {
		id := snapshotID(index, term, n)
		path := filepath.Join(s.dir, id)
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		f, err := os.OpenFile(path+tempSuffix, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		return f, id, err
	}
}

// sink is a snapshot being written, by one goroutine.
type sink struct {
	store  *Snapshots
	id     string
	header header
	file   *os.File
	buffer *bufio.Writer
	synced int64 // bytes of the contents that are on the disk
	err    error // of a write: Close then cancels
	done   bool
}

func (k *sink) ID() string { return k.id }

func (k *sink) Write(b []byte) (int, error) {
	n, err := k.buffer.Write(b)
	k.header.size += int64(n)
	k.header.contents = crc32.Update(k.header.contents, castagnoli, b[:n])
	if err == nil && k.header.size-k.synced >= syncEvery {
		k.synced = k.header.size
		if err = k.buffer.Flush(); err == nil {
			err = k.file.Sync()
		}
	}
	if err != nil {
		k.err = fullOr(err)
	}
	return n, k.err
}

// Cancel removes what was written.
func (k *sink) Cancel() error {
	if k.done {
		return nil
	}
	k.done = true
	return errors.Join(k.file.Close(), os.Remove(k.file.Name()))
}

// Close makes the snapshot: when it returns nil a crash can not take it back. A
// crash before the rename leaves a temporary file, which is removed at the next
// start; one before the last fsync leaves that or the snapshot. Raft deletes no
// log before Close has returned, and older snapshots go only then.
func (k *sink) Close() error {
	if k.done {
		return nil
	}
	if err := k.finish(); err != nil {
		return errors.Join(err, k.Cancel())
	}
	k.done = true
	if err := os.Rename(k.file.Name(), filepath.Join(k.store.dir, k.id)); err != nil {
		return errors.Join(err, os.Remove(k.file.Name()))
	}
	if err := syncDir(k.store.dir); err != nil {
		return err
	}
	k.store.prune()
	return nil
}

func (k *sink) finish() error {
	if k.err != nil {
		return k.err
	}
	if err := k.buffer.Flush(); err != nil {
		return fullOr(err)
	}
	if _, err := k.file.WriteAt(k.header.encode(), 0); err != nil {
		return err
	}
	if err := k.file.Sync(); err != nil {
		return err
	}
	return k.file.Close() // Cancel closes it again, which is harmless
}

// prune removes all but the newest good snapshots. A crash leaves too many, and
// so does a file that will not go: neither spoils the one just made.
func (s *Snapshots) prune() {
	ids, err := s.ids()
	if err != nil {
		s.log.Warn("old snapshots are not removed", "err", err)
	}
	good := 0
	for _, id := range ids {
		damaged := s.Damaged()[id] != nil
		if good < snapshotsKept {
			if !damaged {
				good++
			}
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("an old snapshot is not removed", "file", id, "err", err)
			continue
		}
		if damaged {
			s.mu.Lock()
			delete(s.damaged, id)
			s.mu.Unlock()
		}
	}
}
