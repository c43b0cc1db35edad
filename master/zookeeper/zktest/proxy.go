package zktest

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy stands between clients and an ensemble, and breaks the connections on command. It notes the session of whoever
// connected last, which a test can end on the servers.
type Proxy struct {
	t       testing.TB
	targets []string
	l       net.Listener
	wg      sync.WaitGroup
	gate    sync.RWMutex // held while a session is ended, so that nobody connects

	mu      sync.Mutex // guards what follows
	cut     bool
	stalled chan struct{} // closed when bytes may go on; nil while they do
	conns   map[net.Conn]struct{}
	session []byte // of the last greeting: id, length and password
}

// NewProxy returns a proxy for the ensemble, on loopback; it ends with the test.
func NewProxy(t testing.TB, e *Ensemble) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{t: t, l: l, conns: make(map[net.Conn]struct{})}
	for _, s := range e.Servers {
		p.targets = append(p.targets, s.Addr())
	}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.Heal()
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// Addr is where clients connect, as "127.0.0.1:port".
func (p *Proxy) Addr() string { return p.l.Addr().String() }

// Cut closes all connections, and those that come.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for c := range p.conns {
		c.Close()
	}
}

// Stall keeps all connections open, also those that come, and lets nothing through.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalled == nil {
		p.stalled = make(chan struct{})
	}
}

// Heal ends what Cut and Stall began.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
	if p.stalled != nil {
		close(p.stalled)
		p.stalled = nil
	}
}

// Expire ends the session of the client that connected last, as the servers do with one of which they heard nothing. The
// client learns it from them.
func (p *Proxy) Expire() {
	p.t.Helper()
	// The client must not take its session back meanwhile.
	p.gate.Lock()
	defer p.gate.Unlock()
	p.mu.Lock()
	session := p.session
	p.mu.Unlock()
	if session == nil {
		p.t.Fatal("no session to expire")
	}
	if err := p.end(session); err != nil {
		p.t.Fatalf("cannot end the session: %v", err)
	}
}

// end takes the session over and closes it.
func (p *Proxy) end(session []byte) error {
	c, err := p.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	return closeSession(c, session)
}

// closeSession takes a session over and closes it: number, length of the password and password.
func closeSession(c net.Conn, session []byte) error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	// The greeting: version, last zxid seen, timeout, session and password.
	hello := make([]byte, 4+16, 4+16+len(session))
	binary.BigEndian.PutUint32(hello[16:], 10000)
	hello = append(hello, session...)
	binary.BigEndian.PutUint32(hello, uint32(len(hello)-4))
	// A request behind it: length, number, and the kind that closes a session.
	if _, err := c.Write(append(hello, 0, 0, 0, 8, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xf5)); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, c) // until the server has closed it
	return err
}

func (p *Proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(c) })
	}
}

// dial connects to the first server that can be reached.
func (p *Proxy) dial() (net.Conn, error) {
	var c net.Conn
	var err error
	for _, target := range p.targets {
		if c, err = net.DialTimeout("tcp", target, time.Second); err == nil {
			break
		}
	}
	return c, err
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	if !p.add(client) {
		return
	}
	defer p.remove(client)
	p.gate.RLock()
	server, err := p.dial()
	p.gate.RUnlock()
	if err != nil {
		return
	}
	defer server.Close()
	if !p.add(server) {
		return
	}
	defer p.remove(server)
	var both sync.WaitGroup
	both.Go(func() { p.pump(server, client, nil) })
	both.Go(func() { p.pump(client, server, p.note()) })
	both.Wait()
}

func (p *Proxy) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) remove(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// pump copies until either end closes; what it reads, see looks at.
func (p *Proxy) pump(to, from net.Conn, see func([]byte)) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if see != nil {
			see(buf[:n])
		}
		p.mu.Lock()
		stalled := p.stalled
		p.mu.Unlock()
		if stalled != nil {
			<-stalled
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// note returns what reads a server's greeting: length, version, timeout, session id, length of the password and password.
func (p *Proxy) note() func([]byte) {
	var head []byte
	return func(b []byte) {
		if len(head) >= 40 {
			return
		}
		if head = append(head, b...); len(head) >= 40 {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.session = head[12:40:40]
		}
	}
}
