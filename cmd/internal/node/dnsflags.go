package node

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"starling/cmd/internal/flags"
	"starling/dns"
	"starling/dns/config"
	"starling/dns/forward"
	"starling/dns/records"
)

// The ports of DNS.
const (
	dnsPort     = 53
	dnsPortElse = 8053 // where 53 is not allowed or taken
	dnsHTTPPort = 8123
)

// dnsFlags are the settings of every role that answers DNS.
type dnsFlags struct {
	port, httpPort flags.Port
	addresses      addressList
	httpAddress    flags.IP
	domain         domainName
	ttl            ttl
	resolvers      resolverList
	zones          zoneList
	timeout        flags.Duration
	external       bool
	allow          clientNetworks
	transfer       clientNetworks
	rate           uint
	health         string
	ipSources      flags.List
	rfc952         bool
	srvNoData      bool
	truncate       bool
	enumerate      bool

	file flags.Path
	// settings are those of the file, with what the flags say put in by settle.
	settings config.Config
	// unused and unknown are keys of the file that change nothing.
	unused, unknown []string
}

// register adds the flags. The file is named by --config where DNS is all that a role does, else by --dns-config.
func (d *dnsFlags) register(s *flags.Set, port int, file string) {
	def := config.Default()
	d.port, d.httpPort, d.settings = flags.Port(port), dnsHTTPPort, def
	d.timeout, d.ipSources = flags.Duration(time.Duration(def.Timeout)*time.Second), def.IPSources
	d.allow, d.transfer = clientNetworks{local: true, word: "local"}, clientNetworks{networks: dns.Loopback}
	s.Var(&d.port, "dns-port", "the `port` of DNS, TCP and UDP; 0 switches it off")
	s.Var(&d.httpPort, "dns-http-port", "the `port` of DNS's HTTP API; 0 switches it off")
	s.Var(&d.addresses, "dns-address", "the IP `addresses` that DNS listens on, where they are others than --ip")
	s.Var(&d.httpAddress, "dns-http-address", "the IP `address` that DNS's HTTP API listens on, where it is another than --ip")
	d.domain.name, d.ttl = def.Domain, ttl(def.TTL)
	s.Var(&d.domain, "domain", "the `name` below which tasks are found")
	s.Var(&d.ttl, "dns-ttl", "how long an answer may be kept, in `seconds`")
	s.Var(&d.resolvers, "resolvers", "who is asked for names outside of the domain: `addresses` with or without a port, in this order, or none (those of /etc/resolv.conf that are not this node)")
	s.Var(&d.zones, "zone-resolvers", "`zones` with resolvers of their own, as example.com=10.0.0.2,10.0.0.3:5353;lan=10.0.0.1")
	s.Var(&d.timeout, "dns-timeout", "how `long` one resolver may take to answer")
	s.BoolVar(&d.external, "dns-external", def.ExternalOn, "answer for names outside of the domain, by asking --resolvers")
	s.Var(&d.allow, "dns-allow", "the `networks` whose clients may ask for names outside of the domain: this machine and the private networks that it is in, those of its containers too (local, which others may follow), or none")
	s.Var(&d.transfer, "dns-transfer", "the `networks` whose clients may have the whole zone by AXFR, or none")
	s.UintVar(&d.rate, "dns-rate", 200, "how many `answers` a second each /24 of IPv4 or /56 of IPv6 that is not in --dns-allow gets over UDP, one of more than 512 octets counted as several; 0 is any number")
	s.StringVar(&d.health, "dns-health", "passing", "the `rule` for tasks with a health check: they have names while it passes (passing), unless it fails (not-failing), or always (off)")
	s.Var(&d.ipSources, "ip-sources", "where addresses of tasks come from, the first of these `sources` that has any: netinfo, mesos, docker, host")
	s.BoolVar(&d.rfc952, "enforce-rfc952", def.EnforceRFC952, "names as RFC 952 has them: 24 characters, beginning with a letter")
	s.BoolVar(&d.srvNoData, "dns-srv-nodata", false, "answer questions for SRV of names that do not exist as Mesos-DNS does: with nothing, in place of NXDOMAIN")
	s.BoolVar(&d.truncate, "dns-truncate", def.SetTruncateBit, "tell clients when an answer over UDP was cut to fit, for them to ask again over TCP")
	s.BoolVar(&d.enumerate, "dns-enumerate", def.EnumerationOn, "list all names at /v1/enumerate and /v1/axfr of the HTTP API")
	s.Var(&d.file, file, "a Mesos-DNS configuration `file`; flags win over it, and what it says of finding a master is passed over")
}

