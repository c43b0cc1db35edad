package dns

import (
	"maps"
	"strings"
	"sync"

	"starling/dns/records"
	"starling/gossip/catalog"
	"starling/gossip/record"
)

// frameworks follows what masters tell of frameworks. Those in the record of the highest term count, whether its master lives or not, and
// the last ones stay until a later term's are there as a whole: aged names beat none.
type frameworks struct {
	holder string // the node whose record counts; empty before there was one, and when it has taken back what it told
	epoch  uint64
}

// toldFrameworks are the names of the frameworks that count, by id, for others to read.
type toldFrameworks struct {
	mu    sync.Mutex
	names map[string]string
}

func (t *toldFrameworks) all() map[string]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.names)
}

// tell takes up the name of a framework, or with none that it is gone. It is false where there are too many.
func (t *toldFrameworks) tell(id, name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if name == "" {
		delete(t.names, id)
		return true
	}
	if t.names == nil {
		t.names = map[string]string{}
	}
	if _, known := t.names[id]; !known && len(t.names) >= catalog.MaxFrameworks {
		return false
	}
	t.names[id] = name
	return true
}

// weigh looks whether a node's frameworks are those that count from now on, and shows them if so.
func (f *follower) weigh(s *record.Snapshot) {
	w := &f.frameworks
	mark, ok := catalog.FrameworksOf(s)
	held := s.Node() == w.holder
	switch {
	case held && (!ok || mark.Epoch < w.epoch):
		f.release()
		return
	case !ok || mark.Epoch == w.epoch && !held && w.holder != "":
		return
	case mark.Epoch < w.epoch && (w.holder != "" || !f.leads(s.Node(), mark.Epoch)):
		return
	}
	if !held {
		there := uint32(0)
		for range s.Prefix(catalog.PrefixFramework) {
			there++
		}
		if there-1 < mark.Count {
			return // some are on their way yet
		}
	}
	w.holder, w.epoch = s.Node(), mark.Epoch
	for id := range f.told.all() {
		if _, ok := s.Get(catalog.PrefixFramework + id); !ok {
			f.framework(id, nil)
		}
	}
	for key, value := range s.Prefix(catalog.PrefixFramework) {
		if id := strings.TrimPrefix(key, catalog.PrefixFramework); id != "" {
			f.framework(id, value)
		}
	}
}

// release is for when the record that counts tells of no frameworks any more, or of those of an older term. Another one is to take its place,
// and may not be here yet, so all names stay. If it was wrong, the one whose node leads is right, though its term is not as high.
func (f *follower) release() {
	f.frameworks.holder = ""
	for s := range f.config.Source.Snapshots() {
		f.weigh(s)
	}
}

// leads tells whether a live node says that it leads in a term.
func (f *follower) leads(name string, epoch uint64) bool {
	n := f.nodes[name]
	return n != nil && n.liveness == record.Alive && n.leader != nil && n.leader.GetEpoch() == epoch
}

// reweigh takes in a change of the record that counts.
func (f *follower) reweigh(c record.Change) {
	mark, ok := catalog.FrameworksOf(c.Snapshot)
	if !ok || mark.Epoch < f.frameworks.epoch {
		f.release()
		return
	}
	f.frameworks.epoch = mark.Epoch
	if id := strings.TrimPrefix(c.Key, catalog.PrefixFramework); id != "" {
		f.framework(id, c.Value)
	}
}

// framework makes the names of one framework those that its value tells of; nil is one that is gone.
func (f *follower) framework(id string, value []byte) {
	w := &catalog.Framework{}
	var list []records.Record
	if value == nil || !f.decode(value, w) {
		w.Name = ""
	}
	if f.told.tell(id, w.GetName()) && w.GetName() != "" && w.GetPort() <= 65535 {
		addrs := parseAddrs(w.GetAddresses()[:min(len(w.GetAddresses()), catalog.MaxFrameworkAddresses)])
		list = f.zone.FrameworkRecords(records.Framework{Name: w.GetName(), Addrs: addrs, Port: uint16(w.GetPort())})
	}
	f.replace("framework/"+id, list)
}
