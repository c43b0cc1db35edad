package gossip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"starling/gossip/keyring"
	"starling/gossip/record"
)

// ErrDuplicate is wrapped by the error of Run when another node lives under the same name and was there first.
var ErrDuplicate = errors.New("another node with this name is alive")

// Mesh is one node's part of the mesh. It implements record.Reader.
type Mesh struct {
	cfg     Config
	profile profile
	log     *slog.Logger
	records *record.Map
	state   *stateDir
	queue   *queue
	freight *freight
	past    past // belongs to receive
	peers   *peerBook
	metrics *metrics
	locator *locator
	// elsewhere counts what came from, or would have gone to, networks that are not allowed.
	elsewhere tally
	ml        atomic.Pointer[memberlist.Memberlist] // nil before Run

	transport *transport
	conf      *memberlist.Config
	logs      *logAdapter
	host      string // advertised address
	port      int    // advertised port

	nonce   uint64 // tells this process from another one of the same name
	started time.Time
	running atomic.Bool
	leaving atomic.Bool

	// inbox is what memberlist received. A full one drops: senders do not wait, and anti-entropy repairs.
	inbox   chan []byte
	pending atomic.Int64 // bytes in the inbox
	// events are memberlist's opinions. After a drop, reconciling with its list of members makes good.
	events chan *event
	// outbox is what goes over streams, which may take seconds each; senders are a few goroutines.
	outbox  chan parcel
	waiting atomic.Int64 // bytes in the outbox
	// bulk hands freight to the same senders. It has no buffer: what is put together waits for one of them.
	bulk chan parcel
	// kick wakes the goroutine that sends hot deltas; one token is enough, as it then sends all there is.
	kick chan struct{}
	// rejoin wakes the goroutine that looks for peers.
	rejoin chan struct{}
	// callers are addresses of nodes that know this one and are not known here.
	callers chan string
	// conflicts are addresses that somebody of this node's name was seen at.
	conflicts chan string
	// claims are what other nodes of this one's name say.
	claims chan *message
	// ahead gets a generation of this node that somebody holds and that it has not reached. One is enough: who holds more says so
	// again.
	ahead chan uint64

	// buried are names of nodes that memberlist has given up and that may live.
	buried chan string
	// heard is when somebody last proved that this node is heard, as time since the start.
	heard atomic.Int64

	mu    sync.Mutex
	byes  map[string]bye    // by the name of who said it; guarded by mu
	doubt map[string]*doubt // by the name of who is doubted; guarded by mu

	resolve func(ctx context.Context, host string) ([]net.IPAddr, error) // of seeds
	// discovering says on which interface mDNS is tried; nil before.
	discovering atomic.Pointer[string]

	// open is set once the own record may be told; rival is when another node of this name was first heard of, as time since the start.
	open       atomic.Bool
	rival      atomic.Int64
	announceAt time.Time // when to look whether the own record may be told; belongs to watch

	members *members
	synced  *synced
	damper  *damper
	flaps   int // returns that were not believed since the last word about it; belongs to watch

	raised time.Time // when the own generation was last raised; belongs to watch

	keys       *keys      // nil without a key
	rotating   sync.Mutex // held by RotateKey
	rotation   rotation
	challenges challenges

	fresh   atomic.Int64      // names that memberlist has been let know since watch last set it back
	answers map[string]bucket // what each peer may still ask for; belongs to receive
}

var _ record.Reader = (*Mesh)(nil)

// bye is the last goodbye that was heard from a node.
type bye struct {
	// generation is the life that ended with it. Copies of the goodbye go round for a while, and may arrive when the next life has
	// begun and its record has not: they must not end that one.
	generation uint64
	// gone is set until the node is seen again.
	gone bool
}

// parcel is a message on its way over a stream.
type parcel struct {
	to   memberlist.Node
	body []byte
}

// New checks the configuration, reads what was remembered, and binds the sockets. The caller runs Run, or Close if it
// comes to nothing.
func New(cfg Config) (*Mesh, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("cannot configure the mesh: %w", err)
	}
	m := &Mesh{
		cfg: cfg, profile: newProfile(cfg.Profile), log: cfg.Log.With("component", "gossip"),
		nonce: rand.Uint64(), started: time.Now(), byes: map[string]bye{}, doubt: map[string]*doubt{},
		inbox: make(chan []byte, 4096), events: make(chan *event, 4096), outbox: make(chan parcel, 256),
		bulk: make(chan parcel),
		kick: make(chan struct{}, 1), rejoin: make(chan struct{}, 1), callers: make(chan string, 16), conflicts: make(chan string, 16), claims: make(chan *message, 16),
		ahead: make(chan uint64, 1), buried: make(chan string, 64), damper: newDamper(), members: newMembers(), synced: newSynced(cfg.Discover), resolve: net.DefaultResolver.LookupIPAddr,
	}
	m.rotation.start = make(chan keyring.Request, 1)
	m.challenges.init()
	m.logs = &logAdapter{log: m.log, now: time.Now, suspect: m.suspected, streamOnly: m.answeredByStream, refused: m.refusedBelow}
	var err error
	if m.state, err = openState(cfg.StateDir); err != nil {
		return nil, fmt.Errorf("cannot open the state of the mesh: %w", err)
	}
	generation, err := m.state.nextGeneration(0)
	if err != nil {
		return nil, fmt.Errorf("cannot keep the generation: %w", err)
	}
	m.records = record.NewMap(cfg.NodeID, generation)
	remembered, err := m.state.loadPeers()
	if err != nil {
		m.log.Warn("remembered peers lost", "err", err)
	}
	m.peers = newPeerBook(cfg.NodeID, remembered)
	if m.locator, err = newLocator(); err != nil {
		return nil, err
	}
	if m.metrics, err = newMetrics(cfg.Metrics, m); err != nil {
		return nil, fmt.Errorf("cannot register the metrics of the mesh: %w", err)
	}
	if err := m.configure(); err != nil {
		m.metrics.unregister()
		return nil, err
	}
	m.acknowledge()
	return m, nil
}

