package coord

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/test"
)

func TestLinksOfStrangersAreCheckedAndToldWhatIsWrong(t *testing.T) {
	id, err := test.RandPeerID()
	if err != nil {
		t.Fatal(err)
	}
	good := Link{Group: GroupID{7}, Epoch: 3, Name: "office", Members: []peer.AddrInfo{{ID: id}}}
	if l, err := ParseLink(good.String()); err != nil || l.Group != good.Group || l.Epoch != 3 || l.Name != "office" || l.Members[0].ID != id {
		t.Fatalf("ParseLink(String) = %+v, %v", l, err)
	}
	// with returns the link with one field changed.
	with := func(field string, v any) string {
		var fields map[string]any
		data, _ := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(good.String(), linkPrefix))
		if err := json.Unmarshal(data, &fields); err != nil {
			t.Fatal(err)
		}
		fields[field] = v
		return wordOf(linkPrefix, fields)
	}
	member := map[string]any{"peer": id.String()}
	crowd := map[string]any{"peer": id.String(), "addrs": strings.Split(strings.Repeat("/ip4/1.2.3.4/tcp/1,", 9)[:9*19-1], ",")}
	token := Token{Link: good}
	for what, c := range map[string]struct{ link, want string }{
		"nothing":           {"", "is no link of a group"},
		"an invitation":     {token.String(), "is no link of a group"},
		"no base64":         {linkPrefix + "!!", "cut or changed"},
		"no JSON":           {linkPrefix + "aGVsbG8", "cut or changed"},
		"cut":               {good.String()[:len(good.String())-9], "cut or changed"},
		"too long":          {linkPrefix + strings.Repeat("A", wordMax), "at most 8192 bytes"},
		"a later version":   {with("v", 2), "is of version 2, this program reads 1"},
		"no group":          {with("group", "b3"), "cut or changed"},
		"epoch 0":           {with("epoch", 0), "beyond its limit"},
		"an epoch too high": {with("epoch", uint64(1)<<60), "beyond its limit"},
		"a long name":       {with("name", strings.Repeat("n", 256)), "beyond its limit"},
		"many members":      {with("members", []any{member, member, member, member, member, member}), "beyond its limit"},
		"no peer":           {with("members", []any{map[string]any{"peer": "\x1b[31m"}}), "no peer"},
		"many addresses":    {with("members", []any{crowd}), "no peer"},
	} {
		_, err := ParseLink(c.link)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", what, err, c.want)
		}
		if err != nil && (len(err.Error()) > 300 || strings.ContainsAny(err.Error(), "\n\x1b")) {
			t.Errorf("%s: the error is not a short line: %q", what, err)
		}
	}
	if _, err := ParseToken(good.String()); err == nil {
		t.Error("a link is taken for an invitation")
	}
}

func FuzzParseLink(f *testing.F) {
	f.Add(Link{Epoch: 1}.String())
	f.Add(Token{Link: Link{Epoch: 1, Name: "office"}}.String())
	f.Fuzz(func(t *testing.T, s string) {
		if l, err := ParseLink(s); err == nil {
			if again, err := ParseLink(l.String()); err != nil || again.Group != l.Group || again.Name != l.Name {
				t.Errorf("%q is read, and its String %q is not: %v", s, l.String(), err)
			}
		}
		ParseToken(s)
	})
}
