package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

// configName is the file of settings in the home.
const configName = "config.toml"

// setting is one thing a person can set: by a flag (its key with - for _), an
// environment variable (P2PSHARE_ and its key in capitals), or its key in
// config.toml.
type setting struct {
	key   string
	kind  settingKind
	usage string
	about string // what config explains: why one would set it, and the default
}

type settingKind int

const (
	textSetting settingKind = iota
	boolSetting
	listSetting // flag: repeatable; environment: with commas; file: an array of strings
)

// settingTable lists the settings in the order in which they are shown. The
// flag of timeout is global; those of the others are networkFlags, and of those that
// only a daemon has daemonFlags.
var settingTable = []setting{
	{"listen", listSetting, "listen on this `MULTIADDR` (repeatable; default: all interfaces, on a kept port)",
		"Where other peers reach this one. By default all interfaces, TCP and QUIC on one port that is drawn at the first start and kept. Name an address with port 0 to have a port drawn, loopback to be reached from this machine only."},
	{"bootstrap", listSetting, "enter the DHT through this `MULTIADDR`, with /p2p/ID (repeatable)",
		"Well-known peers through which the DHT is entered; none is built in. One that says dnsaddr is looked up in the DNS. Without any, peers are found on the local network, by links, and by peer."},
	{"peer", listSetting, "dial this `PEER`, IP:PORT or a multiaddr with /p2p/ID, and ask it first (repeatable)",
		"Peers that are dialled at start and asked first for every name and ID. An address without an ID is believed to be who answers there."},
	{"no_lan", boolSetting, "no multicast in or out",
		"Neither says hello on the local network nor listens there, and maps no port by multicast. By default it does."},
	{"lan_port", textSetting, "UDP `PORT` of the local network's groups (default 42042, and its neighbors' too)",
		"The UDP port of the local network's multicast groups. Peers with another one neither see nor hear this one."},
	{"no_dht", boolSetting, "no DHT",
		"Takes no part in either DHT: what is shared is found on the local network, by link and by peer only."},
	{"max_up", textSetting, "send at most `RATE` bytes of files a second, as 10M, 512K or 1.5MB (default: no limit)",
		"What of files goes to other peers, in bytes a second, shared fairly among them. p2pshare limits changes it until the peer stops."},
	{"max_down", textSetting, "receive at most `RATE` bytes of files a second (default: no limit)",
		"What of files comes from other peers, in bytes a second. p2pshare limits changes it until the peer stops."},
	{"max_repair", textSetting, "fetch at most `RATE` bytes a second for the groups' copies (default 100M)",
		"What the groups' copies may take of the network, in bytes a second, beside max_down: lower leaves more to people, higher is whole again sooner after a member was lost."},
	{"scrub", textSetting, "read each copy again at least every `SPAN`, as 7d or 12h (default 7d)",
		"How often each copy that is held for a group is read again and verified. Longer spares the disk, shorter finds what it has spoiled sooner."},
	{"cache_max", textSetting, "keep at most `SIZE` of what was read through the gateway and the drive (default 2G)",
		"What readers of the gateway, the drive and the page have fetched is kept for the next, 64M at least; what was not read for the longest goes first. p2pshare limits changes it until the peer stops, and gc empties it."},
	{"capacity", textSetting, "hold at most `SIZE` of copies for each group that is made or joined from here (default: half of what is free)",
		"The store's quota: what group create and group join offer to a group when they are not told --capacity. The members of a group plan by it, so for one that this peer is in already p2pshare group set --capacity changes it, while it runs and for good."},
	{"alias", textSetting, "`NAME` of this peer for people on the local network",
		"What neighbors see beside this peer's ID. Anyone can call itself anything."},
	{"metrics", textSetting, "serve Prometheus' metrics on loopback `ADDR` without a token",
		"A port, or a loopback address with one. A daemon answers /metrics and /healthz there to whoever is on this machine; the control API answers the same to who has its token."},
	{"pprof", boolSetting, "serve Go's profiles under /debug/pprof/ of the control API",
		"For who looks for where time and memory go. They are told to who has the token, and slow the peer down only while they are taken."},
	{"log_file", textSetting, "log to this `FILE`, and no longer to stderr",
		"A daemon writes there what it would write to stderr, at most 16 MiB: then the file is renamed to FILE.1, in the place of the one before. Only this user may read it."},
	{"log_level", textSetting, "log from this `LEVEL` on: debug, info, warn or error",
		"How much a daemon logs. By default nothing without -v or log_file, and from info on with one of them."},
	{"folder", textSetting, "save what the page gets in this `DIR`, and put there what is dropped on it (default: p2pshare in your home directory)",
		"Where the page saves, unless it is told another place, and where it copies what is dropped on it: a browser tells the bytes of a file, and not where it lies. It is made when it is needed."},
	{"timeout", textSetting, "",
		"After how long a command gives up; what it has done so far is kept. 0, the default, is never."},
}