// configure makes memberlist's configuration and binds.
func (m *Mesh) configure() (err error) {
	conf := m.profile.memberlist
	conf.Name = m.cfg.NodeID
	conf.Label = m.cfg.Cluster
	conf.BindAddr, conf.BindPort = m.cfg.BindAddr, m.cfg.BindPort
	conf.Logger = m.logs.logger()
	conf.DelegateProtocolMin, conf.DelegateProtocolMax, conf.DelegateProtocolVersion = 1, 1, 1
	d := &delegate{m}
	conf.Delegate, conf.Events, conf.Conflict, conf.Ping, conf.Alive, conf.Merge = d, d, d, d, d, d
	largest := conf.UDPBufferSize - datagramOverhead - len(conf.Label) - 2
	if len(m.cfg.Key) > 0 {
		if m.keys, err = newKeys(m.state, &m.cfg, m.log); err != nil {
			return fmt.Errorf("cannot make the keyring of the mesh: %w", err)
		}
		conf.Keyring = m.keys.memberlist
		largest -= encryptionOverhead
	}
	m.queue = newQueue(m.records, maxQueue, largest, m.cfg.GossipRate/2)
	m.queue.bulk = m.cfg.Bulk
	m.freight = newFreight(m.records, float64(m.cfg.RepairRate), float64(m.cfg.GossipRate)/2)
	inner := m.cfg.Transport
	if inner == nil {
		nt, err := bind(&memberlist.NetTransportConfig{BindAddrs: []string{m.cfg.BindAddr}, BindPort: m.cfg.BindPort, Logger: conf.Logger})
		if err != nil {
			return fmt.Errorf("cannot listen for the mesh on %s: %w", net.JoinHostPort(m.cfg.BindAddr, strconv.Itoa(m.cfg.BindPort)), err)
		}
		inner, conf.BindPort = nt, nt.GetAutoBindPort()
	}
	m.transport = newTransport(inner, conf.TCPTimeout, m.metrics, &gate{label: conf.Label, keyring: conf.Keyring})
	conf.Transport = m.transport
	conf.CIDRsAllowed = networks(m.cfg.Allow).memberlist()
	m.transport.allow, m.transport.refuse = m.cfg.Allow, m.refuse
	if err := m.advertise(conf); err != nil {
		closeQuietly(closer(m.transport.close))
		return err
	}
	m.conf = conf
	return nil
}

// bindTries is how many ports are tried where any will do.
const bindTries = 10

// bind binds the sockets of a node. Where any port will do, the system chooses one that is free for TCP, which somebody may have for UDP: then
// it chooses again.
func bind(c *memberlist.NetTransportConfig) (nt *memberlist.NetTransport, err error) {
	for range bindTries {
		if nt, err = memberlist.NewNetTransport(c); err == nil || c.BindPort != 0 {
			break
		}
	}
	return nt, err
}

// advertise decides what others are told to reach this node at.
func (m *Mesh) advertise(conf *memberlist.Config) error {
	host, port := m.cfg.AdvertiseAddr, m.cfg.AdvertisePort
	if port == 0 {
		port = conf.BindPort
	}
	if host == "" && m.cfg.Transport == nil {
		host = advertiseAddr(&m.cfg)
	}
	ip, port, err := m.transport.FinalAdvertiseAddr(host, port)
	if err != nil {
		return fmt.Errorf("cannot advertise %q: %w", host, err)
	}
	if own, ok := netip.AddrFromSlice(ip); !ok || !networks(m.cfg.Allow).has(own) {
		return fmt.Errorf("cannot be in the mesh at %v: it is in none of the allowed networks %v; advertise an address that is, or allow its network",
			ip, networks(m.cfg.Allow))
	}
	m.host, m.port = ip.String(), port
	conf.AdvertiseAddr, conf.AdvertisePort = m.host, m.port
	return nil
}

// closer makes an io.Closer of a function.
type closer func() error

func (c closer) Close() error { return c() }

const (
	// datagramOverhead is what memberlist puts around a message of ours in a datagram, labels and encryption aside; measured.
	datagramOverhead = 5
	// encryptionOverhead is version, nonce and tag.
	encryptionOverhead = 29
	// maxQueue bounds the entries that wait to be told.
	maxQueue = 16384
	// maxWaiting bounds the bytes in the outbox.
	maxWaiting = 16 << 20
)

