package allocator

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// plain is an allocator without any cleverness, for comparison: it keeps what it is told and reckons all of it anew. It has
// neither quotas nor bursts. It does not choose the order of agents: that is taken from the grants that it is to judge.
type plain struct {
	cfg        Config
	agents     map[AgentID]*plainAgent
	frameworks map[FrameworkID]*plainFramework
	weights    map[Role]float64
	// counts are the grants of clients ("framework in role") and of roles and their leaves ("a", "a/.").
	counts map[string]int
}

type plainAgent struct {
	spec   AgentSpec
	free   resources.Resources
	offers map[plainClient]resources.Resources
	used   map[plainClient]resources.Resources
	holds  []plainHold
	refuse []plainFilter
}

type plainHold struct {
	client plainClient // empty for none
	res    resources.Resources
}

type plainFilter struct {
	client plainClient
	res    resources.Resources
	until  time.Time
}

type plainFramework struct {
	spec       FrameworkSpec
	active     bool
	suppressed map[Role]bool
}

type plainClient struct {
	framework FrameworkID
	role      Role
}

func (c plainClient) String() string { return c.framework + " in " + c.role }

func newPlain(cfg Config, weights map[Role]float64) *plain {
	return &plain{
		cfg: cfg, agents: make(map[AgentID]*plainAgent), frameworks: make(map[FrameworkID]*plainFramework),
		weights: weights, counts: make(map[string]int),
	}
}

// available is what an agent has left.
func (a *plainAgent) available() resources.Resources {
	out := resources.Resources{}
	for _, rs := range a.offers {
		out = out.Add(rs)
	}
	for _, h := range a.holds {
		out = out.Add(h.res)
	}
	return a.free.Sub(out)
}

// has is all that counts for a client, over all agents.
func (p *plain) has(c plainClient) []resources.Resources {
	var all []resources.Resources
	for _, a := range p.agents {
		all = append(all, a.offers[c], a.used[c])
		for _, h := range a.holds {
			if h.client == c {
				all = append(all, h.res)
			}
		}
	}
	return all
}

// clients are all that exist: subscribed, or with something to their name.
func (p *plain) clients() []plainClient {
	seen := make(map[plainClient]bool)
	for id, fw := range p.frameworks {
		for _, role := range fw.spec.Roles {
			seen[plainClient{id, role}] = true
		}
	}
	for _, a := range p.agents {
		for c := range a.offers {
			seen[c] = true
		}
		for c := range a.used {
			seen[c] = true
		}
		for _, h := range a.holds {
			if h.client != (plainClient{}) { // what nobody was granted counts for nobody
				seen[h.client] = true
			}
		}
	}
	var out []plainClient
	for c := range seen {
		out = append(out, c)
	}
	slices.SortFunc(out, func(x, y plainClient) int { return strings.Compare(x.String(), y.String()) })
	return out
}

// forget drops the counts of what no longer exists.
func (p *plain) forget() {
	clients := p.clients()
	for name := range p.counts {
		role := strings.TrimSuffix(name, "/.")
		weighted := false
		for w := range p.weights {
			weighted = weighted || w == role || strings.HasPrefix(w, role+"/")
		}
		if !weighted && !slices.ContainsFunc(clients, func(c plainClient) bool {
			return c.String() == name || c.role == role || strings.HasPrefix(c.role, role+"/")
		}) {
			delete(p.counts, name)
		}
	}
}

// share is the dominant share of those clients for which in says yes.
func (p *plain) share(clients []plainClient, in func(plainClient) bool) float64 {
	totals, sums := make(map[string]float64), make(map[string]float64)
	for _, a := range p.agents {
		for name, m := range a.spec.Total.Scalars() {
			totals[name] += float64(m)
		}
	}
	for _, c := range clients {
		if in(c) {
			for _, rs := range p.has(c) {
				for name, m := range rs.Scalars() {
					sums[name] += float64(m)
				}
			}
		}
	}
	share := 0.0
	for name, m := range sums {
		if totals[name] > 0 {
			share = max(share, m/totals[name])
		}
	}
	return share
}