// read takes the settings of the file, if there is one, checks all, and joins them. It is called once, after the flags are parsed.
func (d *dnsFlags) read(set *flags.Set) error {
	var fileFault error
	if d.file != "" {
		if err := d.readFile(set); err != nil {
			fileFault = fmt.Errorf("cannot use the DNS configuration %s: %w", d.file, err)
		}
	}
	if err := errors.Join(fileFault, d.check()); err != nil {
		return &UsageError{err}
	}
	d.settle()
	return nil
}

func (d *dnsFlags) readFile(set *flags.Set) error {
	path, err := filepath.Abs(string(d.file))
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, config.MaxSize+1))
	if err != nil {
		return err
	}
	file, err := config.Parse(data)
	if err != nil {
		return err
	}
	d.settings, d.unused, d.unknown = file.Config, file.Unused, file.Unknown
	d.settings.File = path
	return d.adopt(set, file, flags.Source("file "+path))
}

// adopt gives the flags that nothing else has set the values of the file.
func (d *dnsFlags) adopt(set *flags.Set, f *config.File, from flags.Source) error {
	var faults []error
	take := func(key, flag, value string) {
		if !f.Given(key) {
			return
		}
		if err := set.Offer(flag, value, from); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", key, err))
		}
	}
	take("Port", "dns-port", strconv.Itoa(f.Port))
	take("HttpPort", "dns-http-port", strconv.Itoa(f.HTTPPort))
	if !f.DNSOn {
		take("DnsOn", "dns-port", "0")
		// HTTP alone is an answer to this file.
		faults = append(faults, set.Offer("dns-http-port", strconv.Itoa(f.HTTPPort), from))
	}
	if !f.HTTPOn {
		take("HttpOn", "dns-http-port", "0")
	}
	take("Listener", "dns-address", bindAddress(f.Listener))
	take("HTTPListener", "dns-http-address", bindAddress(f.HTTPListener))
	take("Domain", "domain", f.Domain)
	if f.Given("Domain") && !d.domain.given {
		d.domain.name = f.Domain // the flag says where an agent stands, as with Mesos, and not this
	}
	take("TTL", "dns-ttl", strconv.Itoa(f.TTL))
	take("Resolvers", "resolvers", strings.Join(f.Resolvers, ","))
	zones := zoneList{f.ZoneResolvers}
	take("ZoneResolvers", "zone-resolvers", zones.String())
	if f.Timeout == 0 {
		f.Timeout = config.Default().Timeout
	}
	take("Timeout", "dns-timeout", strconv.Itoa(f.Timeout)+"s")
	take("ExternalOn", "dns-external", strconv.FormatBool(f.ExternalOn))
	take("IPSources", "ip-sources", strings.Join(f.IPSources, ","))
	take("EnforceRFC952", "enforce-rfc952", strconv.FormatBool(f.EnforceRFC952))
	take("SetTruncateBit", "dns-truncate", strconv.FormatBool(f.SetTruncateBit))
	take("EnumerationOn", "dns-enumerate", strconv.FormatBool(f.EnumerationOn))
	return errors.Join(faults...)
}

// bindAddress is an address of a file for a flag, where all of them is none.
func bindAddress(s string) string {
	if a, err := netip.ParseAddr(s); err == nil && a.IsUnspecified() {
		return ""
	}
	return s
}

