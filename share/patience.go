package share

import (
	"time"

	"github.com/p2pshare/p2pshare/node"
)

// rateAlive is the least a lane gets while its source counts as alive, in bytes a
// second: a sharer that is held to 16 KiB/s gives each of a getter's three lanes 5
// KiB/s, and a chunk group then takes 48 s. A source that sends a byte now and then
// is none.
const rateAlive = 1 << 10

// patience reads from a stream until a time that each byte which comes puts off, by
// what it takes at rateAlive, up to answerStall from now. So a source that is slow
// is waited for, and one that is silent is not. It does not count how long a limit of
// our own holds the stream back.
//
// One goroutine uses it, and nobody else sets the stream's read deadline.
type patience struct {
	stream node.Stream
	until  time.Time
	set    time.Time // the stream's deadline
}

func (p *patience) Read(b []byte) (int, error) {
	// Setting a deadline costs as much as reading a small frame.
	if ahead := p.until.Sub(p.set); ahead < 0 || ahead > answerStall/100 {
		if err := p.stream.SetReadDeadline(p.until); err != nil {
			return 0, err
		}
		p.set = p.until
	}
	held := heldBack(p.stream)
	n, err := p.stream.Read(b)
	p.until = p.until.Add(heldBack(p.stream) - held + time.Duration(n)*time.Second/rateAlive)
	if most := time.Now().Add(answerStall); p.until.After(most) {
		p.until = most
	}
	return n, err
}

// heldBack is for how long a limit has held back what was read from s.
func heldBack(s node.Stream) time.Duration {
	if paced, ok := s.(*pacedStream); ok {
		return paced.heldBack
	}
	return 0
}