// compare orders two clients: at the first node of their paths that differs.
func (p *plain) compare(clients []plainClient, x, y plainClient) int {
	if x.role == y.role {
		own := func(c plainClient) func(plainClient) bool { return func(o plainClient) bool { return o == c } }
		return cmp.Or(cmp.Compare(p.share(clients, own(x)), p.share(clients, own(y))),
			cmp.Compare(p.counts[x.String()], p.counts[y.String()]), cmp.Compare(x.framework, y.framework))
	}
	at := func(parts []string, n int) (path string, in func(plainClient) bool) {
		if n == len(parts) {
			role := strings.Join(parts, "/")
			return role + "/.", func(c plainClient) bool { return c.role == role }
		}
		role := strings.Join(parts[:n+1], "/")
		return role, func(c plainClient) bool { return c.role == role || strings.HasPrefix(c.role, role+"/") }
	}
	xs, ys := strings.Split(x.role, "/"), strings.Split(y.role, "/")
	for n := 0; ; n++ {
		xp, xin := at(xs, n)
		yp, yin := at(ys, n)
		if xp == yp {
			continue
		}
		weight := func(path string) float64 {
			if w, ok := p.weights[path]; ok {
				return w
			}
			return 1
		}
		return cmp.Or(cmp.Compare(p.share(clients, xin)/weight(xp), p.share(clients, yin)/weight(yp)),
			cmp.Compare(p.counts[xp], p.counts[yp]), cmp.Compare(xp, yp))
	}
}

// order lists the clients that may get offers, the first first.
func (p *plain) order() []plainClient {
	all := p.clients()
	listed := slices.DeleteFunc(slices.Clone(all), func(c plainClient) bool {
		fw := p.frameworks[c.framework]
		return fw == nil || !fw.active || fw.suppressed[c.role] || !slices.Contains(fw.spec.Roles, c.role)
	})
	slices.SortFunc(listed, func(x, y plainClient) int { return p.compare(all, x, y) })
	return listed
}

// offerable is what a client would be offered of an agent; nothing for nothing.
func (p *plain) offerable(c plainClient, a *plainAgent, now time.Time) resources.Resources {
	fw := p.frameworks[c.framework]
	caps := fw.spec.Capabilities
	none := resources.Resources{}
	if !a.spec.Active || a.spec.Total.Scalar("gpus") > 0 && !caps.GPU ||
		a.spec.Region != "" && a.spec.Region != p.cfg.Region && !caps.RegionAware {
		return none
	}
	rs := a.available().Filter(func(r *mesos.Resource) bool {
		n := len(r.Reservations)
		if r.Revocable != nil && !caps.Revocable || n > 1 && !caps.Refinement {
			return false
		}
		return n == 0 || r.Reservations[n-1].GetRole() == c.role || strings.HasPrefix(c.role, r.Reservations[n-1].GetRole()+"/")
	})
	worth := slices.ContainsFunc(p.cfg.MinAllocatable, func(q Quantities) bool {
		for name, least := range q {
			if rs.Scalar(name) < least {
				return false
			}
		}
		return true
	})
	refused := slices.ContainsFunc(a.refuse, func(f plainFilter) bool {
		return f.client == c && f.until.After(now) && f.res.Contains(rs)
	})
	if !worth || refused {
		return none
	}
	return rs
}

// judge compares the grants of a run with what it would have granted on the same agents in the same order, and takes them
// into its books. Then nothing must be left that could be offered.
func (p *plain) judge(grants []Grant, now time.Time) error {
	for len(grants) > 0 {
		on := grants[0].Agent
		a := p.agents[on]
		if a == nil {
			return fmt.Errorf("a grant on agent %q, which is not there", on)
		}
		order := p.order() // as it is when the agent's turn comes
		for _, c := range order {
			want := p.offerable(c, a, now)
			if want.Empty() {
				continue
			}
			if len(grants) == 0 || grants[0].Agent != on {
				return fmt.Errorf("agent %q: want %s to be offered %v, got nothing", on, c, want)
			}
			g := grants[0]
			if got := (plainClient{g.Framework, g.Role}); got != c || !g.Resources.Unallocated().Equal(want) {
				return fmt.Errorf("agent %q: want %s to be offered %v, got %s with %v; order %v", on, c, want, got, g.Resources, order)
			}
			grants = grants[1:]
			a.offers[c] = a.offers[c].Add(want)
			p.counts[c.String()]++
			p.counts[c.role+"/."]++
			for role := c.role; ; {
				p.counts[role]++
				i := strings.LastIndexByte(role, '/')
				if i < 0 {
					break
				}
				role = role[:i]
			}
		}
		if len(grants) > 0 && grants[0].Agent == on {
			return fmt.Errorf("agent %q: a grant too many: %+v", on, grants[0])
		}
	}
	for id, a := range p.agents {
		for _, c := range p.order() {
			if rs := p.offerable(c, a, now); !rs.Empty() {
				return fmt.Errorf("agent %q: %s could be offered %v, and was not", id, c, rs)
			}
		}
	}
	return nil
}
