package raftlog

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// The seal of an entry is the last 8 bytes of its Extensions:
//
//	place  uint32   of the entry in its batch: 0 for the first
//	crc    uint32   of index, term, type, time, length of the extensions, place
//	                (37 bytes), then the extensions before the seal, then the data
//
// Extensions and not Data: it is empty but for middleware, so that nothing of
// size is copied, and Raft does not look into it. The seal is put on between
// Raft and raft-wal and taken off on the way back: Raft, its peers and the state
// machine never see it.
//
// place is what lets Open tell a torn batch from damage: see laterBatch.
const sealSize = 8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealAll returns sealed copies of a batch. Raft goes on reading the originals
// in other goroutines, so they are not touched.
func sealAll(logs []*raft.Log) []*raft.Log {
	entries := make([]raft.Log, len(logs))
	out := make([]*raft.Log, len(logs))
	room := 0
	for _, l := range logs {
		room += len(l.Extensions) + sealSize
	}
	slab := make([]byte, 0, room)
	scratch := new(sealed)
	for i, l := range logs {
		start := len(slab)
		slab = append(slab, l.Extensions...)
		slab = binary.BigEndian.AppendUint32(slab, uint32(i))
		slab = binary.BigEndian.AppendUint32(slab, scratch.checksum(l, l.Extensions, uint32(i)))
		entries[i] = *l
		entries[i].Extensions = slab[start:len(slab):len(slab)]
		out[i] = &entries[i]
	}
	return out
}

// unseal checks the seal of an entry, takes it off, and returns its place.
func unseal(l *raft.Log) (place uint32, err error) {
	n := len(l.Extensions) - sealSize
	if n < 0 {
		return 0, errors.New("not sealed")
	}
	place = binary.BigEndian.Uint32(l.Extensions[n:])
	if binary.BigEndian.Uint32(l.Extensions[n+4:]) != new(sealed).checksum(l, l.Extensions[:n], place) {
		return 0, errors.New("its checksum does not match")
	}
	l.Extensions = l.Extensions[:n:n]
	if n == 0 {
		l.Extensions = nil
	}
	return place, nil
}

// sealed is what the checksum covers before extensions and data: one for a batch,
// since it escapes to the heap.
type sealed [37]byte

func (b *sealed) checksum(l *raft.Log, extensions []byte, place uint32) uint32 {
	binary.BigEndian.PutUint64(b[0:], l.Index)
	binary.BigEndian.PutUint64(b[8:], l.Term)
	b[16] = byte(l.Type)
	binary.BigEndian.PutUint64(b[17:], uint64(l.AppendedAt.Unix()))
	binary.BigEndian.PutUint32(b[25:], uint32(l.AppendedAt.Nanosecond()))
	binary.BigEndian.PutUint32(b[29:], uint32(len(extensions)))
	binary.BigEndian.PutUint32(b[33:], place)
	crc := crc32.Update(0, castagnoli, b[:])
	crc = crc32.Update(crc, castagnoli, extensions)
	return crc32.Update(crc, castagnoli, l.Data)
}
