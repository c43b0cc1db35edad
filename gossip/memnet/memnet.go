// Package memnet is a network in memory for meshes of many nodes in one process: tests in virtual time, and simulations.
//
// A Network has hosts, each with one address; a host's Transport is what memberlist sends through. Packets are delayed,
// lost with a probability, and dropped when the receiver is gone or does not keep up; streams are delayed, and
// neither lost nor reordered: loss makes them slow, as what was lost is sent again. Any pairs of hosts may be cut off from each other, in
// one direction or both, and a host may be paused.
//
// The network has no goroutines of its own: packets travel on timers, so inside a testing/synctest bubble time passes only
// when every node waits. Chance comes from the seed, but goroutines are not ordered by it: assert properties and
// deadlines, never a trace.
package memnet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Port is the port of every host.
const Port = 7946

// ErrRefused is returned by dials to a host that is not there.
var ErrRefused = errors.New("connection refused")

// Network is a set of hosts and what is between them. All methods may be called from any goroutine.
type Network struct {
	mu      sync.Mutex
	rng     *rand.Rand
	hosts   map[string]*Transport // by host:port
	loss    float64
	lossy   float64 // of the segments of streams
	latency time.Duration
	jitter  time.Duration
	place   func(from, to string) time.Duration
	cut     func(from, to string) bool
	packets uint64
	bytes   uint64
}

// New returns a network without loss or delay.
func New(seed uint64) *Network {
	return &Network{rng: rand.New(rand.NewPCG(seed, 0)), hosts: map[string]*Transport{}}
}

// SetLoss sets the probability with which a packet is lost.
func (n *Network) SetLoss(p float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = p
}

// SetStreamLoss sets the probability with which a segment of a stream is lost and has to be sent again. Opening a stream fails if that
// takes longer than the caller waits.
func (n *Network) SetStreamLoss(p float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lossy = p
}

// SetLatency sets how long a packet takes: at least latency, and up to jitter more.
func (n *Network) SetLatency(latency, jitter time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latency, n.jitter = latency, jitter
}

// SetDistances gives the network a geography: a packet from one host to another takes as long as f says, beside what SetLatency says. f is
// called with IP addresses, under a lock; nil puts all hosts into one place.
func (n *Network) SetDistances(f func(from, to string) time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.place = f
}

// Cut drops everything from one host to another for which f says so; nil heals the network. f is called with IP addresses.
func (n *Network) Cut(f func(from, to string) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = f
}

// Traffic returns how many packets were sent, and how many bytes by packets and streams.
func (n *Network) Traffic() (packets, bytes uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.packets, n.bytes
}

// Addr returns the address of the i-th host, from 0 on.
func Addr(i int) string { return fmt.Sprintf("10.%d.%d.%d", (i+1)>>16&255, (i+1)>>8&255, (i+1)&255) }

// Host adds a host with this IP address, in the place of one that had it before. Its Transport works until Shutdown.
func (n *Network) Host(ip string) *Transport {
	t := &Transport{
		network: n, ip: ip, addr: net.JoinHostPort(ip, fmt.Sprint(Port)),
		packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn, 64), closed: make(chan struct{}),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[t.addr] = t
	return t
}

// travel decides about a packet or the begin of a stream: how long it takes, and whether it arrives. The lock is held.
func (n *Network) travel(from, to string) (delay time.Duration, arrives bool) {
	delay = n.latency
	if n.jitter > 0 {
		delay += time.Duration(n.rng.Int64N(int64(n.jitter)))
	}
	if n.place != nil {
		delay += n.place(from, to)
	}
	return delay, n.cut == nil || !n.cut(from, to)
}

const (
	// The first pauses before something is sent again, which double: for the opening of a stream, and for what follows.
	retryOpen  = time.Second
	retryWrite = 200 * time.Millisecond
	segment    = 1400 // bytes
)

