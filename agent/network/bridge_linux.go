package network

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"starling/agent/network/netns"
)

// lockPath keeps two agents of one machine from choosing the same subnet at the same time.
const lockPath = "/run/starling-network.lock"

// usable tells why networks cannot be made here.
func usable() error {
	if os.Geteuid() != 0 {
		return errors.New("a network of a container's own takes root, and this agent is not")
	}
	return nil
}

func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(data))
}

// hardware is the address of this agent's bridge: it is set as the bridge is made, and tells whose it is.
func (n *Networks) hardware() net.HardwareAddr {
	sum := sha256.Sum256([]byte(n.cfg.Dir))
	return append(net.HardwareAddr{0x0a}, sum[:5]...)
}

func hardwareOf(addr netip.Addr) net.HardwareAddr {
	b := addr.As4()
	return net.HardwareAddr{0x0a, 0x58, b[0], b[1], b[2], b[3]}
}

// inUse tells whether a container has an address of which no record is left.
func inUse(addr netip.Addr) bool {
	_, err := netlink.LinkByName(linkOf(addr))
	return err == nil
}

// choosePlace decides which bridge and which subnet are ours, and makes the bridge. While a container has an address of it
// that stays; before that, what was chosen last is preferred.
func (n *Networks) choosePlace(ctx context.Context) error {
	release, err := n.alone(ctx)
	if err != nil {
		return err
	}
	defer release()
	n.mu.Lock()
	last := n.place
	used := slices.ContainsFunc(slices.Collect(maps.Values(n.records)), (*record).onBridge)
	n.mu.Unlock()
	same := (n.cfg.Bridge == "" || n.cfg.Bridge == last.Bridge) && (!n.cfg.subnet.IsValid() || n.cfg.subnet == last.Subnet)
	switch {
	case last.valid() && used:
		if !same {
			n.cfg.Log.Warn("containers are still in the network of an earlier setting, which goes on until all have ended", "bridge", last.Bridge, "subnet", last.Subnet)
		}
		_, err := n.bridge(last)
		return err
	case last.valid() && !same:
		if err := n.dismantle(ctx); err != nil {
			return err
		}
	case last.valid():
		if link, err := netlink.LinkByName(last.Bridge); err == nil && n.ours(link) {
			_, err := n.bridge(last)
			return err
		}
		// The machine was started anew, for instance: others may have taken either.
	}
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	p := place{Bridge: n.cfg.Bridge, Subnet: n.cfg.subnet}
	if !p.Subnet.IsValid() {
		if p.Subnet, err = freeSubnet(last.Subnet); err != nil {
			return err
		}
	}
	if p.Bridge == "" {
		if p.Bridge, err = n.freeName(last.Bridge); err != nil {
			return err
		}
	}
	if _, err := n.bridge(p); err != nil {
		return err
	}
	if err := n.savePlace(p); err != nil {
		return err
	}
	n.mu.Lock()
	n.setPlace(p)
	n.mu.Unlock()
	return nil
}

func (n *Networks) savePlace(p place) error {
	data, err := json.Marshal(p)
	if err == nil {
		err = os.MkdirAll(n.cfg.Dir, 0o755)
	}
	if err == nil {
		err = replace(filepath.Join(n.cfg.Dir, fileBridge), data)
	}
	if err != nil {
		return fmt.Errorf("cannot note which bridge is ours: %w", err)
	}
	return nil
}

func lock() (unlock func(), err error) {
	fd, err := unix.Open(lockPath, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open %q: %w", lockPath, err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot lock %q: %w", lockPath, err)
	}
	return func() { unix.Close(fd) }, nil
}

// freeName returns the first name of a bridge that is ours already or nobody's; the liked one, if there is one, comes first.
func (n *Networks) freeName(liked string) (string, error) {
	base := strings.TrimRight(DefaultBridge, "0123456789")
	for i := -1; i < 100; i++ {
		name := base + strconv.Itoa(i)
		if i < 0 {
			name = liked
		}
		if name == "" {
			continue
		}
		link, err := netlink.LinkByName(name)
		if errors.As(err, &netlink.LinkNotFoundError{}) || err == nil && n.ours(link) {
			return name, nil
		}
		if err != nil {
			return "", fmt.Errorf("cannot look for a bridge: %w", err)
		}
	}
	return "", fmt.Errorf("cannot name a bridge: %s0 to %s99 are taken", base, base)
}

func (n *Networks) ours(link netlink.Link) bool {
	return link.Type() == "bridge" && slices.Equal(link.Attrs().HardwareAddr, n.hardware())
}

