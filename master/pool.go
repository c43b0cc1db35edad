package master

import (
	"starling/master/mesos/resources"
)

// pool is what is left of the offers of an ACCEPT: what the allocator granted, and what operations of the same ACCEPT make
// of it. The latter is not known to the allocator before the agent's record shows it.
type pool struct {
	granted, made resources.Resources
}

func (p *pool) all() resources.Resources { return p.granted.Add(p.made) }

// take takes what all contains out of the pool, and says what of it was granted and what made.
func (p *pool) take(need resources.Resources) pool {
	made := p.made.Common(need)
	granted := need.Sub(made)
	p.made, p.granted = p.made.Sub(made), p.granted.Sub(granted)
	return pool{granted, made}
}

// held is what the allocator holds for something that is on its way to an agent, in the pieces in which it holds it.
type held []resources.Resources

// setAside keeps what was taken of a pool from being offered until letGo.
func (m *Master) setAside(f *framework, role string, a *agent, taken pool) held {
	var h held
	if !taken.granted.Empty() {
		m.alloc.Consume(f.id, role, a.id, taken.granted)
		h = append(h, taken.granted)
	}
	return append(h, m.setAsideMade(a, taken.made)...)
}

// setAsideMade is setAside for what nobody was granted.
func (m *Master) setAsideMade(a *agent, res resources.Resources) held {
	if res.Empty() {
		return nil
	}
	m.alloc.Hold(a.id, res)
	return held{res}
}

// letGo ends what the allocator holds.
func (m *Master) letGo(a *agent, h *held) {
	if m.alloc == nil || len(*h) == 0 {
		return
	}
	for _, res := range *h {
		m.alloc.Settle(a.id, res)
	}
	*h = nil
	m.wantAllocation()
}
