package share

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"math"
	"os"
	"time"
)

// fileIdentity tells whether a file is still the one that was hashed. Times
// are Unix nanoseconds. ctime moves with every change, and can't be set back.
type fileIdentity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64
}

const fileIdentityLen = 40

func (f fileIdentity) append(b []byte) []byte {
	for _, v := range []uint64{f.dev, f.ino, uint64(f.size), uint64(f.mtime), uint64(f.ctime)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func decodeFileIdentity(b []byte) fileIdentity {
	at := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	return fileIdentity{dev: at(0), ino: at(1), size: int64(at(2)), mtime: int64(at(3)), ctime: int64(at(4))}
}

// sameFile reports whether f and g are one file, whatever it holds by now.
func (f fileIdentity) sameFile(g fileIdentity) bool {
	return f.dev == g.dev && f.ino == g.ino && f.ino != 0
}

// clockTick is more than the step in which file systems count time: a change
// less than this after a reading may not show in the times.
const clockTick = 20 * time.Millisecond

// ctimeUnknown is no file's ctime. It is not 0, which is that of every file where
// the system has none.
const ctimeUnknown = math.MinInt64

// settled returns f as it may be recorded after a hashing that began at
// start: a file that changed just before may change again within the same
// tick, so its ctime is forgotten and the next look hashes once more.
func (f fileIdentity) settled(start time.Time) fileIdentity {
	if max(f.mtime, f.ctime) > start.Add(-clockTick).UnixNano() {
		f.ctime = ctimeUnknown
	}
	return f
}

func identifyPath(path string) (fileIdentity, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileIdentity{}, err
	}
	return sysIdentity(info), nil
}

// openShared opens a file for hashing or serving. It never waits (a FIFO may
// have taken the path) and takes nothing but regular files.
func openShared(open func(flag int) (*os.File, error)) (*os.File, fs.FileInfo, error) {
	f, err := open(os.O_RDONLY | openNonblock)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("it is %s: %w", describeMode(info.Mode()), ErrNotShareable)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func describeMode(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "no regular file"
}
