package network

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"starling/agent/network/resolv"
)

// resolvers are where the name servers of a node are written down: the second has those that the loopback address of the
// first stands for, where systemd resolves names.
var resolvers = []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}

// writeFiles makes what a container finds in /etc about its network. said are the name servers that a plugin told.
func (n *Networks) writeFiles(r *record, said resolv.DNS) error {
	var hosts strings.Builder
	files := map[string]string{"hostname": r.Hostname + "\n"}
	if !r.Own {
		// The node's network under another hostname: a name without an address would be a surprise.
		for _, f := range nodeFiles() {
			data, err := os.ReadFile(f.Source)
			if err != nil {
				continue
			}
			switch f.Target {
			case "/etc/resolv.conf":
				files["resolv.conf"] = n.nodeDNS(string(data))
			case "/etc/hosts":
				hosts.Write(data)
			}
		}
		fmt.Fprintf(&hosts, "\n127.0.1.1\t%s\n", r.Hostname)
	} else {
		hosts.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
		files["resolv.conf"] = n.dns(r, said).Text()
		named := false
		for _, d := range r.Devices {
			if d.Address.IsValid() {
				fmt.Fprintf(&hosts, "%s\t%s\n", d.Address.Addr(), r.Hostname)
				named = true
			}
		}
		if !named {
			fmt.Fprintf(&hosts, "127.0.0.1\t%s\n", r.Hostname)
		}
	}
	files["hosts"] = hosts.String()
	for name, text := range files {
		if err := replace(filepath.Join(n.dir(r.ID), name), []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

// nodeDNS is the resolv.conf of a container in the node's network: that of the node, or one by which it asks the node.
func (n *Networks) nodeDNS(text string) string {
	if node := n.cfg.DNS.Node(); !node.Empty() {
		return node.Or(resolv.Parse(text)).Text()
	}
	return text
}

// dns decides which name servers a container asks: what the plugin of its network said, what the operator sets, the node
// where he says so, what the node asks and a container can reach, and at last the node itself.
func (n *Networks) dns(r *record, said resolv.DNS) resolv.DNS {
	if len(r.Devices) == 0 {
		return resolv.DNS{}
	}
	out := said
	if set, ok := n.cfg.DNS.Mesos(r.Devices[0].Network); ok {
		out = out.Or(set)
	}
	if node := n.cfg.DNS.Node(); !node.Empty() {
		if n.cfg.GatewayDNS && r.Devices[0].CNI == nil {
			n.mu.Lock()
			node.Nameservers = []string{n.pool.gateway().String()}
			n.mu.Unlock()
		}
		out = out.Or(node)
	}
	for _, path := range resolvers {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if d := resolv.Parse(string(data)).Reachable(); len(d.Nameservers) > 0 {
			return out.Or(d)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(out.Nameservers) == 0 && n.pool != nil && r.Devices[0].CNI == nil {
		// Its resolver listens on a loopback address only, as far as can be seen. The agent answers on all.
		out.Nameservers = []string{n.pool.gateway().String()}
	}
	return out
}
