package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"syscall"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"starling/cmd/internal/flags"
	"starling/dns"
	dnsapi "starling/dns/api"
	"starling/gossip"
	gossipapi "starling/gossip/api"
	"starling/gossip/catalog"
	"starling/gossip/record"
)

// dnsOptions are what roles decide differently about DNS.
type dnsOptions struct {
	// portAside and httpAside let a port move that nobody asked for.
	portAside, httpAside bool
	// portMoved and httpMoved are how loud it is told that one did: who asks a node for DNS and nothing else finds it no more.
	portMoved, httpMoved slog.Level
	// api is what the role adds to the HTTP API.
	api dnsapi.Config
	// others is set where this node has nothing of its own to answer from, so that to be alone is not to know the cluster.
	others bool
}

// serveDNS adds a DNS server over the mesh, and its HTTP API.
func (r *role) serveDNS(d *dnsFlags, mesh *gossip.Mesh, o dnsOptions) error {
	// Without a port of DNS, its HTTP API is there only where somebody asked for it.
	withHTTP := d.httpPort != 0 && (d.port != 0 || r.set.IsSet("dns-http-port"))
	if d.port == 0 && !withHTTP {
		return nil
	}
	if len(d.unused) > 0 {
		r.log.Info("settings about finding a master are passed over: records come from the mesh", "path", d.settings.File, "keys", d.unused)
	}
	if len(d.unknown) > 0 {
		r.log.Debug("unknown settings are passed over", "path", d.settings.File, "keys", d.unknown)
	}
	c, err := d.config()
	if err != nil {
		return err
	}
	if c.Listen, err = r.listenDNS(d, o); err != nil {
		return err
	}
	c.Source, c.Self, c.Synced = mesh, mesh.Self(), mesh.Synced()
	if o.others {
		c.Synced = mesh.Met()
		r.add("meeting", func(ctx context.Context) error { return r.awaitOthers(ctx, mesh) })
	}
	c.Log, c.Metrics = r.log.With("component", "dns"), r.metrics
	c.Version, c.Hostname = "starling "+Version(), r.place.hostname
	server, err := dns.New(c)
	if err != nil {
		return err
	}
	if r.name == "dns" {
		r.ready = append(r.ready, server.Synced)
	} else {
		r.ready = append(r.ready, server.Ready) // seeds that do not answer must not hold up an agent
	}
	r.add("dns", server.Run)
	if !withHTTP {
		return nil
	}
	return r.serveDNSOverHTTP(d, server, o)
}

// awaitOthers says so when there is nobody to meet: then a node that only answers DNS has nothing to answer from.
func (r *role) awaitOthers(ctx context.Context, mesh *gossip.Mesh) error {
	select {
	case <-ctx.Done():
		return nil
	case <-mesh.Synced():
	}
	select {
	case <-mesh.Met():
	default:
		r.log.Warn("alone: there is nothing to answer from, names in the domain are SERVFAIL until another node is met; --join names one", "component", "dns")
	}
	<-ctx.Done()
	return nil
}

// listenDNS binds the port of DNS at each address that DNS listens on. Where it moves, it is the same at all of them.
func (r *role) listenDNS(d *dnsFlags, o dnsOptions) ([]*dns.Listener, error) {
	if d.port == 0 {
		return nil, nil
	}
	ips := []string{r.place.bind}
	if len(d.addresses) > 0 {
		ips = ips[:0]
		for _, a := range d.addresses {
			ips = append(ips, a.String())
		}
	}
	var all []*dns.Listener
	port := int(d.port)
	for _, ip := range ips {
		l, bound, err := listenDNS(ip, port, false)
		if err != nil && o.portAside && len(all) == 0 {
			why := err
			if d.port == dnsPort && (errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EPERM)) {
				port = dnsPortElse
			}
			if l, bound, err = listenDNS(ip, port, true); err == nil {
				r.moved(o.portMoved, "DNS", int(d.port), bound, why)
			}
		}
		if err != nil {
			return nil, err
		}
		r.closers = append(r.closers, func() { l.Close() })
		all, port = append(all, l), bound
		if len(d.addresses) == 0 {
			ip = r.place.address
		}
		r.listening = append(r.listening, "DNS "+net.JoinHostPort(ip, strconv.Itoa(port)))
	}
	d.settings.Port = port
	return all, nil
}

// moved tells that a port is another one than is usual.
func (r *role) moved(level slog.Level, what string, usual, port int, why error) {
	r.log.Log(context.Background(), level, "a port cannot be had, using another", "of", what, "usual", usual, "port", port, "err", why)
}

func (r *role) serveDNSOverHTTP(d *dnsFlags, server *dns.Server, o dnsOptions) error {
	ip := r.place.bind
	if d.httpAddress != "" {
		ip = string(d.httpAddress)
	}
	l, port, err := listen("DNS over HTTP", ip, int(d.httpPort), o.httpAside)
	if err != nil {
		return err
	}
	if d.httpPort != 0 && port != int(d.httpPort) {
		r.moved(o.httpMoved, "DNS over HTTP", int(d.httpPort), port, syscall.EADDRINUSE)
	}
	r.closers = append(r.closers, func() { l.Close() })
	told := r.place.address
	if d.httpAddress != "" {
		told = ip
	}
	r.listening = append(r.listening, "DNS over HTTP "+net.JoinHostPort(told, strconv.Itoa(port)))
	d.settings.HTTPPort, d.settings.HTTPListener = port, shownBind(ip)
	d.settings.Listener = shownBind(r.place.bind)
	if len(d.addresses) > 0 {
		d.settings.Listener = d.addresses[0].String()
	}
	c := o.api
	c.Settings, c.Metrics, c.Log = d.settings, r.metrics, r.log.With("component", "dns/api")
	api := dnsapi.New(server, c)
	r.add("dns api", func(ctx context.Context) error { return api.Serve(ctx, l) })
	return nil
}

// shownBind is an address that is listened on, in the way of Mesos-DNS.
func shownBind(ip string) string {
	if ip == "" {
		return "0.0.0.0"
	}
	return ip
}

// DNS runs a node that only listens to the mesh and answers DNS.
func DNS(ctx context.Context, io Streams, args, environ []string) error {
	set := flags.New("starling dns", "STARLING_")
	var c common
	var m meshFlags
	var d dnsFlags
	var verbosity uint
	var version bool
	c.stderr = io.Err
	c.register(set, "dns")
	m.register(set)
	d.register(set, dnsPort, "config")
	set.UintVar(&verbosity, "v", 0, "log more than usual at 1 and above, as mesos-dns does; --log-level says it better")
	set.BoolVar(&version, "version", false, "print the version and end")
	set.Unused(unusedByDNS...)
	if err := parse(io, set, "A node that only listens to the mesh and answers DNS.", args, environ); err != nil {
		return err
	}
	if version {
		fmt.Fprintln(io.Out, "starling", Version())
		return nil
	}
	if verbosity > 0 && !set.IsSet("log-level") {
		c.logLevel = "debug"
	}
	if err := d.read(set); err != nil {
		return err
	}
	if d.port == 0 && (d.httpPort == 0 || !set.IsSet("dns-http-port")) {
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
	return r.serveDNS(d, mesh, dnsOptions{
		portAside: !r.set.IsSet("dns-port"), httpAside: !r.set.IsSet("dns-http-port"), portMoved: slog.LevelWarn, httpMoved: slog.LevelWarn,
		api: dnsapi.Config{Mount: gossipapi.Mount(mesh)}, others: true,
	})
}
