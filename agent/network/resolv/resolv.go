// Package resolv decides which name servers a container asks: those of its network, those that an operator set for it
// (--default_container_dns), the node itself (--container-dns), or those of the node, less what only the node itself can reach.
//
// The package does no more than read and write text.
package resolv

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// DNS is what goes into a resolv.conf.
type DNS struct {
	Nameservers []string `json:"nameservers,omitempty"`
	// Domain is old and rarely set; Search is used instead where both are.
	Domain  string   `json:"domain,omitempty"`
	Search  []string `json:"search,omitempty"`
	Options []string `json:"options,omitempty"`
}

// Empty tells whether nothing is set.
func (d DNS) Empty() bool {
	return len(d.Nameservers) == 0 && d.Domain == "" && len(d.Search) == 0 && len(d.Options) == 0
}

// Or fills what lacks from another.
func (d DNS) Or(other DNS) DNS {
	if len(d.Nameservers) == 0 {
		d.Nameservers = other.Nameservers
	}
	if len(d.Search) == 0 && d.Domain == "" {
		d.Search, d.Domain = other.Search, other.Domain
	}
	if len(d.Options) == 0 {
		d.Options = other.Options
	}
	return d
}

// Parse reads a resolv.conf; what it does not know it leaves out.
func Parse(text string) DNS {
	var d DNS
	for line := range strings.Lines(text) {
		if at := strings.IndexAny(line, "#;"); at >= 0 {
			line = line[:at]
		}
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			d.Nameservers = append(d.Nameservers, fields[1])
		case "domain":
			d.Domain = fields[1]
		case "search":
			d.Search = fields[1:] // the last one counts
		case "options":
			d.Options = append(d.Options, fields[1:]...)
		}
	}
	return d
}

// Reachable leaves out name servers that listen on the node's loopback address, where a container with a network of its own
// finds only itself, and those that are no addresses.
func (d DNS) Reachable() DNS {
	d.Nameservers = slices.DeleteFunc(slices.Clone(d.Nameservers), func(s string) bool {
		a, err := netip.ParseAddr(s)
		return err != nil || a.Unmap().IsLoopback() || a.IsUnspecified()
	})
	return d
}

// Text is a resolv.conf.
func (d DNS) Text() string {
	var b strings.Builder
	if d.Domain != "" && len(d.Search) == 0 {
		fmt.Fprintf(&b, "domain %s\n", d.Domain)
	}
	if len(d.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(d.Search, " "))
	}
	for _, s := range d.Nameservers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(d.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(d.Options, " "))
	}
	return b.String()
}

// Defaults are what an operator sets for the containers of each network. A nil one sets nothing.
type Defaults struct {
	mesos, docker []entry
	node          DNS
}

type entry struct {
	Mode    string `json:"network_mode"`
	Network string `json:"network_name"`
	DNS     DNS    `json:"dns"`
}

// ParseDefaults reads the JSON of --default_container_dns: {"mesos": [{"network_mode": "CNI", "network_name": "n", "dns":
// {"nameservers": [...], "search": [...], "options": [...]}}], "docker": [{"network_mode": "BRIDGE", "dns": {...}}]}. The
// error lists all faults.
func ParseDefaults(text string) (*Defaults, error) {
	var read struct {
		Mesos, Docker []entry
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&read); err != nil {
		return nil, fmt.Errorf("cannot read the name servers of containers: %w", err)
	}
	var faults []error
	check := func(kind string, entries []entry, modes ...string) {
		seen := map[[2]string]bool{}
		for _, e := range entries {
			if !slices.Contains(modes, e.Mode) {
				faults = append(faults, fmt.Errorf("%s: network_mode %q is none of %s", kind, e.Mode, strings.Join(modes, ", ")))
			}
			if e.Mode == "USER" && e.Network == "" {
				faults = append(faults, fmt.Errorf("%s: network_mode USER needs a network_name", kind))
			}
			if key := [2]string{e.Mode, e.Network}; seen[key] {
				faults = append(faults, fmt.Errorf("%s: network_mode %s with network_name %q is there twice", kind, e.Mode, e.Network))
			} else {
				seen[key] = true
			}
			for _, s := range e.DNS.Nameservers {
				if _, err := netip.ParseAddr(s); err != nil {
					faults = append(faults, fmt.Errorf("%s: name server %q is not an IP address", kind, s))
				}
			}
		}
	}
	check("mesos", read.Mesos, "CNI")
	check("docker", read.Docker, "HOST", "BRIDGE", "USER")
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("cannot use the name servers of containers: %w", err)
	}
	return &Defaults{mesos: read.Mesos, docker: read.Docker}, nil
}

// AskNode returns Defaults by which containers ask the node at an address wherever no other name server is set; d stays as it is.
func (d *Defaults) AskNode(addr netip.Addr) *Defaults {
	with := Defaults{node: DNS{Nameservers: []string{addr.String()}}}
	if d != nil {
		with.mesos, with.docker = d.mesos, d.docker
	}
	return &with
}

// Node is what containers get that ask the node; it is empty where they do not.
func (d *Defaults) Node() DNS {
	if d == nil {
		return DNS{}
	}
	return d.node
}

// Mesos returns what is set for a network of the mesos containerizer, without regard to the node; an entry without a name is for
// all of them.
func (d *Defaults) Mesos(network string) (DNS, bool) {
	if d == nil {
		return DNS{}, false
	}
	return find(d.mesos, "CNI", network)
}

// Docker returns what is set for a network of Docker: mode is HOST, BRIDGE or USER, the name counts for the last.
func (d *Defaults) Docker(mode, network string) (DNS, bool) {
	if d == nil {
		return DNS{}, false
	}
	if mode != "USER" {
		network = ""
	}
	set, ok := find(d.docker, mode, network)
	return set.Or(d.node), ok || !d.node.Empty()
}

func find(entries []entry, mode, network string) (DNS, bool) {
	for _, name := range []string{network, ""} {
		for _, e := range entries {
			if e.Mode == mode && e.Network == name {
				return e.DNS, true
			}
		}
	}
	return DNS{}, false
}
