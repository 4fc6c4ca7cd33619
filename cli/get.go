package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

// getFlags are the flags of get.
type getFlags struct {
	output     string
	force      bool
	seedFrom   []string
	from       string
	path       string
	include    []string
	strict     bool
	any        bool
	accept     bool
	explain    bool
	noServe    bool
	literal    bool
	background bool
	mirrors    []string
	anyMirrors bool
}

// toStdout is the -o that streams.
const toStdout = "-"

func (a *app) getCommand() *cobra.Command {
	var f getFlags
	cmd := &cobra.Command{
		Use:   "get WHAT",
		Short: "Find, fetch, verify and save a file or directory",
		Long: `Find, fetch, verify and save a file or directory. WHAT is one of

  talk.mp4               a name
  talk.mp4#9f3c21ab      a name, and how its content ID begins
  ann/talk.mp4           a name as published by ann: a peer ID, or a petname of
                         the trust book
  @office/talk.mp4       a name in the index of a group that this peer follows
  b3:9f3c21ab…           a content ID, which is what b3sum prints
  p2pshare:b3:…          a link, as add prints it

A bare name may be claimed by anybody. What an earlier get or p2pshare trust has
settled comes first, then groups, then publishers with a petname, and strangers
last; among different contents none is ever picked for you.

It is saved under its name in this directory. Interrupted, the partial file is
kept, and the same command goes on from it.`,
		Example: "  p2pshare get talk.mp4\n  p2pshare get talk.mp4 -o - | mpv -\n  p2pshare get photos --path 2024/01.jpg",
		Args:    arguments("one WHAT", 1, 1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.runGet(cmd, args[0], f) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&f.output, "output", "o", "", "save as this `PATH`, or in it if it is a directory; - is stdout")
	flags.BoolVar(&f.force, "force", false, "replace a different file")
	flags.StringArrayVar(&f.seedFrom, "seed-from", nil, "copy what this `DIR` has of it instead of fetching it; repeatable")
	flags.StringVar(&f.from, "from", "", "take only what this `PEER` published, a peer ID or a petname")
	flags.StringVar(&f.path, "path", "", "get this `PATH` inside the directory")
	flags.StringArrayVar(&f.include, "include", nil, "get what this `GLOB` matches inside the directory, and no more (repeatable)")
	flags.BoolVar(&f.strict, "strict", false, "refuse a name that only strangers vouch for")
	flags.BoolVar(&f.any, "any", false, "let strangers answer when a group or publisher that should know can't be asked")
	flags.BoolVar(&f.accept, "accept-change", false, "take what a group or trusted publisher says now of a name chosen before")
	flags.BoolVar(&f.explain, "explain", false, "print one line for each source that was tried")
	flags.StringArrayVar(&f.mirrors, "mirror", nil, "fetch from this `URL` of the raw file, too (repeatable)")
	flags.BoolVar(&f.anyMirrors, "mirrors", false, "fetch from mirrors that only strangers name, too")
	flags.BoolVar(&f.noServe, "no-serve", false, "do not go on serving it from the daemon")
	flags.BoolVar(&f.literal, "literal", false, "WHAT is a name, whatever it looks like")
	flags.BoolVar(&f.background, "background", false, "let the daemon fetch it, and return at once")
	networkFlags(cmd)
	return cmd
}

func (a *app) runGet(cmd *cobra.Command, what string, f getFlags) error {
	s, err := a.settle(cmd)
	if err != nil {
		return err
	}
	req, err := f.request(cmd, what)
	if err != nil {
		return err
	}
	req.Peers = s.values["peer"].texts
	if err := knownPetnames(cmd, s, req); err != nil {
		return err
	}
	timeout := s.timeout
	if f.explain && timeout > 0 { // the peer ends it, and tells what it had tried
		req.Timeout, timeout = timeout.Seconds(), timeout+explainMax
	}
	attempt := func() error {
		ctx, cancel := deadline(cmd.Context(), timeout)
		defer cancel()
		if f.background {
			return a.getDetached(ctx, s, req)
		}
		return a.withPeer(ctx, s, needNetwork, a.getOnce(req))
	}
	err = attempt()
	if req.Pick, err = a.choose(cmd.Context(), err); err == nil && !req.Pick.IsZero() {
		err = attempt() // with all of its time: a person may think
	}
	if req.Stream {
		return err
	}
	return withHint(err, "the partial file is kept; run the same command again to go on",
		control.CodeInterrupted, control.CodeTimeout)
}

// explainMax is how long after --timeout a get may still explain itself.
const explainMax = 2 * time.Second

// request checks the flags and makes the request.
func (f *getFlags) request(cmd *cobra.Command, what string) (control.GetRequest, error) {
	req := control.GetRequest{What: what, Literal: f.literal, Force: f.force, Path: f.path, Include: f.include,
		Strict: f.strict, Any: f.any, AcceptChange: f.accept, Explain: f.explain, From: f.from, NoServe: f.noServe, Mirrors: f.mirrors, AnyMirrors: f.anyMirrors}
	if _, err := control.ParseWhat(what, f.literal); err != nil {
		return req, err
	}
	if err := share.CheckIncludes(f.include); err != nil {
		return req, usageOf(cmd, "--%s", err)
	}
	if f.path != "" {
		if _, err := share.ParsePath(f.path); err != nil {
			return req, err
		}
	}
	for _, dir := range f.seedFrom {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return req, err
		}
		if info, err := os.Stat(abs); err != nil || !info.IsDir() {
			return req, usageOf(cmd, "--seed-from %q is not a directory", dir)
		}
		req.SeedFrom = append(req.SeedFrom, abs)
	}
	err := checkMirrors(cmd, f.mirrors)
	if err != nil {
		return req, err
	}
	switch f.output {
	case toStdout:
		if f.background {
			return req, usageOf(cmd, "-o - and --background exclude each other")
		}
		req.Stream = true
	case "":
		req.Dir, err = os.Getwd()
	default:
		req.Target, err = f.target(cmd)
	}
	return req, err
}

