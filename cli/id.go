package cli

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

func (a *app) idCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "id",
		Short: "Print this peer's ID and addresses, or the key of a name",
		Long: `Print this peer's ID, and the addresses of the peer that runs, in the form that
--peer and --bootstrap take. With --name, print the key under which that name is
announced; no peer runs for that.`,
		Args: arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("name") {
				return a.printName(name)
			}
			s, err := a.settle(cmd)
			if err != nil {
				return err
			}
			ctx, cancel := deadline(cmd.Context(), s.timeout)
			defer cancel()
			return a.withPeer(ctx, s, needHome, a.printID)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "print the lookup form and the key of this `NAME`")
	return cmd
}

func (a *app) printID(_ context.Context, use *session) error {
	hello := use.Hello()
	if a.json {
		a.emit(struct {
			PeerID peer.ID  `json:"peer_id"`
			Addrs  []string `json:"addrs"`
		}{hello.PeerID, hello.Addrs})
		return nil
	}
	fmt.Fprintln(a.out, hello.PeerID)
	for _, addr := range hello.Addrs {
		fmt.Fprintln(a.out, addr)
	}
	return nil
}

func (a *app) printName(text string) error {
	name, err := share.ParseName(text)
	if err != nil {
		return err
	}
	key := hex.EncodeToString(name.Key())
	cid := share.KeyCID(name.Key())
	if a.json {
		a.emit(struct {
			Name   share.Name `json:"name"`
			Lookup string     `json:"lookup"`
			Key    string     `json:"key"`
			CID    string     `json:"cid"`
		}{name, name.Lookup(), key, cid})
		return nil
	}
	fmt.Fprintf(a.out, "name    %s\nlookup  %s\nkey     %s\ncid     %s\n",
		share.Escape(string(name)), share.Escape(name.Lookup()), key, cid)
	return nil
}
