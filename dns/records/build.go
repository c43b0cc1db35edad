package records

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
)

// builder makes the records of one source, as items: owner and value in the form in which a Zone keeps them.
type builder struct {
	domain string
	// nameserver is the name in the SOA, without a final dot.
	nameserver string
	rules      rules
	seed       maphash.Seed
	// head is what all SRV records begin with.
	head [srvTarget]byte
	// spaces are the names that tasks of a framework are below.
	spaces map[string]*space
	arena  []byte
	items  []item
	stats  Stats
}

// item is one record of a source.
type item struct {
	key
	typ   Type
	value value
}

// key is a name in wire form, lower-cased, without the root. An invalid one, of no length, has no records.
type key struct {
	name []byte
	hash uint64
}

// space is where the names of a framework's tasks are, as dotted names and as keys.
type space struct {
	inside, outside string
	// reserved is set where the names inside are not the framework's to give.
	reserved bool
	// interned is the number of the sweep since which a zone has made suffixes of them.
	interned int
}

// Below these the domain's own names are: no framework's may shadow them. What is below agent is what is below slave.
var reservedLabels = []string{"near", "node", "agent"}

func newBuilder(domain string, r rules) *builder {
	return &builder{domain: domain, nameserver: "ns1." + domain, rules: r, seed: maphash.MakeSeed(), spaces: map[string]*space{}}
}

// reset forgets the items, not the memory; items that were made before are no longer valid.
func (b *builder) reset() { b.arena, b.items = b.arena[:0], b.items[:0] }

// keep makes what was appended to the arena since from a slice that later growth leaves alone.
func (b *builder) keep(from int) []byte { return b.arena[from:len(b.arena):len(b.arena)] }

// key makes the key of a dotted name, which is in parts.
func (b *builder) key(parts ...string) key {
	from := len(b.arena)
	var ok bool
	if b.arena, ok = appendWire(b.arena, parts...); !ok {
		b.stats.TooLong++
		return key{}
	}
	k := b.keep(from)
	return key{k, maphash.Bytes(b.seed, k)}
}

func (b *builder) add(owner key, t Type, data, glue []byte) {
	b.items = append(b.items, item{owner, t, value{data, glue, 1}})
}

func (b *builder) address(owner key, a netip.Addr) {
	if len(owner.name) == 0 || !a.IsValid() {
		return
	}
	from := len(b.arena)
	if a = a.Unmap(); a.Is4() {
		addr := a.As4()
		b.arena = append(b.arena, addr[:]...)
		b.add(owner, A, b.keep(from), nil)
		return
	}
	addr := a.As16()
	b.arena = append(b.arena, addr[:]...)
	b.add(owner, AAAA, b.keep(from), nil)
}

// service adds an SRV. Glue is for the additional section; without it an answer looks the target up.
func (b *builder) service(owner, target key, port uint16, g glue) {
	if len(owner.name) == 0 || len(target.name) == 0 {
		return
	}
	from := len(b.arena)
	b.arena = append(append(append(b.arena, b.head[:]...), target.name...), 0)
	record := b.keep(from)
	binary.BigEndian.PutUint16(record[rrHeader-2:], uint16(len(record)-rrHeader))
	binary.BigEndian.PutUint16(record[srvTarget-2:], port)
	from = len(b.arena)
	var has byte
	if g.v4 != nil {
		has |= hasGlue4
	}
	if g.v6 != nil {
		has |= hasGlue6
	}
	b.arena = append(append(append(b.arena, has), g.v4...), g.v6...)
	b.add(owner, SRV, record, b.keep(from))
}

// pointer adds a PTR at the name that the address has for that.
func (b *builder) pointer(a netip.Addr, target key) {
	if !a.IsValid() {
		return
	}
	from := len(b.arena)
	b.arena = appendReverse(b.arena, a.Unmap())
	name := b.keep(from)
	b.alias(key{name, maphash.Bytes(b.seed, name)}, target)
}

func (b *builder) alias(owner, target key) {
	if len(owner.name) == 0 || len(target.name) == 0 {
		return
	}
	from := len(b.arena)
	b.arena = appendTarget(b.arena, owner.name, target.name)
	b.add(owner, PTR, b.keep(from), nil)
}

// space returns where a framework's names are, nil when nothing of its name is left.
func (b *builder) space(framework string) *space {
	if s, ok := b.spaces[framework]; ok {
		return s
	}
	var s *space
	if f := b.rules.dotted(framework); f != "" {
		last := f[strings.LastIndexByte(f, '.')+1:]
		s = &space{inside: "." + f + "." + b.domain, outside: "." + f + ".slave." + b.domain, reserved: slices.Contains(reservedLabels, last)}
	}
	if len(b.spaces) >= maxSpaces {
		clear(b.spaces)
	}
	b.spaces[framework] = s
	return s
}

// maxSpaces bounds what is remembered of frameworks.
const maxSpaces = 1024

func (b *builder) framework(f Framework) {
	s := b.space(f.Name)
	if s == nil {
		b.stats.Unnamed++
		return
	}
	name := s.inside[1:]
	if label := strings.TrimSuffix(name, "."+b.domain); s.reserved || isOwn(label) || name == b.nameserver {
		b.stats.Shadowed++
		return
	}
	owner := b.key(name)
	for _, a := range f.Addrs {
		b.address(owner, a)
	}
	if f.Port != 0 && len(f.Addrs) > 0 {
		b.service(b.key("_framework._tcp"+s.inside), owner, f.Port, glue{})
	}
}

