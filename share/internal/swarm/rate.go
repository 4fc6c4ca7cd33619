package swarm

import (
	"math"
	"time"
)

// rateMemory is how far back a rate looks: over the time in which a path
// changes, and long against the gaps between reads.
const rateMemory = 2 * time.Second

// rate is how fast a source delivers while it owes anything: groups over
// seconds, both fading away with rateMemory.
type rate struct {
	groups, seconds float64
}

func (r *rate) add(groups float64, took time.Duration) {
	fade := math.Exp(-took.Seconds() / rateMemory.Seconds())
	r.groups = r.groups*fade + groups
	r.seconds = r.seconds*fade + took.Seconds()
}

// perSecond is the rate in groups a second, 0 before the first group.
func (r *rate) perSecond() float64 {
	if r.groups == 0 {
		return 0
	}
	return r.groups / max(r.seconds, 1e-6)
}
