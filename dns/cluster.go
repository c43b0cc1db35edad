package dns

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"starling/dns/records"
	"starling/gossip/catalog"
	"starling/gossip/record"
)

// cutOff is whether this node is. Who loses sight of all others at once cannot tell whether they died, and most likely it is its own link: then
// the others' names stay where nothing else is left of them. The death of one node, or of two, is believed; so is that of many one after
// the other.
type cutOff struct {
	on bool
	// from is when the first of the others was lost that were lost together.
	from time.Time
}

// What it takes to believe that this node is cut off.
const (
	lostTogether = 3
	lostWithin   = 2 * time.Minute
)

// returnPatience is how long the tasks of a node that said goodbye are answered for where nothing else is left of a name. An agent that is
// stopped in order leaves its tasks running, and is back within seconds when it is only made anew; a crash of it would not be noticed by then.
const returnPatience = 30 * time.Second

// sayFarewell gives up nodes that said goodbye and have not come back.
func (f *follower) sayFarewell(now time.Time) {
	if f.farewellAt.IsZero() || now.Before(f.farewellAt) {
		return
	}
	f.farewellAt = time.Time{}
	over := map[string]bool{}
	for _, n := range f.nodes {
		if n.returns.IsZero() {
			continue
		}
		if now.Before(n.returns) {
			f.expect(n)
			continue
		}
		n.returns = time.Time{}
		over[n.name] = true
	}
	for s := range f.config.Source.Snapshots() {
		if over[s.Node()] {
			f.whole(s.Node(), s)
		}
	}
}

// expect has a node given up in time.
func (f *follower) expect(n *node) {
	if f.farewellAt.IsZero() || n.returns.Before(f.farewellAt) {
		f.farewellAt = n.returns
	}
}

// see takes up what is thought of a node.
func (f *follower) see(n *node, l record.Liveness) {
	switch {
	case l != record.Left:
		n.returns = time.Time{}
	case n.liveness == record.Alive && f.returnPatience > 0:
		n.returns = time.Now().Add(f.returnPatience)
		f.expect(n)
	}
	gone := l == record.Suspect || l == record.Dead
	switch {
	case !gone:
		n.lostAt = time.Time{}
	case n.liveness == record.Alive:
		n.lostAt = time.Now()
	}
	n.liveness = l
	n.listed = l == record.Alive || gone || n.presumed(f)
	n.live = l == record.Alive || n.presumed(f) || f.cut.on && gone && !n.lostAt.IsZero() && !n.lostAt.Before(f.cut.from)
}

// presumed tells whether nobody knows if a node lives, and aged names of it beat none: while there is nobody to ask.
func (n *node) presumed(f *follower) bool { return f.unheard && n.liveness == record.Unknown }

// lookAround finds out whether this node is cut off, and tells whether that has changed.
func (f *follower) lookAround() (turned bool) {
	var last time.Time
	alive := 0
	for _, n := range f.nodes {
		switch {
		case n == f.self:
		case n.liveness == record.Alive:
			alive++
		case n.lostAt.After(last):
			last = n.lostAt
		}
	}
	lost := 0
	for _, n := range f.nodes {
		if !n.lostAt.IsZero() && last.Sub(n.lostAt) <= lostWithin {
			lost++
		}
	}
	before := f.cut
	f.cut = cutOff{}
	if f.self != nil && alive == 0 && lost >= lostTogether {
		f.cut = cutOff{true, last.Add(-lostWithin)}
		if before.on {
			f.cut.from = before.from
		}
	}
	if f.cut.on != before.on {
		f.following.cutOff.Set(map[bool]float64{true: 1}[f.cut.on])
		f.config.Log.Info("who is out of sight is believed otherwise", "cut_off", f.cut.on, "nodes", lost)
	}
	return f.cut.on != before.on
}

// cluster makes the records of masters and of the leader anew. While no live master says that it leads, what the last one said holds: the
// claim with the highest epoch. A master that is gone keeps its number.
func (f *follower) cluster() {
	var c records.Cluster
	var leads *node
	var masters []*node
	anyone := false
	for _, n := range f.nodes {
		if n.leader != nil && (leads == nil || n.leadsBefore(leads)) {
			leads = n
		}
		if len(n.addrs) > 0 && slices.Contains(n.info.GetRoles(), catalog.RoleMaster) {
			masters = append(masters, n)
			anyone = anyone || n.live
		}
	}
	slices.SortFunc(masters, func(a, b *node) int { return cmp.Compare(strings.ToLower(a.name), strings.ToLower(b.name)) })
	for _, n := range masters {
		m := records.Master{}
		if n.live || n == leads || n.listed && !anyone {
			m = endpoint(n)
		}
		c.Masters = append(c.Masters, m)
	}
	if leads != nil && leads.leader.GetPort() <= 65535 {
		if a := parseAddrs([]string{leads.leader.GetAddress()}); len(a) > 0 {
			c.Leader = &records.Master{Addr: a[0], Port: uint16(leads.leader.GetPort())}
		}
	}
	f.replace("cluster", c.Records(f.config.Zone.Domain))
}

// leadsBefore compares the claims of two nodes.
func (n *node) leadsBefore(o *node) bool {
	if n.live != o.live {
		return n.live
	}
	if c := cmp.Compare(n.leader.GetEpoch(), o.leader.GetEpoch()); c != 0 {
		return c > 0
	}
	return n.name < o.name
}

func endpoint(n *node) records.Master {
	return records.Master{Addr: n.addrs[0], Port: uint16(min(n.info.GetPort(), 65535))}
}

// showAgent makes the records of an agent what they should be.
func (f *follower) showAgent(n *node) {
	var list []records.Record
	if f.all && n.live && len(n.addrs) > 0 && slices.Contains(n.info.GetRoles(), catalog.RoleAgent) {
		list = records.Cluster{Agents: []records.Master{endpoint(n)}}.Records(f.config.Zone.Domain)
	}
	f.replace("agent/"+n.name, list)
}
