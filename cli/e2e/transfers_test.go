package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// awaitTransfer asks for the transfers of p until one matches.
func awaitTransfer(t *testing.T, p *peer, what string, match func(event) bool) event {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		r := p.runPlain(t, "transfers")
		if i := slices.IndexFunc(r.events, match); r.code == 0 && i >= 0 {
			return r.events[i]
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s: exit %d: %v %s", what, r.code, r.events, r.stderr)
		}
	}
}

func changeTransfer(t *testing.T, p *peer, op, id string) event {
	t.Helper()
	r := p.runPlain(t, "transfers", op, id)
	if r.code != 0 || len(r.events) != 1 {
		t.Fatalf("transfers %s %s: exit %d: %s", op, id, r.code, r.stderr)
	}
	return r.events[0]
}

// TestTransfersArePausedAndResumed has a daemon get a file in the background, from
// one that is limited so that there is time: the get is listed at both ends, paused,
// paused still after a restart of the daemon, resumed and done; and another cancelled.
func TestTransfersArePausedAndResumed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	sharer, getter := newPeer(t, loopback...), newPeer(t, loopback...)
	film := filepath.Join(sharer.dir, "film.mkv")
	writeRandom(t, film, 12<<20, "film")
	serving := sharer.serve(t, "daemon", "--max-up", "4M")
	link := sharer.must(t, "add", film).text("link")
	daemon := getter.serve(t, "daemon")

	accepted := getter.must(t, "get", link, "--background", "--peer", serving.addr(t))
	id := accepted.text("id")
	if accepted.text("event") != "accepted" || id == "" {
		t.Fatalf("get --background: %v, want it accepted with an id", accepted)
	}
	is := func(state string) func(event) bool {
		return func(e event) bool { return e.text("id") == id && e.text("state") == state }
	}
	moving := awaitTransfer(t, getter, "bytes", func(e event) bool {
		sources, _ := e["sources"].([]any)
		return is("running")(e) && e.number("done") > 1<<20 && e.number("rate") > 0 && len(sources) == 1
	})
	if moving.text("direction") != "down" || moving.text("name") != "film.mkv" || moving.number("total") != 12<<20 || moving.text("content") == "" {
		t.Errorf("the transfer is listed as %v", moving)
	}
	awaitTransfer(t, sharer, "the upload", func(e event) bool {
		return e.text("direction") == "up" && e.text("peer") == daemon.id() && e.text("name") == "film.mkv" && e.number("done") > 0
	})
	if e := changeTransfer(t, getter, "pause", id); e.text("state") != "paused" {
		t.Fatalf("pause: %v", e)
	}
	partial := filepath.Join(getter.dir, ".film.mkv.p2p-part")
	if !exists(partial) {
		t.Error("a paused transfer has no partial file")
	}
	daemon.end(t, syscall.SIGTERM)
	daemon = getter.serve(t, "daemon")
	awaitTransfer(t, getter, "the paused transfer after a restart", is("paused"))
	if e := changeTransfer(t, getter, "resume", id); e.text("state") != "running" {
		t.Fatalf("resume: %v", e)
	}
	awaitTransfer(t, getter, "its end", is("done"))
	sameFile(t, film, filepath.Join(getter.dir, "film.mkv"))

	other := filepath.Join(sharer.dir, "other.mkv")
	writeRandom(t, other, 12<<20, "other")
	id = getter.must(t, "get", sharer.must(t, "add", other).text("link"), "--background").text("id")
	awaitTransfer(t, getter, "bytes", func(e event) bool { return is("running")(e) && e.number("done") > 0 })
	if e := changeTransfer(t, getter, "cancel", id); e.text("state") != "cancelled" {
		t.Fatalf("cancel: %v", e)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		listed := getter.runPlain(t, "transfers").events
		if !slices.ContainsFunc(listed, func(e event) bool { return e.text("id") == id }) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("what was cancelled is listed still: %v", listed)
		}
	}
	if exists(filepath.Join(getter.dir, "other.mkv")) || !exists(filepath.Join(getter.dir, ".other.mkv.p2p-part")) {
		t.Error("what was cancelled is complete, or has no partial file")
	}
	for _, args := range [][]string{{"pause", "99"}, {"cancel", "nonsense"}} {
		if r := getter.runPlain(t, append([]string{"transfers"}, args...)...); r.code != 3 {
			t.Errorf("transfers %v: exit %d, want 3", args, r.code)
		}
	}
	daemon.end(t, syscall.SIGTERM)
	if r := getter.runPlain(t, "transfers"); r.code != 1 {
		t.Errorf("transfers without a peer: exit %d, want 1", r.code)
	}
}

// TestGetIncludeFetchesOnlyThat gets a part of a directory.
func TestGetIncludeFetchesOnlyThat(t *testing.T) {
	sharer, getter := newPeer(t, loopback...), newPeer(t, loopback...)
	tree := filepath.Join(sharer.dir, "tree")
	for _, dir := range []string{"keep", "leave"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		writeRandom(t, filepath.Join(tree, dir, "a.bin"), 300_000, dir)
	}
	serving := sharer.serve(t, "daemon")
	link := sharer.must(t, "add", tree).text("link")
	done := getter.must(t, "get", link, "--include", "keep/", "--peer", serving.addr(t))
	sameFile(t, filepath.Join(tree, "keep", "a.bin"), filepath.Join(getter.dir, "tree", "keep", "a.bin"))
	if exists(filepath.Join(getter.dir, "tree", "leave")) || done.number("bytes_fetched") > 310_000 {
		t.Errorf("more came than was included: %v", done)
	}
	if r := getter.run(t, "get", link, "--include", "[", "--peer", serving.addr(t)); r.code != 2 {
		t.Errorf("a pattern that is none: exit %d, want 2", r.code)
	}
}
