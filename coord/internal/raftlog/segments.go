package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// This file reads raft-wal's segments before raft-wal does. raft-wal takes any
// place where its frames stop making sense for the end of a torn write; it does
// not look whether acknowledged entries follow, checks the last batch only, and
// leaves the bytes of a torn one where they are, for the next recovery to trip
// over what a shorter batch has not covered.
//
// A segment is a header of 32 bytes and frames, little-endian, padded to 8
// bytes. A frame is type (1 entry, 2 index, 3 commit), three zeros, and a
// uint32: the length of the payload, or for a commit the CRC-32C of everything
// since the last one. A closed segment ends in an index, an array of uint32
// offsets of its entries, and a commit.
//
// Source: raft-wal v0.4.1, segment/format.go.
const (
	segmentHeader = 32
	frameHeader   = 8

	frameEntry  = 1
	frameIndex  = 2
	frameCommit = 3

	segmentMagic = 0x58eb6b0d
)

// found is what inspect got to know.
type found struct {
	first, last uint64 // of the entries; 0 when there are none
	path        string // of the last segment, "" if it has no file yet
	tail        tail
	info        types.SegmentInfo // of the last segment
}

// tail is the readable part of the last segment.
type tail struct {
	entries uint64
	end     int64  // behind the last whole batch
	index   uint64 // where the index is, if it has been closed
	torn    bool   // bytes follow that are no whole batch
}

// inspect reads all entries of the segments, which are raft-wal's table, and
// changes nothing. It returns what it got to know, also with an error.
func inspect(dir string, segments []types.SegmentInfo) (found, error) {
	var f found
	for i, info := range segments {
		if i > 0 && info.MinIndex != segments[i-1].MaxIndex+1 {
			return f, fmt.Errorf("a segment begins at %d after one that ends at %d", info.MinIndex, segments[i-1].MaxIndex)
		}
		path := filepath.Join(dir, segment.FileName(info))
		b, err := os.ReadFile(path)
		last := i == len(segments)-1
		switch {
		case last && errors.Is(err, fs.ErrNotExist): // a crash before it was made
			f.info = info
			return f, nil
		case err != nil:
			return f, err
		}
		if !last {
			err = readClosed(b, info)
			f.span(info.MinIndex, info.MaxIndex)
		} else {
			f.path, f.info = path, info
			f.tail, err = readTail(b, info)
			f.span(info.MinIndex, info.BaseIndex+f.tail.entries-1)
		}
		if err != nil {
			return f, fmt.Errorf("segment %s: %w", filepath.Base(path), err)
		}
	}
	return f, nil
}

func (f *found) span(first, last uint64) {
	if last < first {
		return
	}
	if f.first == 0 {
		f.first = first
	}
	f.last = last
}

// readClosed checks the entries that the table says the segment has, the way
// raft-wal will look for them.
func readClosed(b []byte, info types.SegmentInfo) error {
	if err := checkHeader(b, info); err != nil {
		return err
	}
	for index := info.MinIndex; index <= info.MaxIndex; index++ {
		at := info.IndexStart + 4*(index-info.BaseIndex)
		if at+4 > uint64(len(b)) {
			return fmt.Errorf("the place of entry %d is behind the end", index)
		}
		offset := int(binary.LittleEndian.Uint32(b[at:]))
		kind, payload, ok := frame(b, offset)
		if !ok || kind != frameEntry {
			return fmt.Errorf("entry %d is not where the index says", index)
		}
		if _, err := checkEntry(payload, index); err != nil {
			return err
		}
	}
	return nil
}

// readTail checks the segment being written, batch by batch, up to the first
// that is not whole. It is an error if that one is not the last: it was
// acknowledged, since the next was begun.
func readTail(b []byte, info types.SegmentInfo) (tail, error) {
	var (
		t       tail
		pending [][]byte
		index   uint64 // of the batch
		begin   int    // of the batch
	)
	for at := segmentHeader; ; {
		kind, payload, ok := frame(b, at)
		if !ok {
			break
		}
		switch kind {
		case frameEntry:
			pending = append(pending, payload)
		case frameIndex:
			index = uint64(at + frameHeader)
		case frameCommit:
			if crc32.Checksum(b[begin:at], castagnoli) != binary.LittleEndian.Uint32(b[at+4:]) {
				ok = false
				break
			}
			for _, p := range pending {
				if _, err := checkEntry(p, info.BaseIndex+t.entries); err != nil {
					return t, err
				}
				t.entries++
			}
			begin = at + frameHeader
			t.end, t.index, pending = int64(begin), index, nil
		}
		if !ok {
			break
		}
		at += frameHeader + len(payload) + pad(len(payload))
	}
	if t.end > 0 {
		if err := checkHeader(b, info); err != nil {
			return t, err
		}
	}
	rest := b[t.end:]
	t.torn = len(bytes.TrimLeft(rest, "\x00")) > 0
	if t.torn {
		if later := laterBatch(rest, info.BaseIndex+t.entries); later > 0 {
			return t, fmt.Errorf("entry %d is not readable, and entry %d, written after it was acknowledged, is there",
				info.BaseIndex+t.entries, later)
		}
	}
	return t, nil
}

