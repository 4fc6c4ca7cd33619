package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

// unitName is the name of the service.
const unitName = "p2pshare.service"

// unitMark is the first line of a unit that is ours to replace and to remove.
const unitMark = "# Written by p2pshare service install."

// systemHome is the home of a system's peer: systemd makes it, as StateDirectory.
const systemHome = "/var/lib/p2pshare"

// systemUnits is where a system's units are.
const systemUnits = "/etc/systemd/system"

// service is one unit of systemd.
type service struct {
	system bool // of the system; else of this user
	path   string
	home   string
}

func (a *app) serviceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "service",
		Short: "Have systemd run the daemon",
		Long: `Have systemd run the daemon: from when this user logs in, or with --system from
when the machine starts, as a user of its own that may do little else. For a user's
daemon to run without a login: loginctl enable-linger.`,
		Example: "  p2pshare service install\n  p2pshare service install --print\n  sudo p2pshare service install --system",
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().Bool("system", false, "the system's service, not this user's")
	cmd.AddCommand(a.serviceInstallCommand(), a.serviceUninstallCommand(), a.serviceStatusCommand())
	return cmd
}

func (a *app) serviceInstallCommand() *cobra.Command {
	var print, noStart bool
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Write the unit, and start it now and from now on",
		Args:  arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := a.serviceOf(cmd)
			if err != nil {
				return err
			}
			program, err := os.Executable()
			if err == nil {
				program, err = filepath.EvalSymlinks(program)
			}
			if err != nil {
				return err
			}
			unit, err := v.unit(program)
			if err != nil {
				return err
			}
			if print {
				_, err := a.out.WriteString(unit)
				return err
			}
			if err := v.write(unit); err != nil {
				return err
			}
			a.sayDone("installed", v)
			if noStart {
				return nil
			}
			return errors.Join(a.systemctl(cmd.Context(), v, "daemon-reload"), a.systemctl(cmd.Context(), v, "enable", "--now", unitName))
		},
	}
	cmd.Flags().BoolVar(&print, "print", false, "print the unit, and do nothing")
	cmd.Flags().BoolVar(&noStart, "no-start", false, "write the unit, and leave systemd alone")
	return cmd
}

func (a *app) serviceUninstallCommand() *cobra.Command {
	var noStart bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Stop the daemon, and remove the unit; the home stays",
		Args:  arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := a.serviceOf(cmd)
			if err != nil {
				return err
			}
			if ours, err := v.ours(); err != nil {
				return err
			} else if !ours {
				return control.Errorf(control.CodeNotFound, "no service is installed at %s", share.Escape(v.path))
			}
			if !noStart {
				if err := a.systemctl(cmd.Context(), v, "disable", "--now", unitName); err != nil {
					return err
				}
			}
			if err := os.Remove(v.path); err != nil {
				return err
			}
			a.sayDone("uninstalled", v)
			if noStart {
				return nil
			}
			return a.systemctl(cmd.Context(), v, "daemon-reload")
		},
	}
	cmd.Flags().BoolVar(&noStart, "no-stop", false, "remove the unit, and leave systemd alone")
	return cmd
}

func (a *app) serviceStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Tell whether the service is installed, and whether it runs",
		Args:  arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := a.serviceOf(cmd)
			if err != nil {
				return err
			}
			installed, err := v.ours()
			if err != nil {
				return err
			}
			state := "not installed"
			if installed {
				state = a.serviceState(cmd.Context(), v)
			}
			if a.json {
				a.emitLine(struct {
					Installed bool   `json:"installed"`
					Path      string `json:"path"`
					State     string `json:"state"`
				}{installed, v.path, state})
			} else {
				a.say("service  %s", state)
				a.say("unit     %s", share.Escape(v.path))
			}
			return nil
		},
	}
}

// serviceState is what systemd says of the unit, in a word: active, inactive, failed.
func (a *app) serviceState(ctx context.Context, v service) string {
	out, err := exec.CommandContext(ctx, "systemctl", v.args("is-active", unitName)...).Output()
	if word := strings.TrimSpace(string(out)); word != "" && len(word) < 32 {
		return share.Escape(word)
	}
	if err != nil {
		return "installed; systemd can't be asked"
	}
	return "installed"
}

