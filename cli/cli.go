// Package cli is what a person talks to: commands, settings, output, and the
// running peer of a home. It knows nothing of protocols' bytes; the work is
// done by the packages share and node.
//
// # The path of a command
//
// Run builds the command line (this file), a command's file reads its flags and
// arguments, config.go settles the settings, and session.go finds the peer that
// runs on this home, or runs one for the command's own length (peer.go). The
// command then asks that peer through package control, the same way in both
// cases, shows what it does (progress.go), and prints results (output.go).
// Errors become a line, a hint and an exit code (errors.go).
package cli

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
	"unicode/utf8"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/gologshim"
	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

// IO is what a command sees of the world besides files and the network.
type IO struct {
	In       io.Reader
	Out, Err io.Writer
	// Env returns an environment variable, empty when it is not set.
	Env func(string) string
}

// Main runs p2pshare with the process's arguments and streams, and returns its
// exit code. The first SIGINT or SIGTERM ends the command in good order; the
// second kills the process at once.
func Main() int {
	// quic-go prints to stderr when the kernel gives it small buffers.
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return Run(ctx, os.Args[1:], IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: os.Getenv})
}

// Run runs one command and returns its exit code. When ctx ends before the
// command does, the code is that of an interrupt. It sets the logging of
// libp2p, which is the process's: not for concurrent use.
func Run(ctx context.Context, args []string, o IO) int {
	a := &app{io: o, out: bufio.NewWriter(o.Out)}
	root := a.root()
	// The flags may be what is wrong; --json must hold for that error too.
	a.json = slices.Contains(args, "--json")
	root.SetArgs(withoutWords(root, args))
	root.SetIn(o.In)
	root.SetOut(a.out)
	root.SetErr(o.Err)
	err := checkText(args)
	if err == nil {
		err = root.ExecuteContext(ctx)
	}
	if ctx.Err() != nil && err != nil {
		err = interrupted(err)
	}
	if err != nil {
		a.report(err)
	}
	if err := a.out.Flush(); err != nil && a.code == control.CodeDone {
		a.report(err)
	}
	return int(a.code)
}

// app is one run of a command.
type app struct {
	io  IO
	out *bufio.Writer // results; its error is looked at once, at the end

	json    bool
	quiet   bool
	verbose int
	log     *slog.Logger // of a daemon that was told where to log; else nil

	code control.Code // of the first error that was reported
}

// root is the table of commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "p2pshare",
		Short: "Share files between peers, found by name and verified",
		Long: `p2pshare shares files and directories between peers. They are found by name or
content ID, fetched from whoever has them, and every byte is verified.`,
		Version:           version(),
		Args:              unknownCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkGiven(cmd); err != nil {
				return err
			}
			return a.silenceLibraries()
		},
	}
	flags := root.PersistentFlags()
	flags.String("home", "", "`DIR` that holds the identity and the catalog (P2PSHARE_HOME)")
	flags.BoolVar(&a.json, "json", false, "print JSON Lines on stdout, one object a line")
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "print nothing but errors; with --json, only final lines")
	flags.CountVarP(&a.verbose, "verbose", "v", "log to stderr; twice for more")
	flags.String("timeout", "", "give up after this `DURATION`, as 90s or 5m; 0 for never")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageOf(cmd, "%s", err) })
	root.SetVersionTemplate("p2pshare {{.Version}}\n")
	root.SetHelpTemplate(helpTemplate)
	root.SetUsageTemplate(usageTemplate)
	cobra.AddTemplateFunc("exitCodes", exitCodes)

	root.AddCommand(
		a.addCommand(),
		a.getCommand(),
		a.findCommand(),
		a.lsCommand(),
		a.rmCommand(),
		a.transfersCommand(),
		a.limitsCommand(),
		a.serveLinkCommand(),
		a.verifyCommand(),
		a.gcCommand(),
		a.idCommand(),
		a.lanCommand(),
		a.groupCommand(),
		a.pinCommand(),
		a.unpinCommand(),
		a.pinsCommand(),
		a.trustCommand(),
		a.untrustCommand(),
		a.forgetCommand(),
		a.blockCommand(),
		a.unblockCommand(),
		a.peersCommand(),
		a.statusCommand(),
		a.uiCommand(),
		a.daemonCommand(),
		a.bootstrapCommand(),
		a.doctorCommand(),
		a.configCommand(),
		a.completionCommand(),
		a.manCommand(),
		a.serviceCommand(),
		a.versionCommand(),
	)
	addHelp(root)
	return root
}

// checkText refuses arguments that are not UTF-8: no name is, and no path would reach
// the running peer as it is.
func checkText(args []string) error {
	for _, arg := range args {
		if !utf8.ValidString(arg) {
			return usage("the argument \"%s\" is not valid UTF-8", share.Escape(arg))
		}
	}
	return nil
}

// narrowing are flags that say who or what alone is meant.
var narrowing = []string{"from", "to", "group", "path", "key"}

// checkGiven refuses an empty value for them. An unset variable of a shell gives one,
// and what was to be for one peer, or from one, would be for all.
func checkGiven(cmd *cobra.Command) error {
	for _, name := range narrowing {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && f.Value.String() == "" {
			return usageOf(cmd, "--%s is empty", name)
		}
	}
	return nil
}

// silenceLibraries takes the log lines of libp2p and of what is built on it
// off stderr, which is the person's; with -v they come, warnings and errors.
func (a *app) silenceLibraries() error {
	level := golog.LevelFatal
	if a.verbose > 0 {
		level = golog.LevelError
	}
	golog.SetupLogging(golog.Config{Stderr: a.verbose > 0, Level: level, Format: golog.PlaintextOutput})
	handler := slog.Handler(slog.DiscardHandler)
	if a.verbose > 0 {
		handler = slog.NewTextHandler(a.io.Err, &slog.HandlerOptions{Level: slog.LevelWarn})
	}
	gologshim.SetDefaultHandler(handler)
	return nil
}

// logger is where our own packages log: nowhere, unless with -v.
func (a *app) logger() *slog.Logger {
	switch {
	case a.log != nil:
		return a.log
	case a.verbose == 0:
		return slog.New(slog.DiscardHandler)
	case a.verbose == 1:
		return slog.New(slog.NewTextHandler(a.io.Err, nil))
	}
	return slog.New(slog.NewTextHandler(a.io.Err, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// deadline bounds a command's work by --timeout.
func deadline(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}
