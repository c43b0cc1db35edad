package node

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"starling/agent/network"
	"starling/agent/network/resolv"
	"starling/gossip"
)

// nameServers reads what is set for containers of either kind; nil is nothing.
func (f *networkFlags) nameServers() (*resolv.Defaults, error) {
	var d *resolv.Defaults
	if f.dns != "" {
		text, err := inline(f.dns)
		if err == nil {
			d, err = resolv.ParseDefaults(string(text))
		}
		if err != nil {
			return nil, &UsageError{fmt.Errorf("--default-container-dns: %w", err)}
		}
	}
	if f.node.IsValid() {
		d = d.AskNode(f.node)
	}
	return d, nil
}

// containerDNS decides where containers ask this node, if they are to. A resolv.conf names no port, and a container with a network
// of its own does not reach the node's loopback addresses.
func (r *role) containerDNS(f *networkFlags, port int, addresses addressList) error {
	if !f.askNode {
		return nil
	}
	if port != dnsPort {
		return usagef("--container-dns: containers ask at port %d, and DNS of this agent is to be at --dns-port=%d", dnsPort, port)
	}
	text := r.place.bind
	if len(addresses) > 0 {
		text = addresses[0].String()
		if i := slices.IndexFunc(addresses, func(a netip.Addr) bool { return a.Unmap().Is4() && !a.IsLoopback() }); i >= 0 {
			text = addresses[i].String()
		}
	}
	if a, err := netip.ParseAddr(text); err != nil || a.IsUnspecified() {
		f.gateway = true
		text = r.place.address
		if local, ok := gossip.LocalAddr(); ok && r.common.advertiseIP != "" {
			text = local.String() // the one to tell others may be no address of this machine
		}
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return fmt.Errorf("cannot tell containers whom to ask: %w", err)
	}
	switch a = a.Unmap(); {
	case a.IsLoopback():
		return usagef("--container-dns: containers do not reach %s, where this node listens: name another address of it by --ip or --dns-address", a)
	case a.Is6() && !f.gateway:
		return usagef("--container-dns: containers of the bridged network have IPv4 alone and do not reach %s, where this node listens: leave --ip out", a)
	}
	f.node = a
	return nil
}

// resolvConf writes the resolv.conf of containers in the node's network that ask the node; its path is empty where they ask whom
// the node asks.
func (r *role) resolvConf(f *networkFlags) (string, error) {
	if !f.node.IsValid() {
		return "", nil
	}
	set := resolv.DNS{Nameservers: []string{f.node.String()}}
	if data, err := os.ReadFile("/etc/resolv.conf"); err == nil {
		set = set.Or(resolv.Parse(string(data)))
	}
	path := filepath.Join(r.place.dir, "resolv.conf")
	// In place: running containers see this very file, and the address may be another than before.
	if err := os.WriteFile(path, []byte(set.Text()), 0o644); err != nil {
		return "", fmt.Errorf("cannot write the resolv.conf of containers: %w", err)
	}
	return path, nil
}

// networks makes the networks of containers. control are the node's own ports, which containers do not reach.
func (r *role) networks(f *networkFlags, control ...uint16) (*network.Networks, error) {
	c := network.Config{
		Dir: filepath.Join(r.place.dir, "network"), Bridge: f.bridge, Subnet: f.subnet, Name: f.name, Denied: append([]string{}, f.denied...),
		CNIConfigDir: string(f.cniConfig), CNIPluginsDir: f.cniPlugins, Control: control, GatewayDNS: f.gateway, Log: r.log,
	}
	var err error
	if c.DNS, err = f.nameServers(); err != nil {
		return nil, err
	}
	n, err := network.New(c)
	if err != nil {
		return nil, &UsageError{err}
	}
	r.add("networks", func(ctx context.Context) error {
		err := n.Run(ctx)
		done, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := n.Close(done); err != nil {
			r.log.Warn("cannot take the network of containers away", "err", err)
		}
		return err
	})
	return n, nil
}
