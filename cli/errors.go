package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/spf13/cobra"
)

// usage is an error of the command line or of a setting: exit code 2.
func usage(format string, args ...any) *control.Error {
	return control.Errorf(control.CodeUsage, format, args...).WithHint("p2pshare help")
}

// usageOf is usage with a hint at the command's own page.
func usageOf(cmd *cobra.Command, format string, args ...any) *control.Error {
	e := usage(format, args...)
	e.Message = control.OneLine(e.Message)
	if cmd.HasParent() {
		return e.WithHint("p2pshare help %s", cmd.Name())
	}
	return e
}

// arguments accepts from min to max arguments; max < 0 is any number.
func arguments(form string, min, max int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < min:
			return usageOf(cmd, "%s needs %s", cmd.Name(), form)
		case max == 0 && len(args) > 0:
			return usageOf(cmd, "%s takes no argument, not %q", cmd.Name(), args[0])
		case max > 0 && len(args) > max:
			return usageOf(cmd, "%s takes %s, not %q too", cmd.Name(), form, args[max])
		}
		return nil
	}
}

// unknownCommand refuses arguments of the root: whatever is there is no
// command.
func unknownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	e := usage("there is no command %q", args[0])
	root.SuggestionsMinimumDistance = 2
	if near := root.SuggestionsFor(args[0]); len(near) > 0 {
		return e.WithHint("did you mean %s?", strings.Join(near, " or "))
	}
	return e
}

// interrupted makes what a command returned after Ctrl-C the interrupt, unless
// it is an error of its own with something to tell.
func interrupted(err error) error {
	e := control.ErrorOf(err)
	if e.Code == control.CodeFailed || e.Code == control.CodeTimeout {
		return control.Errorf(control.CodeInterrupted, "interrupted")
	}
	return e
}

// report tells a person of err, and sets the exit code if it is the first.
func (a *app) report(err error) {
	e := control.ErrorOf(err)
	if a.code == control.CodeDone {
		a.code = e.Code
	}
	if a.json {
		a.emit(e)
	}
	fmt.Fprintf(a.io.Err, "p2pshare: %s\n", e.Message)
	if len(e.Candidates) > 0 {
		fmt.Fprint(a.io.Err, candidateTable(e.Candidates))
	}
	for hint := range strings.Lines(e.Hint) {
		fmt.Fprintf(a.io.Err, "hint: %s\n", strings.TrimSuffix(hint, "\n"))
	}
}

// withHint gives err a hint when its code is one of codes and it has none.
func withHint(err error, hint string, codes ...control.Code) error {
	if err == nil {
		return nil
	}
	e := control.ErrorOf(err)
	for _, c := range codes {
		if e.Code == c {
			return e.WithHint("%s", hint)
		}
	}
	return err
}

// isGone tells that the peer behind the socket went away.
func isGone(err error) bool { return errors.Is(err, control.ErrGone) }
