package dns

import (
	"net/netip"
	"strings"

	"starling/dns/records"
)

// Nodes are found under "<host>.node" and "<host>-<id>.node" below the domain. The first is the first label of the host name. It is
// nobody's where machines with different addresses claim it, as those do that were all made from one image: a name that leads to another
// machine than yesterday is worse than none. The second has the beginning of the node's id and is each node's own. A machine that is several
// members of the mesh, an agent and a master say, has the first name in common.

// idLength is how much of a node's id is in its own name.
const idLength = 8

// nameOf returns the label of a node's host name, and the one of its own; both are empty for a host name of which nothing is left.
func nameOf(host, id string) (label, own string) {
	if _, err := netip.ParseAddr(host); err != nil {
		host, _, _ = strings.Cut(host, ".")
	}
	label, id = records.Sanitize(host), records.Sanitize(id)
	if label == "" {
		return "", ""
	}
	suffix := "-" + strings.Trim(id[:min(len(id), idLength)], "-")
	// Cut at the end, a long host name would leave no room for what makes it unlike others.
	return label, strings.TrimRight(label[:min(len(label), 63-len(suffix))], "-") + suffix
}

// namesakes are the nodes with one label, by their addresses.
type namesakes map[netip.Addr]map[*node]bool

// rename makes the names of a node what they should be. Where that lets others of its label have it, or takes it from them, theirs change too.
func (f *follower) rename(n *node) {
	label, own := "", ""
	if n.listed {
		label, own = nameOf(n.info.GetHostname(), n.name)
	}
	at := netip.Addr{}
	if len(n.addrs) > 0 {
		at = n.addrs[0]
	}
	if label != n.label || at != n.labelAt {
		f.leaveLabel(n)
		n.label, n.own, n.labelAt = label, own, at
		if label != "" && at.IsValid() {
			all := f.labels[label]
			if all == nil {
				all = namesakes{}
				f.labels[label] = all
			}
			if all[at] == nil {
				all[at] = map[*node]bool{}
			}
			all[at][n] = true
			f.contest(label, len(all) == 2 && len(all[at]) == 1)
		}
	}
	f.showName(n)
}

// leaveLabel takes a node out of those of its label.
func (f *follower) leaveLabel(n *node) {
	all := f.labels[n.label]
	if all == nil || !all[n.labelAt][n] {
		return
	}
	delete(all[n.labelAt], n)
	if len(all[n.labelAt]) > 0 {
		return
	}
	delete(all, n.labelAt)
	if len(all) == 0 {
		delete(f.labels, n.label)
	}
	f.contest(n.label, len(all) == 1)
}

// contest shows the names of all nodes of a label again if it has become contested, or is so no more.
func (f *follower) contest(label string, turned bool) {
	if !turned {
		return
	}
	for _, nodes := range f.labels[label] {
		for n := range nodes {
			f.showName(n)
		}
	}
}

func (f *follower) showName(n *node) {
	var list []records.Record
	if n.live && n.label != "" {
		name := n.label
		if len(f.labels[n.label]) > 1 {
			name = ""
		}
		list = records.Node{Name: name, Alias: n.own, Addrs: n.addrs}.Records(f.config.Zone.Domain)
	}
	f.replace("node/"+n.name, list)
}
