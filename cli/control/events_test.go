package control

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// follower reads server-sent events.
type follower struct {
	t     *testing.T
	lines *bufio.Scanner
}

func follow(t *testing.T, ctx context.Context, c *Client) (*follower, *http.Response) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, "GET", "http://p2pshare"+pathEvents, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	return &follower{t, bufio.NewScanner(answer.Body)}, answer
}

// next returns the data of the next event of a kind.
func (f *follower) next(kind string, into any) {
	f.t.Helper()
	event := ""
	for f.lines.Scan() {
		if name, ok := strings.CutPrefix(f.lines.Text(), "event: "); ok {
			event = name
		}
		data, ok := strings.CutPrefix(f.lines.Text(), "data: ")
		if !ok || event != kind {
			continue
		}
		if err := json.Unmarshal([]byte(data), into); err != nil {
			f.t.Fatalf("event %s: %v", kind, err)
		}
		return
	}
	f.t.Fatalf("the events ended before one of the kind %s: %v", kind, f.lines.Err())
}

func TestEventsTellWhatIsAndWhatChanges(t *testing.T) {
	home, _ := startOffline(t)
	client := connect(t, home)
	events, answer := follow(t, t.Context(), client)
	if answer.StatusCode != 200 || answer.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s, %s", answer.Status, answer.Header.Get("Content-Type"))
	}
	var hello Hello
	events.next("hello", &hello)
	if hello.PeerID != client.Hello().PeerID {
		t.Errorf("hello of %s, want %s", hello.PeerID, client.Hello().PeerID)
	}
	var moving Moving
	events.next("transfers", &moving)
	if moving.Transfers == nil || len(moving.Transfers) > 0 {
		t.Errorf("transfers = %+v, want an empty list", moving)
	}
	path := filepath.Join(t.TempDir(), "a.txt")
	if err := os.WriteFile(path, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Add(t.Context(), AddRequest{Path: path}, func(Event) {}); err != nil {
		t.Fatal(err)
	}
	for changed := (SharesChanged{}); changed.Rev == 0; {
		events.next("shares", &changed)
	}
	if _, err := client.GetDetached(t.Context(), GetRequest{What: "nobody has it", Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	for {
		events.next("transfers", &moving)
		if len(moving.Transfers) == 1 && moving.Transfers[0].State == TransferFailed {
			break
		}
	}
	failed := moving.Transfers[0]
	if failed.What != "nobody has it" || failed.Error == nil || failed.Error.Code != CodeNotFound || failed.Problem != failed.Error.Message {
		t.Errorf("the transfer failed as %+v, want what was asked for, and not found", failed)
	}
}

// TestEventsAreForAFewClients: and who leaves makes room.
func TestEventsAreForAFewClients(t *testing.T) {
	home, s := startOffline(t)
	client := connect(t, home)
	ctx, leave := context.WithCancel(t.Context())
	for range watchersMax {
		if _, answer := follow(t, ctx, client); answer.StatusCode != 200 {
			t.Fatal(answer.Status)
		}
	}
	if _, answer := follow(t, t.Context(), client); answer.StatusCode != 403 {
		t.Errorf("client %d: %s, want 403", watchersMax+1, answer.Status)
	}
	leave()
	for s.watchers.Load() > 0 { // their contexts end with their connections
		runtime.Gosched()
	}
	if _, answer := follow(t, t.Context(), client); answer.StatusCode != 200 {
		t.Errorf("after the others left: %s, want 200", answer.Status)
	}
}