// knownPetnames refuses a petname that the home's trust book does not have, before
// anything is started.
func knownPetnames(cmd *cobra.Command, s *settings, req control.GetRequest) error {
	trust := share.ReadTrust(s.home)
	what, err := control.ParseWhat(req.What, req.Literal)
	if err != nil {
		return err
	}
	if err := trust.Knows(what); err != nil {
		return err
	}
	if req.From == "" {
		return nil
	}
	if _, err := trust.ParsePublisher(req.From); err != nil {
		return usageOf(cmd, "--from %q is no peer ID, and no petname of the trust book", req.From).
			WithHint("a peer ID looks like 12D3Koo…, with 52 characters; p2pshare trust PEER --as NAME gives it a petname")
	}
	return nil
}

// target is -o PATH, absolute. A path that ends like a directory must be one.
func (f *getFlags) target(cmd *cobra.Command) (string, error) {
	if strings.HasSuffix(f.output, string(filepath.Separator)) {
		if info, err := os.Stat(f.output); err != nil || !info.IsDir() {
			return "", usageOf(cmd, "-o %q is not a directory", f.output).WithHint("make it first: mkdir -p")
		}
	}
	return filepath.Abs(f.output)
}

// getOnce returns the work of one attempt. When the peer that did it goes away
// and another takes over, a file is gone on with from its partial file. A
// stream can only be gone on with when it is sure to be the same content, so
// when it was asked for by ID; what went out already is then skipped.
func (a *app) getOnce(req control.GetRequest) func(context.Context, *session) error {
	out := &resumingWriter{w: a.io.Out}
	return func(ctx context.Context, use *session) error {
		out.restart()
		show := a.newProgress()
		got, err := use.Get(ctx, req, out, show.on)
		show.end()
		if isGone(err) && out.written > 0 && !asksByID(req) {
			return control.Errorf(control.CodeFailed, "the running peer stopped in the middle of the stream").
				WithHint("run the same command again; asked for by b3:HASH, it would have gone on")
		}
		if err != nil {
			return err
		}
		a.printGot(req, got)
		return nil
	}
}

func asksByID(req control.GetRequest) bool {
	what, err := control.ParseWhat(req.What, req.Literal)
	return err == nil && !what.ID.IsZero()
}

// getDetached hands the request to the daemon.
func (a *app) getDetached(ctx context.Context, s *settings, req control.GetRequest) error {
	client, err := control.Connect(ctx, s.home)
	if err != nil && !errors.Is(err, control.ErrNoPeer) {
		return err
	}
	if err != nil || client.Hello().Service < control.ServiceServing {
		return usage("--background needs a running daemon").WithHint("start one with p2pshare daemon")
	}
	defer client.Close()
	a.noteUnused(s, client.Hello())
	accepted, err := client.GetDetached(ctx, req)
	if err != nil {
		return err
	}
	if a.json {
		a.emit(accepted)
		return nil
	}
	a.say("begun  %s in the background, as transfer %s", share.Escape(accepted.What), accepted.ID)
	return nil
}

// printGot tells what was got: on stderr when stdout has the bytes.
func (a *app) printGot(req control.GetRequest, d *control.Done) {
	switch {
	case req.Stream && (a.quiet || a.json):
		return
	case req.Stream:
		fmt.Fprintln(a.io.Err, gotLine(d, share.Escape(string(d.Name))))
		return
	case a.json:
		a.emit(d)
		return
	}
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	a.say("%s", gotLine(d, share.Escape(relative(dir, d.Path))))
	a.say("verified  %s", d.ID)
}

// gotLine is the line that says what was got.
func gotLine(d *control.Done, where string) string {
	if d.Already {
		return "have      " + where + "  " + describeSize(d.Kind, d.Size, d.Files) + ": the same bytes were here already"
	}
	verb := "saved     "
	if d.Path == toStdout {
		verb = "streamed  "
	}
	line := verb + where + "  " + describeSize(d.Kind, d.Size, d.Files) + " in " + span(d.Seconds)
	if rate := speed(d.BytesFetched, d.Seconds); rate != "" {
		line += " (" + rate + ")"
	}
	if len(d.Sources) > 0 {
		line += " from " + describeSources(d.Sources)
	}
	return line
}

// describeSources counts who gave something.
func describeSources(sources []share.SourceStat) string {
	mirrors := 0
	for _, s := range sources {
		if s.Via == share.ViaMirror {
			mirrors++
		}
	}
	switch peers := len(sources) - mirrors; {
	case mirrors == 0:
		return plural(peers, "peer")
	case peers == 0:
		return plural(mirrors, "mirror")
	default:
		return plural(peers, "peer") + " and " + plural(mirrors, "mirror")
	}
}
