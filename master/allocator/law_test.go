package allocator

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// world drives an allocator, and a plain one beside it, with random calls.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	now   time.Time
	a     *Allocator
	p     *plain
	quota bool
	log   []string
}

var (
	worldRoles  = []Role{"*", "eng", "eng/web", "eng/web/x", "eng/db", "ops"}
	worldTotals = []string{
		"cpus:4;mem:4000;ports:[1-9]", "cpus:1;mem:64", "cpus:2;mem:2000;gpus:1", "cpus:2;mem:1000;cpus(eng):1;mem(ops):500",
		`[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"revocable":{}},{"name":"mem","type":"SCALAR","scalar":{"value":128}},
		  {"name":"cpus","type":"SCALAR","scalar":{"value":2},"reservations":[{"type":"STATIC","role":"eng"},{"type":"DYNAMIC","role":"eng/web"}]}]`,
	}
)

func newWorld(t *testing.T, seed uint64, quota bool) *world {
	cfg := DefaultConfig()
	cfg.Burst, cfg.Region = 0, "eu"
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1e9, 0), quota: quota}
	w.a = New(cfg, rand.New(rand.NewPCG(seed, 2)))
	weights := map[Role]float64{"ops": 2, "eng/web": 0.5}
	for role, weight := range weights {
		w.a.SetWeight(role, weight)
	}
	w.p = newPlain(cfg, weights)
	return w
}

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

func (w *world) parse(text string) resources.Resources {
	rs, err := resources.Parse(text, "*")
	if err != nil {
		w.t.Fatal(err)
	}
	return rs
}

// part is a random part of resources.
func (w *world) part(rs resources.Resources) resources.Resources {
	for _, name := range rs.Names() {
		switch w.rng.IntN(4) {
		case 0:
			rs = rs.Filter(func(r *mesos.Resource) bool { return r.GetName() != name })
		case 1:
			if name == "gpus" {
				rs = rs.Sub(w.parse("gpus:1"))
			} else if name == "ports" {
				rs = rs.Sub(w.parse("ports:[2-4]"))
			} else {
				rs = rs.Sub(w.parse(name + ":0.5"))
			}
		}
	}
	return rs
}

