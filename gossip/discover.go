package gossip

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/mdns"
	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	mdnsService = "_starling-mesh._tcp"
	mdnsCluster = "cluster="
	// While alone, others are asked for often; later only so that parts that never met find each other.
	discoverAlone  = 5 * time.Second
	discoverJoined = time.Minute
	discoverWait   = time.Second
	maxDiscovered  = 64
	mdnsPort       = 5353
	mdnsPacket     = 9000 // bytes, as RFC 6762 bounds them
)

// discover answers and asks by mDNS on the interface that has the address of this node, for as long as it has it: a cable that is
// plugged in later, or into another card, begins anew. Where multicast is not available it says so once and goes on trying.
func (m *Mesh) discover(ctx context.Context) {
	var server *mdns.Server
	stop := func() {
		if server != nil {
			_ = server.Shutdown()
			server = nil
		}
	}
	defer func() { stop() }()
	warned, on := false, ""
	for {
		iface := interfaceOf(m.host)
		if now := describe(iface); now != on {
			stop()
			on = now
			m.discovering.Store(&on)
		}
		var err error
		if server == nil {
			server, err = m.serve(iface)
		}
		found, qerr := m.ask(ctx, iface)
		for _, addr := range found {
			m.found(ctx, addr)
		}
		m.synced.unfound.Store(true)
		wake(m.synced.progress)
		if err = errors.Join(err, qerr); err != nil && ctx.Err() == nil && !warned {
			m.log.Warn("discovery by mDNS does not work here", "addr", m.host, "interface", on, "err", err)
			warned = true
		}
		pause := discoverAlone
		if m.peers.countAlive() > 0 {
			pause = discoverJoined
		}
		if !m.pause(ctx, pause, on) {
			return
		}
	}
}

// pause waits until it is time to ask again, or the interface is another one.
func (m *Mesh) pause(ctx context.Context, d time.Duration, on string) bool {
	for end := time.Now().Add(d); time.Now().Before(end); {
		if !sleep(ctx, min(d, discoverAlone)) {
			return false
		}
		if describe(interfaceOf(m.host)) != on {
			return true
		}
	}
	return true
}

// describe names an interface so that one that was made anew under its old name is told apart.
func describe(i *net.Interface) string {
	if i == nil {
		return "none has the address, the system chooses"
	}
	if i.Flags&net.FlagUp == 0 {
		return fmt.Sprintf("%s (%d, down)", i.Name, i.Index)
	}
	return fmt.Sprintf("%s (%d)", i.Name, i.Index)
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

// ask looks for others once, and returns the addresses of those of this cluster. It asks from an ordinary socket, which is answered
// directly: unlike the client of the mdns package, that needs no route for multicast, and so no default gateway.
func (m *Mesh) ask(ctx context.Context, iface *net.Interface) ([]string, error) {
	question, err := (&dns.Msg{Question: []dns.Question{{Name: mdnsService + ".local.", Qtype: dns.TypePTR, Qclass: dns.ClassINET}}}).Pack()
	if err != nil {
		return nil, err
	}
	conn, err := multicast(net.ParseIP(m.host), iface)
	if err != nil {
		return nil, err
	}
	defer closeQuietly(conn)
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	if err := conn.SetReadDeadline(time.Now().Add(discoverWait)); err != nil {
		return nil, err
	}
	to := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: mdnsPort}
	if conn.LocalAddr().(*net.UDPAddr).IP.To4() == nil {
		to.IP = net.ParseIP("ff02::fb")
		if iface != nil {
			to.Zone = iface.Name
		}
	}
	if _, err := conn.WriteToUDP(question, to); err != nil {
		return nil, err
	}
	var found []string
	buf := make([]byte, mdnsPacket)
	for len(found) < maxDiscovered && ctx.Err() == nil {
		n, _, err := conn.ReadFromUDP(buf)
		if err != nil {
			break // that was all
		}
		for _, addr := range answers(buf[:n], m.cfg.Cluster) {
			if !slices.Contains(found, addr) {
				found = append(found, addr)
			}
		}
	}
	return found, nil
}

// multicast opens a socket whose questions leave by an interface, or by the one that the system chooses.
func multicast(ip net.IP, iface *net.Interface) (*net.UDPConn, error) {
	network, from := "udp4", net.IPv4zero
	if ip.To4() == nil {
		network, from = "udp6", net.IPv6unspecified
	}
	if iface != nil {
		from = ip
	}
	conn, err := net.ListenUDP(network, &net.UDPAddr{IP: from})
	if err != nil || iface == nil {
		return conn, err
	}
	if network == "udp4" {
		err = ipv4.NewPacketConn(conn).SetMulticastInterface(iface)
	} else {
		err = ipv6.NewPacketConn(conn).SetMulticastInterface(iface)
	}
	if err != nil {
		closeQuietly(conn)
		return nil, err
	}
	return conn, nil
}

// answers returns the addresses that an answer names as those of meshes of a cluster. Anybody on the network may have written it.
func answers(packet []byte, cluster string) []string {
	var msg dns.Msg
	if msg.Unpack(packet) != nil || !msg.Response {
		return nil
	}
	records := slices.Concat(msg.Answer, msg.Extra)
	ours := map[string]bool{} // names of services of this cluster
	for _, rr := range records {
		if txt, ok := rr.(*dns.TXT); ok && slices.Contains(txt.Txt, mdnsCluster+cluster) {
			ours[txt.Hdr.Name] = true
		}
	}
	var addrs []string
	for _, rr := range records {
		srv, ok := rr.(*dns.SRV)
		if !ok || !ours[srv.Hdr.Name] || srv.Port == 0 {
			continue
		}
		for _, rr := range records {
			if rr.Header().Name != srv.Target {
				continue
			}
			switch a := rr.(type) {
			case *dns.A:
				addrs = append(addrs, net.JoinHostPort(a.A.String(), strconv.Itoa(int(srv.Port))))
			case *dns.AAAA:
				addrs = append(addrs, net.JoinHostPort(a.AAAA.String(), strconv.Itoa(int(srv.Port))))
			}
		}
	}
	return addrs[:min(len(addrs), maxAddresses)]
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
