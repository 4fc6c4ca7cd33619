package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"syscall"

	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// Code is what a command exits with. The numbers are a promise to scripts.
type Code int

const (
	CodeDone        Code = 0
	CodeFailed      Code = 1
	CodeUsage       Code = 2
	CodeNotFound    Code = 3
	CodeAmbiguous   Code = 4
	CodeNoQuorum    Code = 5
	CodeIntegrity   Code = 6
	CodeUnreachable Code = 7
	CodeTimeout     Code = 8
	CodeRefused     Code = 9
	CodeNoSpace     Code = 10
	CodeNoAnswer    Code = 11
	CodeInterrupted Code = 130
)

// Codes lists every exit code with its reason word and its meaning, in the
// order of the help page. It is not to be changed by callers.
var Codes = []struct {
	Code    Code
	Reason  string
	Meaning string
	status  int
}{
	{CodeDone, "done", "done", http.StatusOK},
	{CodeFailed, "failed", "failed", http.StatusInternalServerError},
	{CodeUsage, "usage", "usage: the command line or a setting is wrong", http.StatusBadRequest},
	{CodeNotFound, "not_found", "not found: searched, nobody has it", http.StatusNotFound},
	{CodeAmbiguous, "ambiguous", "ambiguous name: several contents claim it", http.StatusConflict},
	{CodeNoQuorum, "no_quorum", "no quorum, or too stale", http.StatusServiceUnavailable},
	{CodeIntegrity, "integrity", "integrity failure: what came is not what was asked for", http.StatusBadGateway},
	{CodeUnreachable, "unreachable", "found, but no provider can be reached", http.StatusBadGateway},
	{CodeTimeout, "timeout", "timed out, progress kept", http.StatusGatewayTimeout},
	{CodeRefused, "refused", "refused", http.StatusForbidden},
	{CodeNoSpace, "no_space", "no space left, or over quota", http.StatusInsufficientStorage},
	{CodeNoAnswer, "no_answer", "found, and nothing comes back from any provider: a firewall may drop it", http.StatusBadGateway},
	{CodeInterrupted, "interrupted", "interrupted, progress kept", http.StatusServiceUnavailable},
}

// Reason is the word for c in JSON.
func (c Code) Reason() string {
	for _, row := range Codes {
		if row.Code == c {
			return row.Reason
		}
	}
	return CodeFailed.Reason()
}

// status is the HTTP status of an answer that is nothing but an error.
func (c Code) status() int {
	for _, row := range Codes {
		if row.Code == c {
			return row.status
		}
	}
	return http.StatusInternalServerError
}

// Error is what a person is told of an error. It is made where the error
// arises, crosses the API as it is, and becomes the exit code.
type Error struct {
	Code       Code              `json:"code"`
	Reason     string            `json:"reason"`
	Message    string            `json:"message"`        // one line, safe for a terminal
	Hint       string            `json:"hint,omitempty"` // what to do next; may be several lines
	Candidates []share.Candidate `json:"candidates,omitempty"`
	Partial    bool              `json:"partial,omitempty"` // of candidates: not all who claim the name were asked
}

func (e *Error) Error() string { return e.Message }

// Errorf returns an Error without a hint. Text from outside in args must have
// gone through share.Escape.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Reason: code.Reason(), Message: fmt.Sprintf(format, args...)}
}

