package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The rules of a bridge live in five chains that are named after it, and are wholly ours; from the chains of the system
// lead jumps to them, which are ours as well. So whatever else is there stays as it is, and ours can be taken away:
//
//	nat     STARLING-DNA-<bridge>  from PREROUTING and OUTPUT: mapped ports of the node lead to containers
//	nat     STARLING-SNA-<bridge>  from POSTROUTING: containers speak to the outside as the node
//	filter  STARLING-FWD-<bridge>  first of FORWARD, before the rules of Docker and its policy: what goes in and out
//	filter  STARLING-INP-<bridge>  from INPUT: the node's own ports that containers may not reach
//	mangle  STARLING-MNG-<bridge>  from PREROUTING: nobody on the bridge speaks to the node's loopback addresses
//
// They are only ever written as a whole, by iptables-restore, which replaces the content of a chain in one step.

// jump is a rule that leads from a chain of the system to one of ours.
type jump struct {
	table, from, kind string
	// match is what comes before "-j"; first puts it before all others.
	match string
	first bool
}

func jumps(bridge string) []jump {
	return []jump{
		{"nat", "PREROUTING", "DNA", "-m addrtype --dst-type LOCAL ", false},
		{"nat", "OUTPUT", "DNA", "-m addrtype --dst-type LOCAL ", false},
		{"nat", "POSTROUTING", "SNA", "", false},
		{"filter", "FORWARD", "FWD", "", true},
		{"filter", "INPUT", "INP", "-i " + bridge + " ", true},
		{"mangle", "PREROUTING", "MNG", "-i " + bridge + " ", true},
	}
}

var tables = []string{"nat", "filter", "mangle"}

// chain is the name of one of our chains; at most 28 characters are allowed.
func chain(kind, bridge string) string { return "STARLING-" + kind + "-" + bridge }

// firewall is what the rules are made of.
type firewall struct {
	bridge  string
	subnet  netip.Prefix
	denied  []netip.Prefix
	control []uint16
	// trusted may reach the control ports.
	trusted  []netip.Addr
	mappings []target
}

// target is a mapping with where it leads.
type target struct {
	Mapping
	address netip.Addr
}

// rules returns the rules of each of our chains, by table and kind, in the form of iptables-save.
func (f firewall) rules() map[string]map[string][]string {
	mapped, conn := "-m conntrack --ctstate DNAT ", "-m conntrack --ctstate RELATED,ESTABLISHED "
	var dnat []string
	for _, t := range f.mappings {
		dnat = append(dnat, fmt.Sprintf("-p %s -m %s --dport %d -j DNAT --to-destination %s:%d", t.Protocol, t.Protocol, t.Host, t.address, t.Container))
	}
	snat := []string{
		fmt.Sprintf("-s %s ! -o %s -j MASQUERADE", f.subnet, f.bridge),
		// A container that reaches another, or itself, by a port of the node: the answer must come back through the node.
		fmt.Sprintf("-s %s -o %s %s-j MASQUERADE", f.subnet, f.bridge, mapped),
		// The node itself by its loopback address, which means somebody else in the container.
		fmt.Sprintf("-s 127.0.0.0/8 -o %s -j MASQUERADE", f.bridge),
	}
	forward := []string{
		fmt.Sprintf("-o %s %s-j ACCEPT", f.bridge, conn),
		fmt.Sprintf("-i %s -o %s -j ACCEPT", f.bridge, f.bridge),
		fmt.Sprintf("-o %s %s-j ACCEPT", f.bridge, mapped),
		fmt.Sprintf("-o %s -j DROP", f.bridge),
	}
	for _, d := range f.denied {
		forward = append(forward, fmt.Sprintf("-d %s -i %s -j REJECT --reject-with icmp-port-unreachable", d, f.bridge))
	}
	forward = append(forward, fmt.Sprintf("-i %s -j ACCEPT", f.bridge))
	input := []string{conn + "-j ACCEPT"}
	for _, a := range f.trusted {
		input = append(input, fmt.Sprintf("-s %s/32 -j RETURN", a))
	}
	for _, port := range f.control {
		input = append(input,
			fmt.Sprintf("-p tcp -m tcp --dport %d -j REJECT --reject-with tcp-reset", port),
			fmt.Sprintf("-p udp -m udp --dport %d -j REJECT --reject-with icmp-port-unreachable", port))
	}
	return map[string]map[string][]string{
		"nat":    {"DNA": dnat, "SNA": snat},
		"filter": {"FWD": forward, "INP": input},
		"mangle": {"MNG": {"-d 127.0.0.0/8 -j DROP"}},
	}
}

// saved is what iptables-save tells of our chains: the rules of each, and the jumps that are there.
type saved struct {
	chains map[string][]string // table/chain -> its rules; there even if empty
	jumps  map[string]int      // table/from/chain -> how many
	lines  map[string][]string // table -> the jumps as they are written
}

