package cli

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/spf13/cobra"
)

const testID = "12D3KooWPmZov2VC7oq4XnaKCiPJmWvjwhurEGtsjFkrQPAssVG9"

// settleWith settles the settings of a command run with args in a home with
// that config.toml.
func settleWith(t *testing.T, file string, env map[string]string, args ...string) (*settings, error) {
	t.Helper()
	home := t.TempDir()
	if file != "" {
		if err := os.WriteFile(filepath.Join(home, configName), []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := &app{io: IO{Env: func(key string) string { return env[key] }}}
	cmd := &cobra.Command{Use: "test"}
	cmd.Flags().String("home", home, "")
	cmd.Flags().String("timeout", "", "")
	networkFlags(cmd)
	if err := cmd.ParseFlags(append([]string{"--home", home}, args...)); err != nil {
		t.Fatal(err)
	}
	return a.settle(cmd)
}

func TestSettingsPrecedence(t *testing.T) {
	tests := []struct {
		name string
		file string
		env  map[string]string
		args []string
		key  string
		want []string
		from string
	}{
		{"default", "", nil, nil, "listen", nil, "default"},
		{"file", `listen = ["/ip4/127.0.0.1/tcp/1"]`, nil, nil, "listen", []string{"/ip4/127.0.0.1/tcp/1"}, "config.toml"},
		{"environment over file", `listen = ["/ip4/127.0.0.1/tcp/1"]`, map[string]string{"P2PSHARE_LISTEN": "/ip4/127.0.0.1/tcp/2, /ip4/127.0.0.1/tcp/3"}, nil,
			"listen", []string{"/ip4/127.0.0.1/tcp/2", "/ip4/127.0.0.1/tcp/3"}, "environment P2PSHARE_LISTEN"},
		{"flag over environment", "", map[string]string{"P2PSHARE_LISTEN": "/ip4/127.0.0.1/tcp/2"}, []string{"--listen", "/ip4/127.0.0.1/tcp/4", "--listen", "/ip4/127.0.0.1/tcp/5"},
			"listen", []string{"/ip4/127.0.0.1/tcp/4", "/ip4/127.0.0.1/tcp/5"}, "flag --listen"},
		{"empty flag empties", `listen = ["/ip4/127.0.0.1/tcp/1"]`, nil, []string{"--listen", ""}, "listen", nil, "flag --listen"},
		{"empty environment is none", `no_dht = true`, map[string]string{"P2PSHARE_NO_DHT": ""}, nil, "no_dht", []string{"true"}, "config.toml"},
		{"false flag over true file", `no_dht = true`, nil, []string{"--no-dht=false"}, "no_dht", []string{"false"}, "flag --no-dht"},
		{"text", `alias = "ann"`, nil, nil, "alias", []string{"ann"}, "config.toml"},
		{"timeout", `timeout = "5m"`, map[string]string{"P2PSHARE_TIMEOUT": "1m"}, nil, "timeout", []string{"1m"}, "environment P2PSHARE_TIMEOUT"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := settleWith(t, tt.file, tt.env, tt.args...)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.values[tt.key]; !slices.Equal(got.texts, tt.want) || got.from != tt.from {
				t.Errorf("%s = %q (%s), want %q (%s)", tt.key, got.texts, got.from, tt.want, tt.from)
			}
		})
	}
}

func TestSettingsAreParsed(t *testing.T) {
	full := "/ip4/127.0.0.1/tcp/1/p2p/" + testID
	s, err := settleWith(t, "no_lan = true\ntimeout = \"90s\"", nil,
		"--bootstrap", full, "--bootstrap", "/dnsaddr/example.org", "--peer", full, "--peer", "127.0.0.1:2", "--no-dht")
	if err != nil {
		t.Fatal(err)
	}
	if len(s.bootstrap) != 2 || len(s.peers) != 2 || s.peers[0].ID.String() != testID || s.peers[1].ID != "" || !s.noLAN || !s.noDHT || s.timeout != 90*time.Second {
		t.Errorf("settings = %+v", s)
	}
}

func TestBadSettingsExit2AndAreNamed(t *testing.T) {
	tests := []struct{ file, flag, value string }{
		{"", "--bootstrap", "nonsense"},
		{"", "--bootstrap", "/ip4/127.0.0.1/tcp/1"},
		{"", "--bootstrap", "127.0.0.1:1"},
		{"", "--listen", "nonsense"},
		{"", "--listen", "/ip4/127.0.0.1"},
		{"", "--listen", "/ip4/127.0.0.1/tcp/1/p2p/" + testID},
		{"", "--peer", "nonsense"},
		{"", "--peer", "127.0.0.1:0"},
		{"", "--peer", "/ip4/127.0.0.1/tcp/1"},
		{"", "--timeout", "-1s"},
		{"", "--timeout", "soon"},
		{`lisen = []`, "", ""},
		{`listen = "x"`, "", ""},
		{`listen = [1]`, "", ""},
		{`no_dht = "yes"`, "", ""},
		{`no_dht = `, "", ""},
		{`[table]`, "", ""},
	}
	for _, tt := range tests {
		var args []string
		if tt.flag != "" {
			args = []string{tt.flag, tt.value}
		}
		_, err := settleWith(t, tt.file, nil, args...)
		var e *control.Error
		if !errors.As(err, &e) || e.Code != control.CodeUsage || e.Hint == "" {
			t.Errorf("file %q, %v: error = %v, want one of code 2 with a hint", tt.file, args, err)
		}
	}
}

func TestHomeDefault(t *testing.T) {
	tests := []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"P2PSHARE_HOME": "/x", "XDG_DATA_HOME": "/data", "HOME": "/home/ann"}, "/x"},
		{map[string]string{"XDG_DATA_HOME": "/data", "HOME": "/home/ann"}, "/data/p2pshare"},
		{map[string]string{"HOME": "/home/ann"}, "/home/ann/.local/share/p2pshare"},
	}
	for _, tt := range tests {
		a := &app{io: IO{Env: func(key string) string { return tt.env[key] }}}
		got, err := a.findHome(&cobra.Command{})
		if err != nil || got.text() != filepath.FromSlash(tt.want) {
			t.Errorf("findHome with %v = %q, %v, want %q", tt.env, got.text(), err, tt.want)
		}
	}
}
