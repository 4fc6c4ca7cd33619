package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/p2pshare/p2pshare/cli/control"
)

// logMax is how long a log file becomes before it is renamed, in bytes.
const logMax = 16 << 20

// openLog has this process log as the settings say, until the function that it
// returns is called.
func (a *app) openLog(s *settings) (closeLog func() error, err error) {
	nothing := func() error { return nil }
	if s.logFile == "" && s.logLevel == nil {
		return nothing, nil // as -v says
	}
	level := slog.LevelInfo
	if a.verbose > 1 {
		level = slog.LevelDebug
	}
	if s.logLevel != nil {
		level = *s.logLevel
	}
	out, closeLog := a.io.Err, nothing
	if s.logFile != "" {
		f := &logFile{path: s.logFile}
		if err := f.open(); err != nil {
			return nil, control.Errorf(control.CodeFailed, "log: %s", control.OneLine(err.Error())).WithHint("name a file in a directory that is there with --log-file")
		}
		out, closeLog = f, f.close
	}
	a.log = slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level}))
	return closeLog, nil
}

// logFile is a log that makes room for itself: path, and path.1 before it.
type logFile struct {
	path string

	mu   sync.Mutex
	file *os.File // guarded by mu; nil when it could not be opened anew
	size int64    // guarded by mu
}

var _ io.Writer = (*logFile)(nil)

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && !info.Mode().IsDir() {
		l.file, l.size = f, -1<<62 // a pipe or a terminal is never renamed
		return nil
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Write appends a line. What can't be written is lost: a full disk must not end a
// daemon that only tells of it.
func (l *logFile) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size+int64(len(line)) > logMax && l.file != nil {
		err := errors.Join(l.file.Close(), os.Rename(l.path, l.path+".1"), l.open())
		if err != nil {
			l.file = nil
		}
	}
	if l.file == nil {
		if err := l.open(); err != nil {
			return 0, fmt.Errorf("log: %w", err)
		}
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	return n, err
}

func (l *logFile) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
