package records

import (
	"net/netip"
	"slices"
	"strconv"
)

// Type is a type of record, with its number on the wire.
type Type uint16

// The types that a Zone answers. It holds all but NS and SOA, which are its own.
const (
	A    Type = 1
	NS   Type = 2
	SOA  Type = 6
	PTR  Type = 12
	AAAA Type = 28
	SRV  Type = 33
)

// String returns the mnemonic.
func (t Type) String() string {
	switch t {
	case A:
		return "A"
	case NS:
		return "NS"
	case SOA:
		return "SOA"
	case PTR:
		return "PTR"
	case AAAA:
		return "AAAA"
	case SRV:
		return "SRV"
	default:
		return "another type"
	}
}

// Record is one record. Which fields are set depends on the type.
type Record struct {
	// Name is the owner, dotted, lower case, with a final dot.
	Name string
	Type Type
	// Addr is the address of an A or AAAA.
	Addr netip.Addr
	// Target is that of an SRV or PTR and has the form of Name; Port is that of an SRV.
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
	// Addrs are the task's own addresses, Agent those of its node; without own ones the node's stand in, unless OwnOnly.
	Addrs, Agent []netip.Addr
	OwnOnly      bool
	// HostPorts are the ports among the task's resources.
	HostPorts []uint16
	// Discovery is the name in the discovery info; empty means that there is none, and then Ports do not count.
	Discovery string
	Ports     []Port
	// Reverse gives the task's own addresses PTR records, which name its canonical name.
	Reverse bool
}

// Records lists the records of a task in the order in which Mesos-DNS makes them (its specification, section 3), then
// the PTR records. The domain is dotted, without a final dot. A name of which sanitising leaves nothing has no records.
// Names follow RFC 1123; Zone.TaskRecords follows the zone's configuration.
func (t Task) Records(domain string) []Record {
	b := newBuilder(domain, false)
	b.task(&t)
	return b.records()
}

// Master is a node that serves as a master or an agent.
type Master struct {
	Addr netip.Addr
	Port uint16
}

// Cluster is what the masters and agents together contribute (section 5).
type Cluster struct {
	// Leader is nil while nobody leads. One that is not among the masters is numbered after them.
	Leader *Master
	// Masters are in a stable order, which numbers them. One without an address has a number and no records.
	Masters []Master
	Agents  []Master
}

// Records lists the records of the cluster. Names below agent are not among them: the Zone answers those as it does the
// ones below slave.
func (c Cluster) Records(domain string) []Record {
	b := newBuilder(domain, false)
	end := "." + domain
	service := func(name, target string, port uint16) { b.service(b.key(name+end), b.key(target+end), port, glue{}) }
	masters := c.Masters
	if l := c.Leader; l != nil {
		b.address(b.key("leader"+end), l.Addr)
		b.address(b.key("master"+end), l.Addr)
		service("_leader._tcp", "leader", l.Port)
		service("_leader._udp", "leader", l.Port)
		if !slices.ContainsFunc(masters, func(m Master) bool { return m.Addr == l.Addr }) {
			masters = append(slices.Clone(masters), *l)
		}
	}
	for i, m := range masters {
		if !m.Addr.IsValid() {
			continue
		}
		numbered := "master" + strconv.Itoa(i)
		b.address(b.key("master"+end), m.Addr)
		b.address(b.key(numbered+end), m.Addr)
		service("_master._tcp", numbered, m.Port)
	}
	for _, a := range c.Agents {
		b.address(b.key("slave"+end), a.Addr)
	}
	// The target is the same for all, so there is one service for each port.
	ports := map[uint16]bool{}
	for _, a := range c.Agents {
		if !ports[a.Port] {
			ports[a.Port] = true
			service("_slave._tcp", "slave", a.Port)
			service("_agent._tcp", "slave", a.Port)
		}
	}
	return b.records()
}

// Framework is a scheduler.
type Framework struct {
	Name string
	// Addrs and Port are where it listens; a port of 0 is unknown, as it is for one that uses the HTTP API.
	Addrs []netip.Addr
	Port  uint16
}

// Records lists the records of a framework. One whose name the cluster itself uses has none. Names follow RFC 1123, and the
// name server is ns1 below the domain; Zone.FrameworkRecords follows the zone's configuration.
func (f Framework) Records(domain string) []Record {
	b := newBuilder(domain, false)
	b.framework(f)
	return b.records()
}

// Node is a member of the cluster.
type Node struct {
	// Name and Alias are names below "node"; one of them may be empty.
	Name, Alias string
	Addrs       []netip.Addr
}

// Records lists the records of a node: its addresses at "<name>.node" below the domain and at the alias, and a PTR for each
// address, to the name if there is one and else to the alias.
func (n Node) Records(domain string) []Record {
	b := newBuilder(domain, false)
	var first key
	for _, name := range []string{n.Name, n.Alias} {
		label := Sanitize(name)
		if label == "" {
			continue
		}
		owner := b.key(label + ".node." + domain)
		if len(first.name) == 0 {
			first = owner
		}
		for _, a := range n.Addrs {
			b.address(owner, a)
		}
	}
	for _, a := range n.Addrs {
		b.pointer(a, first)
	}
	return b.records()
}

// Nameserver is what the SOA and NS records name.
type Nameserver struct {
	// Name is dotted: the zone's Mname.
	Name  string
	Addrs []netip.Addr
}

// Records lists the addresses of the name server. They count only where its name is below the domain.
func (n Nameserver) Records() []Record {
	b := newBuilder("", false)
	owner := b.key(n.Name)
	for _, a := range n.Addrs {
		b.address(owner, a)
	}
	return b.records()
}
