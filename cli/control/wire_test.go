package control

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// TestEventsOnTheWire holds the lines that scripts and other programs read.
func TestEventsOnTheWire(t *testing.T) {
	const id = "b3:0100000000000000000000000000000000000000000000000000000000000000"
	tests := []struct {
		event Event
		line  string
	}{
		{newProgress(share.Progress{Phase: share.PhaseFetching, Done: 1, Total: 2, Rate: 3, ETA: 1500 * time.Millisecond, Sources: 4}),
			`{"event":"progress","phase":"fetching","done":1,"total":2,"rate":3,"eta_s":1.5,"sources":4}`},
		{&Note{Message: "a & b"}, `{"event":"note","message":"a & b"}`},
		{&Warning{Message: "w"}, `{"event":"warning","message":"w"}`},
		{&Added{Name: "a", ID: content.ID{1}, Kind: share.KindFile, Size: 2, Files: 1, Link: "p2pshare:x?a=b&c", Announced: "none", Path: "/a"},
			`{"event":"added","name":"a","id":"` + id + `","kind":"file","size":2,"files":1,"link":"p2pshare:x?a=b&c","announced":"none","path":"/a"}`},
		{&Removed{Name: "a", ID: content.ID{1}, Path: "/a"}, `{"event":"removed","name":"a","id":"` + id + `","path":"/a"}`},
		{&Data{Bytes: 5}, `{"event":"data","bytes":5}`},
		{newDone(share.Got{Name: "a", ID: content.ID{1}, Kind: share.KindDir, Size: 9, Files: 3, BytesFetched: 8, Took: 2 * time.Second}),
			`{"event":"done","name":"a","id":"` + id + `","kind":"dir","path":"-","size":9,"files":3,"bytes_fetched":8,"seconds":2,"sources":[]}`},
		{&Limits{MaxUp: 2 << 20}, `{"event":"limits","max_up":2097152,"max_down":0,"cache_max":0,"store_max":0}`},
		{&Verified{ID: content.ID{1}, Kind: share.KindFile, Held: true, State: VerifyRepaired, Read: 9, Damaged: 1, Repaired: 1, BytesFetched: 5},
			`{"event":"verified","id":"` + id + `","kind":"file","held":true,"state":"repaired","read":9,"damaged":1,"repaired":1,"bytes_fetched":5}`},
		{&VerifyDone{Contents: 2, Read: 9}, `{"event":"verify","contents":2,"read":9,"damaged":0,"repaired":0}`},
		{&Collected{Bytes: 5, Holds: 1, Cache: 2}, `{"event":"collected","bytes":5,"unfinished":1,"cache":2,"left":{"store":0,"store_max":0,"cache":0,"cache_max":0}}`},
		{&Accepted{What: "a"}, `{"event":"accepted","what":"a"}`},
		{&Ready{PeerID: "", Addrs: []string{}, API: "http://127.0.0.1:1"}, `{"event":"ready","peer_id":"","addrs":[],"api":"http://127.0.0.1:1"}`},
		{Errorf(CodeFailed, "m").WithHint("h"), `{"event":"error","code":1,"reason":"failed","message":"m","hint":"h"}`},
	}
	for _, tt := range tests {
		line, err := EncodeEvent(tt.event)
		if err != nil || string(line) != tt.line {
			t.Errorf("EncodeEvent = %s, %v\nwant %s", line, err, tt.line)
		}
		if ready, ok := tt.event.(*Ready); ok && ready.PeerID == "" {
			continue // the empty peer ID is written and not read
		}
		back, err := decodeEvent(line)
		if err != nil || !reflect.DeepEqual(back, tt.event) {
			t.Errorf("decodeEvent(%s) = %+v, %v, want %+v", line, back, err, tt.event)
		}
	}
}

func TestEventsOfNewerPeersAreSkipped(t *testing.T) {
	if e, err := decodeEvent([]byte(`{"event":"tomorrow","x":1}`)); e != nil || err != nil {
		t.Errorf("decodeEvent of an unknown kind = %v, %v, want nil, nil", e, err)
	}
	if _, err := decodeEvent([]byte(`{"event":`)); err == nil {
		t.Error("decodeEvent of half an object = nil, want an error")
	}
}

func TestServiceWords(t *testing.T) {
	for s := ServiceHome; s <= ServiceServing; s++ {
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back Service
		if err := json.Unmarshal(text, &back); err != nil || back != s {
			t.Errorf("%s read back = %v, %v, want %v", text, back, err, s)
		}
	}
	var s Service
	if err := json.Unmarshal([]byte(`"nonsense"`), &s); err == nil {
		t.Error("reading an unknown service = nil, want an error")
	}
}