// retries returns how much longer it takes to get a number of segments through, of which each may be lost. The lock is held.
func (n *Network) retries(segments int, first time.Duration) time.Duration {
	late := time.Duration(0)
	for range segments {
		for pause := first; n.rng.Float64() < n.lossy && late < time.Hour; pause *= 2 {
			late += pause
		}
	}
	return late
}

// Transport is one host's connection to the network. It implements memberlist.NodeAwareTransport.
type Transport struct {
	network *Network
	ip      string
	addr    string
	packets chan *memberlist.Packet
	streams chan net.Conn
	once    sync.Once
	closed  chan struct{} // closed by Shutdown
	resumed chan struct{} // closed when a pause ends, nil without one; the network's lock guards it and held
	held    []func()      // packets that wait for that
}

var _ memberlist.NodeAwareTransport = (*Transport)(nil)

// Addr is where the host is reached, as host:port.
func (t *Transport) Addr() string { return t.addr }

// FinalAdvertiseAddr returns the address of the host, whatever is asked for.
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.ParseIP(t.ip).To4(), Port, nil
}

// WriteTo sends a packet.
func (t *Transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress sends a packet.
func (t *Transport) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	now := time.Now()
	select {
	case <-t.closed:
		return now, net.ErrClosed
	default:
	}
	n := t.network
	n.mu.Lock()
	n.packets++
	n.bytes += uint64(len(b))
	to := n.hosts[addr.Addr]
	lost := n.rng.Float64() < n.loss
	delay, arrives := time.Duration(0), false
	if to != nil {
		delay, arrives = n.travel(t.ip, to.ip)
	}
	if !arrives || lost {
		n.mu.Unlock()
		return now, nil
	}
	// The sender may use its buffer again.
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: udpAddr(t.ip)}
	send := func() { time.AfterFunc(delay, func() { to.deliver(p) }) }
	if delay == 0 {
		send = func() { to.deliver(p) }
	}
	paused := t.hold(send)
	n.mu.Unlock()
	if !paused {
		send()
	}
	return now, nil
}

// maxHeld is how many packets a paused host holds in each direction together; more are lost.
const maxHeld = 1024

// hold keeps what a paused host would do until it goes on. It tells whether the host is paused. The lock is held.
func (t *Transport) hold(f func()) bool {
	if t.resumed != nil && len(t.held) < maxHeld {
		t.held = append(t.held, f)
	}
	return t.resumed != nil
}

// Pause stops a host, or lets it go on, as if its process had been halted: what it sends and what it gets waits, packets up to a
// bound, streams until those at their other ends lose patience. Its clock goes on.
func (t *Transport) Pause(paused bool) {
	n := t.network
	n.mu.Lock()
	if paused == (t.resumed != nil) {
		n.mu.Unlock()
		return
	}
	if paused {
		t.resumed = make(chan struct{})
		n.mu.Unlock()
		return
	}
	close(t.resumed)
	held := t.held
	t.resumed, t.held = nil, nil
	n.mu.Unlock()
	for _, f := range held {
		f()
	}
}

// pause is closed when the present pause of the host ends; nil without one.
func (t *Transport) pause() <-chan struct{} {
	t.network.mu.Lock()
	defer t.network.mu.Unlock()
	return t.resumed
}

func udpAddr(ip string) net.Addr { return &net.UDPAddr{IP: net.ParseIP(ip), Port: Port} }

func (t *Transport) deliver(p *memberlist.Packet) {
	t.network.mu.Lock()
	paused := t.hold(func() { t.deliver(p) })
	t.network.mu.Unlock()
	if paused {
		return
	}
	p.Timestamp = time.Now()
	select {
	case <-t.closed:
	case t.packets <- p:
	default: // a receiver that does not keep up loses, as with any socket
	}
}

// PacketCh is where packets arrive. It is never closed.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh is where streams arrive. It is never closed.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// DialTimeout opens a stream.
func (t *Transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout opens a stream. To a host that is cut off it takes the whole timeout to fail.
func (t *Transport) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return t.DialContext(ctx, addr.Addr)
}

