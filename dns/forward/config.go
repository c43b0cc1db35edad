package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// Config is what a Forwarder needs. The zero value asks the system's resolvers.
type Config struct {
	// Resolvers are asked in order. Nil is those of the system; empty but not nil is none.
	Resolvers []netip.AddrPort
	// ResolvConf is the file that lists the system's resolvers, /etc/resolv.conf by default. It is read again when it changes.
	ResolvConf string
	// Zones have resolvers of their own: for a name in several of them the longest decides.
	Zones map[string][]netip.AddrPort
	// Timeout is how long one resolver is tried; 5 s by default.
	Timeout time.Duration
	// Domain is our own: records in it are dropped from what resolvers say.
	Domain string
	// Self tells whether an address is where we answer ourselves; such a resolver is left out. None is, by default.
	Self func(netip.AddrPort) bool

	// CacheBytes and CacheEntries bound the cache; 4 MiB and 16,384 by default. Negative: no cache.
	CacheBytes, CacheEntries int
	// MinTTL and MaxTTL bound how long an answer is kept; MaxNegativeTTL, how long one that says that there is nothing. By
	// default 0, a day and 5 minutes. An answer whose TTL is 0 is not kept at all.
	MinTTL, MaxTTL, MaxNegativeTTL time.Duration
	// Stale is how long past its end an answer may be shown when no resolver is heard; a day by default, negative for never.
	Stale time.Duration
	// Patience is how long a client waits for resolvers while there is a stale answer; 1.8 s by default (RFC 8767, 5).
	Patience time.Duration
	// Concurrent is how many queries may be under way to resolvers, Waiting how many clients may wait for them; 256 and 512
	// by default.
	Concurrent, Waiting int

	// Dial connects to a resolver; net.Dialer does by default.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Log may be nil.
	Log *slog.Logger
	// Metrics may be nil.
	Metrics prometheus.Registerer
}

func orDefault[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

func (c *Config) defaults() {
	orDefault(&c.Timeout, 5*time.Second)
	orDefault(&c.CacheBytes, 4<<20)
	orDefault(&c.CacheEntries, 16<<10)
	orDefault(&c.MaxTTL, 24*time.Hour)
	orDefault(&c.MaxNegativeTTL, 5*time.Minute)
	orDefault(&c.Stale, 24*time.Hour)
	orDefault(&c.Patience, 1800*time.Millisecond)
	orDefault(&c.Concurrent, 256)
	orDefault(&c.Waiting, 512)
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.Self == nil {
		c.Self = func(netip.AddrPort) bool { return false }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Domain = canonical(c.Domain)
	zones := make(map[string][]netip.AddrPort, len(c.Zones))
	for zone, list := range c.Zones {
		zones[canonical(zone)] = list
	}
	c.Zones = zones
}

// canonical is a name in lower case with a final dot; an empty one stays empty.
func canonical(name string) string {
	if name == "" {
		return ""
	}
	return dns.CanonicalName(name)
}

// Validate tells all that is wrong with the configuration.
func (c Config) Validate() error {
	var faults []error
	for _, d := range []time.Duration{c.Timeout, c.MinTTL, c.MaxTTL, c.MaxNegativeTTL, c.Patience} {
		if d < 0 {
			faults = append(faults, fmt.Errorf("%v is no length of time to wait or to keep an answer", d))
		}
	}
	if c.Concurrent < 0 || c.Waiting < 0 {
		faults = append(faults, errors.New("the number of queries under way cannot be negative"))
	}
	faults = append(faults, checkResolvers("the resolvers", c.Resolvers))
	for zone, list := range c.Zones {
		if _, ok := dns.IsDomainName(zone); !ok || zone == "" {
			faults = append(faults, fmt.Errorf("%q is not the name of a zone", zone))
		}
		faults = append(faults, checkResolvers(fmt.Sprintf("the resolvers of zone %q", zone), list))
	}
	return errors.Join(faults...)
}

func checkResolvers(what string, list []netip.AddrPort) error {
	seen := map[netip.AddrPort]bool{}
	for _, r := range list {
		if !r.IsValid() || r.Port() == 0 || r.Addr().IsUnspecified() || r.Addr().IsMulticast() {
			return fmt.Errorf("%s: %v is no address of a DNS server", what, r)
		}
		if seen[r] {
			return fmt.Errorf("%s: %v is given twice", what, r)
		}
		seen[r] = true
	}
	return nil
}
