package control

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// startLiar runs a provider of data that sends one chunk group with a wrong byte. It
// speaks the data protocol as share/wire.go describes it.
func startLiar(t *testing.T, data []byte, wrong int64) (*running, content.ID) {
	t.Helper()
	l := &liar{data: data, wrong: wrong, outboard: content.NewOutboard(int64(len(data)))}
	for i := range l.outboard.Groups() {
		l.outboard.SetGroup(i, l.group(i))
	}
	n, err := node.New(t.Context(), node.Config{Dir: t.TempDir(), NoDHT: true, NoMulticast: true,
		Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}})
	if err != nil {
		t.Fatal(err)
	}
	n.Handle("/p2pshare/data/1", node.HandlerConfig{}, l.serve)
	n.Handle("/p2pshare/meta/1", node.HandlerConfig{}, l.tell)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	<-n.Listening()
	t.Cleanup(func() {
		cancel()
		<-ended
		n.Close()
	})
	return &running{node: n}, l.outboard.ID()
}

type liar struct {
	data     []byte
	wrong    int64
	outboard *content.Outboard
}

func (l *liar) group(i int64) []byte {
	return l.data[i*content.GroupSize:][:content.GroupLen(int64(len(l.data)), i)]
}

func (l *liar) tell(_ context.Context, s network.Stream) error {
	lines := bufio.NewScanner(s)
	for lines.Scan() {
		var q struct{ Op string }
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return err
		}
		answer := map[string]any{"end": true}
		if q.Op == "haves" {
			answer["size"], answer["all"] = len(l.data), true
		}
		if err := json.NewEncoder(s).Encode(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (l *liar) serve(_ context.Context, s network.Stream) error {
	frame := func(kind byte, tag []byte, parts ...[]byte) error {
		payload := slices.Concat(parts...)
		b := append([]byte{kind}, tag...)
		_, err := s.Write(append(binary.BigEndian.AppendUint32(b, uint32(len(payload))), payload...))
		return err
	}
	be := func(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }
	for in := bufio.NewReader(s); ; {
		head := make([]byte, 9)
		if _, err := io.ReadFull(in, head); err != nil {
			return err
		}
		q := make([]byte, binary.BigEndian.Uint32(head[5:]))
		if _, err := io.ReadFull(in, q); err != nil {
			return err
		}
		var err error
		switch head[0] {
		case 1:
			err = frame(0x81, head[1:5], be(int64(len(l.data))))
		case 2:
			err = frame(0x83, head[1:5], be(0), l.outboard.Bytes())
		case 3:
			first, count := int64(binary.BigEndian.Uint64(q[32:])), int64(binary.BigEndian.Uint32(q[40:]))
			for i := first; i < first+count && err == nil; i++ {
				kind, data := byte(0x82), slices.Clone(l.group(i))
				if i == first+count-1 {
					kind = 0x83
				}
				if i == l.wrong {
					data[100] ^= 1
				}
				err = frame(kind, head[1:5], be(i), data)
			}
		}
		if err != nil {
			return err
		}
	}
}