// DialContext opens a stream, for as long as the context allows.
func (t *Transport) DialContext(ctx context.Context, addr string) (net.Conn, error) {
	n := t.network
	n.mu.Lock()
	to := n.hosts[addr]
	delay, arrives, back := time.Duration(0), true, true
	if to != nil {
		delay, arrives = n.travel(t.ip, to.ip)
		_, back = n.travel(to.ip, t.ip)
	}
	delay = 2*delay + n.retries(2, retryOpen)
	n.mu.Unlock()
	var opens <-chan time.Time
	if arrives && back {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		opens = timer.C
	}
	select {
	case <-opens:
	case <-t.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("dial %s: %w", addr, errTimeout{})
	}
	if to == nil {
		return nil, fmt.Errorf("dial %s: %w", addr, ErrRefused)
	}
	here, there := net.Pipe()
	mine, theirs := newConn(here, t, to), newConn(there, to, t)
	select {
	case <-to.closed:
		return nil, fmt.Errorf("dial %s: %w", addr, ErrRefused)
	case to.streams <- theirs:
		return mine, nil
	default:
		return nil, fmt.Errorf("dial %s: %w", addr, ErrRefused)
	}
}

// Shutdown takes the host off the network.
func (t *Transport) Shutdown() error {
	t.once.Do(func() {
		n := t.network
		n.mu.Lock()
		if n.hosts[t.addr] == t {
			delete(n.hosts, t.addr)
		}
		n.mu.Unlock()
		close(t.closed)
	})
	return nil
}

type errTimeout struct{}

func (errTimeout) Error() string   { return "i/o timeout" }
func (errTimeout) Timeout() bool   { return true }
func (errTimeout) Temporary() bool { return true }

// conn is one end of a stream.
type conn struct {
	net.Conn
	from, to *Transport
	once     sync.Once
	closed   chan struct{} // closed by Close

	mu       sync.Mutex
	deadline time.Time // for writing
}

func newConn(c net.Conn, from, to *Transport) *conn {
	return &conn{Conn: c, from: from, to: to, closed: make(chan struct{})}
}

// Close ends the stream; a Write that waits for the network ends as well.
func (c *conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// SetDeadline bounds reading and writing.
func (c *conn) SetDeadline(t time.Time) error {
	c.setWriteDeadline(t)
	return c.Conn.SetDeadline(t)
}

// SetWriteDeadline bounds writing.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.setWriteDeadline(t)
	return c.Conn.SetWriteDeadline(t)
}

func (c *conn) setWriteDeadline(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
}

// Write sends after the delay of the network. Over a cut it fails.
func (c *conn) Write(b []byte) (int, error) {
	n := c.from.network
	n.mu.Lock()
	n.bytes += uint64(len(b))
	delay, arrives := n.travel(c.from.ip, c.to.ip)
	delay += n.retries(1+len(b)/segment, retryWrite)
	n.mu.Unlock()
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		if err := wait(c, timer.C); err != nil {
			return 0, err
		}
	}
	for _, end := range []*Transport{c.from, c.to} {
		if resumed := end.pause(); resumed != nil {
			if err := wait(c, resumed); err != nil {
				return 0, err
			}
		}
	}
	if !arrives {
		return 0, errTimeout{}
	}
	return c.Conn.Write(b)
}

// wait waits for an event, until the stream is closed or its deadline for writing passes.
func wait[T any](c *conn, event <-chan T) error {
	c.mu.Lock()
	deadline := c.deadline
	c.mu.Unlock()
	var late <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-event:
		return nil
	case <-c.closed:
		return net.ErrClosed
	case <-late:
		return errTimeout{}
	}
}

// LocalAddr returns the address of this end.
func (c *conn) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.from.ip), Port: Port} }

// RemoteAddr returns the address of the other end.
func (c *conn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.to.ip), Port: Port} }
