package raftlog

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// reserve allocates the bytes of f from one offset to another; they read as
// zeros. After an error of a full disk f may have grown, but not been written.
func reserve(f *os.File, from, to int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, from, to-from)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOSYS):
			return zeroFill(f, from, to)
		}
		return err
	}
}

// syncData makes what was written to f durable, and of the metadata only what it
// takes to read it: not the time of the write, which would be a write of its own.
func syncData(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err
	}
}