func (s setting) flag() string { return strings.ReplaceAll(s.key, "_", "-") }
func (s setting) env() string  { return "P2PSHARE_" + strings.ToUpper(s.key) }

// networkFlags gives cmd the flags for running a peer.
func networkFlags(cmd *cobra.Command) { addFlagsOf(cmd, false) }

// daemonFlags gives cmd the flags for running a peer that stays.
func daemonFlags(cmd *cobra.Command) { addFlagsOf(cmd, true) }

// daemonKeys are the settings that only a peer that stays has.
var daemonKeys = []string{"cache_max", "capacity", "metrics", "pprof", "log_file", "log_level"}

func addFlagsOf(cmd *cobra.Command, daemon bool) {
	for _, s := range settingTable {
		switch {
		case s.usage == "" || !daemon && slices.Contains(daemonKeys, s.key):
		case s.kind == listSetting:
			cmd.Flags().StringArray(s.flag(), nil, s.usage)
		case s.kind == boolSetting:
			cmd.Flags().Bool(s.flag(), false, s.usage)
		default:
			cmd.Flags().String(s.flag(), "", s.usage)
		}
	}
}

// value is what a setting is, and where that comes from.
type value struct {
	texts []string // of a text or bool: at most one
	from  string   // "flag --x", "environment P2PSHARE_X", "config.toml" or "default"
}

func (v value) text() string { return strings.Join(v.texts, ",") }

// isFlag tells that the setting was given on the command line.
func (v value) isFlag() bool { return strings.HasPrefix(v.from, "flag") }

// settle reads every setting from its flag, else the environment, else
// config.toml in the home, else the default, and checks it. A bad one is an
// error that names it and where it came from.
func (a *app) settle(cmd *cobra.Command) (*settings, error) {
	s := &settings{values: map[string]value{}}
	var err error
	if s.values["home"], err = a.findHome(cmd); err != nil {
		return nil, err
	}
	s.home = s.values["home"].text()
	file, err := readConfig(filepath.Join(s.home, configName))
	if err != nil {
		return nil, err
	}
	for _, row := range settingTable {
		s.values[row.key] = a.pick(cmd, row, file)
	}
	if s.folder, err = a.findFolder(s.values["folder"].text()); err != nil {
		return nil, err
	}
	return s, s.check()
}

// findFolder tells where the page saves, absolute: p2pshare in the person's home directory,
// or nowhere if there is none.
func (a *app) findFolder(text string) (string, error) {
	if text != "" {
		return filepath.Abs(text)
	}
	dir := a.io.Env("HOME")
	if runtime.GOOS == "windows" {
		dir = a.io.Env("USERPROFILE")
	}
	if dir == "" || !filepath.IsAbs(dir) {
		return "", nil
	}
	return filepath.Join(dir, "p2pshare"), nil
}

// findHome tells the home directory, absolute.
func (a *app) findHome(cmd *cobra.Command) (value, error) {
	v := a.pick(cmd, setting{key: "home"}, nil)
	if v.text() == "" {
		data := a.io.Env("XDG_DATA_HOME")
		if runtime.GOOS == "windows" {
			data = cmp.Or(data, a.io.Env("LocalAppData"))
		} else if home := a.io.Env("HOME"); data == "" && home != "" {
			data = filepath.Join(home, ".local", "share")
		}
		if data == "" {
			return v, usage("there is no home directory").WithHint("name one with --home DIR or P2PSHARE_HOME")
		}
		v.texts = []string{filepath.Join(data, "p2pshare")}
	}
	abs, err := filepath.Abs(v.text())
	v.texts = []string{abs}
	return v, err
}

// pick applies the precedence to one setting.
func (a *app) pick(cmd *cobra.Command, row setting, file map[string][]string) value {
	if f := cmd.Flags().Lookup(row.flag()); f != nil && f.Changed {
		texts := []string{f.Value.String()}
		if row.kind == listSetting {
			texts, _ = cmd.Flags().GetStringArray(row.flag())
		}
		return value{nonEmpty(texts), "flag --" + row.flag()}
	}
	if text := a.io.Env(row.env()); text != "" {
		texts := []string{text}
		if row.kind == listSetting {
			texts = strings.Split(text, ",")
		}
		return value{nonEmpty(texts), "environment " + row.env()}
	}
	if texts, ok := file[row.key]; ok {
		return value{nonEmpty(texts), configName}
	}
	return value{nil, "default"}
}

