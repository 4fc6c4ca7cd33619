package coord

import (
	"context"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLogger writes what hashicorp/raft logs to a slog.Logger, one level lower
// than Raft thinks: an election is news to Raft, and not to an operator, who is
// told of it by Group. It is an hclog.Logger.
type raftLogger struct {
	log  *slog.Logger
	name string
	args []any
}

func (r raftLogger) Log(level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Error:
		to = slog.LevelWarn
	case hclog.Warn:
		to = slog.LevelInfo
	}
	if r.log.Enabled(context.Background(), to) {
		r.log.Log(context.Background(), to, "raft: "+msg, args...)
	}
}

func (r raftLogger) Trace(msg string, args ...any) {}
func (r raftLogger) Debug(msg string, args ...any) { r.Log(hclog.Debug, msg, args...) }
func (r raftLogger) Info(msg string, args ...any)  { r.Log(hclog.Info, msg, args...) }
func (r raftLogger) Warn(msg string, args ...any)  { r.Log(hclog.Warn, msg, args...) }
func (r raftLogger) Error(msg string, args ...any) { r.Log(hclog.Error, msg, args...) }

func (r raftLogger) IsTrace() bool { return false }
func (r raftLogger) IsDebug() bool { return r.log.Enabled(context.Background(), slog.LevelDebug) }
func (r raftLogger) IsInfo() bool  { return r.IsDebug() }
func (r raftLogger) IsWarn() bool  { return true }
func (r raftLogger) IsError() bool { return true }

func (r raftLogger) ImpliedArgs() []any { return r.args }
func (r raftLogger) With(args ...any) hclog.Logger {
	return raftLogger{r.log.With(args...), r.name, append(r.args[:len(r.args):len(r.args)], args...)}
}

func (r raftLogger) Name() string                        { return r.name }
func (r raftLogger) Named(name string) hclog.Logger      { return raftLogger{r.log, name, r.args} }
func (r raftLogger) ResetNamed(name string) hclog.Logger { return r.Named(name) }
func (r raftLogger) SetLevel(hclog.Level)                {}
func (r raftLogger) GetLevel() hclog.Level               { return hclog.Debug }
func (r raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(io.Discard, "", 0)
}
func (r raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return io.Discard }
