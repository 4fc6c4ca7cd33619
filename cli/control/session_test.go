package control

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCodesAreGoodOnceAndForAMinute(t *testing.T) {
	ss := new(sessions)
	now := time.Now()
	first, second := ss.newCode(now), ss.newCode(now)
	if _, ok := ss.login("", now); ok {
		t.Error("an empty code is good")
	}
	key, ok := ss.login(first, now.Add(codeLife))
	if !ok || !ss.has(key) {
		t.Errorf("login = %v, has %v, want both", ok, ss.has(key))
	}
	if _, ok := ss.login(first, now); ok {
		t.Error("a code is good twice")
	}
	if _, ok := ss.login(second, now.Add(codeLife+1)); ok {
		t.Error("a code is good after its time")
	}
	if _, ok := ss.login(second, now); ok {
		t.Error("a code that was tried too late is good still")
	}
	third := ss.newCode(now)
	for range codesMax {
		ss.newCode(now)
	}
	if _, ok := ss.login(third, now); ok {
		t.Errorf("a code is good after %d newer ones", codesMax)
	}
	if ss.end(key); ss.has(key) || ss.has("") {
		t.Error("a session goes on after its end")
	}
}

func TestSessionsAreBounded(t *testing.T) {
	ss := new(sessions)
	now := time.Now()
	var keys []string
	for range sessionsMax + 1 {
		key, _ := ss.login(ss.newCode(now), now)
		keys = append(keys, key)
	}
	if ss.has(keys[0]) || !ss.has(keys[1]) || !ss.has(keys[sessionsMax]) {
		t.Errorf("of %d sessions the oldest should have ended, and no other", len(keys))
	}
}

var testPage = fstest.MapFS{
	"index.html": {Data: []byte("<p>the page")},
	"login.html": {Data: []byte("<style>p{}</style><script>1</script>")},
	"app.js":     {Data: []byte("1")},
}

// TestBrowserGetsInByACode does over TCP what p2pshare ui and a browser do.
func TestBrowserGetsInByACode(t *testing.T) {
	home, s := startOffline(t)
	session, err := connect(t, home).NewSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	origin, code, ok := strings.Cut(session.URL, "/#")
	if !ok || origin != s.URL() || len(code) != 64 {
		t.Fatalf("URL %q, want %s/#CODE", session.URL, s.URL())
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar}
	do := func(method, path, authorization string) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, origin+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{"Content-Type": {"application/json"}, "Origin": {origin}, "Sec-Fetch-Site": {"same-origin"}}
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { answer.Body.Close() })
		return answer
	}
	status := func(method, path, authorization string, want int) *http.Response {
		t.Helper()
		answer := do(method, path, authorization)
		if answer.StatusCode != want {
			t.Errorf("%s %s = %s, want %d", method, path, answer.Status, want)
		}
		return answer
	}
	page := func() string {
		t.Helper()
		text, err := io.ReadAll(status("GET", "/", "", 200).Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if got := page(); got != string(testPage["login.html"].Data) {
		t.Errorf("without a cookie / is %q", got)
	}
	status("GET", "/ui/app.js", "", 401)
	status("POST", pathLogin, "Code "+strings.Repeat("0", 64), 401)
	status("GET", pathLogin, "Code "+code, 401)
	in := status("POST", pathLogin, "Code "+code, 200)
	if cookie := in.Header.Get("Set-Cookie"); !strings.HasSuffix(cookie, "; Path=/; HttpOnly; SameSite=Strict") || !strings.HasPrefix(cookie, "p2pshare-") {
		t.Errorf("Set-Cookie: %q, want one that is HttpOnly and SameSite=Strict", cookie)
	}
	if got := page(); got != string(testPage["index.html"].Data) {
		t.Errorf("with the cookie / is %q", got)
	}
	status("GET", "/ui/app.js", "", 200)
	status("GET", "/ui/login.html", "", 404)
	status("GET", "/ui/..%2fapi.token", "", 404)
	status("GET", pathStatus, "", 200)
	status("POST", pathLimits, "", 200)
	status("POST", pathLogin, "Code "+code, 401)
	status("POST", pathLogout, "", 200)
	status("GET", pathStatus, "", 401)
}

func TestPagesAreClosedToOthers(t *testing.T) {
	_, s := startOffline(t)
	answer, err := http.Get(s.URL() + "/")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	want := http.Header{
		"Content-Security-Policy": {"default-src 'none'; script-src 'sha256-a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s='; " +
			"style-src 'sha256-gG2yISYereRMiG2lMXrbiUgi0Ubw9p7QCeWcroOvy9Y='; img-src data:; connect-src 'self'; " +
			"form-action 'none'; base-uri 'none'; frame-ancestors 'none'"},
		"X-Content-Type-Options": {"nosniff"}, "X-Frame-Options": {"DENY"}, "Referrer-Policy": {"no-referrer"},
		"Cross-Origin-Opener-Policy": {"same-origin"}, "Cross-Origin-Resource-Policy": {"same-origin"},
		"Cache-Control": {"no-store"}, "Content-Type": {"text/html; charset=utf-8"},
	}
	got := http.Header{}
	for name := range want {
		got[name] = answer.Header[name]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers of / (-want +got):\n%s", diff)
	}
}

// TestNothingIsChangedByGET asks by GET for all that changes something.
func TestNothingIsChangedByGET(t *testing.T) {
	home, _ := startOffline(t)
	client := connect(t, home)
	reads := map[string]bool{}
	table := new(Server).table(t.Context(), nil)
	for _, r := range table {
		reads[r.path] = reads[r.path] || r.method == http.MethodGet
	}
	tried := 0
	for _, r := range table {
		if r.method == http.MethodGet || reads[r.path] {
			continue
		}
		tried++
		path := strings.ReplaceAll(r.path, "{op}", "create")
		answer, err := client.http.Get("http://p2pshare" + path + "?name=x&id=1&what=x&who=x&path=" + home)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("GET %s = %s, want 405", path, answer.Status)
		}
	}
	if tried < 10 {
		t.Errorf("only %d paths were tried", tried)
	}
	for _, override := range []string{"X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"} {
		r, err := http.NewRequest(http.MethodGet, "http://p2pshare"+pathLogout+"?_method=POST", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(override, "POST")
		answer, err := client.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("GET with %s: POST = %s, want 405", override, answer.Status)
		}
	}
}
