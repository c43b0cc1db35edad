package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// Sockets are the sockets of one address and port. Make them with Listen.
type Sockets struct {
	conns []*net.UDPConn
	// pktinfo: the socket tells which address was asked.
	pktinfo bool
}

// Addr is the address that the sockets are bound to.
func (s *Sockets) Addr() netip.AddrPort { return s.conns[0].LocalAddr().(*net.UDPAddr).AddrPort() }

// Close closes all sockets. It is harmless to close them again.
func (s *Sockets) Close() error {
	var errs []error
	for _, c := range s.conns {
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Wanted octets of what waits to be read, and to be sent. The kernel's default holds about 280 queries, which a busy
// moment of the process exceeds; this holds some thousands, and costs memory only as far as it is used. What is more than
// the system allows is cut by it.
const socketBuffer = 1 << 20

// Listen binds as many sockets as there shall be loops, where the system can share a port among them, and otherwise one.
// No address at all means all addresses of both families. A port that is taken is an error that wraps syscall.EADDRINUSE,
// by whomever it is taken.
func Listen(ctx context.Context, addr netip.Addr, port uint16, loops int) (*Sockets, error) {
	// An address of one family means that family alone: the net package takes 0.0.0.0 of "udp" for both.
	network, host := "udp", ""
	if addr.IsValid() {
		host = addr.String()
		if addr.Is4() {
			network = "udp4"
		}
	}
	s := &Sockets{pktinfo: canPktinfo && (!addr.IsValid() || addr.IsUnspecified())}
	// The first is bound without sharing, so that it notices every other socket on the port; only then it is shared with
	// the others of this call.
	for i := range max(1, loops) {
		c := net.ListenConfig{}
		if i > 0 {
			c.Control = func(_, _ string, raw syscall.RawConn) error { return control(raw, share) }
		}
		conn, err := c.ListenPacket(ctx, network, net.JoinHostPort(host, fmt.Sprint(port)))
		if err != nil {
			s.Close()
			return nil, err
		}
		u := conn.(*net.UDPConn)
		s.conns = append(s.conns, u)
		port = u.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		raw, err := u.SyscallConn()
		if err == nil {
			err = control(raw, func(fd uintptr) error { return prepare(fd, s.pktinfo) })
		}
		if err == nil && i == 0 && loops > 1 {
			if !canShare {
				return s, nil
			}
			err = control(raw, share)
		}
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("cannot prepare the socket of %v: %w", u.LocalAddr(), err)
		}
	}
	return s, nil
}

func control(raw syscall.RawConn, f func(fd uintptr) error) error {
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(fd) }); err != nil {
		return err
	}
	return inner
}