// WithHint returns a copy of e that tells what to do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// causes maps the errors of the layers below to codes and hints: the one
// place where that is decided. The first that matches wins, so what tells more
// stands above what it may wrap.
var causes = []struct {
	err  error
	code Code
	hint string
}{
	{coord.ErrNoQuorum, CodeNoQuorum, "p2pshare group status shows who is missing; nothing was queued: ask again when they are back"},
	{coord.ErrNoLeader, CodeNoQuorum, "p2pshare group status shows who is missing; nothing was queued: ask again in a moment"},
	{coord.ErrSplit, CodeRefused, "p2pshare group recover goes on with this peer's side; p2pshare group leave gives it up"},
	{coord.ErrRemoved, CodeRefused, "p2pshare group join TOKEN lets it in again, with a new invitation"},
	{coord.ErrHasLeader, CodeRefused, "p2pshare group remove PEER takes a dead member out"},
	{coord.ErrAhead, CodeRefused, "run this on that peer, or lose what it has with --force"},
	{coord.ErrMoved, CodeRefused, "run the command again, and look at what it shows"},
	{coord.ErrBackup, CodeIntegrity, "take another copy of it"},
	{coord.ErrDiskFull, CodeNoSpace, "free some space on the disk of the group's leader, which p2pshare group status names; nothing was written"},
	{coord.ErrDamaged, CodeIntegrity, "p2pshare group restore FILE brings the group back from a backup"},
	{coord.ErrUnreadable, CodeIntegrity, "have an admin of the group take this peer out (p2pshare group remove PEER) and make an invitation; then p2pshare group join TOKEN here"},
	{coord.ErrUnreachable, CodeNoQuorum, "start a member, or look whether this peer can reach one: p2pshare group members --stale has their addresses"},
	{coord.ErrStopped, CodeNoQuorum, "this member is being brought up to date; ask again in a moment"},
	{coord.ErrConflict, CodeRefused, "replace it with --replace"},
	{coord.ErrDenied, CodeRefused, "an admin of the group can grant the role: p2pshare group grant PEER ROLE"},
	{coord.ErrToken, CodeRefused, "ask for another invitation: each works once, and for a time"},
	{coord.ErrExists, CodeRefused, ""},
	{coord.ErrInvalid, CodeUsage, ""},
	{coord.ErrNotFound, CodeNotFound, "p2pshare pins lists what is pinned, p2pshare group status who is a member"},
	{coord.ErrNoGroup, CodeNotFound, "p2pshare group status lists the groups of this peer"},
	{share.ErrBadNote, CodeUsage, ""},
	{share.ErrBadName, CodeUsage, "a name is one path component of printable Unicode, at most 255 bytes"},
	{share.ErrBadWhat, CodeUsage, "ask by name, NAME#PREFIX, PEERID/NAME, b3:HASH or link; p2pshare help get"},
	{share.ErrBadQuery, CodeUsage, "p2pshare help find"},
	{share.ErrBadPeer, CodeUsage, "a peer is IP:PORT, HOST:PORT, or a full multiaddr: p2pshare id on that machine prints its addresses"},
	{share.ErrBadMirror, CodeUsage, "a mirror is http://HOST/PATH or https://HOST/PATH of the raw bytes of a file; it has at most 4"},
	{content.ErrInvalidID, CodeUsage, "a content ID is what b3sum prints: b3: and 64 hex digits; for a file named like one: --literal"},
	{share.ErrBadPetname, CodeUsage, "a petname is a name without '/', '#' or '@'"},
	{share.ErrPetnameTaken, CodeRefused, "p2pshare untrust PETNAME takes it away from that peer"},
	{share.ErrNotInBook, CodeNotFound, "p2pshare trust lists what is in it"},
	{share.ErrBookFull, CodeRefused, "p2pshare forget NAME takes out what was chosen for a name"},
	{share.ErrWithdrawn, CodeNotFound, "whoever still has the content gives it by its ID, as b3:HASH"},
	{share.ErrChanged, CodeAmbiguous, "--accept-change takes what is said now; p2pshare forget NAME drops the choice; NAME#PREFIX takes one once"},
	{share.ErrMustKnow, CodeUnreachable, "--any has strangers answer; --from PEER names whose word to take"},
	{share.ErrAmbiguous, CodeAmbiguous, "ask for one of them as NAME#PREFIX with the first digits of its ID, as b3:HASH, or --from its publisher"},
	{share.ErrCorrupt, CodeIntegrity, "no wrong byte was kept; ask again later, or name another peer with --peer"},
	{content.ErrCorrupt, CodeIntegrity, "no wrong byte was kept; ask again later, or name another peer with --peer"},
	{node.ErrRelayOnly, CodeUnreachable, "its provider sits behind a NAT that could not be crossed; one side needs a reachable port"},
	{node.ErrNotPeer, CodeUnreachable, "check the address and the port: p2pshare id on that machine prints them"},
	{node.ErrNoAnswer, CodeNoAnswer, "a firewall before its providers, or before this machine, may drop what is sent: p2pshare doctor looks at this side; or name another peer that has it with --peer"},
	{share.ErrUnreachable, CodeUnreachable, "its providers may be offline: try again later, what was fetched is kept; or name another peer that has it with --peer"},
	{share.ErrNotShared, CodeNotFound, "p2pshare ls shows what is shared from here"},
	{share.ErrNotFound, CodeNotFound, "name a bootstrap peer with --bootstrap, or a peer that has it with --peer"},
	{share.ErrExists, CodeRefused, "save elsewhere with -o PATH, or replace it with --force"},
	{share.ErrNoSpace, CodeNoSpace, "free some space and run the same command again: it goes on from where it was"},
	{syscall.ENOSPC, CodeNoSpace, "free some space and run the same command again: it goes on from where it was"},
	{syscall.EDQUOT, CodeNoSpace, "free some space and run the same command again: it goes on from where it was"},
	{share.ErrRefused, CodeRefused, ""},
	{share.ErrModified, CodeFailed, "add it again once nobody writes to it"},
	{share.ErrNotShareable, CodeFailed, "regular files and directories can be shared, but for a home of p2pshare"},
	{node.ErrListen, CodeFailed, "that is no address of this machine, or another program has it; --listen takes another"},
	{node.ErrHomeLocked, CodeFailed, "stop that process, or use another home with --home DIR"},
	{ErrGone, CodeFailed, "run the command again"},
	{context.DeadlineExceeded, CodeTimeout, "give it more time with --timeout"},
	{context.Canceled, CodeInterrupted, ""},
	{fs.ErrNotExist, CodeFailed, "check the path"},
	{fs.ErrPermission, CodeFailed, "check who owns it and what its mode allows"},
}

