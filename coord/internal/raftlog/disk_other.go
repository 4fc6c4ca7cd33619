//go:build !linux

package raftlog

import "os"

// reserve allocates the bytes of f from one offset to another, as zeros. They
// are past what is written of f: after an error nothing of value has changed.
func reserve(f *os.File, from, to int64) error { return zeroFill(f, from, to) }

// syncData makes what was written to f durable.
func syncData(f *os.File) error { return f.Sync() }
