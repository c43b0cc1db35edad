package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"

	"github.com/google/uuid"

	"starling/cmd/internal/flags"
	"starling/dns"
	dnsapi "starling/dns/api"
	"starling/dns/records"
	gossipapi "starling/gossip/api"
	"starling/gossip/catalog"
	"starling/gossip/record"

	"google.golang.org/protobuf/proto"
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
	zone           records.Config
	ttl            uint
}

func (d *dnsFlags) register(s *flags.Set, port int) {
	d.port, d.httpPort, d.zone = flags.Port(port), dnsHTTPPort, records.DefaultConfig()
	s.Var(&d.port, "dns-port", "the `port` of DNS, TCP and UDP; 0 switches it off")
	s.Var(&d.httpPort, "dns-http-port", "the `port` of DNS's HTTP API; 0 switches it off")
	s.StringVar(&d.zone.Domain, "domain", d.zone.Domain, "the `name` below which tasks are found")
	s.UintVar(&d.ttl, "dns-ttl", uint(d.zone.TTL), "how long an answer may be kept, in `seconds`")
}

// serveDNS adds a DNS server over the mesh, and its HTTP API with what the role adds to that. Ports that nobody asked for
// move aside.
func (r *role) serveDNS(d *dnsFlags, source dns.Source, more dnsapi.Config, portAside, httpAside bool) error {
	if d.port == 0 {
		return nil
	}
	d.zone.TTL = uint32(d.ttl)
	udp, tcp, port, err := listenDNS(r.place.bind, int(d.port), false)
	if err != nil && portAside {
		if d.port == dnsPort && (errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EPERM)) {
			r.log.Info("port 53 cannot be had, answering DNS on another", "err", err)
			d.port = dnsPortElse
		}
		udp, tcp, port, err = listenDNS(r.place.bind, int(d.port), true)
	}
	if err != nil {
		return err
	}
	r.closers = append(r.closers, func() { udp.Close(); tcp.Close() })
	server, err := dns.New(dns.Config{
		Source: source, Zone: d.zone, UDP: udp, TCP: tcp, Log: r.log.With("component", "dns"), Metrics: r.metrics,
	})
	if err != nil {
		return err
	}
	r.tell("DNS", port)
	r.ready = append(r.ready, server.Ready)
	r.add("dns", server.Run)
	if d.httpPort == 0 {
		return nil
	}
	l, _, err := r.listen("DNS over HTTP", int(d.httpPort), httpAside)
	if err != nil {
		return err
	}
	more.Version, more.Metrics, more.Log = Version(), r.metrics, r.log.With("component", "dns/api")
	api := dnsapi.New(server, more)
	r.add("dns api", func(ctx context.Context) error { return api.Serve(ctx, l) })
	return nil
}

// DNS runs a node that only listens to the mesh and answers DNS.
func DNS(ctx context.Context, io Streams, args, environ []string) error {
	set := flags.New("starling dns", "STARLING_")
	var c common
	var m meshFlags
	var d dnsFlags
	var file flags.Path
	c.stderr = io.Err
	c.register(set, "dns")
	m.register(set)
	d.register(set, dnsPort)
	set.Var(&file, "config", "a Mesos-DNS configuration `file`; what it says of finding a master is passed over")
	set.Ignore("resolvers", "v", "version")
	if err := parse(io, set, "A node that only listens to the mesh and answers DNS.", args, environ); err != nil {
		return err
	}
	if file != "" {
		if err := d.read(string(file), set, &c); err != nil {
			return &UsageError{err}
		}
	}
	if d.port == 0 {
		return usagef("--dns-port=0 leaves nothing to do")
	}
	r, err := newRole("dns", set, &c)
	if err != nil {
		return err
	}
	if err := r.dnsOnly(&m, &d); err != nil {
		r.abandon()
		return err
	}
	return r.run(ctx, io)
}

func (r *role) dnsOnly(m *meshFlags, d *dnsFlags) error {
	id, err := identity(r.place.dir, "node-id", uuid.NewString)
	if err != nil {
		return err
	}
	mesh, _, err := r.mesh(m, id, meshDir(r.place.dir))
	if err != nil {
		return err
	}
	node, err := proto.Marshal(&catalog.Node{
		Roles: []string{catalog.RoleDNS}, Hostname: r.place.hostname, Address: r.place.address, Port: uint32(d.httpPort), Version: Version(),
	})
	if err != nil {
		return err
	}
	mesh.Set(record.Assignment{Key: catalog.KeyNode, Value: node})
	r.add("gossip", mesh.Run)
	return r.serveDNS(d, mesh, dnsapi.Config{Mount: gossipapi.Mount(mesh)}, !r.set.IsSet("dns-port"), !r.set.IsSet("dns-http-port"))
}

// mesosDNSFile is what is honoured of a Mesos-DNS configuration. Its keys are compared without regard to case, which
// encoding/json does.
type mesosDNSFile struct {
	Domain, Listener                           *string
	SOAMname, SOARname                         *string
	Port, HTTPPort                             *int
	TTL                                        *uint32
	SOARefresh, SOARetry, SOAExpire, SOAMinttl *uint32
	SRVRecordDefaultWeight                     *uint16
	DNSOn, HTTPOn                              *bool
}

// read takes the settings of a Mesos-DNS file; those that were given as flags win.
func (d *dnsFlags) read(path string, set *flags.Set, c *common) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("cannot read --config: %w", err)
	}
	var f mesosDNSFile
	if err := json.Unmarshal(data, &f); err != nil {
		return fmt.Errorf("cannot read --config: %s: %w", path, err)
	}
	take := func(name string, value *string) {
		if value != nil && !set.IsSet(name) && err == nil {
			if e := set.Set(name, *value); e != nil {
				err = fmt.Errorf("%s: %s: %w", path, name, e)
			}
		}
	}
	number := func(n *int) *string {
		if n == nil {
			return nil
		}
		s := strconv.Itoa(*n)
		return &s
	}
	take("domain", f.Domain)
	take("dns-port", number(f.Port))
	take("dns-http-port", number(f.HTTPPort))
	if f.Listener != nil && !net.ParseIP(*f.Listener).IsUnspecified() {
		take("ip", f.Listener)
	}
	if f.TTL != nil && !set.IsSet("dns-ttl") {
		d.ttl = uint(*f.TTL)
	}
	for _, o := range []struct{ from, to *uint32 }{
		{f.SOARefresh, &d.zone.Refresh}, {f.SOARetry, &d.zone.Retry}, {f.SOAExpire, &d.zone.Expire}, {f.SOAMinttl, &d.zone.Minimum},
	} {
		if o.from != nil {
			*o.to = *o.from
		}
	}
	if f.SOAMname != nil {
		d.zone.Mname = *f.SOAMname
	}
	if f.SOARname != nil {
		d.zone.Rname = *f.SOARname
	}
	if f.SRVRecordDefaultWeight != nil {
		d.zone.Weight = *f.SRVRecordDefaultWeight
	}
	if f.DNSOn != nil && !*f.DNSOn {
		d.port = 0
	}
	if f.HTTPOn != nil && !*f.HTTPOn {
		d.httpPort = 0
	}
	return err
}
