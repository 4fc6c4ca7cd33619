package raftlog

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
)

// The watermark file holds the highest index known committed: a record of
// copies.go with a payload of 8 bytes. It only rises: it is written from
// Log.committed, which does.

func encodeWatermark(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

func decodeWatermark(payload []byte) (uint64, error) {
	if len(payload) != 8 {
		return 0, fmt.Errorf("a watermark of %d bytes, want 8", len(payload))
	}
	return binary.BigEndian.Uint64(payload), nil
}

func openWatermark(dir string, c Config) (*copies, uint64, error) {
	f, payload, err := openCopies(filepath.Join(dir, watermarkName), kindWatermark, watermarkRoom, c)
	if err != nil {
		return nil, 0, err
	}
	index, err := decodeWatermark(payload)
	return f, index, err
}

// writeWatermark brings the file up to SetCommitted. A crash leaves what was
// known before or now.
func (l *Log) writeWatermark() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	index := l.committed.Load()
	if index == l.written {
		return nil
	}
	if err := l.watermark.write(encodeWatermark(index)); err != nil {
		return err
	}
	l.written = index
	return nil
}