func nonEmpty(texts []string) []string {
	var kept []string
	for _, t := range texts {
		if t = strings.TrimSpace(t); t != "" {
			kept = append(kept, t)
		}
	}
	return kept
}

// configMax bounds config.toml.
const configMax = 1 << 20

// readConfig reads a file of settings; one that is not there has none.
func readConfig(path string) (map[string][]string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && info.Size() > configMax {
		return nil, usage("%s has more than %d bytes", share.Escape(path), configMax)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var raw map[string]any
	if _, err := toml.Decode(string(data), &raw); err != nil {
		return nil, usage("%s: %s", share.Escape(path), control.OneLine(strings.TrimPrefix(err.Error(), "toml: "))).
			WithHint("correct the file, or remove it")
	}
	file := map[string][]string{}
	for key, v := range raw {
		i := slices.IndexFunc(settingTable, func(s setting) bool { return s.key == key })
		if i < 0 {
			return nil, usage("%s: unknown key %q", share.Escape(path), key).
				WithHint("known keys are %s", strings.Join(settingKeys(), ", "))
		}
		texts, ok := settingTable[i].kind.texts(v)
		if !ok {
			return nil, usage("%s: %s must be %s", share.Escape(path), key, settingTable[i].kind)
		}
		file[key] = texts
	}
	return file, nil
}

func settingKeys() []string {
	var keys []string
	for _, s := range settingTable {
		keys = append(keys, s.key)
	}
	return keys
}

func (k settingKind) String() string {
	return [...]string{"a string", "true or false", "an array of strings"}[k]
}

// texts turns a decoded TOML value into the form of value.texts.
func (k settingKind) texts(v any) (texts []string, ok bool) {
	switch v := v.(type) {
	case string:
		return []string{v}, k == textSetting
	case bool:
		return []string{strconv.FormatBool(v)}, k == boolSetting
	case []any:
		for _, item := range v {
			text, isText := item.(string)
			if !isText {
				return nil, false
			}
			texts = append(texts, text)
		}
		return texts, k == listSetting
	}
	return nil, false
}

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config [KEY…]",
		Short: "Print every setting and where it comes from, or explain some",
		Long: `Print every setting and where it comes from: its flag, else its variable of the
environment, else config.toml in the home, else the default. With KEYs, explain
those settings.`,
		Example: "  p2pshare config\n  p2pshare config max_up scrub",
		Args:    arguments("KEYs of settings", 0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, key := range args {
				if !slices.Contains(settingKeys(), key) {
					return usageOf(cmd, "unknown key %q", key).WithHint("known keys are %s", strings.Join(settingKeys(), ", "))
				}
			}
			s, err := a.settle(cmd)
			if err != nil {
				return err
			}
			for _, row := range append([]setting{{key: "home"}}, settingTable...) {
				switch {
				case len(args) == 0:
					a.printSetting(row, s.values[row.key])
				case slices.Contains(args, row.key):
					a.explainSetting(row, s.values[row.key])
				}
			}
			return nil
		},
	}
	daemonFlags(cmd)
	return cmd
}

// explainSetting tells what a setting is for.
func (a *app) explainSetting(row setting, v value) {
	if a.json {
		a.emitLine(struct {
			Key   string `json:"key"`
			Kind  string `json:"kind"`
			About string `json:"about"`
			Flag  string `json:"flag"`
			Env   string `json:"env"`
		}{row.key, row.kind.String(), row.about, "--" + row.flag(), row.env()})
		return
	}
	a.printSetting(row, v)
	for _, line := range wrap(row.about, 76) {
		fmt.Fprintf(a.out, "    %s\n", line)
	}
	fmt.Fprintf(a.out, "    In %s it is %s; else --%s, or %s.\n", configName, row.kind, row.flag(), row.env())
}

// wrap cuts text into lines of at most width bytes, but for longer words.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

func (a *app) printSetting(row setting, v value) {
	if !a.json {
		fmt.Fprintf(a.out, "%-10s %s  (%s)\n", row.key, share.Escape(cmp.Or(strings.Join(v.texts, ", "), "-")), v.from)
		return
	}
	line := struct {
		Key   string `json:"key"`
		Value any    `json:"value"`
		From  string `json:"from"`
	}{row.key, v.text(), v.from}
	switch row.kind {
	case listSetting:
		line.Value = append([]string{}, v.texts...)
	case boolSetting:
		line.Value = v.text() == "true" || v.text() == "1"
	}
	a.emitLine(line)
}
