package cli

import (
	"testing"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

func TestTransferLines(t *testing.T) {
	peer := share.SourceProgress{Peer: "p", Bytes: 1, Via: node.ViaLAN}
	mirror := func(url string) share.SourceProgress { return share.SourceProgress{Mirror: url, Via: "mirror"} }
	down := func(rate int64, sources ...share.SourceProgress) control.Transfer {
		return control.Transfer{Direction: control.DirectionDown, ID: "1", Name: "film.mkv", State: control.TransferRunning,
			Done: 1 << 20, Total: 4 << 20, Rate: rate, Sources: sources}
	}
	for want, transfer := range map[string]control.Transfer{
		"   1  down  running       25 %    2.0 MiB/s  film.mkv  from 2 peers":                     down(2<<20, peer, peer),
		"   1  down  running       25 %    2.0 MiB/s  film.mkv  from 1 peer, https://a.example/f": down(2<<20, peer, mirror("https://a.example/f")),
		"   1  down  running       25 %    2.0 MiB/s  film.mkv  from https://a.example/f, http://b.example/\\x1b[2J": down(
			2<<20, mirror("https://a.example/f"), mirror("http://b.example/\x1b[2J")),
		"   1  down  running       25 %            -  film.mkv": down(0, peer),
		"   2  down  failed       512 B            -  01000000  no provider can be reached": {
			Direction: control.DirectionDown, ID: "2", Content: content.ID{1}, State: control.TransferFailed, Done: 512, Problem: "no provider can be reached"},
	} {
		if got := transferLine(transfer); got != want {
			t.Errorf("transferLine = %q\nwant           %q", got, want)
		}
	}
}
