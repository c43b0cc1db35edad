package allocator

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// The names of what the allocator deals with are those that the API shows.
type (
	// FrameworkID is the value of a mesos.FrameworkID.
	FrameworkID = string
	// AgentID is the value of a mesos.AgentID.
	AgentID = string
	// Role is the path of a role, such as "*" or "eng/web".
	Role = string
)

// The bounds of filters.
const (
	// DefaultFilter is how long a refusal lasts that does not say.
	DefaultFilter = 5 * time.Second
	// MaxFilter is the longest refusal.
	MaxFilter = 365 * 24 * time.Hour
)

// Config says how to allocate.
type Config struct {
	// Interval is the shortest filter: a shorter one that is not 0 is lengthened to it. Default 1 s.
	Interval time.Duration
	// Burst is how many offers of the same agent a client may return without a filter in one Interval. From then on it is
	// not offered the same again until the Interval ends. 0 means no bound. Default 8.
	Burst int
	// MinAllocatable are alternatives: an offer holds at least one of them whole. Empty: anything is worth an offer.
	// Default cpus:0.01 or mem:32. A framework may replace it for a role.
	MinAllocatable []Quantities
	// Region is that of the master. Agents of another one are offered to frameworks with RegionAware alone. Empty: every
	// agent counts as near.
	Region string
	// GPUsToAll offers agents with GPUs to frameworks without the capability too.
	GPUsToAll bool
	// Excluded are the names of resources that don't count for fairness.
	Excluded []string
}

// DefaultConfig returns the defaults of Mesos.
func DefaultConfig() Config {
	return Config{Interval: time.Second, Burst: 8, MinAllocatable: []Quantities{{resources.CPUs: 10}, {resources.Mem: 32000}}}
}

// Quantities are amounts of scalar resources by name.
type Quantities map[string]resources.Milli

// String lists the quantities in order of names, as in "cpus:0.01;mem:32".
func (q Quantities) String() string {
	names := make([]string, 0, len(q))
	for name := range q {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		names[i] = name + ":" + q[name].String()
	}
	return strings.Join(names, ";")
}

// ParseMinAllocatable reads the form of the flag min_allocatable_resources: "cpus:0.01|mem:32;disk:10", where | is or and ;
// is and. An empty string gives no alternatives.
func ParseMinAllocatable(s string) ([]Quantities, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	var out []Quantities
	for alternative := range strings.SplitSeq(s, "|") {
		rs, err := resources.Parse(alternative, resources.AnyRole)
		if err != nil {
			return nil, fmt.Errorf("minimum allocatable resources %q: %w", alternative, err)
		}
		q := make(Quantities)
		maps.Insert(q, rs.Scalars())
		if len(q) == 0 || len(q) != len(rs.Names()) {
			return nil, fmt.Errorf("minimum allocatable resources %q: only scalars above 0 make sense", alternative)
		}
		out = append(out, q)
	}
	return out, nil
}

// RefuseFor returns how long a refusal with these filters lasts: 5 s where they don't say or say nonsense, 0 for none, 365
// days at most.
func RefuseFor(f *mesos.Filters) time.Duration {
	s := f.GetRefuseSeconds() // 5 for nil
	switch {
	case math.IsNaN(s) || s < 0:
		return DefaultFilter
	case s > MaxFilter.Seconds():
		return MaxFilter
	}
	return time.Duration(s * float64(time.Second))
}

// Capabilities are what matters here of a framework's.
type Capabilities struct {
	// Revocable, Shared and Refinement let it have resources that are left out otherwise.
	Revocable, Shared, Refinement bool
	// GPU lets it have agents with GPUs.
	GPU bool
	// RegionAware lets it have agents of other regions.
	RegionAware bool
}

// CapabilitiesOf reads them out of a framework's description.
func CapabilitiesOf(info *mesos.FrameworkInfo) Capabilities {
	var c Capabilities
	for _, one := range info.GetCapabilities() {
		switch one.GetType() {
		case mesos.FrameworkInfo_Capability_REVOCABLE_RESOURCES:
			c.Revocable = true
		case mesos.FrameworkInfo_Capability_SHARED_RESOURCES:
			c.Shared = true
		case mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT:
			c.Refinement = true
		case mesos.FrameworkInfo_Capability_GPU_RESOURCES:
			c.GPU = true
		case mesos.FrameworkInfo_Capability_REGION_AWARE:
			c.RegionAware = true
		}
	}
	return c
}

// FrameworkSpec is what a framework wants. The allocator keeps it; it must not be changed afterwards.
type FrameworkSpec struct {
	// Roles are those that it wants offers for.
	Roles []Role
	// Suppressed are the roles, among Roles, that it wants no offers for now.
	Suppressed   []Role
	Capabilities Capabilities
	// MinAllocatable replaces Config.MinAllocatable for a role. An empty list: anything.
	MinAllocatable map[Role][]Quantities
	// Admits, where set, says whether a role may be offered an agent; it must be pure, and is asked again whenever it
	// matters. See CompileConstraints.
	Admits func(role Role, agent *AgentSpec) bool
}

