package gossip

import (
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// advertiseAddr decides which address others are told. memberlist's own choice is not used: it was seen to take a
// container bridge or an address of no use to others.
func advertiseAddr(cfg *Config) string {
	if ip := net.ParseIP(cfg.BindAddr); !ip.IsUnspecified() {
		return cfg.BindAddr
	}
	for _, s := range cfg.Join {
		host, port, err := splitSeed(s)
		if err != nil {
			continue
		}
		if ip := net.ParseIP(host); ip == nil || ip.IsLoopback() {
			continue // a name may take long to resolve; the interfaces do as well
		}
		// Nothing is sent: this only asks the routing table.
		c, err := net.Dial("udp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			continue
		}
		local, ok := c.LocalAddr().(*net.UDPAddr)
		closeQuietly(c)
		if ok && !local.IP.IsUnspecified() && !local.IP.IsLoopback() {
			return local.IP.String()
		}
	}
	if addr, ok := LocalAddr(); ok {
		return addr.String()
	}
	return "127.0.0.1"
}

// LocalAddr returns the address of this machine that a node tells others where nobody names one: of an interface that is up, IPv4
// before IPv6, private before public, and a tunnel's after others of its kind. The bridges of containers and virtual machines are passed
// over, as nobody else reaches them, and so are temporary addresses of IPv6, as they change every day. ok is false where none is left.
func LocalAddr() (addr netip.Addr, ok bool) {
	all, err := net.Interfaces()
	if err != nil {
		return netip.Addr{}, false
	}
	var interfaces []netInterface
	for _, i := range all {
		n := netInterface{name: i.Name, flags: i.Flags}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				n.addrs = append(n.addrs, p.Addr().Unmap())
			}
		}
		interfaces = append(interfaces, n)
	}
	list, _ := os.ReadFile("/proc/net/if_inet6") // only Linux tells, and only where it has IPv6
	return bestAddr(interfaces, temporary(string(list)))
}

// netInterface is what matters of a network interface.
type netInterface struct {
	name  string
	flags net.Flags
	addrs []netip.Addr
}

// bestAddr makes the choice of LocalAddr; of equally good addresses it takes the first.
func bestAddr(interfaces []netInterface, temporary map[netip.Addr]bool) (best netip.Addr, ok bool) {
	most := 0
	for _, i := range interfaces {
		if i.flags&net.FlagUp == 0 || i.flags&net.FlagLoopback != 0 || virtual(i.name) {
			continue
		}
		for _, a := range i.addrs {
			if !a.IsGlobalUnicast() || temporary[a] {
				continue
			}
			score := 1
			if a.Is4() {
				score += 4
			}
			if a.IsPrivate() {
				score += 2
			}
			if i.flags&net.FlagPointToPoint == 0 {
				score++
			}
			if score > most {
				best, most = a, score
			}
		}
	}
	return best, most > 0
}

// virtual tells interfaces that containers and virtual machines bring along.
func virtual(name string) bool {
	for _, p := range []string{"docker", "veth", "br-", "virbr", "cni", "flannel", "podman"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// temporary returns the addresses that Linux' list of IPv6 addresses marks as temporary (RFC 8981) or deprecated. A line is the address, the
// number of the interface, the length of the prefix, the scope, the flags (all in hexadecimal), and the name of the interface.
func temporary(list string) map[netip.Addr]bool {
	const flagTemporary, flagDeprecated = 0x01, 0x20
	found := map[netip.Addr]bool{}
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		if len(fields) != 6 {
			continue
		}
		b, err := hex.DecodeString(fields[0])
		flags, ferr := strconv.ParseUint(fields[4], 16, 32)
		if addr, ok := netip.AddrFromSlice(b); ok && err == nil && ferr == nil && flags&(flagTemporary|flagDeprecated) != 0 {
			found[addr] = true
		}
	}
	return found
}
