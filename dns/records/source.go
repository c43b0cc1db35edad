package records

import (
	"net/netip"
	"strings"
)

// Type is a type of record, with its number on the wire.
type Type uint16

// The types that a Zone holds.
const (
	A    Type = 1
	AAAA Type = 28
	SRV  Type = 33
)

// String returns the mnemonic.
func (t Type) String() string {
	switch t {
	case A:
		return "A"
	case AAAA:
		return "AAAA"
	default:
		return "SRV"
	}
}

// Record is one record. Which fields are set depends on the type.
type Record struct {
	// Name is the owner, dotted, lower case, with a final dot.
	Name string
	Type Type
	// Addr is the address of an A or AAAA.
	Addr netip.Addr
	// Target and Port are those of an SRV; the target has the form of Name.
	Target string
	Port   uint16
}

// Port is a port that a task tells of through its discovery info.
type Port struct {
	Number uint16
	// Name may be empty.
	Name string
	// Protocol is "tcp", "udp", a list of them, or empty for both.
	Protocol string
}

// Task is what a running task contributes.
type Task struct {
	ID, Name  string
	Framework string
	AgentID   string
	// Addrs are the task's own addresses, Agent those of its node; without own ones the node's stand in.
	Addrs, Agent []netip.Addr
	// HostPorts are the ports among the task's resources.
	HostPorts []uint16
	// Discovery is the name in the discovery info; empty means that there is none, and then Ports do not count.
	Discovery string
	Ports     []Port
}

// Records lists the records of a task in the order in which Mesos-DNS makes them (its specification, section 3). The
// domain is dotted, without a final dot. A name of which sanitising leaves nothing has no records.
func (t Task) Records(domain string) []Record {
	framework := sanitizeDotted(t.Framework)
	if framework == "" {
		return nil
	}
	name := t.Name
	if t.Discovery != "" {
		name = t.Discovery
	}
	l := lister{seen: map[Record]bool{}}
	clean := Sanitize(name)
	// The raw name resolves beside the sanitised one: "c.b.a" of an app /a/b/c is in wide use.
	if raw := strings.ToLower(name); t.Discovery != "" && raw != clean {
		l.task(t, raw, framework, domain)
	}
	if clean != "" {
		l.task(t, clean, framework, domain)
	}
	return l.records
}

type lister struct {
	records []Record
	seen    map[Record]bool
}

func (l *lister) add(r Record) {
	if _, err := wire(r.Name); err == nil && !l.seen[r] {
		l.seen[r] = true
		l.records = append(l.records, r)
	}
}

func (l *lister) address(name string, a netip.Addr) {
	a = a.Unmap()
	t := AAAA
	if a.Is4() {
		t = A
	}
	l.add(Record{Name: name, Type: t, Addr: a})
}

func (l *lister) srv(name, target string, port uint16) {
	if _, err := wire(target); err == nil {
		l.add(Record{Name: name, Type: SRV, Target: target, Port: port})
	}
}

// task lists the records under one form of the name.
func (l *lister) task(t Task, name, framework, domain string) {
	suffix := "-" + hash(t.ID) + "-" + agentSuffix(t.AgentID)
	// Only the last label grows by the suffix and the first by the underscore: both are shortened so that they still fit.
	canonical := shorten(name, lastLabel, len(suffix)) + suffix
	service := "_" + shorten(name, firstLabel, 1)
	inside, outside := "."+framework+"."+domain+".", "."+framework+".slave."+domain+"."
	addrs := t.Addrs
	if len(addrs) == 0 {
		addrs = t.Agent
	}
	for _, a := range addrs {
		l.address(name+inside, a)
		l.address(canonical+inside, a)
	}
	for _, a := range t.Agent {
		l.address(name+outside, a)
		l.address(canonical+outside, a)
	}
	for _, p := range t.HostPorts {
		for _, proto := range []string{"._tcp", "._udp"} {
			l.srv(service+proto+outside, canonical+outside, p)
			if t.Discovery == "" {
				l.srv(service+proto+inside, canonical+outside, p)
			}
		}
	}
	if t.Discovery == "" {
		return
	}
	for _, p := range t.Ports {
		port := Sanitize(p.Name)
		for _, proto := range protocols(p.Protocol) {
			l.srv(service+"._"+proto+inside, canonical+inside, p.Number)
			if port != "" {
				l.srv("_"+shorten(port, firstLabel, 1)+"."+service+"._"+proto+inside, canonical+inside, p.Number)
			}
		}
	}
}

func protocols(s string) []string {
	joined := Sanitize(s)
	if joined == "" {
		return []string{"tcp", "udp"}
	}
	if !strings.Contains(s, ",") {
		return []string{joined}
	}
	// Mesos-DNS makes one label of a list; its parts are what a client would ask for, so they resolve too.
	protos := []string{joined}
	for part := range strings.SplitSeq(s, ",") {
		if p := Sanitize(part); p != "" {
			protos = append(protos, p)
		}
	}
	return protos
}

const (
	firstLabel = iota
	lastLabel
)

// shorten cuts the first or the last label of a name so that it can grow by n.
func shorten(name string, which, n int) string {
	from, to := 0, len(name)
	if which == firstLabel {
		if i := strings.IndexByte(name, '.'); i >= 0 {
			to = i
		}
	} else {
		from = strings.LastIndexByte(name, '.') + 1
	}
	if to-from+n <= maxLabel {
		return name
	}
	return name[:from] + strings.TrimRight(name[from:from+maxLabel-n], "-") + name[to:]
}

// Master is a node that serves as a master.
type Master struct {
	Addr netip.Addr
	Port uint16
}

// Cluster is what the masters and agents together contribute (section 5).
type Cluster struct {
	// Leader is nil while nobody leads.
	Leader *Master
	// Masters are in a stable order, which numbers them.
	Masters []Master
	Agents  []Master
}

// Records lists the records of the cluster.
func (c Cluster) Records(domain string) []Record {
	l := lister{seen: map[Record]bool{}}
	end := "." + domain + "."
	if c.Leader != nil {
		l.address("leader"+end, c.Leader.Addr)
		l.address("master"+end, c.Leader.Addr)
		l.srv("_leader._tcp"+end, "leader"+end, c.Leader.Port)
		l.srv("_leader._udp"+end, "leader"+end, c.Leader.Port)
	}
	for i, m := range c.Masters {
		l.address("master"+end, m.Addr)
		l.address("master"+itoa(i)+end, m.Addr)
		l.srv("_master._tcp"+end, "master"+itoa(i)+end, m.Port)
	}
	for _, a := range c.Agents {
		for _, name := range []string{"slave", "agent"} {
			l.address(name+end, a.Addr)
			l.srv("_"+name+"._tcp"+end, name+end, a.Port)
		}
	}
	return l.records
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}
