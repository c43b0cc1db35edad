package dns

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"starling/dns/records"
	"starling/gossip/record"
)

// Source is where the facts come from: the mesh's map of records.
type Source interface {
	Snapshots() iter.Seq[*record.Snapshot]
	Feed() *record.Feed
}

// Config is what a Server needs.
type Config struct {
	Source Source
	// Zone says how to answer; see records.DefaultConfig.
	Zone records.Config
	// UDP and TCP are listeners on the same port. The server closes them.
	UDP net.PacketConn
	TCP net.Listener
	Log *slog.Logger
	// Metrics may be nil.
	Metrics prometheus.Registerer
	// Now is the wall clock, by which the zone's serial number begins; time.Now by default.
	Now func() time.Time
}

// Validate tells all that is wrong with the configuration.
func (c Config) Validate() error {
	var faults []error
	if c.Source == nil || c.UDP == nil || c.TCP == nil || c.Log == nil {
		faults = append(faults, errors.New("a DNS server needs a source, both listeners and a logger"))
	}
	return errors.Join(append(faults, c.Zone.Validate())...)
}

// Server is a DNS server for one domain. Use New.
type Server struct {
	config  Config
	zone    *records.Zone
	metrics *metrics
	ready   atomic.Bool
}

// maxTCP is how many clients may be connected over TCP; the next one waits. Connections end after some idle seconds.
const maxTCP = 512

// New makes a server out of a valid configuration; Run makes it answer.
func New(c Config) (*Server, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("cannot serve DNS: %w", err)
	}
	c.TCP = netutil.LimitListener(c.TCP, maxTCP)
	s := &Server{config: c, zone: records.NewZone(c.Zone, uint32(c.Now().Unix()))}
	s.metrics = newMetrics(c.Metrics)
	return s, nil
}

// Zone is what the server answers from.
func (s *Server) Zone() *records.Zone { return s.zone }

// Ready tells whether the records that were known at the start are served.
func (s *Server) Ready() bool { return s.ready.Load() }

// Run answers until ctx ends. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	// Names must not be denied only because nobody has looked yet.
	f := newFollower(s)
	f.readAll()
	s.ready.Store(true)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.run(ctx) })
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error { return s.serveUDP(ctx) })
	}
	tcp := &dns.Server{Listener: s.config.TCP, Handler: dns.HandlerFunc(s.serveTCP), MaxTCPQueries: 256}
	started := make(chan struct{})
	tcp.NotifyStartedFunc = func() { close(started) }
	g.Go(func() error {
		if err := tcp.ActivateAndServe(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("cannot serve DNS over TCP: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		s.config.UDP.Close()
		<-started
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := tcp.ShutdownContext(stop); err != nil {
			s.config.TCP.Close()
		}
		return nil
	})
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// errorPause is how long reading rests after an error.
const errorPause = 10 * time.Millisecond

// serveUDP answers datagrams, one after the other; several of it share a socket.
func (s *Server) serveUDP(ctx context.Context) error {
	conn, _ := s.config.UDP.(*net.UDPConn)
	query, answer := make([]byte, 64<<10), make([]byte, 2048)
	for start := uint32(0); ; start++ {
		n, from, err := readFrom(conn, s.config.UDP, query)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("cannot read DNS queries: %w", err)
			}
			// What the system tells of an earlier answer (a port unreachable, say) is not ours to act on; but what goes on must
			// not take a whole processor.
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(errorPause):
			}
			continue
		}
		msg := s.zone.Answer(query[:n], answer, start)
		if msg != nil {
			s.metrics.fast.Inc()
		} else if msg = s.slow(query[:n]); msg == nil {
			continue
		}
		if conn != nil {
			_, err = conn.WriteToUDPAddrPort(msg, from)
		} else {
			_, err = s.config.UDP.WriteTo(msg, net.UDPAddrFromAddrPort(from))
		}
		if err != nil && ctx.Err() == nil {
			s.metrics.unsent.Inc()
		}
	}
}

func readFrom(conn *net.UDPConn, any net.PacketConn, b []byte) (int, netip.AddrPort, error) {
	if conn != nil {
		return conn.ReadFromUDPAddrPort(b)
	}
	n, addr, err := any.ReadFrom(b)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, netip.AddrPort{}, fmt.Errorf("%v is no UDP address", addr)
	}
	return n, udp.AddrPort(), nil
}
