package node

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// holder is who listens on a port of this machine.
type holder struct {
	at      netip.AddrPort
	process string // its name; empty where this user may not see it
	pid     int
}

func (h holder) String() string {
	if h.process == "" {
		return fmt.Sprintf("%s is held by a process that this user may not see", h.at)
	}
	return fmt.Sprintf("%s is held by %s (process %d)", h.at, h.process, h.pid)
}

// explainDNS adds to an error of listening for DNS who holds the port, where that can be found out, and what to do.
func explainDNS(err error, ip string, port int) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		network := "udp"
		if op, ok := errors.AsType[*net.OpError](err); ok {
			network = op.Net
		}
		h, ok := findHolder("/proc", network, ip, port)
		if !ok {
			return fmt.Errorf("%w: %s", err, otherPort)
		}
		return fmt.Errorf("%w: %s: %s", err, h, remedy(h.process))
	case port < 1024 && (errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM)):
		self, exeErr := os.Executable()
		if exeErr != nil {
			self = "starling"
		}
		return fmt.Errorf("%w: port %d takes root or CAP_NET_BIND_SERVICE: `setcap cap_net_bind_service=+ep %s`, AmbientCapabilities=CAP_NET_BIND_SERVICE in a unit of systemd, "+
			"or `sysctl net.ipv4.ip_unprivileged_port_start=%d`; %s", err, port, self, port, otherPort)
	}
	return err
}

const otherPort = "--dns-port names another port, and --dns-address the addresses to listen on in place of all"

// remedy is what to do about those that usually hold port 53.
func remedy(process string) string {
	switch {
	case strings.HasPrefix(process, "systemd-resolve"): // the kernel cuts names
		return "its stub has 127.0.0.53 and 127.0.0.54 alone, so --dns-address with the node's address and 127.0.0.1 goes beside it; or DNSStubListener=no in /etc/systemd/resolved.conf switches it off; or --dns-port names another port"
	case process == "dnsmasq":
		return "let it listen on its own addresses only (listen-address=127.0.0.1 and bind-interfaces) and name the node's by --dns-address; or answer at another port (--dns-port=8053) and have it ask there (server=/mesos/127.0.0.1#8053)"
	case process == "starling":
		return "another agent or DNS node of this machine; " + otherPort
	}
	return otherPort
}

// findHolder looks in the kernel's tables for the socket that is in the way of one at ip and port; network is tcp or udp. proc is
// where these are.
func findHolder(proc, network, ip string, port int) (holder, bool) {
	want, err := netip.ParseAddr(ip)
	if err != nil {
		want = netip.IPv6Unspecified()
	}
	network = strings.TrimRight(network, "46")
	for _, table := range []string{network, network + "6"} {
		f, err := os.Open(filepath.Join(proc, "net", table))
		if err != nil {
			continue
		}
		h, inode, ok := search(bufio.NewScanner(f), network == "tcp", want.Unmap(), port)
		f.Close()
		if ok {
			h.process, h.pid = owner(proc, inode)
			return h, true
		}
	}
	return holder{}, false
}

// search reads a table of sockets: see proc_net_tcp in the kernel's documentation.
func search(lines *bufio.Scanner, tcp bool, want netip.Addr, port int) (h holder, inode string, ok bool) {
	const tcpListen = "0A"
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || tcp && fields[3] != tcpListen {
			continue
		}
		at, err := parseSocket(fields[1])
		if err != nil || int(at.Port()) != port {
			continue
		}
		if a := at.Addr(); a == want || a.IsUnspecified() || want.IsUnspecified() {
			return holder{at: at}, fields[9], true
		}
	}
	return holder{}, "", false
}

// parseSocket reads an address as the kernel prints it, in words of the machine's byte order, which is little endian wherever this
// runs; elsewhere the holder is not found.
func parseSocket(s string) (netip.AddrPort, error) {
	text, portText, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(text)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	addr, ok := netip.AddrFromSlice(raw)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", s)
	}
	port, err := strconv.ParseUint(portText, 16, 16)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), err
}

// owner finds the process that has a socket open, empty where no process that may be looked at has.
func owner(proc, inode string) (name string, pid int) {
	links, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "fd", "*"))
	for _, link := range links {
		if to, err := os.Readlink(link); err != nil || to != "socket:["+inode+"]" {
			continue
		}
		dir := filepath.Dir(filepath.Dir(link))
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue
		}
		pid, _ = strconv.Atoi(filepath.Base(dir))
		return strings.TrimSpace(string(comm)), pid
	}
	return "", 0
}
