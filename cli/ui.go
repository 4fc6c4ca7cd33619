package cli

import (
	"context"
	"os/exec"
	"runtime"

	"github.com/spf13/cobra"
)

func (a *app) uiCommand() *cobra.Command {
	var noBrowser bool
	cmd := &cobra.Command{
		Use:   "ui",
		Short: "Open the page of this peer in the browser",
		Long: `Open the page of the running peer in the browser: share, get, and see what moves.
Without a peer that runs on this home, run one until Ctrl-C.

The address that is printed lets one browser in, once, within a minute. What is
dropped on the page is copied into the folder that the setting folder names, and
what the page gets is saved there, unless it is told another place.`,
		Example: "  p2pshare ui\n  p2pshare ui --no-browser",
		Args:    arguments("", 0, 0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.runUI(cmd, !noBrowser) },
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().BoolVar(&noBrowser, "no-browser", false, "print the address only")
	networkFlags(cmd)
	return cmd
}

func (a *app) runUI(cmd *cobra.Command, browser bool) error {
	s, err := a.settle(cmd)
	if err != nil {
		return err
	}
	up := false
	err = a.withPeer(cmd.Context(), s, needServing, func(ctx context.Context, use *session) error {
		session, err := use.NewSession(ctx)
		if err != nil {
			return err
		}
		if a.json {
			a.emit(session)
		} else {
			a.say("%s", session.URL)
		}
		a.out.Flush()
		if browser && !a.openBrowser(session.URL) {
			a.note("no browser could be started: open that address in one")
		}
		if use.own == nil {
			return nil
		}
		a.printServing(use.own.ready())
		up = true
		<-ctx.Done()
		return nil
	})
	if up && cmd.Context().Err() != nil {
		return nil
	}
	return err
}

// openBrowser starts the browser that the person has chosen, and reports whether there is
// one. What it prints is nobody's business here. Its argument can be read by other
// users of this machine; the code in it is good once, and for a minute.
func (a *app) openBrowser(url string) bool {
	name, args := "xdg-open", []string{url}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", url}
	}
	if runtime.GOOS != "darwin" && runtime.GOOS != "windows" && a.io.Env("DISPLAY") == "" && a.io.Env("WAYLAND_DISPLAY") == "" {
		return false // xdg-open would start a browser in the terminal
	}
	return exec.Command(name, args...).Start() == nil
}
