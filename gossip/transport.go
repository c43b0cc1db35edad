package gossip

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport stands between memberlist and the network: it counts bytes, keeps out what the gate refuses, bounds the life of streams,
// and ends dials when the mesh does.
type transport struct {
	inner   memberlist.Transport
	aware   memberlist.NodeAwareTransport // inner, if it is one
	timeout time.Duration
	metrics *metrics
	gate    *gate
	packets chan *memberlist.Packet
	streams chan net.Conn
	// allow are the networks that the transport talks with; refuse is told of the others. Both are set before the pump runs.
	allow  networks
	refuse func(addr string) error

	ctx    context.Context // of dials
	cancel context.CancelFunc
	mu     sync.Mutex
	dialed map[net.Conn]bool // streams that this node opened; guarded by mu
	start  sync.Once
	end    sync.Once
	stop   chan struct{} // closed by Shutdown
	done   chan struct{} // closed when the pump has ended
}

func newTransport(inner memberlist.Transport, timeout time.Duration, m *metrics, g *gate) *transport {
	t := &transport{
		dialed: map[net.Conn]bool{}, inner: inner, timeout: timeout, metrics: m, gate: g,
		packets: make(chan *memberlist.Packet, 256), streams: make(chan net.Conn, 16),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	t.aware, _ = inner.(memberlist.NodeAwareTransport)
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// FinalAdvertiseAddr is the first thing that memberlist asks for; from then on the pump runs.
func (t *transport) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	t.start.Do(func() { go t.pump() })
	return t.inner.FinalAdvertiseAddr(ip, port)
}

// pump hands over what comes in.
func (t *transport) pump() {
	defer close(t.done)
	for {
		select {
		case p := <-t.inner.PacketCh():
			if p == nil {
				continue
			}
			if t.foreign(p.From) {
				continue
			}
			t.metrics.bytesIn.Add(float64(len(p.Buf)))
			if t.gate.packet(p.Buf) != nil {
				t.metrics.refusedDatagrams.Inc()
				continue
			}
			handOver(t, t.packets, p)
		case c := <-t.inner.StreamCh():
			if c == nil {
				continue
			}
			if t.foreign(c.RemoteAddr()) {
				closeQuietly(c)
				continue
			}
			if c = t.gate.accept(&countedConn{c, t.metrics}, t.metrics.refusedStreams.Inc); c == nil {
				continue
			}
			if !handOver(t, t.streams, c) {
				closeQuietly(c)
			}
		case <-t.stop:
			return
		}
	}
}

// handOver waits until there is room for v in the channel. Once the node has hung up it does not wait: nobody may be there to make room, and
// the inner transport does not end before it has got rid of what it received.
func handOver[T any](t *transport, to chan<- T, v T) bool {
	select {
	case to <- v:
		return true
	default:
	}
	select {
	case to <- v:
		return true
	case <-t.ctx.Done():
		return false
	}
}

// foreign tells whether a peer is in none of the allowed networks.
func (t *transport) foreign(from net.Addr) bool {
	if len(t.allow) == 0 || t.allow.hasAddr(from.String()) {
		return false
	}
	_ = t.refuse(from.String())
	return true
}

// close shuts down, whether memberlist ever used the transport or not, waits for the pump, and closes the streams that nobody took.
func (t *transport) close() error {
	t.start.Do(func() { go t.pump() })
	err := t.Shutdown()
	<-t.done
	for {
		select {
		case c := <-t.streams:
			closeQuietly(c)
		default:
			return err
		}
	}
}

func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (t *transport) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	if !numeric(addr.Addr) {
		return time.Time{}, fmt.Errorf("cannot send to %q: it is not an address", addr.Addr)
	}
	if !t.allow.hasAddr(addr.Addr) {
		return time.Time{}, t.refuse(addr.Addr)
	}
	t.metrics.bytesOut.Add(float64(len(b)))
	if t.aware != nil {
		return t.aware.WriteToAddress(b, addr)
	}
	return t.inner.WriteTo(b, addr.Addr)
}

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (t *transport) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	c, err := t.dial(addr, timeout)
	if err != nil {
		return nil, err
	}
	// memberlist sets no deadline before it writes.
	if err := c.SetDeadline(time.Now().Add(2 * t.timeout)); err != nil {
		closeQuietly(c)
		return nil, err
	}
	if c, err = t.keep(c); err != nil {
		return nil, err
	}
	return t.gate.dialled(&countedConn{c, t.metrics}, t.metrics.refusedStreams.Inc), nil
}

// keep notes an open stream, so that it can be ended.
func (t *transport) keep(c net.Conn) (net.Conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.ctx.Err(); err != nil {
		closeQuietly(c)
		return nil, err
	}
	t.dialed[c] = true
	return &dialedConn{c, t}, nil
}

// dialedConn is a stream that ends when the node hangs up.
type dialedConn struct {
	net.Conn
	t *transport
}

func (c *dialedConn) Close() error {
	c.t.mu.Lock()
	delete(c.t.dialed, c.Conn)
	c.t.mu.Unlock()
	return c.Conn.Close()
}

func (c *dialedConn) SetDeadline(at time.Time) error {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if err := c.t.ctx.Err(); err != nil {
		return err // the deadline is in the past and stays there
	}
	return c.Conn.SetDeadline(at)
}

// hangUp ends dials and the streams that this node opened, at once and for ever.
func (t *transport) hangUp() {
	t.cancel()
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.dialed {
		_ = c.SetDeadline(time.Unix(1, 0)) // does not block, as closing may
	}
}

// dialer is a transport whose dials can be ended.
type dialer interface {
	DialContext(ctx context.Context, addr string) (net.Conn, error)
}

func (t *transport) dial(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if !numeric(addr.Addr) {
		return nil, fmt.Errorf("cannot dial %q: it is not an address", addr.Addr)
	}
	if !t.allow.hasAddr(addr.Addr) {
		return nil, t.refuse(addr.Addr)
	}
	if _, ok := t.inner.(*memberlist.NetTransport); ok {
		d := net.Dialer{Timeout: timeout, Control: smallSegments}
		return d.DialContext(t.ctx, "tcp", addr.Addr)
	}
	if d, ok := t.inner.(dialer); ok {
		ctx, cancel := context.WithTimeout(t.ctx, timeout)
		defer cancel()
		return d.DialContext(ctx, addr.Addr)
	}
	if t.aware != nil {
		return t.aware.DialAddressTimeout(addr, timeout)
	}
	return t.inner.DialTimeout(addr.Addr, timeout)
}

// Shutdown ends the inner transport while the pump still takes what its listeners are about to hand over. It may be called again.
func (t *transport) Shutdown() error {
	t.hangUp()
	err := t.inner.Shutdown()
	t.end.Do(func() { close(t.stop) })
	return err
}

// countedConn counts the bytes of a stream.
type countedConn struct {
	net.Conn
	metrics *metrics
}

func (c *countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.metrics.bytesIn.Add(float64(n))
	return n, err
}

func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.metrics.bytesOut.Add(float64(n))
	return n, err
}