// step makes one random call.
func (w *world) step() {
	id, on, role := fmt.Sprint("f", w.rng.IntN(4)), fmt.Sprint("a", w.rng.IntN(5)), pick(w.rng, worldRoles)
	ag, fw := w.p.agents[on], w.p.frameworks[id]
	note := func(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }
	switch n := w.rng.IntN(100); {
	case n < 8:
		spec := AgentSpec{Total: w.parse(pick(w.rng, worldTotals)), Active: w.rng.IntN(4) > 0, Region: pick(w.rng, []string{"", "eu", "us"})}
		note("agent %s %v active=%v region=%q", on, spec.Total, spec.Active, spec.Region)
		w.a.SetAgent(on, spec)
		if ag == nil {
			w.p.agents[on] = &plainAgent{
				spec: spec, offers: make(map[plainClient]resources.Resources), used: make(map[plainClient]resources.Resources),
			}
			break
		}
		if !ag.spec.Total.Equal(spec.Total) {
			ag.refuse = nil
		}
		ag.spec = spec
	case n < 10:
		note("remove agent %s", on)
		w.a.RemoveAgent(on)
		delete(w.p.agents, on)
	case n < 22 && ag != nil:
		free := ag.spec.Total
		if w.rng.IntN(2) == 0 {
			free = w.part(free)
		}
		note("free %s %v", on, free)
		w.a.SetFree(on, free)
		ag.free = free
	case n < 30:
		w.subscribe(id, note)
	case n < 34 && fw != nil:
		fw.active = !fw.active
		note("active %s %v", id, fw.active)
		if fw.active {
			w.a.ActivateFramework(id)
		} else {
			w.a.DeactivateFramework(id)
			w.clear(func(c plainClient) bool { return c.framework == id })
		}
	case n < 36 && fw != nil:
		note("remove %s", id)
		w.a.RemoveFramework(id)
		delete(w.p.frameworks, id)
		w.clear(func(c plainClient) bool { return c.framework == id })
		for _, ag := range w.p.agents {
			for c := range ag.offers {
				if c.framework == id {
					delete(ag.offers, c)
				}
			}
		}
	case n < 42 && fw != nil:
		roles := []Role{role}
		if w.rng.IntN(3) == 0 {
			roles = nil
		}
		revive := w.rng.IntN(3) > 0
		note("revive=%v %s %v", revive, id, roles)
		if revive {
			w.a.Revive(id, roles)
		} else {
			w.a.Suppress(id, roles)
		}
		for _, r := range fw.spec.Roles {
			if len(roles) > 0 && r != role {
				continue
			}
			fw.suppressed[r] = !revive
			if revive {
				w.clear(func(c plainClient) bool { return c == plainClient{id, r} })
			}
		}
	case n < 50 && ag != nil:
		used := w.part(ag.spec.Total)
		if w.rng.IntN(2) == 0 {
			used = resources.Resources{}
		}
		note("used %s %s %s %v", id, role, on, used)
		w.a.SetUsed(id, role, on, used)
		if c := (plainClient{id, role}); used.Empty() {
			delete(ag.used, c)
		} else {
			ag.used[c] = used
		}
	case n < 53 && ag != nil:
		// What an operation takes may be held already, and what it makes be nowhere yet.
		if res := w.part(ag.spec.Total); !res.Empty() {
			note("hold %s %v", on, res)
			w.a.Hold(on, res)
			ag.holds = append(ag.holds, plainHold{res: res})
		}
	case n < 74 && ag != nil && len(ag.offers) > 0:
		w.settleOffer(on, ag, note)
	case n < 80 && ag != nil && len(ag.holds) > 0:
		h := pick(w.rng, ag.holds)
		note("settle %s %v", on, h.res)
		w.a.Settle(on, h.res)
		i := slices.IndexFunc(ag.holds, func(o plainHold) bool { return o.res.Equal(h.res) })
		ag.holds = slices.Delete(ag.holds, i, i+1)
	case n < 82 && w.quota:
		q := Quota{}
		if w.rng.IntN(2) == 0 {
			q.Limit = Quantities{"cpus": resources.Milli(1000 * w.rng.IntN(6))}
		}
		if w.rng.IntN(3) == 0 {
			q.Guarantee = Quantities{"cpus": resources.Milli(1000 * w.rng.IntN(4)), "mem": resources.Milli(1000 * w.rng.IntN(900))}
		}
		role, _, _ = strings.Cut(role, "/") // those of roles below others are for no one to set
		note("quota %s %v", role, q)
		w.a.SetQuota(role, q)
	case n < 86:
		d := time.Duration(w.rng.IntN(20)) * time.Second
		note("after %v", d)
		w.now = w.now.Add(d)
	default:
		w.allocate(note)
	}
	w.p.forget()
	if err := w.a.Check(); err != nil {
		w.fail(err)
	}
}

func (w *world) clear(which func(plainClient) bool) {
	for _, ag := range w.p.agents {
		ag.refuse = slices.DeleteFunc(ag.refuse, func(f plainFilter) bool { return which(f.client) })
	}
}

func (w *world) subscribe(id FrameworkID, note func(string, ...any)) {
	var spec FrameworkSpec
	for _, role := range worldRoles {
		if w.rng.IntN(3) == 0 {
			spec.Roles = append(spec.Roles, role)
			if w.rng.IntN(5) == 0 {
				spec.Suppressed = append(spec.Suppressed, role)
			}
		}
	}
	spec.Capabilities = Capabilities{
		Revocable: w.rng.IntN(2) == 0, Refinement: w.rng.IntN(2) == 0, GPU: w.rng.IntN(2) == 0, RegionAware: w.rng.IntN(2) == 0,
	}
	note("framework %s %+v", id, spec)
	fw := w.p.frameworks[id]
	if fw == nil {
		fw = &plainFramework{}
		w.p.frameworks[id] = fw
	}
	fw.spec, fw.suppressed = spec, make(map[Role]bool)
	for _, role := range spec.Suppressed {
		fw.suppressed[role] = true
	}
	w.a.AddFramework(id, spec)
	w.clear(func(c plainClient) bool { return c.framework == id && !slices.Contains(spec.Roles, c.role) })
	if !fw.active && w.rng.IntN(4) > 0 {
		fw.active = true
		w.a.ActivateFramework(id)
	}
}