// check tells all that cannot be, besides what the flags' types have refused.
func (d *dnsFlags) check() error {
	var faults []error
	check := func(flag string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("--%s: %w", flag, err))
		}
	}
	check("domain", config.CheckDomain(d.domain.name))
	d.domain.name = strings.ToLower(strings.TrimSuffix(d.domain.name, "."))
	_, err := config.ParseZones(d.zones.zones, d.domain.name)
	check("zone-resolvers", err)
	if t := d.timeout.Std(); t <= 0 || t > time.Hour {
		check("dns-timeout", fmt.Errorf("%v is not more than 0 and at most 1h", t))
	}
	if d.rate > 1_000_000 {
		check("dns-rate", fmt.Errorf("%d is more than 1000000", d.rate))
	}
	check("ip-sources", config.CheckIPSources(d.ipSources))
	_, err = dns.ParseHealth(d.health)
	check("dns-health", err)
	return errors.Join(faults...)
}

// settle puts what the flags say into the settings, which are then those that the server runs with.
func (d *dnsFlags) settle() {
	s := &d.settings
	// The names of the SOA follow the domain, unless they were given.
	for _, n := range []struct {
		name   *string
		before string
	}{{&s.SOAMname, "ns1."}, {&s.SOARname, "root.ns1."}} {
		if *n.name == "" || *n.name == n.before+s.Domain+"." {
			*n.name = n.before + d.domain.name + "."
		}
	}
	s.Domain, s.TTL, s.Timeout = d.domain.name, int(d.ttl), int(math.Ceil(d.timeout.Std().Seconds()))
	s.Port, s.HTTPPort, s.DNSOn, s.HTTPOn = int(d.port), int(d.httpPort), d.port != 0, d.httpPort != 0
	s.Resolvers, s.ZoneResolvers, s.ExternalOn = d.resolvers.texts(), map[string][]string{}, d.external
	maps.Copy(s.ZoneResolvers, d.zones.zones)
	s.IPSources, s.EnforceRFC952, s.SetTruncateBit, s.EnumerationOn = d.ipSources, d.rfc952, d.truncate, d.enumerate
}

// ttl is how long something may be kept, in seconds.
type ttl uint32

// String returns the number.
func (n *ttl) String() string { return strconv.FormatUint(uint64(*n), 10) }

// Set replaces the number, which has no unit.
func (n *ttl) Set(s string) error {
	v, err := strconv.ParseUint(strings.TrimSpace(s), 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange) || err == nil && v > math.MaxInt32:
		return fmt.Errorf("more than %d seconds", math.MaxInt32)
	case err != nil:
		return errors.New("not a number of seconds, such as 5")
	}
	*n = ttl(v)
	return nil
}

// domainName is the domain, and whether it was said and not only assumed.
type domainName struct {
	name  string
	given bool
}

// String returns the name.
func (d *domainName) String() string { return d.name }

// Set replaces the name, which is checked together with the other flags.
func (d *domainName) Set(s string) error {
	d.name, d.given = s, true
	return nil
}

// addressList are addresses to listen on; none means all.
type addressList []netip.Addr

// String joins the addresses.
func (l *addressList) String() string {
	var texts []string
	for _, a := range *l {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ",")
}

// Set replaces the addresses.
func (l *addressList) Set(s string) error {
	var items flags.List
	_ = items.Set(s) // never fails
	var all addressList
	for _, item := range items {
		a, err := netip.ParseAddr(item)
		switch {
		case err != nil:
			return fmt.Errorf("not an IP address: %q", item)
		case a.IsUnspecified() && len(items) > 1:
			return fmt.Errorf("%s stands for all addresses, and alone", a)
		case slices.Contains(all, a):
			return fmt.Errorf("%s is there twice", a)
		}
		all = append(all, a)
	}
	*l = all
	return nil
}

// resolverList are the resolvers to ask, in this order; the system's unless some are named or none is.
type resolverList struct {
	list []netip.AddrPort
	none bool
}

const nobody = "none"

// String joins the resolvers.
func (l *resolverList) String() string {
	if l.none {
		return nobody
	}
	return strings.Join(l.texts(), ",")
}