// ErrorOf returns err as an Error: itself if it is one, else by the table of
// causes, else CodeFailed. It returns nil for nil.
func ErrorOf(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	e = &Error{Code: CodeFailed, Message: OneLine(err.Error())}
	for _, cause := range causes {
		if errors.Is(err, cause.err) {
			e.Code, e.Hint = cause.code, cause.hint
			break
		}
	}
	switch e.Code {
	case CodeTimeout:
		e.Message = "timed out, progress kept"
	case CodeInterrupted:
		e.Message = "interrupted"
	case CodeNoQuorum: // not what each member that was asked had to say
		for _, why := range []error{coord.ErrNoQuorum, coord.ErrNoLeader, coord.ErrStopped, coord.ErrUnreachable} {
			if errors.Is(err, why) {
				e.Message = why.Error()
				break
			}
		}
	case CodeNoSpace: // not what the log needs it for
		if errors.Is(err, coord.ErrDiskFull) {
			e.Message = "the disk of the group's leader is full"
		}
	case CodeFailed:
		var locked *node.HomeLockedError
		if errors.As(err, &locked) {
			e.Message = inUse(locked)
		}
	case CodeAmbiguous:
		var ambiguous *share.AmbiguousError
		if errors.As(err, &ambiguous) {
			e.Candidates, e.Partial = ambiguous.Candidates, ambiguous.Partial
		}
	}
	e.Reason = e.Code.Reason()
	return e
}

func inUse(locked *node.HomeLockedError) string {
	if locked.PID == 0 {
		return fmt.Sprintf("home %q is in use by another process", locked.Dir)
	}
	return fmt.Sprintf("home %q is in use by process %d", locked.Dir, locked.PID)
}

// OneLine makes the text of an error safe for a terminal: system errors quote
// paths as they are. Unlike share.Escape it leaves backslashes alone, and so
// what is escaped already.
func OneLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	parts := strings.Split(strings.Join(lines, "; "), `\`)
	for i, part := range parts {
		parts[i] = share.Escape(part)
	}
	return strings.Join(parts, `\`)
}