// parseSaved reads the output of iptables-save.
func parseSaved(text, bridge string) saved {
	s := saved{chains: map[string][]string{}, jumps: map[string]int{}, lines: map[string][]string{}}
	ours := map[string]bool{}
	for _, kind := range []string{"DNA", "SNA", "FWD", "INP", "MNG"} {
		ours[chain(kind, bridge)] = true
	}
	table := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		fields := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
		case strings.HasPrefix(line, ":") && ours[fields[0][1:]]:
			s.chains[table+"/"+fields[0][1:]] = []string{}
		case len(fields) > 2 && fields[0] == "-A" && ours[fields[1]]:
			rule := strings.TrimPrefix(line, "-A "+fields[1]+" ")
			s.chains[table+"/"+fields[1]] = append(s.chains[table+"/"+fields[1]], rule)
		case len(fields) > 2 && fields[0] == "-A" && ours[fields[len(fields)-1]]:
			s.jumps[table+"/"+fields[1]+"/"+fields[len(fields)-1]]++
			s.lines[table] = append(s.lines[table], line)
		}
	}
	return s
}

// intact tells whether nothing of ours lacks.
func (f firewall) intact(s saved) bool {
	for table, kinds := range f.rules() {
		for kind, rules := range kinds {
			if there, ok := s.chains[table+"/"+chain(kind, f.bridge)]; !ok || len(there) != len(rules) {
				return false
			}
		}
	}
	return !slices.ContainsFunc(jumps(f.bridge), func(j jump) bool { return s.jumps[j.table+"/"+j.from+"/"+chain(j.kind, f.bridge)] == 0 })
}

// restore returns the input of iptables-restore --noflush that brings about our rules, and leaves all others; empty where
// nothing is to be done. Each table is a step that the kernel takes some milliseconds for: those that are as they should be
// are left out. They are compared as text; where a version writes rules in another way, they are written once more.
func (f firewall) restore(s saved) string {
	var b strings.Builder
	rules := f.rules()
	for _, table := range tables {
		same := !slices.ContainsFunc(jumps(f.bridge), func(j jump) bool {
			return j.table == table && s.jumps[table+"/"+j.from+"/"+chain(j.kind, f.bridge)] == 0
		})
		var anew, rewritten strings.Builder
		for _, kind := range kinds(rules[table]) {
			want, name := rules[table][kind], chain(kind, f.bridge)
			there, ok := s.chains[table+"/"+name]
			if ok && slices.Equal(there, want) {
				continue
			}
			same = false
			if ok && kind == "DNA" {
				// Of these the order does not matter, and there may be many: only what changes is written.
				change(&rewritten, "-D", name, there, want)
				change(&rewritten, "-A", name, want, there)
				continue
			}
			fmt.Fprintf(&anew, ":%s - [0:0]\n", name)
			change(&rewritten, "-A", name, want, nil)
		}
		if same {
			continue
		}
		fmt.Fprintf(&b, "*%s\n%s%s", table, anew.String(), rewritten.String())
		for _, j := range jumps(f.bridge) {
			if j.table != table || s.jumps[table+"/"+j.from+"/"+chain(j.kind, f.bridge)] > 0 {
				continue
			}
			verb := "-A " + j.from
			if j.first {
				verb = "-I " + j.from + " 1"
			}
			fmt.Fprintf(&b, "%s %s-j %s\n", verb, j.match, chain(j.kind, f.bridge))
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

// change writes a line with a verb for each rule that is not among others.
func change(b *strings.Builder, verb, chain string, rules, others []string) {
	known := make(map[string]bool, len(others))
	for _, rule := range others {
		known[rule] = true
	}
	for _, rule := range rules {
		if !known[rule] {
			fmt.Fprintf(b, "%s %s %s\n", verb, chain, rule)
		}
	}
}

// remove returns the input of iptables-restore --noflush that takes away all that is ours; empty for nothing.
func (s saved) remove() string {
	var b strings.Builder
	for _, table := range tables {
		var chains []string
		for name := range s.chains {
			if of, name, _ := strings.Cut(name, "/"); of == table {
				chains = append(chains, name)
			}
		}
		slices.Sort(chains)
		if len(chains)+len(s.lines[table]) == 0 {
			continue
		}
		fmt.Fprintf(&b, "*%s\n", table)
		for _, line := range s.lines[table] {
			fmt.Fprintf(&b, "-D%s\n", strings.TrimPrefix(line, "-A"))
		}
		for _, name := range chains {
			fmt.Fprintf(&b, "-F %s\n", name)
		}
		for _, name := range chains {
			fmt.Fprintf(&b, "-X %s\n", name)
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

func kinds(rules map[string][]string) []string {
	var out []string
	for kind := range rules {
		out = append(out, kind)
	}
	slices.Sort(out)
	return out
}
