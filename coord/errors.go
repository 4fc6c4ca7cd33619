package coord

import (
	"context"
	"errors"
	"fmt"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
)

// Sentinels of what the group answers; see AnswerError.
var (
	// ErrConflict: what is there is not what was expected. The AnswerError has it.
	ErrConflict = errors.New("something else is there")
	// ErrDenied: this peer may not do that, or the group would be left without an
	// admin. Ask an admin for the role.
	ErrDenied = errors.New("denied")
	// ErrNotFound: the name, pin, member or role is not there.
	ErrNotFound = errors.New("not in the group")
	// ErrToken: the invitation is unknown, used, or expired. Ask for another.
	ErrToken = errors.New("the invitation does not work")
	// ErrExists: the peer is a member, or has the role, already.
	ErrExists = errors.New("it is there already")
	// ErrInvalid: a field is missing or beyond its limit, or the group is full.
	ErrInvalid = errors.New("invalid request")
)

// AnswerError is a request that a member answered and that was not done. It
// matches one of the sentinels.
type AnswerError struct {
	Message string // one line, for people; hostile text

	// Of ErrConflict: the log index at which what is there was made, 0 for
	// nothing, and the binding, nil when no name was given.
	Current uint64
	Binding *Binding

	word word
}

func (e *AnswerError) Error() string {
	if e.Message == "" {
		return e.is().Error()
	}
	return fmt.Sprintf("%v: %.300q", e.is(), e.Message)
}

func (e *AnswerError) is() error {
	if is, known := words[e.word]; known {
		return is
	}
	return errInternal
}

// answered is an error that is an answer.
func answered(w word, format string, args ...any) error {
	return &AnswerError{Message: fmt.Sprintf(format, args...), word: w}
}

// Is makes errors.Is(err, ErrConflict) and its like true.
func (e *AnswerError) Is(target error) bool { return e.is() == target }

// words maps the words of an answer to sentinels.
var words = map[word]error{
	wordNoLeader: ErrNoLeader,
	wordNoQuorum: ErrNoQuorum,
	wordDiskFull: ErrDiskFull,
	wordStopped:  ErrStopped,
	wordRemoved:  ErrRemoved,
	wordSplit:    ErrSplit,
	wordConflict: ErrConflict,
	wordDenied:   ErrDenied,
	wordNotFound: ErrNotFound,
	wordUnknown:  ErrToken,
	wordUsed:     ErrToken,
	wordExpired:  ErrToken,
	wordExists:   ErrExists,
	wordInvalid:  ErrInvalid,
}

// errInternal is of an answer with a word that this build does not know.
var errInternal = errors.New("the member could not do it")

// err returns what the answer reports, nil when it was done.
func (a answer) err() error {
	if a.Error == "" {
		return nil
	}
	return &AnswerError{Message: a.Message, Current: a.Current, Binding: a.Binding, word: a.Error}
}

// resultError is the error of a command that was not done.
func resultError(r pinset.Result) error {
	if r.Code == pinset.OK || r.Code == 0 {
		return nil
	}
	return resultAnswer(r).err()
}

// resultAnswer is the answer to a write.
func resultAnswer(r pinset.Result) answer {
	a := answer{Index: r.Index, Current: r.Current, Message: r.Text}
	if r.Code != pinset.OK {
		a.Error = word(r.Code.String())
	}
	if r.Binding != nil {
		b := newBinding(*r.Binding)
		a.Binding = &b
	}
	return a
}

// errorAnswer is the answer to a request that met an error.
func errorAnswer(err error) answer {
	var elsewhere *notLeaderError
	var answered *AnswerError
	switch {
	case errors.As(err, &elsewhere):
		return answer{Error: wordNotLeader, Message: err.Error(), Leader: elsewhere.leader, Addrs: elsewhere.addrs}
	case errors.As(err, &answered):
		return answer{Error: answered.word, Message: answered.Message, Current: answered.Current, Binding: answered.Binding}
	case errors.Is(err, ErrNoQuorum):
		return answer{Error: wordNoQuorum, Message: err.Error()}
	case errors.Is(err, ErrNoLeader), errors.Is(err, errNotLeader), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, context.Canceled):
		return answer{Error: wordNoLeader, Message: err.Error()}
	case errors.Is(err, ErrDiskFull):
		return answer{Error: wordDiskFull, Message: err.Error()}
	case errors.Is(err, ErrRemoved):
		return answer{Error: wordRemoved, Message: err.Error()}
	case errors.Is(err, ErrSplit):
		return answer{Error: wordSplit, Message: err.Error()}
	case errors.Is(err, ErrStopped):
		return answer{Error: wordStopped, Message: err.Error()}
	case errors.Is(err, pinset.ErrInvalidCommand):
		return answer{Error: wordInvalid, Message: err.Error()}
	}
	return answer{Error: wordInternal, Message: err.Error()}
}

// notLeaderError says who leads.
type notLeaderError struct {
	leader pinset.Peer
	addrs  []string
}

func (e *notLeaderError) Error() string { return fmt.Sprintf("%s leads the group", e.leader) }