// Close releases the sockets of a Mesh that was never run.
func (m *Mesh) Close() error {
	if m.running.Swap(true) {
		return nil
	}
	m.metrics.unregister()
	return m.transport.close()
}

// Self returns the name of this node.
func (m *Mesh) Self() string { return m.cfg.NodeID }

// Address returns the address that others are told to reach this node at.
func (m *Mesh) Address() (host string, port int) { return m.host, m.port }

// Snapshot returns the newest copy of a node's record, or nil where none is held.
func (m *Mesh) Snapshot(node string) *record.Snapshot { return m.records.Snapshot(node) }

// Snapshots iterates over the newest copies of all records held, in order of node names.
func (m *Mesh) Snapshots() iter.Seq[*record.Snapshot] { return m.records.Snapshots() }

// Feed returns a new feed of changes that begins now.
func (m *Mesh) Feed() *record.Feed { return m.records.Feed() }

// Set changes the own record, tells the mesh at once, and returns the new version. It never blocks. A change beyond the limits of a
// record is left out and logged.
func (m *Mesh) Set(changes ...record.Assignment) uint64 {
	version, changed, err := m.records.TrySet(time.Now(), changes...)
	if err != nil {
		m.log.Error("change of the own record refused", "err", err)
	}
	if len(changed) > 0 {
		m.pass(m.cfg.NodeID, m.records.Snapshot(m.cfg.NodeID).Generation(), changed)
	}
	return version
}

// Delta returns the wire form of what changed in the own record since a version; see record.Map.Delta.
func (m *Mesh) Delta(since uint64) []byte { return m.records.Delta(m.cfg.NodeID, since) }

// Apply merges a delta that came over another road, and passes on what was news.
func (m *Mesh) Apply(wire []byte) error {
	_, err := m.apply(wire, true)
	return err
}

// apply merges a delta; news are passed on if so wished.
func (m *Mesh) apply(wire []byte, pass bool) (record.Result, error) {
	res, err := m.records.Apply(time.Now(), wire)
	if err != nil {
		m.metrics.refused.Inc()
		return res, err
	}
	m.metrics.deltasIn.Inc()
	if res.Aged {
		m.metrics.lag.Observe(res.Age.Seconds())
	}
	if generation, doubted := m.doubted(res.Node); doubted && res.Generation > generation && len(res.Keys) > 0 {
		m.lives(res.Node) // it has started anew since
	}
	if len(res.Keys) > 0 {
		m.returns(res.Node, res.Generation)
		if m.damper.renewed(res.Node, res.Generation) {
			(&delegate{m}).emit(event{eventRenewed, memberlist.Node{Name: res.Node}})
		}
	}
	if res.Ahead {
		m.outbid(res.Generation)
	}
	if pass && len(res.Keys) > 0 {
		m.pass(res.Node, res.Generation, res.Keys)
	}
	return res, nil
}

// pass queues news to be told to others.
func (m *Mesh) pass(node string, generation uint64, keys []string) {
	if m.ml.Load() == nil || node == m.cfg.NodeID && !m.announced() {
		return // they are told when there is somebody to tell, and when they may be told
	}
	for _, key := range m.queue.push(node, generation, keys) {
		if !m.freight.news(node, generation, key) {
			m.metrics.dropped.WithLabelValues(dropLarge).Inc()
		}
	}
	wake(m.kick)
}

// outbid has the own generation raised above one that somebody else holds a record of. The disk is written to for it, so that is left
// to watch: neither memberlist nor who handed in a delta waits for that.
func (m *Mesh) outbid(above uint64) {
	select {
	case m.ahead <- above:
	default:
	}
}

// raise lifts the own generation above another one. It does so at most once a second: each time costs a write to disk here and a
// whole record on the network. What nobody can have got to honestly cannot be outbid for ever, and is not.
func (m *Mesh) raise(above uint64) {
	own := m.records.Snapshot(m.cfg.NodeID).Generation()
	if own > above || above > maxGeneration || time.Since(m.raised) < time.Second {
		return
	}
	m.raised = time.Now()
	generation, err := m.state.nextGeneration(above)
	if err != nil {
		m.log.Error("generation not kept", "err", err)
	}
	m.records.Raise(generation - 1)
	m.log.Warn("peers hold a newer record of this node than it ever wrote; it starts anew above it", "generation", generation)
}

// wake leaves a token for whoever waits on the channel.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// post hands a message to the senders; where they are too far behind, it is dropped and counted.
func (m *Mesh) post(to memberlist.Node, body []byte) {
	if m.waiting.Add(int64(len(body))) <= maxWaiting {
		select {
		case m.outbox <- parcel{to, body}:
			return
		default:
		}
	}
	m.waiting.Add(-int64(len(body)))
	m.metrics.dropped.WithLabelValues(dropOutbox).Inc()
}

// closeQuietly is for what is given up anyway.
func closeQuietly(c io.Closer) { _ = c.Close() }

// sleep waits for about d, a fifth more or less, or until the context ends.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(jitter(d))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}
