package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"syscall"

	"starling/dns/udp"
)

// maxLoops bounds the sockets of one address: what so many processors answer is more than a network card brings, and each
// costs buffers.
const maxLoops = 16

// Listener is one address and port, for both transports. Make it with Listen.
type Listener struct {
	tcp net.Listener
	udp *udp.Sockets
}

// Listen binds an IP address, or all addresses of both families where it is empty; port 0 is any port that is free. A
// port that is taken is an error that wraps syscall.EADDRINUSE, whoever has it.
func Listen(ctx context.Context, ip string, port int) (*Listener, error) {
	var addr netip.Addr
	network := "tcp"
	if ip != "" {
		var err error
		if addr, err = netip.ParseAddr(ip); err != nil {
			return nil, fmt.Errorf("cannot listen on %q: %w", ip, err)
		}
		if addr.Is4() {
			network = "tcp4" // the net package takes 0.0.0.0 for both families otherwise
		}
	}
	for try := 1; ; try++ {
		l, err := listen(ctx, network, ip, addr, port)
		// A port that the system chose because it is free for TCP may be another's for UDP.
		if err == nil || port != 0 || try == listenTries || !errors.Is(err, syscall.EADDRINUSE) {
			return l, err
		}
	}
}

// listenTries is how many ports are tried where any will do.
const listenTries = 10

func listen(ctx context.Context, network, ip string, addr netip.Addr, port int) (l *Listener, err error) {
	var c net.ListenConfig
	l = &Listener{}
	if l.tcp, err = c.Listen(ctx, network, net.JoinHostPort(ip, strconv.Itoa(port))); err != nil {
		return nil, err
	}
	if l.udp, err = udp.Listen(ctx, addr, uint16(l.Port()), min(runtime.GOMAXPROCS(0), maxLoops)); err != nil {
		l.tcp.Close()
		return nil, err
	}
	return l, nil
}

// Addr is the address that it is bound to, unspecified where that is all of them.
func (l *Listener) Addr() netip.AddrPort {
	a := l.tcp.Addr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Port is the port.
func (l *Listener) Port() int { return int(l.Addr().Port()) }

// Close closes all sockets, unless a Server has closed them.
func (l *Listener) Close() error {
	err := l.tcp.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return errors.Join(err, l.udp.Close())
}