// SpecOf reads a specification out of a framework's description. Admits is left unset.
func SpecOf(info *mesos.FrameworkInfo, suppressed []Role) FrameworkSpec {
	spec := FrameworkSpec{Suppressed: slices.Clone(suppressed), Capabilities: CapabilitiesOf(info)}
	multi := slices.ContainsFunc(info.GetCapabilities(), func(c *mesos.FrameworkInfo_Capability) bool {
		return c.GetType() == mesos.FrameworkInfo_Capability_MULTI_ROLE
	})
	if multi {
		spec.Roles = slices.Clone(info.GetRoles())
	} else {
		spec.Roles = []Role{info.GetRole()}
	}
	for role, f := range info.GetOfferFilters() {
		if f.GetMinAllocatableResources() == nil {
			continue
		}
		if spec.MinAllocatable == nil {
			spec.MinAllocatable = make(map[Role][]Quantities)
		}
		alternatives := []Quantities{}
		for _, one := range f.GetMinAllocatableResources().GetQuantities() {
			q := make(Quantities)
			for name, v := range one.GetQuantities() {
				if m, err := resources.FromFloat(v.GetValue()); err == nil {
					q[name] = m
				}
			}
			alternatives = append(alternatives, q)
		}
		spec.MinAllocatable[role] = alternatives
	}
	return spec
}

// Grant is one offer to make. What it holds counts as offered until it is handed to Return or Consume, whole or in parts.
type Grant struct {
	Framework FrameworkID
	Role      Role
	Agent     AgentID
	// Resources are allocated to Role. Where a Grant goes in, the allocation does not matter.
	Resources resources.Resources
}

// Allocator holds the books. The zero value is not usable, New makes one. It belongs to one goroutine.
type Allocator struct {
	cfg Config
	rng *rand.Rand

	names  names
	totals vec // of all agents
	// generation changes with totals: every share is a different one then.
	generation uint64

	agents     map[AgentID]*agent
	list       []*agent // all agents; the order depends on the calls alone
	frameworks map[FrameworkID]*framework
	root       *node
	nodes      map[Role]*node
	quotas     quotas
	filters    filterHeap
	numbered   uint64 // filters made so far

	// What Allocate has to look at: agents, clients on all agents, or all of it.
	queue []*agent
	eager []*client
	all   bool
}

// framework is one that is subscribed, or of which resources are in use.
type framework struct {
	id      FrameworkID
	spec    FrameworkSpec
	known   bool // added and not removed
	active  bool
	clients []*client // in order of coming
}

// client is a framework in one role.
type client struct {
	fw   *framework
	leaf *node
	role Role
	// subscribed: the role is among the framework's; suppressed: it wants no offers now. listed: it is in leaf.clients, where
	// those are that may get offers.
	subscribed, suppressed, listed bool
	min                            []Quantities
	charge                         // what it has: offered, pending and used
	filters                        map[*agent][]*filter
	refusals                       int // how many there are in filters
	returns                        map[*agent]*burst
	// refs counts the agents' entries that name this client; it goes when the last does and nobody subscribes.
	refs  int
	eager bool // in Allocator.eager
}

// New returns an allocator without agents and frameworks. The rng decides in which order agents are looked at; with the same
// seed and the same calls everything is the same.
func New(cfg Config, rng *rand.Rand) *Allocator {
	a := &Allocator{
		cfg: cfg, rng: rng, names: names{index: make(map[string]int)}, agents: make(map[AgentID]*agent),
		frameworks: make(map[FrameworkID]*framework), nodes: make(map[Role]*node),
	}
	a.root = &node{weight: 1}
	return a
}

// AddFramework adds a framework, which gets no offers before ActivateFramework. For one that exists it is UpdateFramework.
func (a *Allocator) AddFramework(id FrameworkID, spec FrameworkSpec) { a.UpdateFramework(id, spec) }

// UpdateFramework replaces what a framework wants; one that does not exist is added. Offers for roles that it dropped are
// the caller's to rescind and return.
func (a *Allocator) UpdateFramework(id FrameworkID, spec FrameworkSpec) {
	fw := a.framework(id)
	fw.known, fw.spec = true, spec
	for _, role := range spec.Roles {
		a.client(fw, role)
	}
	for _, c := range slices.Clone(fw.clients) {
		c.subscribed = slices.Contains(spec.Roles, c.role)
		c.suppressed = slices.Contains(spec.Suppressed, c.role)
		c.min = a.cfg.MinAllocatable
		if own, ok := spec.MinAllocatable[c.role]; ok {
			c.min = own
		}
		if !c.subscribed {
			a.clearFilters(c)
		}
		a.enlist(c)
		a.wake(c) // it may be offered more than before
		a.drop(c)
	}
}

// ActivateFramework lets a framework have offers.
func (a *Allocator) ActivateFramework(id FrameworkID) { a.setActive(id, true) }

// DeactivateFramework ends offers to a framework and forgets its filters. Outstanding offers are the caller's to rescind and
// return.
func (a *Allocator) DeactivateFramework(id FrameworkID) { a.setActive(id, false) }

