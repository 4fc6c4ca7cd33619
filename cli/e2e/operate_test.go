package e2e

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// ask sends a GET, and returns the status and the body.
func ask(t *testing.T, url string, set func(*http.Request)) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandMax)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if set != nil {
		set(r)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// sample is the value of a line of metrics that begins with what.
func sample(t *testing.T, metrics, what string) float64 {
	t.Helper()
	for line := range strings.Lines(metrics) {
		if rest, ok := strings.CutPrefix(line, what+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
	}
	t.Errorf("metrics have no %s", what)
	return -1
}

// TestMetricsOfADaemon has a daemon send a file, and asks what it counts; at the end
// its log is looked at, for secrets above all.
func TestMetricsOfADaemon(t *testing.T) {
	const size = 3 << 20
	sharer, getter := newPeer(t, loopback...), newPeer(t, loopback...)
	film := filepath.Join(sharer.dir, "film.mkv")
	writeRandom(t, film, size, "film")
	log := filepath.Join(t.TempDir(), "log")
	daemon := sharer.serve(t, "daemon", "--metrics", "127.0.0.1:0", "--pprof", "--log-file", log, "--log-level", "debug")
	link := sharer.must(t, "add", film).text("link")
	if r := sharer.runPlain(t, "group", "create", "office"); r.code != 0 {
		t.Fatalf("group create: exit %d %s", r.code, r.stderr)
	}
	getter.must(t, "get", link, "--peer", daemon.addr(t))

	open, api := daemon.ready.text("metrics"), daemon.ready.text("api")
	token, err := os.ReadFile(filepath.Join(sharer.home, "api.token"))
	if err != nil {
		t.Fatal(err)
	}
	bearer := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token))) }
	for name, row := range map[string]struct {
		url  string
		set  func(*http.Request)
		want int
	}{
		"open":                {open, nil, 200},
		"open, health":        {strings.TrimSuffix(open, "/metrics") + "/healthz", nil, 200},
		"open, another path":  {strings.TrimSuffix(open, "/metrics") + "/api/v1/status", nil, 404},
		"open, profiles":      {strings.TrimSuffix(open, "/metrics") + "/debug/pprof/", nil, 404},
		"open, rebound name":  {open, func(r *http.Request) { r.Host = "evil.example" }, 421},
		"open, foreign page":  {open, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 421},
		"api without a token": {api + "/metrics", nil, 401},
		"api":                 {api + "/metrics", bearer, 200},
		"api, health":         {api + "/healthz", bearer, 200},
		"api, profiles":       {api + "/debug/pprof/goroutine?debug=1", bearer, 200},
		"profiles, no token":  {api + "/debug/pprof/", nil, 401},
	} {
		if status, body := ask(t, row.url, row.set); status != row.want {
			t.Errorf("%s: status %d, want %d: %.200s", name, status, row.want, body)
		}
	}

	_, metrics := ask(t, open, nil)
	if sent := sample(t, metrics, `p2pshare_transfer_bytes_total{direction="up"}`); sent < size || sent > size*1.1 {
		t.Errorf("%v bytes sent, want about %d", sent, size)
	}
	for what, least := range map[string]float64{
		"p2pshare_hashed_bytes_total": size, "p2pshare_shares": 1, `p2pshare_group_voters{group="office"}`: 1,
		`p2pshare_group_leader{group="office"}`: 0, "p2pshare_verification_failures_total": 0, "p2pshare_dht_peers": 0, "p2pshare_dht_provides_waiting": 0,
		"p2pshare_neighbors": 0, "p2pshare_disk_free_bytes": 1, "p2pshare_cache_bytes": 0, "p2pshare_cache_quota_bytes": 1, "go_goroutines": 1, "process_resident_memory_bytes": 1 << 20,
	} {
		if got := sample(t, metrics, what); got < least {
			t.Errorf("%s = %v, want %v at least", what, got, least)
		}
	}
	if !strings.Contains(metrics, "libp2p_swarm_connections_opened_total") {
		t.Error("metrics have nothing of libp2p's own")
	}
	if code := daemon.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit %d", code)
	}

	text, err := os.ReadFile(log)
	if err != nil || len(text) == 0 {
		t.Fatalf("the log has %d bytes: %v", len(text), err)
	}
	key, err := os.ReadFile(filepath.Join(sharer.home, "identity.key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string]string{
		"token": strings.TrimSpace(string(token)), "key": strings.TrimSpace(string(key)),
		"key in base64": base64.RawStdEncoding.EncodeToString(key)[:40], "key in hex": hex.EncodeToString(key)[:40],
	} {
		if len(secret) < 32 {
			t.Errorf("the %s is %d bytes long", name, len(secret))
		} else if strings.Contains(string(text), secret) || strings.Contains(metrics, secret) || strings.Contains(daemon.stderr.String(), secret) {
			t.Errorf("the %s is told", name)
		}
	}
	for line := range strings.Lines(string(text)) {
		if !regexp.MustCompile(`^time=\S+ level=[A-Z]+ msg=`).MatchString(line) {
			t.Errorf("log line %q", line)
		}
	}
	if info, err := os.Stat(log); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("log: %v, %v", info.Mode(), err)
	}
}
