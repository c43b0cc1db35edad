package dns

import (
	"context"
	"errors"
	"math"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/dns/records"
	"starling/gossip/catalog"
	"starling/gossip/record"
)

// follower keeps the zone equal to what the source says. One goroutine uses it.
type follower struct {
	*Server
	feed *record.Feed
	// all is set once the nodes of others count. unheard is set while they do though the mesh has not been heard: then nobody knows who lives.
	all, unheard bool
	// nodes are all that a record is held of, by name; self is this one, nil where it is not known.
	nodes  map[string]*node
	self   *node
	groups map[string]*group // of tasks, by the name that they have in common

	labels     map[string]namesakes
	frameworks frameworks
	cut        cutOff

	// stamp is the newest time at which the owner of a change that is not committed made it, dirty is set while there is any. The next commit
	// may be at commitAt.
	stamp    uint32
	dirty    bool
	commitAt time.Time
	// returnPatience is how long a node that said goodbye is expected back, farewellAt when the first of those is given up; zero without any.
	returnPatience time.Duration
	farewellAt     time.Time
	// lookAt is when to look again which addresses this machine has; interfaces tells them.
	lookAt     time.Time
	interfaces func() ([]net.Addr, error)
	departures departures
	// steps counts changes of the zone, to let others have the processor now and then.
	steps int
}

// node is what is known of one node of the mesh.
type node struct {
	name string
	// value is what info was read from.
	value    []byte
	info     *catalog.Node // nil before it was told
	addrs    []netip.Addr
	liveness record.Liveness
	// live is set where the node is alive, or may be for all that a node knows which sees nobody: what it has is answered.
	live bool
	// listed is set for all that did not say goodbye.
	listed bool
	lostAt time.Time // when it ceased to be alive; zero for those that are, or never were
	// returns is until when one that said goodbye is expected back: its tasks may well run on. Zero for all others.
	returns    time.Time
	leader     *catalog.Leader
	coordinate *catalog.Coordinate
	place      place
	label, own string
	labelAt    netip.Addr
	tasks      map[string]*running // running ones, by key
}

func newFollower(s *Server) *follower {
	return &follower{
		returnPatience: returnPatience,
		Server:         s, feed: s.config.Source.Feed(), nodes: map[string]*node{}, groups: map[string]*group{}, labels: map[string]namesakes{},
		interfaces: net.InterfaceAddrs, all: s.heard(),
	}
}

// heard tells whether the source knows what is known of the cluster.
func (s *Server) heard() bool {
	select {
	case <-s.config.Synced:
		return true
	default:
		return s.config.Synced == nil
	}
}

// begin reads what is there: names must not be denied only because nobody has looked yet.
func (f *follower) begin() {
	f.tellNameserver()
	f.readAll()
	if f.all {
		f.sync()
	}
}

// sync has names denied from now on that are not in the zone.
func (f *follower) sync() {
	f.following.heard.Set(1)
	f.synced.Store(true)
}

// commitEvery is the least time between two serial numbers. With one for each batch of changes the number would run ahead of all clocks, and
// never meet that of other nodes again; this way new content may be under the old number for so long, and what was transferred then is
// transferred again.
const commitEvery = time.Second

// run follows the feed until ctx ends. Before the mesh is heard, only what is known of this node is shown. When that takes long, so is what there
// are records of; that there is no more than that is not said before the mesh was heard, and all of it read.
func (f *follower) run(ctx context.Context) error {
	if !f.all {
		if err := f.followUntilHeard(ctx, f.config.SyncPatience); ctx.Err() != nil {
			return err
		}
		f.all = true
	}
	if !f.heard() {
		f.unheard = true
		f.readAll()
		f.waited.Store(true)
		f.config.Log.Warn("the mesh is not heard, names that are not known here are answered SERVFAIL until it is", "dur", f.config.SyncPatience, "nodes", len(f.nodes))
		if err := f.followUntilHeard(ctx, forEver); ctx.Err() != nil {
			return err
		}
		f.config.Log.Info("the mesh is heard, names that it does not know are denied from now on")
		f.unheard = false
	}
	if !f.Synced() {
		f.readAll()
		f.sync()
	}
	return f.follow(ctx)
}

