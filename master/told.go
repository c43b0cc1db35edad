package master

import (
	"bytes"
	"net/netip"
	"strings"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
)

// told is what this master's record says of frameworks, for DNS: the names of frameworks have to be answered where no master lives, and after
// the last one has died. So the record of a term outlives it; it is taken back when a later leader has told its own. Only the loop uses it.
type told struct {
	epoch  uint64            // of the term that it is of; 0 where nothing was told yet
	values map[string][]byte // by framework id
	// stale are the frameworks to look at again, all of them if anew is set.
	stale map[string]bool
	anew  bool
	// omitted is set while there are more frameworks than are told of.
	omitted bool
	// hosts are addresses of nodes by their host names, empty for a name that nodes with different addresses have, as machines do that were
	// made from one image. Nil until it is needed, and when a node has changed.
	hosts map[string]string
}

// What the mesh is told of frameworks is bounded: every node holds it.
const (
	maxTold     = catalog.MaxFrameworks
	maxToldName = 253 // no longer name has a place in DNS
)

// retell has a framework looked at again at the end of this step.
func (m *Master) retell(id string) {
	if m.term != nil {
		m.told.stale[id] = true
	}
}

// tellFrameworks writes what changed of frameworks into the own record.
func (m *Master) tellFrameworks() {
	if m.term == nil || len(m.told.stale) == 0 && !m.told.anew {
		return
	}
	var out []record.Assignment
	t := &m.told
	if t.anew {
		t.anew, t.epoch = false, m.term.epoch
		for id := range t.values {
			t.stale[id] = true
		}
		for id := range m.frameworks {
			t.stale[id] = true
		}
	}
	where := whereabouts{m: m}
	tell := func(id string) {
		value := m.frameworkRecord(m.frameworks[id], &where)
		old, known := t.values[id]
		switch {
		case value == nil && known:
			delete(t.values, id)
		case value == nil || known && bytes.Equal(value, old):
			return
		case !known && len(t.values) >= maxTold:
			if !t.omitted {
				m.log.Warn("too many frameworks: DNS does not know all of them by name", "limit", maxTold)
			}
			t.omitted = true
			return
		default:
			t.values[id] = value
		}
		out = append(out, record.Assignment{Key: catalog.PrefixFramework + id, Value: value})
	}
	for id := range t.stale {
		if m.frameworks[id] == nil {
			tell(id) // these make room
		}
	}
	for id := range t.stale {
		tell(id)
	}
	if t.omitted && len(t.values) < maxTold {
		t.omitted = false
		for id := range m.frameworks {
			tell(id)
		}
	}
	clear(t.stale)
	value, err := proto.Marshal(&catalog.Frameworks{Epoch: t.epoch, Count: uint32(len(t.values))})
	if err != nil {
		m.log.Error("cannot encode the record of the frameworks", "err", err)
		return
	}
	m.cfg.Mesh.Set(append(out, record.Assignment{Key: catalog.PrefixFramework, Value: value})...)
}

// frameworkRecord is what the mesh is told of a framework; nil for one that has gone, or has no name that DNS could have.
func (m *Master) frameworkRecord(f *framework, where *whereabouts) []byte {
	if f == nil || f.info.GetName() == "" || len(f.info.GetName()) > maxToldName {
		return nil
	}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(&catalog.Framework{
		Name: strings.ToValidUTF8(f.info.GetName(), "\uFFFD"), Addresses: where.of(f),
	})
	if err != nil {
		m.log.Error("cannot encode the record of a framework", "framework_id", f.id, "err", err)
		return nil
	}
	return value
}

// whereabouts finds the addresses of schedulers. Nothing is asked of a resolver: it may be slow, and may be the one that asks this.
type whereabouts struct {
	m         *Master
	inherited *record.Snapshot // whose frameworks the mesh believes in; looked up once
	looked    bool
}

// of returns where the scheduler of a framework is: the host that it names, if that is an address or a node of the mesh, else where its
// connection comes from, else what the mesh was told before.
func (w *whereabouts) of(f *framework) []string {
	host := strings.ToLower(f.info.GetHostname())
	if a, err := netip.ParseAddr(host); err == nil && !a.IsUnspecified() {
		return []string{a.Unmap().WithZone("").String()}
	}
	if host != "" {
		if address := w.node(host); address != "" {
			return []string{address}
		}
	}
	switch a := f.peer; {
	case a.IsLoopback():
		return []string{w.m.cfg.Address}
	case a.IsValid():
		return []string{a.String()}
	}
	if !w.looked {
		w.looked, w.inherited = true, newestFrameworks(w.m.cfg.Mesh)
	}
	if w.inherited == nil {
		return nil
	}
	value, _ := w.inherited.Get(catalog.PrefixFramework + f.id)
	before := new(catalog.Framework)
	if proto.Unmarshal(value, before) != nil {
		return nil
	}
	return before.GetAddresses()
}

func (w *whereabouts) node(host string) string {
	t := &w.m.told
	if t.hosts == nil {
		t.hosts = map[string]string{strings.ToLower(w.m.cfg.Hostname): w.m.cfg.Address}
		for _, a := range w.m.agents {
			if a.node == nil {
				continue
			}
			name, address := strings.ToLower(a.node.GetHostname()), a.node.GetAddress()
			if before, known := t.hosts[name]; known && before != address {
				address = ""
			}
			t.hosts[name] = address
		}
	}
	return t.hosts[host]
}

// newestFrameworks returns the record with the frameworks of the highest epoch, nil where nobody tells of any.
func newestFrameworks(mesh record.Reader) (newest *record.Snapshot) {
	var highest uint64
	for s := range mesh.Snapshots() {
		if mark, ok := catalog.FrameworksOf(s); ok && (newest == nil || mark.Epoch > highest) {
			newest, highest = s, mark.Epoch
		}
	}
	return newest
}

// yieldFrameworks takes back what this master told once another record holds the frameworks of a later term.
func (m *Master) yieldFrameworks(s *record.Snapshot) {
	if m.term != nil || m.told.epoch == 0 || s.Node() == m.cfg.ID {
		return
	}
	if mark, ok := catalog.FrameworksOf(s); !ok || mark.Epoch <= m.told.epoch {
		return
	}
	out := []record.Assignment{{Key: catalog.PrefixFramework}}
	for id := range m.told.values {
		out = append(out, record.Assignment{Key: catalog.PrefixFramework + id})
	}
	m.cfg.Mesh.Set(out...)
	m.told = newTold()
}

func newTold() told { return told{values: make(map[string][]byte), stale: make(map[string]bool)} }
