package share

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Limits of the mirrors of one content, in a manifest and from a person.
const (
	MirrorsMax    = 4
	mirrorURLMax  = 2048
	mirrorHostMax = 253
)

// ErrBadMirror is matched by the error of ParseMirror, and returned where a
// content can have no mirrors, or not so many.
var ErrBadMirror = errors.New("not a mirror")

// ParseMirror reads the URL of a mirror: a plain HTTP server's, that has the
// raw bytes of a file. It is absolute, of scheme http or https, names a host,
// no user and no fragment, and is at most 2,048 bytes of what RFC 3986 allows.
// A host may be any name or address here: which addresses are dialled is
// decided when they are known.
func ParseMirror(s string) (*url.URL, error) {
	u, reason := parseMirror(s)
	if reason != "" {
		return nil, fmt.Errorf("%w: %s", ErrBadMirror, reason)
	}
	return u, nil
}

// checkMirrors checks the mirrors of a content of this kind.
func checkMirrors(kind Kind, mirrors []string) error {
	switch {
	case len(mirrors) == 0:
		return nil
	case kind == KindDir:
		return fmt.Errorf("%w: a directory has no raw bytes that one URL could name", ErrBadMirror)
	case len(mirrors) > MirrorsMax:
		return fmt.Errorf("%w: %d of them, and %d are the most", ErrBadMirror, len(mirrors), MirrorsMax)
	}
	for _, s := range mirrors {
		if _, err := ParseMirror(s); err != nil {
			return err
		}
	}
	return nil
}

// parseMirror returns what s lacks, or "".
func parseMirror(s string) (u *url.URL, reason string) {
	if reason := mirrorText(s); reason != "" {
		return nil, reason
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, "it is no URL"
	}
	return u, mirrorParts(u)
}

// mirrorText names what is wrong with a URL as text, or returns "".
func mirrorText(s string) string {
	if len(s) > mirrorURLMax {
		return fmt.Sprintf("it is longer than %d bytes", mirrorURLMax)
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>\\^`{|}", c) >= 0:
			return "it has characters that must be percent-encoded"
		case c == '#':
			return "it has a fragment"
		case c == '%' && (len(s) < i+3 || !isHex(s[i+1:i+3])):
			return "its percent-encoding is broken"
		}
	}
	return ""
}

// mirrorParts names what is wrong with a URL's parts, or returns "".
func mirrorParts(u *url.URL) string {
	host := u.Hostname()
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return "it begins with neither http:// nor https://"
	case u.User != nil:
		return "it names a user"
	case host == "" || u.Opaque != "":
		return "it names no host"
	case strings.HasSuffix(u.Host, ":") || u.Port() != "" && (err != nil || port == 0):
		return "its port is none"
	}
	return hostFault(host)
}

// hostFault names what is wrong with a host, or returns "". One that ends in a
// number is an IPv4 address in its usual form or nothing: resolvers take
// 2130706433, 0177.0.0.1 and 127.1 for 127.0.0.1.
func hostFault(host string) string {
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return "its address has a zone"
		}
		return ""
	}
	name := strings.TrimSuffix(host, ".")
	if len(name) > mirrorHostMax {
		return "its host is too long"
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.Trim(label, hostCharacters) != "" {
			return "its host is no name"
		}
	}
	last := labels[len(labels)-1]
	digits, hex := strings.CutPrefix(strings.ToLower(last), "0x")
	if strings.Trim(last, "0123456789") == "" || hex && (digits == "" || isHex(digits)) {
		return "its host is an address in an unusual form"
	}
	return ""
}

const hostCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// contentRange is a Content-Range of bytes with nothing left open.
type contentRange struct{ first, last, total int64 }

// parseContentRange reads "bytes FIRST-LAST/TOTAL" (RFC 9110, 14.4), with
// 0 <= first <= last < total. An unknown total is refused.
func parseContentRange(s string) (r contentRange, ok bool) {
	spec, ok1 := strings.CutPrefix(s, "bytes ")
	span, total, ok2 := strings.Cut(spec, "/")
	first, last, ok3 := strings.Cut(span, "-")
	if !ok1 || !ok2 || !ok3 {
		return r, false
	}
	for _, part := range []struct {
		text string
		to   *int64
	}{{first, &r.first}, {last, &r.last}, {total, &r.total}} {
		n, err := strconv.ParseInt(part.text, 10, 64)
		if err != nil || part.text[0] < '0' || part.text[0] > '9' { // ParseInt takes signs
			return contentRange{}, false
		}
		*part.to = n
	}
	if r.first > r.last || r.last >= r.total {
		return contentRange{}, false
	}
	return r, true
}
