// Command p2pshare shares files between peers: it finds them by name or
// content ID, fetches them from whoever has them, and verifies every byte.
// See p2pshare help, and package cli for what the commands do.
package main

import (
	"os"

	"github.com/p2pshare/p2pshare/cli"
)

func main() {
	os.Exit(cli.Main())
}