func (l *resolverList) texts() []string {
	texts := []string{}
	for _, r := range l.list {
		texts = append(texts, config.ResolverText(r))
	}
	return texts
}

// Set replaces the resolvers.
func (l *resolverList) Set(s string) error {
	if strings.TrimSpace(s) == nobody {
		*l = resolverList{none: true}
		return nil
	}
	var items flags.List
	_ = items.Set(s) // never fails
	list, err := config.ParseResolvers(items)
	if err == nil {
		*l = resolverList{list: list}
	}
	return err
}

// zoneList are zones with resolvers of their own.
type zoneList struct{ zones map[string][]string }

// String joins the zones in the way that Set reads them.
func (l *zoneList) String() string { return config.JoinZones(l.zones) }

// Set replaces the zones. Whether they may stand beside each other and the domain is checked when all flags are known.
func (l *zoneList) Set(s string) error {
	zones, err := config.SplitZones(s)
	if err == nil {
		l.zones = zones
	}
	return err
}

// clientNetworks are networks whose clients may have something.
type clientNetworks struct {
	networks flags.Networks
	// local stands for the networks of this machine, which may change, beside the others; only where word says how that is
	// written.
	local bool
	word  string
}

// String joins the networks.
func (n *clientNetworks) String() string {
	switch {
	case n.local && len(n.networks) > 0:
		return n.word + "," + n.networks.String()
	case n.local:
		return n.word
	case len(n.networks) == 0:
		return nobody
	default:
		return n.networks.String()
	}
}

// Set replaces the networks.
func (n *clientNetworks) Set(s string) error {
	switch s = strings.TrimSpace(s); {
	case s == "":
		return errors.New("the list is empty; write none where nobody may")
	case s == nobody:
		n.networks, n.local = nil, false
	case s == n.word:
		n.networks, n.local = nil, true
	default:
		rest, local := s, false
		if n.word != "" {
			rest, local = strings.CutPrefix(s, n.word+",")
		}
		if err := n.networks.Set(rest); err != nil {
			return err
		}
		n.local = local
	}
	return nil
}

// prefixes are the networks for a server, to which nil stands for the local ones, and those beside these.
func (n *clientNetworks) prefixes() (networks, more []netip.Prefix) {
	networks = append([]netip.Prefix{}, n.networks...)
	if n.local {
		return nil, networks
	}
	return networks, nil
}

// config is what the flags mean to a DNS server.
func (d *dnsFlags) config() (dns.Config, error) {
	s := d.settings
	health, err := dns.ParseHealth(d.health)
	if err != nil {
		return dns.Config{}, err
	}
	sources, err := records.ParseIPSources(d.ipSources)
	if err != nil {
		return dns.Config{}, err
	}
	allow, more := d.allow.prefixes()
	transfer, _ := d.transfer.prefixes() // local is no word there
	c := dns.Config{
		Zone: records.Config{
			Domain: s.Domain, TTL: uint32(s.TTL), Weight: uint16(s.SRVRecordDefaultWeight),
			Mname: strings.TrimSuffix(s.SOAMname, "."), Rname: strings.TrimSuffix(s.SOARname, "."),
			Refresh: s.SOARefresh, Retry: s.SOARetry, Expire: s.SOAExpire, Minimum: s.SOAMinttl,
			NoRecursion: !s.RecurseOn, NoTruncateBit: !d.truncate, SRVNoData: d.srvNoData, RFC952: d.rfc952,
		},
		Health: health, IPSources: sources, Rate: int(d.rate),
		Allow: allow, AllowMore: more, Transfer: transfer,
	}
	if d.external {
		zones, err := config.ParseZones(d.zones.zones, s.Domain)
		if err != nil {
			return dns.Config{}, err
		}
		c.Forward = &forward.Config{Resolvers: d.resolvers.list, Zones: zones, Timeout: d.timeout.Std()}
		if d.resolvers.none {
			c.Forward.Resolvers = []netip.AddrPort{}
		}
	}
	return c, nil
}