func (a *Allocator) setActive(id FrameworkID, active bool) {
	fw := a.frameworks[id]
	if fw == nil || fw.active == active {
		return
	}
	fw.active = active
	for _, c := range fw.clients {
		if !active {
			a.clearFilters(c)
		}
		a.enlist(c)
		a.wake(c)
	}
}

// RemoveFramework forgets a framework: its offers are returned, its filters go. What its tasks use, and what is held for
// launches on their way, stays in the books until SetUsed and Settle say otherwise.
func (a *Allocator) RemoveFramework(id FrameworkID) {
	fw := a.frameworks[id]
	if fw == nil {
		return
	}
	fw.known, fw.active, fw.spec = false, false, FrameworkSpec{}
	for _, c := range slices.Clone(fw.clients) {
		c.subscribed = false
		a.clearFilters(c)
		a.enlist(c)
		for _, ag := range a.list {
			if out, ok := ag.offers[c]; ok {
				a.release(ag, c, out)
			}
		}
		a.drop(c)
	}
	a.dropFramework(fw)
}

// Revive forgets the filters of a framework's roles and ends their suppression. No roles means all that it subscribes to;
// a role that it does not subscribe to is passed over.
func (a *Allocator) Revive(id FrameworkID, roles []Role) {
	a.each(id, roles, func(c *client) {
		c.suppressed = false
		a.clearFilters(c)
		a.enlist(c)
		a.wake(c)
	})
}

// Suppress ends offers for a framework's roles until Revive. No roles means all that it subscribes to.
func (a *Allocator) Suppress(id FrameworkID, roles []Role) {
	a.each(id, roles, func(c *client) {
		c.suppressed = true
		a.enlist(c)
	})
}

func (a *Allocator) each(id FrameworkID, roles []Role, f func(*client)) {
	fw := a.frameworks[id]
	if fw == nil {
		return
	}
	for _, c := range fw.clients {
		if c.subscribed && (len(roles) == 0 || slices.Contains(roles, c.role)) {
			f(c)
		}
	}
}

// SetWeight sets the weight of a role, 1 by default: a role of weight 2 gets twice as much before it counts as having as
// much. One that is not above 0 stands for 1. Offers that are out stay.
func (a *Allocator) SetWeight(role Role, weight float64) {
	if !(weight > 0) || math.IsInf(weight, 0) {
		weight = 1
	}
	n := a.node(role)
	n.weight = weight
	n.weighted = weight != 1
	a.generation++
	a.prune(n)
}

// framework returns a framework, a ghost where it is not known: agents may use resources for one that is yet to return.
func (a *Allocator) framework(id FrameworkID) *framework {
	fw := a.frameworks[id]
	if fw == nil {
		fw = &framework{id: id}
		a.frameworks[id] = fw
	}
	return fw
}

func (a *Allocator) dropFramework(fw *framework) {
	if !fw.known && len(fw.clients) == 0 {
		delete(a.frameworks, fw.id)
	}
}

// client returns a framework's client for a role, a new one if need be.
func (a *Allocator) client(fw *framework, role Role) *client {
	if c := fw.client(role); c != nil {
		return c
	}
	c := &client{
		fw: fw, role: role, leaf: a.node(role).leaf(), min: a.cfg.MinAllocatable, filters: make(map[*agent][]*filter),
		returns: make(map[*agent]*burst),
	}
	c.leaf.ref(1)
	fw.clients = append(fw.clients, c)
	return c
}

func (f *framework) client(role Role) *client {
	for _, c := range f.clients {
		if c.role == role {
			return c
		}
	}
	return nil
}

// lookup returns a client only if it exists.
func (a *Allocator) lookup(id FrameworkID, role Role) *client {
	if fw := a.frameworks[id]; fw != nil {
		return fw.client(role)
	}
	return nil
}

// drop forgets a client that nothing names any more.
func (a *Allocator) drop(c *client) {
	if c.refs > 0 || c.subscribed {
		return
	}
	a.clearFilters(c)
	a.enlist(c)
	c.fw.clients = slices.DeleteFunc(c.fw.clients, func(o *client) bool { return o == c })
	c.leaf.ref(-1)
	a.prune(c.leaf.parent)
	a.dropFramework(c.fw)
}

// enlist puts a client among those that may get offers, or takes it out.
func (a *Allocator) enlist(c *client) {
	want := c.fw.active && c.subscribed && !c.suppressed
	if want == c.listed {
		return
	}
	c.listed = want
	if want {
		c.leaf.clients = append(c.leaf.clients, c)
		c.leaf.unsorted = true
	} else {
		c.leaf.clients = slices.DeleteFunc(c.leaf.clients, func(o *client) bool { return o == c })
	}
}

// wake has a client looked at on all agents.
func (a *Allocator) wake(c *client) {
	if c.listed && !c.eager {
		c.eager = true
		a.eager = append(a.eager, c)
	}
}

// compare orders clients of one leaf: the least share first.
func (a *Allocator) compareClients(x, y *client) int {
	if c := cmp.Compare(x.share(a), y.share(a)); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(x.count, y.count), cmp.Compare(x.fw.id, y.fw.id))
}