// serviceOf tells where the unit is, and which home it runs.
func (a *app) serviceOf(cmd *cobra.Command) (service, error) {
	var v service
	if runtime.GOOS != "linux" {
		return v, control.Errorf(control.CodeFailed, "services are for systemd, which is Linux'").WithHint("have p2pshare daemon run by what this system starts at login")
	}
	v.system, _ = cmd.Flags().GetBool("system")
	home, err := a.findHome(cmd)
	if err != nil {
		return v, err
	}
	v.home = home.text()
	if v.system {
		if home.from == "default" {
			v.home = systemHome
		}
		v.path = filepath.Join(systemUnits, unitName)
		return v, nil
	}
	config := a.io.Env("XDG_CONFIG_HOME")
	if config == "" {
		config = filepath.Join(a.io.Env("HOME"), ".config")
	}
	if !filepath.IsAbs(config) {
		return v, usage("there is no directory for this user's units").WithHint("set HOME, or XDG_CONFIG_HOME")
	}
	v.path = filepath.Join(config, "systemd", "user", unitName)
	return v, nil
}

func (v service) args(args ...string) []string {
	if v.system {
		return args
	}
	return append([]string{"--user"}, args...)
}

// systemctl has systemd do something.
func (a *app) systemctl(ctx context.Context, v service, args ...string) error {
	out, err := exec.CommandContext(ctx, "systemctl", v.args(args...)...).CombinedOutput()
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	said := strings.TrimSpace(string(out))
	if said == "" {
		said = err.Error()
	}
	return control.Errorf(control.CodeFailed, "systemctl %s: %s", strings.Join(args, " "), control.OneLine(said)).
		WithHint("with --no-start, or --no-stop, only the unit %s is written or removed", share.Escape(v.path))
}

func (a *app) sayDone(what string, v service) {
	if a.json {
		a.emitLine(struct {
			Event string `json:"event"`
			Path  string `json:"path"`
		}{what, v.path})
		return
	}
	a.say("%s  %s", what, share.Escape(v.path))
}

// ours tells whether the unit is there and was written by install.
func (v service) ours() (bool, error) {
	data, err := os.ReadFile(v.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !strings.HasPrefix(string(data), unitMark) {
		return false, control.Errorf(control.CodeRefused, "%s is not of p2pshare service install", share.Escape(v.path)).WithHint("move it away")
	}
	return true, nil
}

func (v service) write(unit string) error {
	if _, err := v.ours(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(v.path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(v.path, []byte(unit), 0o644)
}

// confined is what both kinds of unit forbid: they need no right of the system, and
// so a user's manager can do it, too. Source: systemd.exec(5).
const confined = `NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077
LimitNOFILE=65536
`

// isolated is what the system's unit forbids besides. It sees the files of people, to
// share them where they lie, and writes to its own directory only.
const isolated = `DynamicUser=yes
StateDirectory=p2pshare
StateDirectoryMode=0700
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=read-only
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
PrivateDevices=yes
PrivateTmp=yes
RemoveIPC=yes
`

// unit is the text of the unit: systemd.service(5).
func (v service) unit(program string) (string, error) {
	words := []string{program, "--home", v.home, "daemon"}
	for i, word := range words {
		quoted, err := unitWord(word)
		if err != nil {
			return "", err
		}
		words[i] = quoted
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n[Unit]\nDescription=p2pshare, which shares files between peers\n", unitMark)
	wanted := "default.target"
	if v.system {
		wanted = "multi-user.target"
		b.WriteString("Wants=network-online.target\nAfter=network-online.target\n")
	}
	fmt.Fprintf(&b, "\n[Service]\nType=exec\nExecStart=%s\nRestart=on-failure\nRestartSec=5\nTimeoutStopSec=30\n%s", strings.Join(words, " "), confined)
	if v.system {
		b.WriteString(isolated)
		if v.home != systemHome {
			home, err := unitWord(v.home)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "ReadWritePaths=%s\n", home)
		}
	}
	fmt.Fprintf(&b, "\n[Install]\nWantedBy=%s\n", wanted)
	return b.String(), nil
}

// unitWord quotes one word of a command line in a unit.
func unitWord(word string) (string, error) {
	if strings.ContainsFunc(word, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", usage("%s can't stand in a unit: it has a control character", share.Escape(word))
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`).Replace(word) + `"`, nil
}