const forEver = time.Duration(math.MaxInt64)

// followUntilHeard takes in changes until the mesh is heard, or the patience or the context ends.
func (f *follower) followUntilHeard(ctx context.Context, patience time.Duration) error {
	heard, cancel := context.WithTimeout(ctx, patience)
	waiting := make(chan struct{})
	go func() {
		defer close(waiting)
		select {
		case <-f.config.Synced:
			cancel()
		case <-heard.Done():
		}
	}()
	err := f.follow(heard)
	cancel()
	<-waiting
	return err
}

// follow takes in changes until the context ends.
func (f *follower) follow(ctx context.Context) error {
	for {
		changes, err := f.next(ctx)
		switch {
		case errors.Is(err, record.ErrLagged):
			f.metrics.lagged.Inc()
			f.readAll()
		case err != nil:
			return err
		default:
			f.take(changes)
		}
	}
}

// next waits for changes, or until something is due.
func (f *follower) next(ctx context.Context) ([]record.Change, error) {
	at := f.lookAt
	if f.dirty && f.commitAt.Before(at) {
		at = f.commitAt
	}
	if !f.farewellAt.IsZero() && f.farewellAt.Before(at) {
		at = f.farewellAt
	}
	pause, cancel := context.WithDeadline(ctx, at)
	defer cancel()
	changes, err := f.feed.Next(pause)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, nil // a batch without changes commits what is due
	}
	return changes, err
}

// take takes in a batch of changes.
func (f *follower) take(changes []record.Change) {
	cluster := false
	for _, c := range changes {
		cluster = f.apply(c) || cluster
	}
	f.settle(cluster)
}

// settle ends a batch.
func (f *follower) settle(cluster bool) {
	if cluster {
		if f.lookAround() {
			f.readAgain()
		}
		f.cluster()
	}
	f.sayFarewell(time.Now())
	if !time.Now().Before(f.lookAt) {
		f.tellNameserver()
		f.departures.flush(f.config.Log, time.Now())
	}
	f.commit()
}

// commit moves the zone's serial number if something has changed, unless it did so a moment ago.
func (f *follower) commit() {
	now := time.Now()
	if !f.dirty || now.Before(f.commitAt) {
		return
	}
	f.zone.Commit(f.stamp)
	f.dirty, f.stamp, f.commitAt = false, 0, now.Add(commitEvery)
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
	f.settle(f.all)
}

// readAgain reads every record again after it has changed who is believed.
func (f *follower) readAgain() {
	for s := range f.config.Source.Snapshots() {
		f.whole(s.Node(), s)
	}
}

// apply takes in one change, and tells whether the cluster's own names may have changed.
func (f *follower) apply(c record.Change) bool {
	if !f.all && c.Node != f.config.Self {
		return false
	}
	n := f.nodes[c.Node]
	switch {
	case c.Key == "" || c.Key == catalog.KeyNode || n == nil:
		f.whole(c.Node, c.Snapshot)
		return f.all
	case strings.HasPrefix(c.Key, catalog.PrefixTask):
		if n.live {
			f.task(n, c.Key, c.Value, false)
		}
		return false
	case c.Key == catalog.KeyLeader:
		if n.leader = f.decodeLeader(c.Value); f.all && c.Snapshot != nil {
			f.weigh(c.Snapshot)
		}
		return f.all
	case c.Key == catalog.KeyCoordinate:
		f.locate(n, c.Value)
	case strings.HasPrefix(c.Key, catalog.PrefixFramework):
		if c.Snapshot == nil {
			break
		}
		if c.Node == f.frameworks.holder {
			f.reweigh(c)
		} else {
			f.weigh(c.Snapshot)
		}
	}
	return false
}

