package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
	"rsc.io/qr"
)

// serveLinkFlags are the flags of serve-link.
type serveLinkFlags struct {
	literal bool
	expire  time.Duration
	address string
	port    int
	receive string
	max     string
	files   int
}

func (a *app) serveLinkCommand() *cobra.Command {
	var f serveLinkFlags
	cmd := &cobra.Command{
		Use:   "serve-link WHAT",
		Short: "Serve a file to people on the local network who have no p2pshare",
		Long: `Serve a file or directory, from here or from the network, as a page that anybody
on the local network can open with a browser who has the link: until Ctrl-C, or
until it expires. What is behind the # is a secret that browsers send to nobody else.
The page is plain HTTP: whoever can listen on the network can read it all.

With --receive people can send files back, which are saved in that directory under
checked names; nothing there is replaced.`,
		Example: "  p2pshare serve-link talk.mp4\n  p2pshare serve-link holiday --expire 10m --receive ~/Downloads",
		Args:    arguments("one WHAT", 1, 1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.runServeLink(cmd, args[0], f) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.DurationVar(&f.expire, "expire", time.Hour, "serve it for this `DURATION`")
	flags.StringVar(&f.address, "address", "", "serve at this `IP` address of this machine (default: its first private one)")
	flags.IntVar(&f.port, "port", 0, "serve at this TCP `PORT` (default: a drawn one)")
	flags.StringVar(&f.receive, "receive", "", "take files that people send, and save them in this `DIR`")
	flags.StringVar(&f.max, "receive-max", "1G", "take files of up to this `SIZE` each")
	flags.IntVar(&f.files, "receive-files", 100, "take up to this `NUMBER` of files")
	flags.BoolVar(&f.literal, "literal", false, "WHAT is a name, whatever it looks like")
	networkFlags(cmd)
	return cmd
}

func (a *app) runServeLink(cmd *cobra.Command, what string, f serveLinkFlags) error {
	s, err := a.settle(cmd)
	if err != nil {
		return err
	}
	req, err := f.request(cmd, what)
	if err != nil {
		return err
	}
	req.Peers = s.values["peer"].texts
	return a.withPeer(cmd.Context(), s, needNetwork, func(ctx context.Context, use *session) error {
		end, err := use.ServeLink(ctx, req, a.tellLink)
		if err != nil && ctx.Err() != nil && cmd.Context().Err() != nil {
			return nil // Ctrl-C is how it ends
		}
		if err == nil && a.json {
			a.emit(end)
		} else if err == nil {
			a.say("the link has expired")
		}
		return err
	})
}

func (f *serveLinkFlags) request(cmd *cobra.Command, what string) (req control.ServeLinkRequest, err error) {
	req = control.ServeLinkRequest{What: what, Literal: f.literal, Expire: f.expire.Seconds(), Address: f.address, Port: f.port, ReceiveFiles: f.files}
	if f.expire < time.Second {
		return req, usageOf(cmd, "--expire %s is too short", f.expire)
	}
	if f.files < 1 {
		return req, usageOf(cmd, "--receive-files must be at least 1")
	}
	if req.ReceiveBytes, err = parseSize(f.max); err != nil {
		return req, usageOf(cmd, "--receive-max %q is no size", f.max)
	}
	if f.receive != "" {
		if req.Receive, err = filepath.Abs(f.receive); err != nil {
			return req, err
		}
		if info, err := os.Stat(req.Receive); err != nil || !info.IsDir() {
			return req, usageOf(cmd, "--receive %q is not a directory", f.receive)
		}
	}
	return req, nil
}

// tellLink prints what a link tells.
func (a *app) tellLink(e control.Event) {
	if a.json {
		a.emit(e)
		return
	}
	switch e := e.(type) {
	case *control.ServingLink:
		for _, line := range qrLines(e.URL) {
			a.say("%s", line)
		}
		a.say("link     %s", e.URL)
		a.say("serves   %s until %s", share.Escape(string(e.Name)), e.Expires.Local().Format("2006-01-02 15:04"))
		if e.Receive != "" {
			a.say("receives files into %s", share.Escape(e.Receive))
		}
		a.say("plain HTTP: whoever can listen on this network can read it")
	case *control.Received:
		a.say("received %s, %s, from %s", share.Escape(e.Path), size(e.Size), e.From)
	}
}

// qrLines draws a QR code in half blocks, black on white whatever the terminal's colours
// are; nil for a text that is too long.
func qrLines(text string) (lines []string) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return nil
	}
	const quiet = 2 // modules around it: four by the standard, and terminals have a margin
	for y := -quiet; y < code.Size+quiet; y += 2 {
		var b strings.Builder
		b.WriteString("\x1b[30;107m")
		for x := -quiet; x < code.Size+quiet; x++ {
			b.WriteString([]string{" ", "▀", "▄", "█"}[bit(code.Black(x, y))+2*bit(code.Black(x, y+1))])
		}
		lines = append(lines, b.String()+"\x1b[0m")
	}
	return lines
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
