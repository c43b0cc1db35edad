package dns

import (
	"net/netip"
	"slices"
	"time"

	"starling/dns/records"
	"starling/gossip/catalog"
	"starling/gossip/record"
)

// running is a running task of a node that is believed in.
type running struct {
	node  *node
	key   string
	value []byte // the source's
	group *group
	index int // in the group
	tier  tier
	shown bool
	own   []netip.Addr // its own addresses, where those are answered
}

// source is the name of a task's records in the zone.
func source(node, key string) string { return node + "\x00" + key }

// tasks makes the tasks of a node those of its record; those of a node that is not believed in are none. anew has them read also where their
// values are the ones that were read.
func (f *follower) tasks(n *node, s *record.Snapshot, anew bool) {
	if s == nil || !n.live && n.returns.IsZero() {
		for key := range n.tasks {
			f.task(n, key, nil, false)
		}
		return
	}
	// A node that is lost shows its tasks in another tier than one that is there.
	if want := n.liveness != record.Alive; !anew {
		for _, t := range n.tasks {
			anew = (t.tier == tierLost) != want
			break
		}
	}
	held := 0
	for key, value := range s.Prefix(catalog.PrefixTask) {
		if f.task(n, key, value, anew) {
			held++
		}
	}
	if held == len(n.tasks) {
		return
	}
	for key := range n.tasks {
		if _, ok := s.Get(key); !ok {
			f.task(n, key, nil, false)
		}
	}
}

// task takes in the value of one task; nil is a task that is gone. It tells whether the task runs.
func (f *follower) task(n *node, key string, value []byte, anew bool) bool {
	t := n.tasks[key]
	if t != nil && same(t.value, value) && !anew {
		return true
	}
	info := &catalog.Task{}
	now := tierNone
	if value != nil && f.decode(value, info) {
		if now = f.config.Health.tierOf(info); now != tierNone && n.liveness != record.Alive {
			now = tierLost
		}
		f.stamped(info.GetChanged())
	}
	if now == tierNone {
		if t != nil {
			f.move(t, nil, tierNone)
			f.level(t)
			f.hide(t)
			delete(n.tasks, key)
		}
		return false
	}
	if t == nil {
		t = &running{node: n, key: key}
		n.tasks[key] = t
	}
	t.value = value
	// It is a member of the group before that is looked at, and has left its old one before that may show others.
	old := t.group
	f.move(t, f.groupOf(info), now)
	if old != nil && old != t.group {
		f.relevel(old)
	}
	if !f.relevel(t.group) {
		f.present(t, info)
	} else if t.shown {
		f.show(t, info) // it was shown already, perhaps as it was before
	}
	return true
}

// groupOf finds the tasks of the same name.
func (f *follower) groupOf(t *catalog.Task) *group {
	name := t.GetDiscovery().GetName()
	if name == "" {
		name = t.GetName()
	}
	name = records.Lower(t.GetFrameworkName() + "\x00" + name)
	g := f.groups[name]
	if g == nil {
		g = &group{name: name}
		f.groups[name] = g
	}
	return g
}

// move makes a task a member of a group in a tier; nil is none.
func (f *follower) move(t *running, to *group, tier tier) {
	if t.group == to && t.tier == tier {
		return
	}
	if t.group != nil {
		t.group.remove(t)
	}
	if t.tier = tier; to != nil {
		to.add(t)
		t.group = to
	}
}

// level looks at the group that a task has left, which is shown what it has left before the task is hidden.
func (f *follower) level(t *running) {
	f.relevel(t.group)
	t.group = nil
}