// freeSubnet returns one that overlaps no route and no address of the node; the liked one, if there is one, comes first.
func freeSubnet(liked netip.Prefix) (netip.Prefix, error) {
	var taken []netip.Prefix
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("cannot read the routes of this node: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		ones, _ := r.Dst.Mask.Size()
		if a, ok := netip.AddrFromSlice(r.Dst.IP.To4()); ok && ones > 0 {
			taken = append(taken, netip.PrefixFrom(a, ones))
		}
	}
	return choose(liked, taken)
}

// bridge sees to it that our bridge is there as it should be; made tells that it was not. Called with node held.
func (n *Networks) bridge(p place) (made bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot make bridge %q: %w", p.Bridge, err)
		}
	}()
	link, err := netlink.LinkByName(p.Bridge)
	switch {
	case err == nil && !n.ours(link):
		return false, errors.New("a device of that name is there, and not of this agent")
	case errors.As(err, &netlink.LinkNotFoundError{}):
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr, attrs.MTU = p.Bridge, n.hardware(), mtu()
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return false, err
		}
		made = true
		if link, err = netlink.LinkByName(p.Bridge); err != nil {
			return made, err
		}
	case err != nil:
		return false, err
	}
	gateway := newAddresses(p.Subnet).gateway()
	want := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(gateway, p.Subnet.Bits()))}
	has, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return made, err
	}
	if !slices.ContainsFunc(has, func(a netlink.Addr) bool { return a.Equal(*want) }) {
		made = true
		// Frames with this address would reach the node's own services past the rules, which are of IPv4.
		sysctls := map[string]string{"ipv6/conf/" + p.Bridge + "/disable_ipv6": "1", "ipv4/conf/" + p.Bridge + "/route_localnet": "1", "ipv4/ip_forward": "1"}
		for name, value := range sysctls {
			if err := sysctl(name, value); err != nil && !(strings.HasPrefix(name, "ipv6") && errors.Is(err, os.ErrNotExist)) {
				return made, err
			}
		}
		if err := netlink.AddrAdd(link, want); err != nil && !errors.Is(err, unix.EEXIST) {
			return made, fmt.Errorf("address %s: %w", want, err)
		}
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		made = true
		if err := netlink.LinkSetUp(link); err != nil {
			return made, err
		}
	}
	return made, nil
}

// sysctl sets one of the network namespace that the process is in.
func sysctl(name, value string) error {
	path := "/proc/sys/net/" + name
	if data, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(data)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		return fmt.Errorf("cannot set %s: %w", strings.ReplaceAll(name, "/", "."), err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: net.IP(p.Addr().AsSlice()), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// mtu is that of the way to the outside: a bridge that allows more loses packets in a tunnel. 0 leaves it to the kernel.
func mtu() int {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
	if err != nil {
		return 0
	}
	for _, r := range routes {
		if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
			return link.Attrs().MTU
		}
	}
	return 0
}

// makeNamespace makes a namespace with its loopback device up, and mounts it onto a file.
func makeNamespace(path string) error {
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		return fmt.Errorf("cannot make a place for a network namespace: %w", err)
	}
	return netns.New(func() error {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			return fmt.Errorf("cannot start the loopback device: %w", err)
		}
		// Ports below 1024 harm nobody in a namespace of its own.
		if err := sysctl("ipv4/ip_unprivileged_port_start", "0"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cannot keep a network namespace at %q: %w", path, err)
		}
		return nil
	})
}

// kept tells whether a namespace is mounted onto a file.
func kept(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// dropNamespace takes the mount away; the namespace goes with its last process.
func dropNamespace(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // not mounted; not there
		return fmt.Errorf("cannot give up the network namespace at %q: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot give up the network namespace at %q: %w", path, err)
	}
	return nil
}

