package gossip

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"

	"starling/gossip/keyring"
)

// DefaultPort is the port of the mesh, for datagrams and streams alike.
const DefaultPort = 7946

// The profiles.
const (
	ProfileLAN   = "lan"
	ProfileWAN   = "wan"
	ProfileLocal = "local"
)

// Secret is key material. It is never printed.
type Secret = keyring.Secret

// Config says how a node takes part in the mesh. DefaultConfig fills in the defaults named here.
type Config struct {
	// NodeID is the name of this node, the same at every start and unlike every other: up to 255 bytes, no slash. Required.
	NodeID string
	// Cluster keeps meshes apart on one network. Up to 128 bytes; default "starling".
	Cluster string

	// BindAddr is the IP address to listen on. Default 0.0.0.0.
	BindAddr string
	// BindPort is the port to listen on, TCP and UDP. Default 7946; 0 picks a free one.
	BindPort int
	// AdvertiseAddr is the IP address that others reach this node at. Default: BindAddr if that is a particular address, else
	// the address that packets to the first seed leave from, else LocalAddr, and 127.0.0.1 where there is none.
	AdvertiseAddr string
	// AdvertisePort is the port that others reach this node at. Default: the port that it listens on.
	AdvertisePort int

	// Join names seeds, as host or host:port. A name may have several addresses. All are tried until one answers.
	Join []string
	// Allow are the networks that this node talks with; whatever comes from elsewhere is dropped unread, and nothing is sent there. The address
	// that this node advertises has to be in one of them. Default: all networks.
	Allow []netip.Prefix
	// Discover makes this node find others, and be found, by mDNS on the local network.
	Discover bool

	// Profile is one of lan, wan, local. Default lan.
	Profile string
	// Key is the secret of the cluster, 16 to 256 bytes; everything is encrypted with AES-256-GCM under a key derived from it.
	// Without it nothing is encrypted or authenticated. Where StateDir holds a keyring that a rotation has made of this key, that is
	// followed; a key that has nothing to do with that keyring replaces it.
	Key Secret

	// StateDir keeps the generation counter, the peers of the last run, and the keyring once the key was rotated. Empty: nothing is remembered.
	StateDir string
	// ReapAfter is how long a dead or departed node's record is kept. Default 24 h.
	ReapAfter time.Duration
	// GossipRate bounds what telling of changes may take, in bytes a second sent by this node: half of it for hot deltas, of which
	// 4 seconds' worth may go at once, the other for rounds of anti-entropy and repairs of what is on its way. Default 15 KiB/s:
	// with probes and exchanges of members, a busy node of a mesh of 20 stays below 20.
	GossipRate int
	// RepairRate bounds what this node sends to newcomers and to peers that missed something for long, and of values too large for a
	// datagram, in bytes a second. It may send 64 seconds' worth at once. Default 128 KiB/s.
	RepairRate int
	// Bulk says of which keys changes may wait: they are told after those of all others, and half as often. Default: of none.
	Bulk func(key string) bool

	// Log is required. What memberlist says goes to it at debug level.
	Log *slog.Logger
	// Metrics is where metrics are registered; nil: nowhere.
	Metrics prometheus.Registerer

	// Transport replaces the network, for tests. The address to advertise is then the transport's choice unless given.
	Transport memberlist.Transport
}

// DefaultConfig returns a Config with all defaults. NodeID and Log have to be added.
func DefaultConfig() Config {
	return Config{
		Cluster: "starling", BindAddr: "0.0.0.0", BindPort: DefaultPort, Profile: ProfileLAN,
		ReapAfter: 24 * time.Hour, GossipRate: 15 << 10, RepairRate: 128 << 10,
	}
}

// Validate returns everything that is wrong with the configuration, joined.
func (c *Config) Validate() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := validName(c.NodeID); err != nil {
		fail("NodeID %v", err)
	}
	if n := len(c.Cluster); n == 0 || n > maxCluster {
		fail("Cluster has %d bytes, 1 to %d are allowed", n, maxCluster)
	}
	if c.Transport == nil && net.ParseIP(c.BindAddr) == nil {
		fail("BindAddr %q is not an IP address", c.BindAddr)
	}
	if a := c.AdvertiseAddr; a != "" {
		if ip := net.ParseIP(a); ip == nil || ip.IsUnspecified() {
			fail("AdvertiseAddr %q is not an address that others can reach", a)
		}
	}
	for _, p := range []struct {
		name string
		port int
	}{{"BindPort", c.BindPort}, {"AdvertisePort", c.AdvertisePort}} {
		if p.port < 0 || p.port > 65535 {
			fail("%s %d is not a port", p.name, p.port)
		}
	}
	for _, s := range c.Join {
		if _, _, err := splitSeed(s); err != nil {
			fail("Join: %v", err)
		}
	}
	for _, p := range c.Allow {
		if !p.IsValid() {
			fail("Allow: %v is not a network", p)
		} else if p.Addr().Is4In6() {
			fail("Allow: %v has to be written as a network of IPv4", p)
		}
	}
	for _, s := range c.Join {
		if host, _, err := splitSeed(s); err == nil {
			if ip, err := netip.ParseAddr(host); err == nil && !networks(c.Allow).has(ip) {
				fail("Join: %s is in none of the allowed networks %v", s, networks(c.Allow))
			}
		}
	}
	switch c.Profile {
	case ProfileLAN, ProfileWAN, ProfileLocal:
	default:
		fail("Profile %q is not one of lan, wan, local", c.Profile)
	}
	if n := len(c.Key); n > 0 && (n < keyring.MinSecret || n > keyring.MaxSecret) {
		fail("Key has %d bytes, %d to %d are needed", n, keyring.MinSecret, keyring.MaxSecret)
	}
	if c.ReapAfter <= 0 {
		fail("ReapAfter %v is not positive", c.ReapAfter)
	}
	if c.GossipRate < 1<<10 {
		fail("GossipRate %d is below 1,024 bytes a second", c.GossipRate)
	}
	if c.RepairRate < 1<<10 {
		fail("RepairRate %d is below 1,024 bytes a second", c.RepairRate)
	}
	if c.Log == nil {
		fail("Log is missing")
	}
	return errors.Join(errs...)
}

// validName tells what is wrong with the name of a node.
func validName(name string) error {
	if n := len(name); n == 0 || n > 255 {
		return fmt.Errorf("has %d bytes, 1 to 255 are allowed", n)
	}
	for _, r := range name {
		if r == '/' || r <= ' ' || r == 0x7f {
			return fmt.Errorf("%q contains %q", name, r)
		}
	}
	return nil
}

// maxCluster bounds the label that is in front of every datagram. memberlist allows 255 bytes, which would leave little room.
const maxCluster = 128

// splitSeed takes apart host or host:port; IPv6 addresses with a port need brackets.
func splitSeed(s string) (host string, port int, err error) {
	if ip := net.ParseIP(s); ip != nil {
		return s, DefaultPort, nil
	}
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		if host, p, err = net.SplitHostPort(net.JoinHostPort(s, strconv.Itoa(DefaultPort))); err != nil {
			return "", 0, fmt.Errorf("%q is neither host nor host:port", s)
		}
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if host == "" || err != nil || n == 0 || len(host) > 253 {
		return "", 0, fmt.Errorf("%q is neither host nor host:port", s)
	}
	for _, r := range host {
		if r <= ' ' || r == '/' || r == ',' || r == ':' && net.ParseIP(host) == nil {
			return "", 0, fmt.Errorf("%q is neither host nor host:port", s)
		}
	}
	return host, int(n), nil
}
