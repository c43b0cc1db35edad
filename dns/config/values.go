package config

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"starling/dns/records"
)

// CheckIPSources tells what is wrong with a list of the places that a task's addresses come from, in order.
func CheckIPSources(sources []string) error {
	_, err := records.ParseIPSources(sources)
	return err
}

// dnsPort is where a resolver listens that is written without a port.
const dnsPort = 53

// ParseResolver reads one resolver: an IP address, or one with a port, where IPv6 is in brackets.
func ParseResolver(s string) (netip.AddrPort, error) {
	r, err := netip.ParseAddrPort(s)
	if err != nil {
		var a netip.Addr
		if a, err = netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err != nil {
			return netip.AddrPort{}, fmt.Errorf("%q is neither an IP address nor one with a port", s)
		}
		r = netip.AddrPortFrom(a, dnsPort)
	}
	switch {
	case r.Port() == 0:
		return netip.AddrPort{}, fmt.Errorf("%q: 0 is not a port", s)
	case r.Addr().IsUnspecified(), r.Addr().IsMulticast():
		return netip.AddrPort{}, fmt.Errorf("%q: nobody answers at %s", s, r.Addr())
	}
	return netip.AddrPortFrom(r.Addr().Unmap(), r.Port()), nil
}

// ResolverText is a resolver as ParseResolver reads it, without the port that goes without saying.
func ResolverText(r netip.AddrPort) string {
	if r.Port() == dnsPort {
		return r.Addr().String()
	}
	return r.String()
}

// ParseResolvers reads a list of resolvers, in which none may be twice.
func ParseResolvers(list []string) ([]netip.AddrPort, error) {
	var resolvers []netip.AddrPort
	var faults []error
	for _, s := range list {
		r, err := ParseResolver(s)
		switch {
		case err != nil:
			faults = append(faults, err)
		case slices.Contains(resolvers, r):
			faults = append(faults, fmt.Errorf("%q is there twice", s))
		default:
			resolvers = append(resolvers, r)
		}
	}
	return resolvers, errors.Join(faults...)
}

// SplitZones takes "zone=resolver,resolver;zone=resolver" apart, for ParseZones.
func SplitZones(text string) (map[string][]string, error) {
	zones := map[string][]string{}
	var faults []error
	for one := range strings.SplitSeq(text, ";") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		zone, resolvers, ok := strings.Cut(one, "=")
		zone = strings.TrimSpace(zone)
		if _, twice := zones[zone]; twice {
			faults = append(faults, fmt.Errorf("zone %q is there twice", zone))
		}
		if !ok {
			faults = append(faults, fmt.Errorf("%q is not of the form zone=resolver,resolver", one))
			continue
		}
		zones[zone] = nil
		for r := range strings.SplitSeq(resolvers, ",") {
			if r = strings.TrimSpace(r); r != "" {
				zones[zone] = append(zones[zone], r)
			}
		}
	}
	return zones, errors.Join(faults...)
}

// JoinZones is the opposite of SplitZones, in the order of the zones' names.
func JoinZones(zones map[string][]string) string {
	var all []string
	for _, zone := range slices.Sorted(maps.Keys(zones)) {
		all = append(all, zone+"="+strings.Join(zones[zone], ","))
	}
	return strings.Join(all, ";")
}

// ParseZones reads the zones that have resolvers of their own. No zone may be another one, or the domain, or be below or
// above one of these.
func ParseZones(zones map[string][]string, domain string) (map[string][]netip.AddrPort, error) {
	parsed := map[string][]netip.AddrPort{}
	taken := map[string]string{domain: "the domain " + domain}
	var faults []error
	for _, given := range slices.Sorted(maps.Keys(zones)) {
		zone := strings.ToLower(strings.TrimSuffix(given, "."))
		if err := checkName(zone, '_'); err != nil {
			faults = append(faults, fmt.Errorf("zone %q: %w", given, err))
			continue
		}
		for _, other := range slices.Sorted(maps.Keys(taken)) {
			if zone == other || strings.HasSuffix(zone, "."+other) || strings.HasSuffix(other, "."+zone) {
				faults = append(faults, fmt.Errorf("zone %q and %s cover each other", given, taken[other]))
			}
		}
		taken[zone] = fmt.Sprintf("zone %q", given)
		resolvers, err := ParseResolvers(zones[given])
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("zone %q: %w", given, err))
		case len(resolvers) == 0:
			faults = append(faults, fmt.Errorf("zone %q has no resolvers", given))
		}
		parsed[zone] = resolvers
	}
	return parsed, errors.Join(faults...)
}

// CheckDomain refuses what cannot be the domain of a DNS server: a name of letters, digits and "-".
func CheckDomain(domain string) error { return checkName(domain) }

// checkName refuses what is not a domain name of letters, digits, "-", and the other characters given.
func checkName(name string, more ...rune) error {
	bare := strings.TrimSuffix(name, ".")
	if bare == "" {
		return errors.New("the name is empty")
	}
	if len(bare) > 253 {
		return fmt.Errorf("%.40q... has more than 253 characters", bare)
	}
	for label := range strings.SplitSeq(bare, ".") {
		if label == "" || len(label) > 63 {
			return fmt.Errorf("%.80q: the parts between dots have 1 to 63 characters", name)
		}
		for _, c := range label {
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || slices.Contains(more, c)) {
				return fmt.Errorf("%.80q has %q in it, where letters, digits, \"-\" and \".\" may stand", name, c)
			}
		}
	}
	return nil
}

// checkListener refuses what is not an address to listen on; empty is all of them.
func checkListener(s string) error {
	if _, err := netip.ParseAddr(s); err != nil && s != "" {
		return fmt.Errorf("%q is not an IP address", s)
	}
	return nil
}

// checkMasters refuses what Mesos-DNS does: masters that are no IP:port, or are there twice.
func checkMasters(masters []string) error {
	var faults []error
	for i, m := range masters {
		if a, err := netip.ParseAddrPort(m); err != nil || a.Port() == 0 {
			faults = append(faults, fmt.Errorf("%q is not IP:port", m))
		} else if slices.Contains(masters[:i], m) {
			faults = append(faults, fmt.Errorf("%q is there twice", m))
		}
	}
	return errors.Join(faults...)
}

// checkZK refuses what is not an address of ZooKeeper. Its error leaves out user and password.
func checkZK(zk string) error {
	if zk == "" {
		return nil
	}
	shown := withoutPassword(zk)
	rest, ok := strings.CutPrefix(shown, "zk://")
	hosts, path, _ := strings.Cut(rest, "/")
	if !ok || hosts == "" || path == "" {
		return fmt.Errorf("%q is not of the form zk://host:port,host:port/path", shown)
	}
	for host := range strings.SplitSeq(hosts, ",") {
		at := strings.LastIndexByte(host, ':')
		if n, err := strconv.ParseUint(host[at+1:], 10, 16); at <= 0 || err != nil || n == 0 {
			return fmt.Errorf("%q: %q is not host:port", shown, host)
		}
	}
	return nil
}