// plug connects a namespace with the bridge.
func (n *Networks) plug(_ context.Context, r *record, d device) error {
	n.mu.Lock()
	p, gateway := n.place, n.pool.gateway()
	n.mu.Unlock()
	ns, err := os.Open(n.namespace(r.ID))
	if err != nil {
		return fmt.Errorf("cannot open a network namespace: %w", err)
	}
	defer ns.Close()
	br, err := netlink.LinkByName(p.Bridge)
	if err != nil {
		return fmt.Errorf("cannot find bridge %q: %w", p.Bridge, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex = d.link(), br.Attrs().MTU, br.Attrs().Index
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: d.Name, PeerNamespace: netlink.NsFd(int(ns.Fd())), PeerHardwareAddr: hardwareOf(d.Address.Addr()),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		if errors.Is(err, unix.EXFULL) {
			err = errors.New("the bridge has as many devices as the kernel allows")
		}
		return fmt.Errorf("cannot make a pair of devices: %w", err)
	}
	host, err := netlink.LinkByName(d.link())
	if err != nil {
		return fmt.Errorf("cannot find device %q: %w", d.link(), err)
	}
	// A container may reach itself by a port of the node.
	if err := netlink.LinkSetHairpin(host, true); err != nil {
		return fmt.Errorf("cannot set up device %q: %w", d.link(), err)
	}
	if err := netlink.LinkSetUp(host); err != nil {
		return fmt.Errorf("cannot start device %q: %w", d.link(), err)
	}
	return netns.Do(n.namespace(r.ID), func() error {
		inside, err := netlink.LinkByName(d.Name)
		if err != nil {
			return fmt.Errorf("cannot find device %q of a container: %w", d.Name, err)
		}
		if err := netlink.AddrAdd(inside, &netlink.Addr{IPNet: ipNet(d.Address)}); err != nil {
			return fmt.Errorf("cannot give device %q of a container its address: %w", d.Name, err)
		}
		if err := netlink.LinkSetUp(inside); err != nil {
			return fmt.Errorf("cannot start device %q of a container: %w", d.Name, err)
		}
		err = netlink.RouteAdd(&netlink.Route{LinkIndex: inside.Attrs().Index, Gw: net.IP(gateway.AsSlice())})
		if err != nil && !errors.Is(err, unix.EEXIST) { // another network has given it one
			return fmt.Errorf("cannot set the route of a container: %w", err)
		}
		return nil
	})
}

// unplug removes the pair, the end in the container with it, and what the kernel remembers of who spoke with it.
func unplug(d device) error {
	if err := deleteLink(d.link()); err != nil {
		return err
	}
	forgetFlows(d)
	return nil
}

func deleteLink(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("cannot remove device %q: %w", name, err)
	}
	return nil
}

// forgetFlows ends what the kernel remembers of UDP, which has no end of its own: packets to a mapped port would go on to
// where they went before. Failing to is no more than that.
func forgetFlows(d device) {
	var filters []netlink.CustomConntrackFilter
	for _, m := range d.Mappings {
		if m.Protocol != "udp" {
			continue
		}
		f := &netlink.ConntrackFilter{}
		if f.AddProtocol(unix.IPPROTO_UDP) == nil && f.AddPort(netlink.ConntrackOrigDstPort, m.Host) == nil {
			filters = append(filters, f)
		}
	}
	if len(filters) > 0 {
		netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(netlink.FAMILY_V4), filters...)
	}
}

// enslave brings devices back to the bridge that was made anew.
func enslave(bridge string, devices []device) error {
	br, err := netlink.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("cannot find bridge %q: %w", bridge, err)
	}
	for _, d := range devices {
		link, err := netlink.LinkByName(d.link())
		if err != nil || link.Attrs().MasterIndex == br.Attrs().Index {
			continue // it went with the container's namespace, or all is well
		}
		if err := netlink.LinkSetMaster(link, br); err != nil {
			return fmt.Errorf("cannot connect device %q with bridge %q: %w", d.link(), bridge, err)
		}
		if err := errors.Join(netlink.LinkSetHairpin(link, true), netlink.LinkSetUp(link)); err != nil {
			return fmt.Errorf("cannot set up device %q: %w", d.link(), err)
		}
	}
	return nil
}

// sweep removes devices of our subnet that no record knows.
func (n *Networks) sweep() error {
	// Listed before the records are looked at: what is made meanwhile has a record by then.
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("cannot list the devices of this node: %w", err)
	}
	n.mu.Lock()
	p, known, unread := n.place, map[string]bool{}, false
	for _, r := range n.records {
		unread = unread || r.Ready && r.Own && len(r.Infos) == 0
		for _, d := range r.Devices {
			if d.Address.IsValid() && d.CNI == nil {
				known[d.link()] = true
			}
		}
	}
	n.mu.Unlock()
	if !p.valid() || unread { // a record that did not read may have had any of them
		return nil
	}
	br, err := netlink.LinkByName(p.Bridge)
	if err != nil || !n.ours(br) {
		return nil // without the bridge none of them is ours for sure
	}
	var faults []error
	for _, link := range links {
		name := link.Attrs().Name
		if link.Attrs().MasterIndex == br.Attrs().Index && strings.HasPrefix(name, linkPrefix) && !known[name] {
			n.cfg.Log.Info("device of a container that is gone is removed", "device", name)
			faults = append(faults, deleteLink(name))
		}
	}
	return errors.Join(faults...)
}

// dismantle takes bridge and rules away. Called with node held.
func (n *Networks) dismantle(ctx context.Context) error {
	n.mu.Lock()
	p := n.place
	n.mu.Unlock()
	link, err := netlink.LinkByName(p.Bridge)
	if err == nil && !n.ours(link) {
		return nil // rules of that name are somebody else's too
	}
	if err := removeRules(ctx, p.Bridge); err != nil {
		return err
	}
	n.done = 0
	return deleteLink(p.Bridge)
}
