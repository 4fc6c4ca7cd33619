package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft-wal/types"
)

// copies is a small record on disk that is replaced as a whole, in place, in
// space that was allocated once. The file holds it twice, each copy in its own
// half:
//
//	magic    "p2rc"
//	version  uint8    1
//	kind     uint8    's' state, 'w' watermark, 'r' rejoin
//	zero     uint16
//	seq      uint64   rises by one with each write
//	length   uint32   of the payload
//	crc      uint32   of the 20 bytes above and the payload
//	payload
//
// A write goes to the first copy, is fsynced, then to the second, and is fsynced.
// A crash at any byte leaves at least one whole copy: of the older record while
// the first is written, of the newer from then on. Two slots written in turn
// would do as well against a crash, with one fsync less; but there a flipped bit
// in the newer one looks like a torn write, and an older vote would be believed.
// Here both copies of an acknowledged record are whole, so any single one that is
// damaged has a twin that is not older.
type copies struct {
	types.WritableFile
	kind byte
	room int64 // bytes for one copy: half of the file
	seq  uint64
}

const (
	copyMagic   = "p2rc"
	copyVersion = 1
	copyHeader  = 24

	kindState     = 's'
	kindWatermark = 'w'
	kindRejoin    = 'r'

	// stateRoom holds about 250 segments, 4 GiB of log; Raft compacts long before.
	stateRoom = 64 << 10
	// watermarkRoom and rejoinRoom keep the copies in different pages and sectors.
	watermarkRoom = 4 << 10
	rejoinRoom    = 4 << 10
)

// createCopies writes the file for the first time. A crash before the rename
// leaves a temporary file that the next call overwrites; after it, the record.
func createCopies(path string, kind byte, room int64, payload []byte) (err error) {
	one, err := encodeCopy(kind, room, 1, payload)
	if err != nil {
		return err
	}
	whole := make([]byte, 2*room) // zeros: they allocate
	copy(whole, one)
	copy(whole[room:], one)
	return writeFile(path, whole)
}

// openCopies opens the file and returns the newest whole record. When one copy
// is not whole, or older, it is written anew from the other before anything else
// is: else a crash in the next write could leave none.
func openCopies(path string, kind byte, room int64, c Config) (*copies, []byte, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	cs := &copies{WritableFile: c.Faults.File(filepath.Base(path), f), kind: kind, room: room}
	payload, err := cs.load(c)
	if err != nil {
		return nil, nil, errors.Join(err, cs.Close())
	}
	return cs, payload, nil
}

func (cs *copies) load(c Config) ([]byte, error) {
	whole := make([]byte, 2*cs.room)
	if _, err := cs.ReadAt(whole, 0); err != nil && err != io.EOF {
		return nil, err
	}
	best, payload, err := newestCopy(cs.kind, whole)
	if err != nil {
		return nil, err
	}
	cs.seq = best
	for _, at := range []int64{0, cs.room} {
		if seq, _, err := decodeCopy(cs.kind, whole[at:at+cs.room]); err != nil || seq != best {
			c.Log.Warn("a record of the Raft log is healed from its twin", "record", string(cs.kind), "err", err)
			if err := cs.put(payload, at); err != nil {
				return nil, err
			}
		}
	}
	return payload, nil
}

// newestCopy returns the newest whole record of both halves.
func newestCopy(kind byte, whole []byte) (seq uint64, payload []byte, err error) {
	half := len(whole) / 2
	a, first, errA := decodeCopy(kind, whole[:half])
	b, second, errB := decodeCopy(kind, whole[half:])
	switch {
	case errA != nil && errB != nil:
		return 0, nil, fmt.Errorf("neither copy is whole: %w", errA)
	case errA != nil || errB == nil && b > a:
		return b, second, nil
	}
	return a, first, nil
}

// write replaces the record. After an error the file must not be written again:
// the copies may differ, and the next write might tear the only whole one.
func (cs *copies) write(payload []byte) error {
	cs.seq++
	if err := cs.put(payload, 0); err != nil { // crash: the older record, in the second copy
		return err
	}
	return cs.put(payload, cs.room) // crash: the newer record, in the first
}

func (cs *copies) put(payload []byte, at int64) error {
	b, err := encodeCopy(cs.kind, cs.room, cs.seq, payload)
	if err != nil {
		return err
	}
	if _, err := cs.WriteAt(b, at); err != nil {
		return err
	}
	return cs.Sync()
}

func encodeCopy(kind byte, room int64, seq uint64, payload []byte) ([]byte, error) {
	if int64(copyHeader+len(payload)) > room {
		return nil, fmt.Errorf("a record of %d bytes does not fit into %d", len(payload), room-copyHeader)
	}
	b := make([]byte, 0, copyHeader+len(payload))
	b = append(b, copyMagic...)
	b = append(b, copyVersion, kind, 0, 0)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.BigEndian.AppendUint32(b, crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, payload))
	return append(b, payload...), nil
}

// decodeCopy reads one copy, which b may be longer than. The payload is part of b.
func decodeCopy(kind byte, b []byte) (seq uint64, payload []byte, err error) {
	if len(b) < copyHeader || string(b[:4]) != copyMagic {
		return 0, nil, errors.New("not a record")
	}
	length := uint64(binary.BigEndian.Uint32(b[16:]))
	if length > math.MaxInt32 || length > uint64(len(b)-copyHeader) {
		return 0, nil, fmt.Errorf("a record of %d bytes in %d", length, len(b)-copyHeader)
	}
	payload = b[copyHeader : copyHeader+length]
	if binary.BigEndian.Uint32(b[20:]) != crc32.Update(crc32.Checksum(b[:20], castagnoli), castagnoli, payload) {
		return 0, nil, errors.New("its checksum does not match")
	}
	switch {
	case b[4] != copyVersion:
		return 0, nil, fmt.Errorf("a record of version %d, this program knows %d", b[4], copyVersion)
	case b[5] != kind || b[6] != 0 || b[7] != 0:
		return 0, nil, fmt.Errorf("a record of kind %q, want %q", b[5], kind)
	}
	return binary.BigEndian.Uint64(b[8:]), payload, nil
}

// writeFile writes a file that is there whole or not at all.
func writeFile(path string, data []byte) (err error) {
	temp := path + ".tmp"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
