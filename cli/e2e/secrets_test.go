package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// secrets are texts that no log may hold, by what they are.
type secrets map[string]string

// add takes up a secret, which has to be long enough that no log has it by chance.
func (s secrets) add(t *testing.T, what, secret string) string {
	t.Helper()
	if len(secret) < 20 {
		t.Fatalf("the %s is %q", what, secret)
	}
	s[what] = secret
	return secret
}

// addFile takes up what a file holds, as it is, in hexadecimal and in base64.
func (s secrets) addFile(t *testing.T, what, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := s.add(t, what, strings.TrimSpace(string(data)))
	s.add(t, what+" in hexadecimal", hex.EncodeToString(data)[:40])
	s.add(t, what+" in base64", base64.RawStdEncoding.EncodeToString(data)[:40])
	return text
}

// post sends a request as a page does.
func post(t *testing.T, client *http.Client, url, kind, body string, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	r.Header.Set("Origin", "http://"+r.URL.Host)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	io.Copy(io.Discard, answer.Body)
	return answer
}

// TestLogsHoldNoSecrets has two daemons log all they can while tokens, codes, cookies,
// invitations and keys are made and used, rightly and wrongly.
func TestLogsHoldNoSecrets(t *testing.T) {
	ann, ben := newPeer(t, loopback...), newPeer(t, loopback...)
	writeRandom(t, filepath.Join(ann.dir, "film.mkv"), 1<<20, "film")
	log := filepath.Join(t.TempDir(), "log")
	annDaemon := ann.serve(t, "daemon", "-vv", "--pprof", "--log-level", "debug")
	benDaemon := ben.serve(t, "daemon", "-vv", "--log-file", log, "--log-level", "debug", "--peer", annDaemon.addr(t))
	known := secrets{}
	var told bytes.Buffer // on stderr by commands that say all they can, too
	run := func(p *peer, want int, args ...string) event {
		t.Helper()
		r := p.runPlain(t, append(args, "-vv")...)
		told.WriteString(r.stderr)
		if r.code != want || len(r.events) == 0 {
			t.Fatalf("p2pshare %s: exit %d, want %d\n%s", strings.Join(args, " "), r.code, want, r.stderr)
		}
		return r.events[len(r.events)-1]
	}
	for name, p := range map[string]*peer{"ann's": ann, "ben's": ben} {
		known.addFile(t, name+" identity", filepath.Join(p.home, "identity.key"))
	}
	token := known.addFile(t, "token", filepath.Join(ann.home, "api.token"))
	run(ann, 0, "add", "film.mkv")

	// A browser gets in; another tries with a code that is used, and a token that is wrong.
	api := annDaemon.ready.text("api")
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	_, code, _ := strings.Cut(run(ann, 0, "ui", "--no-browser").text("url"), "#")
	known.add(t, "code", code)
	for _, want := range []int{200, 401} {
		if answer := post(t, browser, api+"/api/v1/login", "application/json", "{}", "Authorization", "Code "+code); answer.StatusCode != want {
			t.Errorf("login: %s, want %d", answer.Status, want)
		}
	}
	at, _ := url.Parse(api)
	for _, c := range jar.Cookies(at) {
		known.add(t, "cookie", c.Value)
	}
	wrong := known.add(t, "wrong token", token[:len(token)-1]+"x")
	for header, want := range map[string]int{token: 415, wrong: 401} {
		if answer := post(t, new(http.Client), api+"/api/v1/limits", "text/plain", "{}", "Authorization", "Bearer "+header); answer.StatusCode != want {
			t.Errorf("post: %s, want %d", answer.Status, want)
		}
	}

	// A link is opened, with a wrong code first, and used.
	link := ann.start(t, "serve-link", "film.mkv", "--address", "127.0.0.1", "--receive", t.TempDir(), "-vv")
	base, code, _ := strings.Cut(link.await(t, "the link", func(e event) bool { return e.text("event") == "serving" }).text("url"), "/#")
	known.add(t, "link's code", code)
	for _, code := range []string{known.add(t, "wrong link's code", strings.Repeat("wrong", 5)), code} {
		post(t, browser, base+"/open", "application/x-www-form-urlencoded", url.Values{"code": {code}}.Encode())
	}
	at, _ = url.Parse(base)
	for _, c := range jar.Cookies(at) {
		known.add(t, "link's cookie "+c.Name, c.Value)
	}
	if answer, err := browser.Get(base + "/file"); err != nil || answer.StatusCode != 200 {
		t.Errorf("the link: %v, %v", answer, err)
	} else {
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
	}

	// A group is made, joined, backed up and recovered; an invitation is tried twice.
	created := run(ann, 0, "group", "create", "office")
	recovery := known.add(t, "recovery key", created.text("recovery_key"))
	invitation := known.add(t, "invitation", run(ann, 0, "group", "invite", "--role", "reader").text("token"))
	var inside struct {
		Seed string `json:"seed"`
	}
	body, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(invitation, "p2pshare-invite-"))
	if err == nil {
		err = json.Unmarshal(body, &inside)
	}
	if err != nil {
		t.Fatalf("the invitation: %v", err)
	}
	known.add(t, "seed", inside.Seed)
	run(ben, 0, "group", "join", invitation)
	run(ben, 0, "group", "leave", "--force")
	run(ben, 9, "group", "join", invitation)
	backup := filepath.Join(t.TempDir(), "backup")
	run(ann, 0, "group", "backup", backup)
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(recovery+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(ann, 9, "group", "recover", "--key", key, "--yes") // it has a leader
	for end := time.Now().Add(time.Minute); ; {            // until ben has seen that he left
		r := ben.runPlain(t, "group", "restore", backup, "--key", key, "-vv")
		told.WriteString(r.stderr)
		if r.code == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("group restore: exit %d\n%s", r.code, r.stderr)
		}
	}

	for _, p := range []*process{annDaemon, benDaemon} {
		if exit := p.end(t, syscall.SIGTERM); exit != 0 {
			t.Errorf("exit %d", exit)
		}
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	ready, err := json.Marshal(annDaemon.ready)
	if err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{
		"ann's stderr": annDaemon.stderr.String(), "ben's log": string(text), "ben's stderr": benDaemon.stderr.String(),
		"what commands said": told.String(), "what serve-link said": link.stderr.String(), "the event ready": string(ready),
	} {
		for what, secret := range known {
			if strings.Contains(text, secret) {
				t.Errorf("%s is told in %s", what, where)
			}
		}
	}
	for where, text := range map[string]string{"ann's stderr": annDaemon.stderr.String(), "ben's log": string(text)} {
		if !strings.Contains(text, "level=DEBUG") || !strings.Contains(text, "level=INFO") {
			t.Errorf("%s does not hold all there is to tell:\n%s", where, text)
		}
	}
}