// settleOffer returns or consumes a part of an offer, or all of it.
func (w *world) settleOffer(on AgentID, ag *plainAgent, note func(string, ...any)) {
	var holders []plainClient
	for _, c := range w.p.clients() {
		if _, ok := ag.offers[c]; ok {
			holders = append(holders, c)
		}
	}
	c := pick(w.rng, holders)
	rs := ag.offers[c]
	if w.rng.IntN(2) == 0 {
		rs = w.part(rs)
	}
	rest := ag.offers[c].Sub(rs)
	if rest.Empty() {
		delete(ag.offers, c)
	} else {
		ag.offers[c] = rest
	}
	if w.rng.IntN(2) == 0 {
		note("consume %s %s %v", c, on, rs)
		w.a.Consume(c.framework, c.role, on, rs)
		if !rs.Empty() {
			ag.holds = append(ag.holds, plainHold{c, rs})
		}
		return
	}
	filter := time.Duration(w.rng.IntN(4)) * 4 * time.Second
	note("return %s %s %v for %v", c, on, rs, filter)
	w.a.Return(Grant{Framework: c.framework, Role: c.role, Agent: on, Resources: rs.AllocatedTo(c.role)}, filter, w.now)
	fw := w.p.frameworks[c.framework]
	if filter > 0 && !rs.Empty() && fw != nil && fw.active && slices.Contains(fw.spec.Roles, c.role) {
		ag.refuse = append(ag.refuse, plainFilter{c, rs, w.now.Add(filter)})
	}
}

func (w *world) allocate(note func(string, ...any)) {
	grants := w.a.Allocate(w.now)
	note("allocate: %v", grants)
	if !w.quota {
		if err := w.p.judge(grants, w.now); err != nil {
			w.fail(err)
		}
		return
	}
	for _, g := range grants {
		ag, c := w.p.agents[g.Agent], plainClient{g.Framework, g.Role}
		ag.offers[c] = ag.offers[c].Add(g.Resources.Unallocated())
	}
	w.limits()
}

// limits fails when a role was offered more than its limit. What it has beyond by what was there before, as when a limit is
// set late, is no fault: then it is offered nothing more, which the next call shows.
func (w *world) limits() {
	for _, n := range w.a.quotas.nodes {
		for name, limit := range n.quota.Limit {
			i := w.a.names.of(name)
			offered := resources.Milli(0)
			for _, ag := range w.a.list {
				for c, rs := range ag.offers {
					if c.role == n.path || resources.IsSubRole(c.role, n.path) {
						offered += plainPart(rs).Scalar(name)
					}
				}
			}
			if has := n.consumed(i); has > limit && len(w.a.Allocate(w.now)) > 0 {
				w.fail(fmt.Errorf("role %q has %v of %q, its limit is %v, and offers go on (%v are out)", n.path, has, name, limit, offered))
			}
		}
	}
}

func (w *world) fail(err error) {
	w.t.Helper()
	for _, line := range w.log[max(0, len(w.log)-60):] {
		w.t.Log(line)
	}
	w.t.Fatal(err)
}

// seeds are those to try: one by chance, or that of the environment variable SEED, to repeat a failure.
func seeds(t *testing.T, n int) []uint64 {
	t.Helper()
	if text := os.Getenv("SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return []uint64{seed}
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = rand.Uint64()
	}
	return out
}

// Whatever happens in whatever order, the books add up after every call, each run grants what an allocator without any
// cleverness would have granted, and nothing is left that could be offered.
func TestRandomCallsAgainstThePlainAllocator(t *testing.T) {
	for _, seed := range seeds(t, 30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, false)
			for range 400 {
				w.step()
			}
		})
	}
}

func TestRandomCallsWithQuotas(t *testing.T) {
	for _, seed := range seeds(t, 20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, true)
			for range 400 {
				w.step()
			}
		})
	}
}

func TestTheSameSeedGrantsTheSame(t *testing.T) {
	seed := seeds(t, 1)[0]
	var logs [2][]string
	for i := range logs {
		w := newWorld(t, seed, i < 0)
		for range 500 {
			w.step()
		}
		logs[i] = w.log
	}
	if !slices.Equal(logs[0], logs[1]) {
		t.Errorf("seed %d: two runs differ", seed)
	}
}
