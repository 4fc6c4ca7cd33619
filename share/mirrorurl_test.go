package share

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
)

func TestParseMirror(t *testing.T) {
	long := "http://example.org/" + strings.Repeat("x", mirrorURLMax)
	for _, tt := range []struct{ url, reason string }{
		{"http://example.org", ""},
		{"https://example.org:8443/a%20b/c.iso?v=1&w=%25", ""},
		{"HTTPS://Example.ORG./x", ""},
		{"http://192.0.2.7/x", ""},
		{"http://[2001:db8::7]:8080/x", ""},
		{"http://127.0.0.1:8000/x", ""}, // for the person who has it there
		{"http://localhost/x", ""},
		{long[:mirrorURLMax], ""},
		{"http://xn--bcher-kva.example/x", ""},

		{"", "neither"},
		{"/etc/passwd", "neither"},
		{"file:///etc/passwd", "neither"},
		{"ftp://example.org/x", "neither"},
		{"//example.org/x", "neither"},
		{"example.org/x", "neither"},
		{"http:example.org/x", "no host"},
		{"http:///x", "no host"},
		{"http://:80/x", "no host"},
		{"http://me@example.org/x", "a user"},
		{"http://me:secret@example.org/x", "a user"},
		{"http://@example.org/x", "a user"},
		{"http://example.org/x#", "a fragment"},
		{"http://example.org/x#y", "a fragment"},
		{"http://example.org:0/x", "port"},
		{"http://example.org:/x", "port"},
		{"http://example.org:65536/x", "port"},
		{"http://example.org:http/x", "no URL"},
		{"http://example.org/a b", "percent-encoded"},
		{"http://example.org/a\\b", "percent-encoded"},
		{"http://example.org/a\r\nHost: victim", "percent-encoded"},
		{"http://example.org/ü", "percent-encoded"},
		{"http://bücher.example/", "percent-encoded"},
		{"http://example.org/\x1b[2J", "percent-encoded"},
		{"http://example.org/%", "percent-encoding is broken"},
		{"http://example.org/?%0", "percent-encoding is broken"},
		{"http://example.org/?%zz", "percent-encoding is broken"},
		{"http://example.org%2f@victim/", "a user"},
		{"http://a%00b/", "no URL"},
		{"http://a..b/", "no name"},
		{"http://a,b/", "no name"},
		{"http://" + strings.Repeat("a", 64) + ".org/", "no name"},
		{"http://" + strings.Repeat("a.", 130) + "org/", "too long"},
		{"http://2130706433/", "unusual form"},
		{"http://0x7f000001/", "unusual form"},
		{"http://0x7f.1/", "unusual form"},
		{"http://0177.0.0.1/", "unusual form"},
		{"http://127.1/", "unusual form"},
		{"http://127.0.0.1./", "unusual form"},
		{"http://1.2.3.4.5/", "unusual form"},
		{"http://example.0x/", "unusual form"},
		{"http://[fe80::1%25eth0]/", "zone"},
		{"http://[::1", "no URL"},
		{long[:mirrorURLMax+1], "longer than"},
	} {
		_, err := ParseMirror(tt.url)
		if tt.reason == "" && err != nil {
			t.Errorf("ParseMirror(%q) = %v, want it taken", tt.url, err)
		}
		if tt.reason != "" && (err == nil || !strings.Contains(err.Error(), tt.reason)) {
			t.Errorf("ParseMirror(%q) = %v, want an error that says %q", tt.url, err, tt.reason)
		}
	}
}

func FuzzParseMirror(f *testing.F) {
	for _, s := range []string{"https://example.org:8443/a%20b?c", "http://[2001:db8::7]/", "http://0x7f.1/", "http://me@h/#"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseMirror(s)
		if err != nil {
			return
		}
		// What is asked for is the parsed URL's text: it must mean the same.
		again, err := ParseMirror(u.String())
		if err != nil || *again != *u {
			t.Fatalf("%q is taken as %q, which reads as %v, %v", s, u, again, err)
		}
		if u.User != nil || u.Hostname() == "" || u.Fragment != "" || len(s) > mirrorURLMax || strings.ContainsAny(s, " \r\n\x00\x1b") {
			t.Fatalf("%q is taken", s)
		}
		if _, err := url.ParseRequestURI(u.RequestURI()); err != nil {
			t.Fatalf("%q asks for %q", s, u.RequestURI())
		}
	})
}

func TestParseContentRange(t *testing.T) {
	for s, want := range map[string]contentRange{
		"bytes 0-0/1":      {0, 0, 1},
		"bytes 0-99/100":   {0, 99, 100},
		"bytes 50-59/1000": {50, 59, 1000},
		"bytes 9223372036854775805-9223372036854775806/9223372036854775807": {1<<63 - 3, 1<<63 - 2, 1<<63 - 1},
	} {
		if got, ok := parseContentRange(s); !ok || got != want {
			t.Errorf("parseContentRange(%q) = %v, %v, want %v", s, got, ok, want)
		}
	}
	for _, s := range []string{
		"", "bytes", "bytes ", "bytes */100", "bytes 0-9/*", "bytes 0-9", "bytes 0-9/", "bytes -9/10", "bytes 0-/10",
		"bytes 9-0/10", "bytes 0-10/10", "bytes 0-9/9", "bytes +0-9/10", "bytes 0-+9/10", "bytes -0-9/10", "bytes 0--9/10",
		"bytes=0-9/10", "octets 0-9/10", "Bytes 0-9/10", "bytes 0-9/10 ", "bytes  0-9/10", "bytes 0 - 9/10", "bytes 0-9/10, bytes 0-9/10",
		"bytes 0x0-9/10", "bytes 0-9_0/100", "bytes 0-9/9223372036854775808",
	} {
		if got, ok := parseContentRange(s); ok {
			t.Errorf("parseContentRange(%q) = %v, want it refused", s, got)
		}
	}
}

func FuzzParseContentRange(f *testing.F) {
	f.Add("bytes 0-99/100")
	f.Add("bytes */100")
	f.Fuzz(func(t *testing.T, s string) {
		r, ok := parseContentRange(s)
		if !ok {
			return
		}
		if r.first < 0 || r.first > r.last || r.last >= r.total {
			t.Fatalf("%q reads as %+v", s, r)
		}
		back, ok := parseContentRange(fmt.Sprintf("bytes %d-%d/%d", r.first, r.last, r.total))
		if !ok || back != r {
			t.Fatalf("%q reads as %+v, and that as %+v", s, r, back)
		}
	})
}
