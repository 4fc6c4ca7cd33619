package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

func TestErrorsBecomeTheirCodes(t *testing.T) {
	tests := []struct {
		err  error
		want Code
	}{
		{share.ErrBadName, CodeUsage},
		{share.ErrBadWhat, CodeUsage},
		{share.ErrBadPeer, CodeUsage},
		{content.ErrInvalidID, CodeUsage},
		{share.ErrNotFound, CodeNotFound},
		{share.ErrNotShared, CodeNotFound},
		{&share.AmbiguousError{}, CodeAmbiguous},
		{&share.CorruptError{Reason: "it does not match"}, CodeIntegrity},
		{content.ErrCorrupt, CodeIntegrity},
		{share.ErrUnreachable, CodeUnreachable},
		{node.ErrRelayOnly, CodeUnreachable},
		{node.ErrNotPeer, CodeUnreachable},
		{fmt.Errorf("%w: %w", share.ErrUnreachable, node.ErrNoAnswer), CodeNoAnswer},
		{fmt.Errorf("%w: %w", share.ErrMustKnow, share.ErrUnreachable), CodeUnreachable},
		{&share.AmbiguousError{Conflict: "x"}, CodeAmbiguous},
		{share.ErrNotInBook, CodeNotFound},
		{share.ErrBadPetname, CodeUsage},
		{share.ErrPetnameTaken, CodeRefused},
		// A provider that does not answer in time is not the person's timeout.
		{fmt.Errorf("%w: %w", share.ErrUnreachable, context.DeadlineExceeded), CodeUnreachable},
		{context.DeadlineExceeded, CodeTimeout},
		{share.ErrRefused, CodeRefused},
		{share.ErrExists, CodeRefused},
		{share.ErrNoSpace, CodeNoSpace},
		{&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, CodeNoSpace},
		{context.Canceled, CodeInterrupted},
		{share.ErrModified, CodeFailed},
		{share.ErrNotShareable, CodeFailed},
		{&node.HomeLockedError{Dir: "/x", PID: 7}, CodeFailed},
		{fs.ErrNotExist, CodeFailed},
		{fs.ErrPermission, CodeFailed},
		{ErrGone, CodeFailed},
		{errors.New("anything else"), CodeFailed},
		{Errorf(CodeNoQuorum, "made here"), CodeNoQuorum},
	}
	for _, tt := range tests {
		for _, err := range []error{tt.err, fmt.Errorf("doing something: %w", tt.err)} {
			got := ErrorOf(err)
			if got.Code != tt.want || got.Reason != tt.want.Reason() || got.Message == "" {
				t.Errorf("ErrorOf(%v) = %+v, want code %d, reason %q and a message", err, got, tt.want, tt.want.Reason())
			}
		}
	}
	if got := ErrorOf(nil); got != nil {
		t.Errorf("ErrorOf(nil) = %v, want nil", got)
	}
}

func TestErrorCrossesTheAPI(t *testing.T) {
	id := content.ID{1, 2, 3}
	err := &share.AmbiguousError{Name: "x", Candidates: []share.Candidate{{ID: id, Name: "x", Size: 7}, {Name: "x"}}}
	sent := ErrorOf(err).WithHint("choose")
	line, encodeErr := EncodeEvent(sent)
	if encodeErr != nil {
		t.Fatal(encodeErr)
	}
	e, decodeErr := decodeEvent(line)
	got, ok := e.(*Error)
	if decodeErr != nil || !ok {
		t.Fatalf("decodeEvent(%s) = %v, %v, want an *Error", line, e, decodeErr)
	}
	if got.Code != CodeAmbiguous || got.Message != sent.Message || got.Hint != "choose" || len(got.Candidates) != 2 || got.Candidates[0].ID != id {
		t.Errorf("decoded %+v, want %+v", got, sent)
	}
	if again := ErrorOf(fmt.Errorf("wrapped: %w", got)); again != got {
		t.Errorf("ErrorOf of what crossed = %+v, want itself", again)
	}
}

func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"plain":                        "plain",
		"a\nb":                         "a; b",
		"all failed:\n  * one\n":       "all failed:; * one",
		"open /tmp/\x1b[31m: no":       `open /tmp/\x1b[31m: no`,
		`"a\\b": escaped before`:       `"a\\b": escaped before`,
		"right\u202eleft":              `right\u202eleft`,
		"caf\u00e9 \u65e5\u672c\u8a9e": "caf\u00e9 \u65e5\u672c\u8a9e",
	} {
		if got := OneLine(text); got != want {
			t.Errorf("OneLine(%q) = %q, want %q", text, got, want)
		}
		if got := OneLine(OneLine(text)); got != want {
			t.Errorf("OneLine twice of %q = %q, want %q", text, got, want)
		}
	}
}

func TestCodesHaveWords(t *testing.T) {
	want := "done failed usage not_found ambiguous no_quorum integrity unreachable timeout refused no_space no_answer interrupted"
	got := ""
	for i, c := range Codes {
		if i > 0 {
			got += " "
		}
		got += c.Code.Reason()
	}
	if got != want {
		t.Errorf("reasons are %q, want %q", got, want)
	}
	if got := Code(77).Reason(); got != "failed" {
		t.Errorf("Code(77).Reason() = %q, want failed", got)
	}
}
