package gossip

import (
	"net"
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
	return localAddr()
}

// localAddr returns the best address of the machine: IPv4 before IPv6, private before public, real interfaces only; 127.0.0.1
// where there is nothing else.
func localAddr() string {
	best, score := "127.0.0.1", 0
	all, err := net.Interfaces()
	if err != nil {
		return best
	}
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 || virtual(i.Name) {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok || !n.IP.IsGlobalUnicast() {
				continue
			}
			s := 1
			if n.IP.To4() != nil {
				s += 2
			}
			if n.IP.IsPrivate() {
				s++
			}
			if s > score {
				best, score = n.IP.String(), s
			}
		}
	}
	return best
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