// isOwn tells whether a name directly below the domain is one of the cluster's own.
func isOwn(label string) bool {
	switch label {
	case "leader", "master", "slave":
		return true
	}
	digits, ok := strings.CutPrefix(label, "master")
	return ok && strings.Trim(digits, "0123456789") == ""
}

// task makes the records of a task, in the order of Mesos-DNS.
func (b *builder) task(t *Task) {
	s := b.space(t.Framework)
	if s == nil {
		b.stats.Unnamed++
		return
	}
	if s.reserved {
		b.stats.Shadowed++
	}
	name := t.Name
	if t.Discovery != "" {
		name = t.Discovery
	}
	clean := b.rules.label(name)
	suffix := "-" + hash(t.ID) + "-" + agentSuffix(t.AgentID)
	// Whatever the id of the agent is, something of the task's name is left.
	suffix = suffix[:min(len(suffix), maxLabel-1)]
	// The raw name resolves beside the sanitised one: "c.b.a" of an app /a/b/c is in wide use.
	if raw := Lower(name); t.Discovery != "" && raw != clean {
		b.form(t, s, raw, suffix)
	}
	if clean == "" {
		b.stats.Unnamed++
		return
	}
	canonical := b.form(t, s, clean, suffix)
	if t.Reverse {
		for _, a := range t.Addrs {
			b.pointer(a, canonical)
		}
	}
}

// form makes the records under one form of the name, and returns the key of the canonical name.
func (b *builder) form(t *Task, s *space, name, suffix string) key {
	// Only the last label grows by the suffix and the first by the underscore: both are shortened so that they still fit.
	canonical := shorten(name, lastLabel, len(suffix)) + suffix
	service := "_" + shorten(name, firstLabel, 1)
	var nameIn, canonicalIn key
	if !s.reserved {
		nameIn, canonicalIn = b.key(name, s.inside), b.key(canonical, s.inside)
	}
	nameOut, canonicalOut := b.key(name, s.outside), b.key(canonical, s.outside)
	addrs := t.Addrs
	if len(addrs) == 0 && !t.OwnOnly {
		addrs = t.Agent
	}
	inside, outside := glueOf(addrs), glueOf(t.Agent)
	for _, a := range addrs {
		b.address(nameIn, a)
		b.address(canonicalIn, a)
	}
	for _, a := range t.Agent {
		b.address(nameOut, a)
		b.address(canonicalOut, a)
	}
	if len(t.HostPorts) > 0 {
		var owners [4]key
		for i, proto := range []string{"._tcp", "._udp"} {
			owners[i] = b.key(service, proto, s.outside)
			if t.Discovery == "" && !s.reserved {
				owners[2+i] = b.key(service, proto, s.inside)
			}
		}
		for _, p := range t.HostPorts {
			for _, owner := range owners {
				b.service(owner, canonicalOut, p, outside)
			}
		}
	}
	if t.Discovery == "" || s.reserved {
		return canonicalIn
	}
	for _, p := range t.Ports {
		port := b.rules.label(p.Name)
		for _, proto := range b.rules.protocols(p.Protocol) {
			b.service(b.key(service, "._", proto, s.inside), canonicalIn, p.Number, inside)
			if port != "" {
				b.service(b.key("_", shorten(port, firstLabel, 1), ".", service, "._", proto, s.inside), canonicalIn, p.Number, inside)
			}
		}
	}
	return canonicalIn
}

// glue are addresses for the additional section: the first of each family.
type glue struct{ v4, v6 []byte }

func (g *glue) add(a netip.Addr) {
	if a = a.Unmap(); a.Is4() && g.v4 == nil {
		g.v4 = a.AsSlice()
	} else if a.Is6() && g.v6 == nil {
		g.v6 = a.AsSlice()
	}
}

func glueOf(addrs []netip.Addr) (g glue) {
	for _, a := range addrs {
		g.add(a)
	}
	return g
}

// onlyTCP and its like save the slices that nearly all ports need.
var (
	bothProtocols = []string{"tcp", "udp"}
	onlyTCP       = []string{"tcp"}
	onlyUDP       = []string{"udp"}
)

func (r rules) protocols(s string) []string {
	switch s {
	case "":
		return bothProtocols
	case "tcp":
		return onlyTCP
	case "udp":
		return onlyUDP
	}
	joined := r.label(s)
	if joined == "" {
		return bothProtocols
	}
	protos := []string{joined}
	if !strings.Contains(s, ",") {
		return protos
	}
	// Mesos-DNS makes one label of a list; its parts are what a client would ask for, so they resolve too.
	for part := range strings.SplitSeq(s, ",") {
		if p := r.label(part); p != "" {
			protos = append(protos, p)
		}
	}
	return protos
}

// records makes records of the items: each once, in order.
func (b *builder) records() []Record {
	var out []Record
	seen := map[Record]bool{}
	for _, it := range b.items {
		if r := it.record(dotted(it.name)); !seen[r] {
			seen[r] = true
			out = append(out, r)
		}
	}
	return out
}

// take makes items of records that were given as such; what cannot be a record is passed over.
func (b *builder) take(records []Record) {
	for _, r := range records {
		switch r.Type {
		case A, AAAA:
			b.address(b.key(r.Name), r.Addr)
		case SRV:
			b.service(b.key(r.Name), b.key(r.Target), r.Port, glue{})
		case PTR:
			b.alias(b.key(r.Name), b.key(r.Target))
		}
	}
}
