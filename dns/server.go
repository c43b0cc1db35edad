package dns

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"starling/dns/forward"
	"starling/dns/limit"
	"starling/dns/records"
	"starling/dns/tcp"
	"starling/dns/udp"
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
	// Self is the name of this node in the source; empty where it is none of its nodes.
	Self string
	// Synced is closed once the source knows what is known of the cluster. Before that no name is denied, SERVFAIL is said instead: others may
	// know it. Nil: it is so from the beginning.
	Synced <-chan struct{}
	// SyncPatience is after how long without it names of other nodes are answered by what there are records of; before that only this node's
	// are. 30 s by default.
	SyncPatience time.Duration
	// Health says which tasks are answered for. Default: those that pass their health checks.
	Health Health
	// IPSources are where addresses of tasks come from, the first that has any. Default: records.DefaultIPSources.
	IPSources []records.IPSource
	// Zone says how to answer; see records.DefaultConfig.
	Zone records.Config
	// Listen are the addresses to answer at; see Listen. The server closes them. Without any the zone is kept for others to read.
	Listen []*Listener
	// TCP bounds what clients hold over TCP. Zero values are defaults.
	TCP tcp.Limits
	// Rate is how many answers over UDP a network outside of the allowed ones has a second; 0 is no limit. See dns/limit.
	Rate int
	// Forward says who is asked for names outside of the domain; those are refused where it is nil.
	Forward *forward.Config
	// Allow are the networks of those who may ask for such names. Nil: this machine, and the private networks that it is
	// connected to. Empty but not nil: nobody. AllowMore is added to either.
	Allow, AllowMore []netip.Prefix
	// Transfer are the networks of those who may have the whole zone (AXFR). Nil: this machine. Empty but not nil: nobody.
	Transfer []netip.Prefix
	// Version and Hostname are what version.bind and hostname.bind say; these are refused where they are empty.
	Version, Hostname string
	// Ranker puts the answers of the sub-domain "near" in order. Default: one that knows where the nodes of the source are,
	// and none where Self is empty.
	Ranker Ranker
	Log    *slog.Logger
	// Metrics may be nil.
	Metrics prometheus.Registerer
	// Now is the wall clock, by which the zone's serial number begins; time.Now by default.
	Now func() time.Time
}

// Validate tells all that is wrong with the configuration.
func (c Config) Validate() error {
	var faults []error
	if c.Source == nil || c.Log == nil {
		faults = append(faults, errors.New("a DNS server needs a source and a logger"))
	}
	if c.Rate < 0 {
		faults = append(faults, fmt.Errorf("a rate of %d answers a second", c.Rate))
	}
	return errors.Join(append(faults, c.Zone.Validate())...)
}

// bound lists where queries arrive.
func (c Config) bound() []netip.AddrPort {
	var list []netip.AddrPort
	for _, l := range c.Listen {
		list = append(list, l.Addr())
	}
	return list
}

// Server is a DNS server for one domain. Use New.
type Server struct {
	config    Config
	zone      *records.Zone
	ranker    *ranker
	following *followMetrics
	synced    atomic.Bool
	// waited is set once the mesh was waited for in vain, and what is known of it is shown.
	waited  atomic.Bool
	apex    string // the domain as it stands in a query, with its end
	metrics *metrics
	general *general
	told    toldFrameworks
	ready   atomic.Bool
	udp     *udp.Server
	tcp     *tcp.Server
	limiter *limit.Limiter // nil where there is no limit
	began   time.Time
	// lastPanic is when one was logged, in nanoseconds since a minute before began.
	lastPanic atomic.Int64
}

// defaultSyncPatience is about how long it takes to find out that nobody answers: connections to seeds have 10 s, and are tried again.
const defaultSyncPatience = 30 * time.Second

// New makes a server out of a valid configuration; Run makes it answer.
func New(c Config) (*Server, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("cannot serve DNS: %w", err)
	}
	if c.SyncPatience == 0 {
		c.SyncPatience = defaultSyncPatience
	}
	if c.IPSources == nil {
		c.IPSources = records.DefaultIPSources()
	}
	ranks := newRanker()
	if c.Ranker == nil && c.Self != "" {
		c.Ranker = ranks
	}
	s := &Server{config: c, ranker: ranks, following: newFollowMetrics(c.Metrics), zone: records.NewZone(c.Zone, uint32(c.Now().Unix())), began: time.Now()}
	s.apex = wireApex(s.zone.Config().Domain)
	if c.Rate > 0 {
		s.limiter = limit.New(c.Rate)
	}
	u := udp.Config{
		Handler: func() udp.Handler {
			return newFast(s)
		},
		Slow: s.work, MaxWork: maxWork, MaxWait: maxWait, Grace: grace, Panicked: s.panicked,
	}
	for _, l := range c.Listen {
		u.Sockets = append(u.Sockets, l.udp)
	}
	s.udp, s.tcp = udp.New(u), tcp.New(c.TCP, s.serveTCP)
	s.metrics = newMetrics(c.Metrics, s.zone.Stats, s.udp.Stats, s.tcp.Stats)
	var err error
	if s.general, err = newGeneral(s.config); err != nil {
		return nil, err
	}
	return s, nil
}

// Zone is what the server answers from.
func (s *Server) Zone() *records.Zone { return s.zone }

// Ready tells whether queries are answered, those for what runs on this node at least.
func (s *Server) Ready() bool { return s.ready.Load() }

// Synced tells whether what the cluster has is known. Before that, a name that is not known may exist all the same.
func (s *Server) Synced() bool { return s.synced.Load() }

// Run answers until ctx ends; what was read until then is answered. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	f := newFollower(s)
	f.begin()
	s.ready.Store(true)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.run(ctx) })
	g.Go(func() error { return s.general.run(ctx) })
	g.Go(func() error {
		if err := s.udp.Run(ctx); err != nil {
			return fmt.Errorf("cannot serve DNS over UDP: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		var list []net.Listener
		for _, l := range s.config.Listen {
			list = append(list, l.tcp)
		}
		if err := s.tcp.Serve(ctx, list...); err != nil {
			return fmt.Errorf("cannot serve DNS over TCP: %w", err)
		}
		return nil
	})
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
