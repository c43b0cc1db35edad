package gossip

import (
	"context"
	"fmt"
	"hash/fnv"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/mdns"
)

const (
	mdnsService = "_starling-mesh._tcp"
	mdnsCluster = "cluster="
	// While alone, others are asked for often; later only so that parts that never met find each other.
	discoverAlone  = 5 * time.Second
	discoverJoined = time.Minute
	discoverWait   = time.Second
	maxDiscovered  = 64
)

// discover answers and asks by mDNS. Where multicast is not available it says so once and goes on trying.
func (m *Mesh) discover(ctx context.Context) {
	iface := interfaceOf(m.host)
	var server *mdns.Server
	defer func() {
		if server != nil {
			_ = server.Shutdown()
		}
	}()
	warned := false
	for {
		var err error
		if server == nil {
			server, err = m.serve(iface)
		}
		if qerr := m.ask(ctx, iface); err == nil {
			err = qerr
		}
		if err != nil && ctx.Err() == nil && !warned {
			m.log.Warn("discovery by mDNS does not work here", "err", err)
			warned = true
		}
		pause := discoverAlone
		if m.peers.countAlive() > 0 {
			pause = discoverJoined
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// serve begins to answer the questions of others.
func (m *Mesh) serve(iface *net.Interface) (*mdns.Server, error) {
	// A label of DNS has 63 bytes at most. The name matters to nobody: it only has to be this node's own.
	h := fnv.New64a()
	_, _ = h.Write([]byte(m.cfg.NodeID))
	name := fmt.Sprintf("starling-%x", h.Sum64())
	zone, err := mdns.NewMDNSService(name, mdnsService, "", name+".local.", m.port,
		[]net.IP{net.ParseIP(m.host)}, []string{mdnsCluster + m.cfg.Cluster})
	if err != nil {
		return nil, err
	}
	return mdns.NewServer(&mdns.Config{Zone: zone, Iface: iface, Logger: m.logs.logger()})
}

// ask looks for others once, and joins those of this cluster.
func (m *Mesh) ask(ctx context.Context, iface *net.Interface) error {
	entries := make(chan *mdns.ServiceEntry, maxDiscovered)
	err := mdns.QueryContext(ctx, &mdns.QueryParam{
		Service: mdnsService, Domain: "local", Timeout: discoverWait, Interface: iface, Entries: entries,
		DisableIPv6: net.ParseIP(m.host).To4() != nil, Logger: m.logs.logger(),
	})
	for {
		select {
		case e := <-entries:
			for _, ip := range []net.IP{e.AddrV4, e.AddrV6} {
				if ip != nil && ours(e.InfoFields, m.cfg.Cluster) {
					m.found(ctx, net.JoinHostPort(ip.String(), strconv.Itoa(e.Port)))
				}
			}
		default:
			return err
		}
	}
}

func ours(fields []string, cluster string) bool {
	return slices.Contains(fields, mdnsCluster+cluster)
}

// interfaceOf returns the interface that has the address, nil if there is none: then the system chooses.
func interfaceOf(addr string) *net.Interface {
	ip := net.ParseIP(addr)
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && (n.IP.Equal(ip) || ip.IsLoopback() && n.Contains(ip)) {
				return &i
			}
		}
	}
	return nil
}
