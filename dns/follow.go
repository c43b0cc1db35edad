package dns

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"starling/dns/records"
	"starling/gossip/catalog"
	"starling/gossip/record"
)

// taskRunning is the number of mesos.v1.TASK_RUNNING: only tasks in this state have names.
const taskRunning = 1

// follower keeps the zone equal to what the source says. One goroutine uses it.
type follower struct {
	*Server
	feed  *record.Feed
	nodes map[string]*node
}

// node is what is known of one node of the mesh.
type node struct {
	info   catalog.Node
	addrs  []netip.Addr
	leader *catalog.Leader
	// tasks are the keys of the tasks that have names now.
	tasks map[string]bool
}

func newFollower(s *Server) *follower {
	return &follower{Server: s, feed: s.config.Source.Feed(), nodes: map[string]*node{}}
}

func (f *follower) run(ctx context.Context) error {
	for {
		changes, err := f.feed.Next(ctx)
		switch {
		case errors.Is(err, record.ErrLagged):
			f.metrics.lagged.Inc()
			f.readAll()
			continue
		case err != nil:
			return err
		}
		cluster := false
		for _, c := range changes {
			cluster = f.apply(c) || cluster
		}
		if cluster {
			f.cluster()
		}
	}
}

// readAll reads every record again, and forgets nodes that are no longer there.
func (f *follower) readAll() {
	seen := map[string]bool{}
	for s := range f.config.Source.Snapshots() {
		seen[s.Node()] = true
		f.whole(s.Node(), s)
	}
	for name := range f.nodes {
		if !seen[name] {
			f.whole(name, nil)
		}
	}
	f.cluster()
}

// apply takes in one change, and tells whether the cluster's own names may have changed.
func (f *follower) apply(c record.Change) bool {
	_, _, task := catalog.ParseTaskKey(c.Key)
	switch {
	case c.Key == "" || c.Key == catalog.KeyNode || f.nodes[c.Node] == nil:
		f.whole(c.Node, c.Snapshot)
		return true
	case task:
		f.task(c.Node, f.nodes[c.Node], c.Key, c.Value)
		return false
	case c.Key == catalog.KeyLeader:
		f.nodes[c.Node].leader = f.decodeLeader(c.Value)
		return true
	}
	return false
}

// whole reads all of a node's record. Names of a node that is suspected dead, gone or unknown leave at once.
func (f *follower) whole(name string, s *record.Snapshot) {
	n := &node{tasks: map[string]bool{}}
	if old := f.nodes[name]; old != nil {
		n.tasks = old.tasks
	}
	stale := n.tasks
	n.tasks = map[string]bool{}
	if s != nil && s.Liveness() == record.Alive {
		f.nodes[name] = n
		if v, ok := s.Get(catalog.KeyNode); ok && f.decode(v, &n.info) {
			if a, err := netip.ParseAddr(n.info.GetAddress()); err == nil {
				n.addrs = []netip.Addr{a}
			}
		}
		if v, ok := s.Get(catalog.KeyLeader); ok {
			n.leader = f.decodeLeader(v)
		}
		for key, v := range s.Prefix(catalog.PrefixTask) {
			f.task(name, n, key, v)
		}
	} else {
		delete(f.nodes, name)
	}
	for key := range stale {
		if !n.tasks[key] {
			f.zone.Replace(source(name, key), nil)
		}
	}
}

func source(node, key string) string { return node + "\x00" + key }

func (f *follower) decode(value []byte, into proto.Message) bool {
	if err := proto.Unmarshal(value, into); err != nil {
		f.metrics.bad.Inc()
		f.config.Log.Debug("record value does not decode", "err", err)
		return false
	}
	return true
}

func (f *follower) decodeLeader(value []byte) *catalog.Leader {
	l := &catalog.Leader{}
	if value == nil || !f.decode(value, l) {
		return nil
	}
	return l
}

// task makes the zone's records of one task those that its value tells of; nil is a task that is gone.
func (f *follower) task(name string, n *node, key string, value []byte) {
	var list []records.Record
	t := &catalog.Task{}
	if value != nil && f.decode(value, t) && resolvable(t) {
		list = taskOf(n, t).Records(f.config.Zone.Domain)
	}
	if len(list) > 0 {
		n.tasks[key] = true
	} else {
		delete(n.tasks, key)
	}
	if f.zone.Replace(source(name, key), list) {
		f.metrics.updates.Inc()
	}
}

// resolvable tells whether a task has names: it runs, and where it has a health check, that says so.
func resolvable(t *catalog.Task) bool {
	if t.GetState() != taskRunning {
		return false
	}
	if t.Healthy != nil {
		return t.GetHealthy()
	}
	return !t.GetChecked()
}

func taskOf(n *node, t *catalog.Task) records.Task {
	task := records.Task{
		ID: t.GetTaskId(), Name: t.GetName(), Framework: t.GetFrameworkName(), AgentID: n.info.GetAgentId(), Agent: n.addrs,
		Discovery: t.GetDiscovery().GetName(),
	}
	for _, a := range t.GetAddresses() {
		if addr, err := netip.ParseAddr(a); err == nil {
			task.Addrs = append(task.Addrs, addr)
		}
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
		if p.GetNumber() <= 65535 {
			task.Ports = append(task.Ports, records.Port{Number: uint16(p.GetNumber()), Name: p.GetName(), Protocol: p.GetProtocol()})
		}
	}
	return task
}

// maxPorts bounds the SRV records of one task: one that takes a whole range of ports does not serve a name on each.
const maxPorts = 256

// cluster makes the records of masters and agents anew. The leader is the one with the highest epoch.
func (f *follower) cluster() {
	var c records.Cluster
	var leader *catalog.Leader
	for _, name := range sortedKeys(f.nodes) {
		n := f.nodes[name]
		if l := n.leader; l != nil && (leader == nil || l.GetEpoch() > leader.GetEpoch()) {
			leader = l
		}
		if len(n.addrs) == 0 || n.info.GetPort() > 65535 {
			continue
		}
		at := records.Master{Addr: n.addrs[0], Port: uint16(n.info.GetPort())}
		if slices.Contains(n.info.GetRoles(), catalog.RoleMaster) {
			c.Masters = append(c.Masters, at)
		}
		if slices.Contains(n.info.GetRoles(), catalog.RoleAgent) {
			c.Agents = append(c.Agents, at)
		}
	}
	if leader != nil && leader.GetPort() <= 65535 {
		if a, err := netip.ParseAddr(leader.GetAddress()); err == nil {
			c.Leader = &records.Master{Addr: a, Port: uint16(leader.GetPort())}
		}
	}
	f.zone.Replace("cluster", c.Records(f.config.Zone.Domain))
}

func sortedKeys(m map[string]*node) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Compare(strings.ToLower(a), strings.ToLower(b)) })
	return keys
}