// relevel shows another tier of a group where the best one has changed, and tells whether it has. What comes is shown before the rest is hidden,
// so that no name is empty in between.
func (f *follower) relevel(g *group) bool {
	best := g.best()
	if len(g.members) == 0 {
		delete(f.groups, g.name)
	}
	if best == g.shown {
		return false
	}
	f.following.leveled(g.shown, best)
	g.shown = best
	for _, t := range g.members {
		if t.tier == best && !t.shown {
			info := &catalog.Task{}
			if f.decode(t.value, info) {
				f.show(t, info)
			}
		}
	}
	for _, t := range g.members {
		if t.tier != best {
			f.hide(t)
		}
	}
	return true
}

// present shows or hides a task by its group's level.
func (f *follower) present(t *running, info *catalog.Task) {
	if t.tier == t.group.shown {
		f.show(t, info)
	} else {
		f.hide(t)
	}
}

func (f *follower) show(t *running, info *catalog.Task) {
	r := f.taskOf(t.node, info)
	t.shown = true
	if f.update(t, &r) {
		f.metrics.updates.Inc()
	}
	if r.Reverse || len(t.own) > 0 {
		var own []netip.Addr
		if r.Reverse {
			own = r.Addrs
		}
		if !slices.Equal(own, t.own) {
			f.ranker.disclaim(t.node, t.own)
			f.ranker.claim(t.node, own)
			t.own = own
		}
	}
}

func (f *follower) hide(t *running) {
	if !t.shown {
		return
	}
	t.shown = false
	if f.update(t, nil) {
		f.metrics.updates.Inc()
	}
	f.ranker.disclaim(t.node, t.own)
	t.own = nil
}

func (f *follower) update(t *running, r *records.Task) bool {
	changed := f.zone.ReplaceTask(source(t.node.name, t.key), r)
	f.count(changed)
	return changed
}

// clockSkew is how far ahead of this node's clock another one's is believed. A serial number that it led ahead is lost when this node starts
// again, and secondaries transfer nothing until the clock has caught up.
const clockSkew = time.Minute

// stamped notes when the owner of a change made it.
func (f *follower) stamped(at uint32) {
	if at > f.stamp && int64(at) < f.config.Now().Add(clockSkew).Unix() {
		f.stamp = at
	}
}

// taskOf is what a task contributes to the zone.
func (f *follower) taskOf(n *node, t *catalog.Task) records.Task {
	task := records.Task{
		ID: t.GetTaskId(), Name: t.GetName(), Framework: t.GetFrameworkName(), AgentID: n.info.GetAgentId(), Agent: n.addrs,
		Discovery: t.GetDiscovery().GetName(),
	}
	chosen := records.Addresses{
		Netinfo: parseAddrs(t.GetAddresses()), Mesos: parseAddrs(t.GetMesosAddresses()), Docker: parseAddrs(t.GetDockerAddresses()),
		Host: n.addrs, Published: t.GetPublished(),
	}
	addrs := chosen.Choose(f.config.IPSources)
	if len(addrs) == 0 && !chosen.Published && slices.Contains(f.config.IPSources, records.SourceNetinfo) {
		addrs = n.addrs // without a network of its own it has the node's
	}
	switch {
	case len(addrs) == 0:
		task.OwnOnly = true
	case !slices.Equal(addrs, n.addrs):
		task.Addrs, task.Reverse = addrs, true
	}
	for _, r := range t.GetResources() {
		if r.GetName() != "ports" {
			continue
		}
		for _, p := range r.GetRanges() {
			for port := p.GetBegin(); port <= min(p.GetEnd(), 65535) && len(task.HostPorts) < maxPorts; port++ {
				task.HostPorts = append(task.HostPorts, uint16(port))
			}
		}
	}
	for _, p := range t.GetDiscovery().GetPorts() {
		if p.GetNumber() <= 65535 && len(task.Ports) < maxPorts {
			task.Ports = append(task.Ports, records.Port{Number: uint16(p.GetNumber()), Name: p.GetName(), Protocol: p.GetProtocol()})
		}
	}
	return task
}

// maxPorts bounds the SRV records of one task: one that takes a whole range of ports does not serve a name on each.
const maxPorts = 256