// laterBatch looks for a whole entry of a batch that begins after next, where
// the batch that is not whole begins, and returns its index or 0.
func laterBatch(b []byte, next uint64) uint64 {
	for at := 0; at+frameHeader < len(b); at += frameHeader {
		if b[at] != frameEntry {
			continue
		}
		_, payload, ok := frame(b, at)
		if !ok {
			continue
		}
		e, err := decodeEntry(payload)
		if err != nil {
			continue
		}
		if place, err := unseal(&e); err == nil && e.Index > next+uint64(place) {
			return e.Index
		}
	}
	return 0
}

// frame returns the frame at an offset: its type, and the payload of what is not
// a commit. ok is false when there is none.
func frame(b []byte, at int) (kind byte, payload []byte, ok bool) {
	if at > len(b)-frameHeader {
		return 0, nil, false
	}
	switch kind = b[at]; kind {
	case frameCommit:
		return kind, nil, true
	case frameEntry, frameIndex:
		length := int64(binary.LittleEndian.Uint32(b[at+4:]))
		if length > int64(len(b)-at-frameHeader) {
			return 0, nil, false
		}
		start := at + frameHeader
		return kind, b[start : start+int(length)], true
	}
	return 0, nil, false
}

// pad returns how many zeros follow n bytes of a payload.
func pad(n int) int { return -n & (frameHeader - 1) }

func checkHeader(b []byte, info types.SegmentInfo) error {
	if len(b) < segmentHeader ||
		binary.LittleEndian.Uint64(b) != segmentMagic ||
		binary.LittleEndian.Uint64(b[8:]) != info.BaseIndex ||
		binary.LittleEndian.Uint64(b[16:]) != info.ID ||
		binary.LittleEndian.Uint64(b[24:]) != info.Codec {
		return errors.New("its header is not the one of this segment")
	}
	return nil
}

// checkEntry decodes an entry and checks its seal and index.
func checkEntry(payload []byte, index uint64) (raft.Log, error) {
	e, err := decodeEntry(payload)
	if err == nil {
		_, err = unseal(&e)
	}
	if err == nil && e.Index != index {
		err = fmt.Errorf("found entry %d in its place", e.Index)
	}
	if err != nil {
		return e, fmt.Errorf("entry %d: %w", index, err)
	}
	return e, nil
}

func decodeEntry(payload []byte) (e raft.Log, err error) {
	defer catch(&err)
	err = new(wal.BinaryCodec).Decode(payload, &e)
	return e, err
}

// repair makes the last segment what raft-wal expects after a crash.
//
// A crash in the middle leaves a segment that is cut or not, and a table that is
// the old one or the new one: each is a state that Open starts from.
func (f *found) repair(s *state) error {
	if f.tail.torn {
		if err := cut(f.path, f.tail.end); err != nil {
			return err
		}
	}
	if f.tail.index == 0 {
		return nil
	}
	// The segment was closed, and the crash came before the table said so.
	// raft-wal would open it for writing and then refuse every write: finish what
	// it was about to do.
	table, _ := s.Load("")
	table.Segments = s.segments()
	closed := &table.Segments[len(table.Segments)-1]
	closed.MaxIndex = closed.BaseIndex + f.tail.entries - 1
	closed.IndexStart = f.tail.index
	closed.SealTime = time.Now()
	table.Segments = append(table.Segments, types.SegmentInfo{
		ID:         table.NextSegmentID,
		BaseIndex:  closed.MaxIndex + 1,
		MinIndex:   closed.MaxIndex + 1,
		Codec:      closed.Codec,
		CreateTime: time.Now(),
		SizeLimit:  closed.SizeLimit,
	})
	table.NextSegmentID++
	return s.CommitState(table)
}

// cut ends a file at an offset; what it allocated behind that is given back, and
// taken again with the next write.
func cut(path string, end int64) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = file.Truncate(end)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}