// whole reads all of a node's record. Names of a node that is suspected dead, gone or unknown leave at once.
func (f *follower) whole(name string, s *record.Snapshot) {
	n := f.nodes[name]
	switch {
	case !f.all && name != f.config.Self:
		return
	case s == nil && n == nil:
		return
	case n == nil:
		n = &node{name: name, tasks: map[string]*running{}}
		f.nodes[name] = n
	}
	if name == f.config.Self {
		f.self = n
	}
	moved, was, tasks := false, n.live, len(n.tasks)
	if s == nil {
		n.liveness, n.live, n.listed, n.leader, n.coordinate, n.returns = record.Unknown, false, false, nil, nil, time.Time{}
		delete(f.nodes, name)
	} else {
		f.see(n, s.Liveness())
		moved = f.readNode(n, s)
		n.leader = nil
		if v, ok := s.Get(catalog.KeyLeader); ok {
			n.leader = f.decodeLeader(v)
		}
		v, _ := s.Get(catalog.KeyCoordinate)
		f.locate(n, v)
		if f.all {
			f.weigh(s)
		}
	}
	f.rename(n)
	f.showAgent(n)
	f.tasks(n, s, moved)
	if moved && n == f.self {
		f.tellNameserver()
	}
	if was != n.live {
		f.departures.tell(f.config.Log, n, max(tasks, len(n.tasks)))
	}
	if s == nil {
		f.ranker.disclaim(n, n.addrs)
		delete(f.departures.gone, name)
		if name == f.frameworks.holder {
			f.release()
		}
	}
}

// readNode reads who a node is, and tells whether that changes the names of its tasks.
func (f *follower) readNode(n *node, s *record.Snapshot) (moved bool) {
	value, ok := s.Get(catalog.KeyNode)
	if !ok || same(value, n.value) {
		return false // a record that comes in parts may lack it for a moment, and what was known stays
	}
	info := &catalog.Node{}
	if !f.decode(value, info) {
		return false
	}
	agent, addrs := n.info.GetAgentId(), n.addrs
	n.value, n.info = value, info
	if n.addrs = parseAddrs([]string{info.GetAddress()}); len(n.addrs) > 0 && n.addrs[0].IsUnspecified() {
		n.addrs = nil
	}
	moved = !slices.Equal(addrs, n.addrs)
	if moved {
		f.ranker.disclaim(n, addrs)
		f.ranker.claim(n, n.addrs)
	}
	return moved || agent != info.GetAgentId()
}

// locate takes up where a node is. When it is this one, all others are elsewhere, seen from here.
func (f *follower) locate(n *node, value []byte) {
	n.coordinate = nil
	if c := (&catalog.Coordinate{}); value != nil && f.decode(value, c) && c.Check() == nil {
		n.coordinate = c
	}
	if n != f.self {
		f.ranker.move(n, f.self)
		return
	}
	for _, other := range f.nodes {
		f.ranker.move(other, f.self)
	}
}

// same tells whether two values of the source are one and the same piece of memory: those are never modified.
func same(a, b []byte) bool {
	return len(a) > 0 && len(a) == len(b) && &a[0] == &b[0]
}

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
	if value == nil || !f.decode(value, l) || l.GetEpoch() > catalog.MaxEpoch {
		return nil
	}
	return l
}

// parseAddrs returns those that are addresses.
func parseAddrs(texts []string) []netip.Addr {
	var addrs []netip.Addr
	for _, t := range texts {
		if a, err := netip.ParseAddr(t); err == nil {
			addrs = append(addrs, a.Unmap().WithZone(""))
		}
	}
	return addrs
}

// replace makes the records of a source those given.
func (f *follower) replace(source string, list []records.Record) {
	f.count(f.zone.Replace(source, list))
}

// count notes whether the zone has changed.
func (f *follower) count(changed bool) {
	if !changed {
		return
	}
	f.dirty = true
	// Thousands of changes come at once when a node joins: on a machine with one processor queries would wait for a slice of time each.
	if f.steps++; f.steps%yieldEvery == 0 {
		runtime.Gosched()
	}
}

const yieldEvery = 8
