package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/share"
)

// settings are all of them, settled and checked.
type settings struct {
	home   string // absolute
	values map[string]value

	listen    []ma.Multiaddr
	bootstrap []ma.Multiaddr  // with /p2p/ID, or a dnsaddr without
	peers     []peer.AddrInfo // without an ID: to be learnt
	noLAN     bool
	lanPort   int // 0: the default
	noDHT     bool
	maxUp     int64 // bytes a second; 0: no limit
	maxDown   int64
	maxRepair int64         // 0: the default
	scrub     time.Duration // 0: the default
	cacheMax  int64         // bytes; 0: the default
	capacity  int64         // bytes; 0: half of what is free
	alias     string
	metrics   netip.AddrPort // zero: none
	pprof     bool
	logFile   string        // absolute; empty: stderr
	logLevel  *slog.Level   // nil: as -v says
	folder    string        // absolute; empty: there is none
	timeout   time.Duration // 0: none
}

// check parses the values into the fields.
func (s *settings) check() error {
	var err error
	for _, text := range s.values["listen"].texts {
		a, err := parseListen(text)
		if err != nil {
			return s.bad("listen", text, err)
		}
		s.listen = append(s.listen, a)
	}
	for _, text := range s.values["bootstrap"].texts {
		a, err := parseBootstrap(text)
		if err != nil {
			return s.bad("bootstrap", text, err)
		}
		s.bootstrap = append(s.bootstrap, a)
	}
	for _, text := range s.values["peer"].texts {
		if _, err := share.ParsePeer(text); err != nil {
			return s.bad("peer", text, control.ErrorOf(err))
		}
	}
	if s.peers, err = share.ParsePeers(s.values["peer"].texts); err != nil {
		return err
	}
	if s.noLAN, err = s.parseBool("no_lan"); err != nil {
		return err
	}
	if s.noDHT, err = s.parseBool("no_dht"); err != nil {
		return err
	}
	if s.lanPort, err = s.parsePort("lan_port"); err != nil {
		return err
	}
	if s.maxUp, err = s.parseRate("max_up"); err != nil {
		return err
	}
	if s.maxDown, err = s.parseRate("max_down"); err != nil {
		return err
	}
	if s.maxRepair, err = s.parseRate("max_repair"); err != nil {
		return err
	}
	if s.scrub, err = s.parseScrub(); err != nil {
		return err
	}
	if s.cacheMax, err = s.parseSize("cache_max", share.CacheMaxMin); err != nil {
		return err
	}
	if s.capacity, err = s.parseSize("capacity", 1); err != nil {
		return err
	}
	if s.alias = s.values["alias"].text(); s.alias == "" {
		s.alias, _ = os.Hostname() // a host without a name has none
	}
	if err := s.parseOperators(); err != nil {
		return err
	}
	return s.parseTimeout()
}

// parseOperators reads what only a daemon has.
func (s *settings) parseOperators() (err error) {
	if text := s.values["metrics"].text(); text != "" {
		if s.metrics, err = control.ParseMetricsAddr(text); err != nil {
			return s.bad("metrics", text, err)
		}
	}
	if s.pprof, err = s.parseBool("pprof"); err != nil {
		return err
	}
	if text := s.values["log_file"].text(); text != "" {
		if s.logFile, err = filepath.Abs(text); err != nil {
			return s.bad("log_file", text, err)
		}
	}
	if text := s.values["log_level"].text(); text != "" {
		s.logLevel = new(slog.Level)
		if s.logLevel.UnmarshalText([]byte(text)) != nil {
			return s.bad("log_level", text, errors.New("not debug, info, warn or error"))
		}
	}
	return nil
}

func (s *settings) parseScrub() (time.Duration, error) {
	text := s.values["scrub"].text()
	if text == "" {
		return 0, nil
	}
	d, err := parseSpan(text)
	switch {
	case err != nil:
		return 0, s.bad("scrub", text, err)
	case d < coord.ScrubMin:
		return 0, s.bad("scrub", text, fmt.Errorf("less than %s", coord.ScrubMin))
	}
	return d, nil
}

// parseSize reads a number of bytes, of which least is the least; none and 0 are the
// default.
func (s *settings) parseSize(key string, least int64) (int64, error) {
	text := s.values[key].text()
	if text == "" || text == "0" {
		return 0, nil
	}
	n, err := parseSize(text)
	switch {
	case err != nil:
		return 0, s.bad(key, text, err)
	case n < least:
		return 0, s.bad(key, text, fmt.Errorf("less than %s", size(least)))
	}
	return n, nil
}

func (s *settings) parsePort(key string) (int, error) {
	text := s.values[key].text()
	if text == "" {
		return 0, nil
	}
	port, err := strconv.Atoi(text)
	if err != nil || port < 1 || port > 65535 {
		return 0, s.bad(key, text, errors.New("not a port between 1 and 65535"))
	}
	return port, nil
}

// bad names a value that can't be used and where it came from. reason is one
// of ours, or has a hint of its own.
func (s *settings) bad(key, text string, reason error) error {
	e := usage("%s %q (%s): %s", key, text, s.values[key].from, control.OneLine(reason.Error()))
	var hinted *control.Error
	if errors.As(reason, &hinted) {
		e.Hint = hinted.Hint
	}
	return e
}

func (s *settings) parseBool(key string) (bool, error) {
	text := s.values[key].text()
	if text == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, s.bad(key, text, errors.New("not true or false"))
	}
	return b, nil
}

func (s *settings) parseTimeout() error {
	text := s.values["timeout"].text()
	if text == "" || text == "0" {
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return s.bad("timeout", text, errors.New("not a duration like 90s or 5m"))
	}
	s.timeout = d
	return nil
}
