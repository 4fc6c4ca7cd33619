package coord

import (
	"sync"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
)

// planner keeps the last plan that was asked for, as the next is made of it much
// quicker than anew.
type planner struct {
	mu   sync.Mutex
	last *pinset.Plan // guarded by mu
}

// plan returns the plan of the state as it is.
func (p *planner) plan(f *fsm) *pinset.Plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := f.clone()
	switch {
	case p.last == nil:
		p.last = pinset.NewPlan(s)
	case p.last.State().Index() != s.Index():
		p.last = p.last.Update(s)
	}
	return p.last
}
