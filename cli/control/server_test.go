package control

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
)

// startOffline runs a real, offline peer and its control API, TCP too.
func startOffline(t *testing.T) (home string, s *Server) {
	t.Helper()
	home = filepath.Join(t.TempDir(), "home")
	n, err := node.New(t.Context(), node.Config{Dir: home, Offline: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	l, err := share.Open(n, share.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s, err = Listen(Config{Home: home, Node: n, Library: l, Service: ServiceHome, TCP: true, Version: "test",
		Folder: filepath.Join(home, "..", "folder"), Page: testPage})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	return home, s
}

func TestServerAddsListsAndRemoves(t *testing.T) {
	home, _ := startOffline(t)
	client := connect(t, home)
	path := filepath.Join(t.TempDir(), "a.txt")
	if err := os.WriteFile(path, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	added, err := client.Add(t.Context(), AddRequest{Path: path}, func(Event) {})
	if err != nil {
		t.Fatal(err)
	}
	if added.Name != "a.txt" || added.Size != 6 || added.Announced != share.AnnouncedNone || !strings.HasPrefix(added.Link, "p2pshare:b3:") {
		t.Errorf("added %+v, want a.txt of 6 bytes, not announced, with a link", added)
	}
	st, err := client.Status(t.Context())
	if err != nil || st.Shares != 1 || st.Bytes != 6 || st.Home != home || st.Service != ServiceHome {
		t.Errorf("Status = %+v, %v, want 1 share of 6 bytes in %s", st, err, home)
	}
	for l, err := range client.Shares(t.Context()) {
		if err != nil || l.Name != "a.txt" || l.State != string(share.StateShared) || l.ID != added.ID {
			t.Errorf("listed %+v, %v, want a.txt, shared", l, err)
		}
	}
	var removed []Event
	if err := client.Remove(t.Context(), RemoveRequest{What: "a.txt"}, func(e Event) { removed = append(removed, e) }); err != nil || len(removed) != 1 {
		t.Errorf("Remove = %v, %v, want one", removed, err)
	}
	err = client.Remove(t.Context(), RemoveRequest{What: "a.txt"}, func(Event) {})
	checkError(t, err, &Error{Code: CodeNotFound})
}

func TestServerRefusesBadRequests(t *testing.T) {
	home, _ := startOffline(t)
	client := connect(t, home)
	ctx := t.Context()
	none := func(Event) {}
	get := func(req GetRequest) error { _, err := client.Get(ctx, req, nil, none); return err }
	limit := func(up int64) error { _, err := client.Limits(ctx, LimitsRequest{MaxUp: &up}); return err }
	keep := func(cache int64) error { _, err := client.Limits(ctx, LimitsRequest{CacheMax: &cache}); return err }
	add := func(req AddRequest) error { _, err := client.Add(ctx, req, none); return err }
	for name, tt := range map[string]struct {
		err  error
		want Code
	}{
		"relative path":    {add(AddRequest{Path: "a"}), CodeUsage},
		"missing path":     {add(AddRequest{Path: "/does/not/exist"}), CodeFailed},
		"bad name":         {add(AddRequest{Path: home, Name: ".."}), CodeUsage},
		"the home":         {add(AddRequest{Path: home}), CodeFailed},
		"limit below 0":    {limit(-1), CodeUsage},
		"limit of a byte":  {limit(1), CodeUsage},
		"cache of a byte":  {keep(1), CodeUsage},
		"cache below 0":    {keep(-1), CodeUsage},
		"bad ID":           {get(GetRequest{What: "b3:1", Dir: "/tmp"}), CodeUsage},
		"relative target":  {get(GetRequest{What: "a", Target: "a"}), CodeUsage},
		"bad peer":         {get(GetRequest{What: "a", Dir: "/tmp", Peers: []string{"x"}}), CodeUsage},
		"relative seeds":   {get(GetRequest{What: "a", Dir: "/tmp", SeedFrom: []string{"s"}}), CodeUsage},
		"bad inner path":   {get(GetRequest{What: "a", Dir: "/tmp", Path: "../x"}), CodeUsage},
		"stream and save":  {get(GetRequest{What: "a", Dir: "/tmp", Stream: true}), CodeUsage},
		"group":            {get(GetRequest{What: "@office/a", Dir: "/tmp"}), CodeNotFound},
		"nobody to ask":    {get(GetRequest{What: "a", Dir: t.TempDir()}), CodeNotFound},
		"empty what":       {client.Remove(ctx, RemoveRequest{}, none), CodeUsage},
		"no such transfer": {client.fetch(ctx, "/api/v1/nothing", new(Hello)), CodeFailed},
	} {
		var e *Error
		if !errors.As(tt.err, &e) || e.Code != tt.want {
			t.Errorf("%s: error = %v, want code %d", name, tt.err, tt.want)
		}
	}
}

func TestTCPNeedsTheTokenOfTheHome(t *testing.T) {
	home, s := startOffline(t)
	token, err := os.ReadFile(filepath.Join(home, tokenName))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for auth, want := range map[string]int{"": 401, "Bearer " + strings.TrimSpace(string(token)): 200} {
		for path, want := range map[string]int{pathID: want, "/": 200, "/b3/00": 404} {
			r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", auth)
			answer, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if answer.StatusCode != want {
				t.Errorf("GET %s with %d bytes of authorization = %d, want %d", path, len(auth), answer.StatusCode, want)
			}
		}
	}
}
