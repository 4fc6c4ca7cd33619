package cli

import (
	"context"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

// addFlags are the flags of add.
type addFlags struct {
	name     string
	exit     bool
	hidden   bool
	exclude  []string
	mirrors  []string
	note     string
	lanOnly  bool
	to       string
	unlisted bool
	watch    bool
}

func (a *app) addCommand() *cobra.Command {
	var f addFlags
	cmd := &cobra.Command{
		Use:   "add PATH…",
		Short: "Share files or directories where they lie",
		Long: `Share files or directories where they lie: nothing is copied. With a daemon on
this home the command returns once they are hashed, recorded and announced.
Without one it goes on serving them until Ctrl-C; with --exit it records only.

With --watch each stays shared as it is on the disk: what is edited, moved, added
or deleted makes a new version of its name, within seconds where the system tells
of changes. What was only moved is not read again. That goes on in the daemon, and
after it was started anew, until the path is added without --watch, or removed.`,
		Example: "  p2pshare add talk.mp4\n  p2pshare add --name holiday --exclude '*.tmp' ~/pictures/2024\n  p2pshare add --watch ~/papers",
		Args:    arguments("at least one PATH", 1, -1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.runAdd(cmd, args, f) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.name, "name", "", "share under this `NAME` instead of the path's own")
	flags.BoolVar(&f.exit, "exit", false, "record and return; a daemon serves it later")
	flags.BoolVar(&f.hidden, "hidden", false, "include entries whose name begins with a dot")
	flags.StringArrayVar(&f.exclude, "exclude", nil, "leave out entries that match this `GLOB` (repeatable)")
	flags.StringArrayVar(&f.mirrors, "mirror", nil, "tell that the raw file is at this `URL`, too (repeatable)")
	flags.StringVar(&f.note, "note", "", "say this `TEXT` about it, one line that others see beside its name")
	flags.BoolVar(&f.lanOnly, "lan-only", false, "announce and serve on the local network only")
	flags.StringVar(&f.to, "to", "", "serve to this `PEER` ID only")
	flags.BoolVar(&f.unlisted, "unlisted", false, "never list it: got by exact name or ID only")
	flags.BoolVar(&f.watch, "watch", false, "keep what is shared as it is on the disk, from now on")
	networkFlags(cmd)
	return cmd
}

// runAdd adds each path. One that can't be added is reported and does not keep
// the others from being added, but nothing is then served in the foreground:
// the exit code would come hours too late.
func (a *app) runAdd(cmd *cobra.Command, paths []string, f addFlags) error {
	requests, err := f.requests(cmd, paths)
	if err != nil {
		return err
	}
	s, err := a.settle(cmd)
	if err != nil {
		return err
	}
	need := needServing
	if f.exit {
		need = needHome
	}
	serving := false
	err = a.withPeer(cmd.Context(), s, need, func(ctx context.Context, use *session) error {
		if err := a.addAll(ctx, s, use, &requests); err != nil || a.code != control.CodeDone {
			return err
		}
		if use.own == nil || f.exit {
			return nil
		}
		a.printServing(use.own.ready())
		serving = true
		for change := range use.own.library.Changes(ctx) {
			a.printChanged(control.NewChanged(change))
		}
		return nil
	})
	if serving && cmd.Context().Err() != nil {
		return nil
	}
	return err
}

// requests checks the flags and makes a request for each path.
func (f *addFlags) requests(cmd *cobra.Command, paths []string) ([]control.AddRequest, error) {
	if cmd.Flags().Changed("name") {
		if len(paths) > 1 {
			return nil, usageOf(cmd, "--name goes with one PATH, not %d", len(paths))
		}
		if _, err := share.ParseName(f.name); err != nil {
			return nil, err
		}
	}
	if len(f.mirrors) > 0 && len(paths) > 1 {
		return nil, usageOf(cmd, "--mirror goes with one PATH, not %d", len(paths))
	}
	if err := checkMirrors(cmd, f.mirrors); err != nil {
		return nil, err
	}
	if _, err := share.ParseNote(f.note); err != nil {
		return nil, err
	}
	scope := share.Scope{LANOnly: f.lanOnly, Unlisted: f.unlisted}
	if f.to != "" {
		to, err := share.ParsePeerID(f.to)
		if err != nil {
			return nil, usageOf(cmd, "--to %q is not a peer ID", f.to).WithHint("p2pshare id on that machine prints it")
		}
		scope.To = to
	}
	var requests []control.AddRequest
	for _, path := range paths {
		if path == "" {
			return nil, usageOf(cmd, "an empty PATH")
		}
		if !utf8.ValidString(path) {
			return nil, usageOf(cmd, "%s is not UTF-8, and no name can be", share.Escape(path)).WithHint("rename it, or share the directory without it")
		}
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		requests = append(requests, control.AddRequest{Path: abs, Name: f.name, Hidden: f.hidden, Exclude: f.exclude, Scope: scope,
			Mirrors: f.mirrors, Note: f.note, Watch: f.watch})
	}
	return requests, nil
}

// checkMirrors checks the values of --mirror.
func checkMirrors(cmd *cobra.Command, mirrors []string) error {
	if len(mirrors) > share.MirrorsMax {
		return usageOf(cmd, "%d times --mirror, and %d are the most", len(mirrors), share.MirrorsMax)
	}
	for _, s := range mirrors {
		if _, err := share.ParseMirror(s); err != nil {
			return usageOf(cmd, "--mirror %s: %v", share.Escape(s), err)
		}
	}
	return nil
}

// addAll adds each path within --timeout, and takes from pending what is done:
// a peer that takes over does the rest. It returns only what concerns the rest
// too; the error of one path is reported here.
func (a *app) addAll(ctx context.Context, s *settings, use *session, pending *[]control.AddRequest) error {
	ctx, cancel := deadline(ctx, s.timeout)
	defer cancel()
	for ; len(*pending) > 0; *pending = (*pending)[1:] {
		req := (*pending)[0]
		show := a.newProgress()
		added, err := use.Add(ctx, req, show.on)
		show.end()
		switch {
		case err == nil:
			a.printAdded(added)
		case ctx.Err() != nil:
			return ctx.Err()
		case isGone(err):
			return err
		case req.Name == "" && len(req.Mirrors) == 0:
			a.report(withHint(err, "share it under another name with --name NAME", control.CodeUsage))
		default:
			a.report(err)
		}
	}
	return nil
}

func (a *app) printAdded(e *control.Added) {
	if a.json {
		a.emit(e)
		return
	}
	a.say("added  %s  %s  %s", share.Escape(string(e.Name)), e.ID, describeSize(e.Kind, e.Size, e.Files))
	a.say("link   %s", share.Escape(e.Link))
	if scripts := share.MixedScripts(string(e.Name)); scripts != nil {
		a.note("warning: the name mixes %s letters: others are warned that it may be made to look like another", strings.Join(scripts, ", "))
	}
}

func (a *app) printChanged(e *control.Changed) {
	switch {
	case a.json:
		a.emit(e)
	case e.Problem != "":
		a.note("%s stays as it was: %s", share.Escape(string(e.Name)), e.Problem)
	default:
		a.say("changed  %s  %s  %s, %s read", share.Escape(string(e.Name)), e.ID, describeSize(e.Kind, e.Size, e.Files), size(e.Hashed))
	}
}

func (a *app) printServing(r *control.Ready) {
	if a.json {
		a.emit(r)
		return
	}
	a.say("serving as %s until Ctrl-C", r.PeerID)
}

// describeSize is a content's size for people.
func describeSize(kind share.Kind, bytes, files int64) string {
	if kind == share.KindDir {
		return size(bytes) + " in " + plural(int(files), "file")
	}
	return size(bytes)
}
