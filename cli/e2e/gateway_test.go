package e2e

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestGatewayForCurl has curl fetch from a daemon that has nothing: a part, all under the
// name that it is told, and the rest of what it has; and get writes the same to a pipe.
func TestGatewayForCurl(t *testing.T) {
	for _, tool := range []string{"curl", "b3sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("there is no %s here", tool)
		}
	}
	const size = 24<<20 + 17
	sharer := newPeer(t, loopback...)
	film := filepath.Join(sharer.dir, "film – 1.mkv")
	writeRandom(t, film, size, "film")
	from := sharer.serve(t, "daemon").addr(t)
	id := strings.TrimPrefix(sharer.must(t, "add", film).text("id"), "b3:")
	data, err := os.ReadFile(film)
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, loopback...)
	url := p.serve(t, "daemon", "--peer", from).ready.text("api") + "/b3/" + id
	curl := func(args ...string) []byte {
		t.Helper()
		c := exec.CommandContext(t.Context(), "curl", append([]string{"--silent", "--show-error", "--fail"}, args...)...)
		c.Dir = p.dir
		var said bytes.Buffer
		c.Stderr = &said
		out, err := c.Output()
		if err != nil {
			t.Fatalf("curl %s: %v: %s", strings.Join(args, " "), err, said.Bytes())
		}
		return out
	}
	sum := func(in io.Reader) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), "b3sum", "--no-names")
		c.Stdin = in
		out, err := c.Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	if got := curl("-r", "20000000-20000099", url); !bytes.Equal(got, data[20000000:20000100]) {
		t.Errorf("curl -r: %d other bytes", len(got))
	}
	if got := curl("-r", "-17", url); !bytes.Equal(got, data[size-17:]) {
		t.Errorf("curl -r -17: %d other bytes", len(got))
	}
	curl("--range", "0-999999", "-o", "part", url)
	curl("--continue-at", "-", "-o", "part", url)
	curl("--remote-name", url)
	curl("--remote-name", "--remote-header-name", url) // whatever it makes of the name
	files, err := os.ReadDir(p.dir)
	if err != nil || len(files) != 3 {
		t.Errorf("curl has saved %v, %v, want 3 files", files, err)
	}
	for _, f := range files {
		file, err := os.Open(filepath.Join(p.dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if got := sum(file); got != id {
			t.Errorf("b3sum of %s is %s, want %s", f.Name(), got, id)
		}
		file.Close()
	}
	get := exec.CommandContext(t.Context(), program, "--home", newPeer(t).home, "get", "b3:"+id, "-o", "-", "--peer", from, "--listen", loopback[1], "--no-lan")
	out, err := get.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := get.Start(); err != nil {
		t.Fatal(err)
	}
	if got := sum(out); got != id {
		t.Errorf("get -o - | b3sum: %s, want %s", got, id)
	}
	if err := get.Wait(); err != nil {
		t.Errorf("get -o -: %v", err)
	}
}
