package udp

import (
	"bytes"
	"context"
	"net/netip"
	"time"
)

// plainConn is what the plain loop needs of a *net.UDPConn.
type plainConn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error)
	SetReadDeadline(t time.Time) error
}

// plain answers one datagram after the other, with what every system has.
func (s *Server) plain(ctx, slow context.Context, conn plainConn, n *counters) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	send := func(answer []byte, to netip.AddrPort) {
		if _, err := conn.WriteToUDPAddrPort(answer, to); err != nil && ctx.Err() == nil {
			n.unsent.Add(1)
		}
	}
	h := s.config.Handler()
	// One octet more than is taken shows what is larger.
	query, buf := make([]byte, BufferSize+1), make([]byte, BufferSize)
	for {
		size, from, err := conn.ReadFromUDPAddrPort(query)
		if err != nil {
			if done, err := closedOrDone(ctx, err); done {
				return err
			}
			n.readErrors.Add(1)
			pause(ctx)
			continue
		}
		n.batch(1)
		if size > BufferSize || from.Port() == 0 {
			n.odd.Add(1)
			continue
		}
		answer, next := s.guarded(h, query[:size], buf, from)
		switch next {
		case Send:
			n.fast.Add(1)
			send(answer, from)
		case Work, Wait:
			if s.passed(next, n) {
				s.workers.run(slow, next, bytes.Clone(query[:size]), from, func(answer []byte) { send(answer, from) })
			}
		}
	}
}

// guarded has the handler answer one datagram, which is dropped where it panics.
func (s *Server) guarded(h Handler, query, buf []byte, from netip.AddrPort) (answer []byte, next Next) {
	defer func() {
		if v := recover(); v != nil {
			s.config.Panicked(v)
			answer, next = nil, Drop
		}
	}()
	h.Begin()
	return h.Answer(query, buf, from)
}

// passed books a worker, and counts.
func (s *Server) passed(next Next, n *counters) bool {
	switch {
	case !s.workers.take(next):
		n.dropped.Add(1)
		return false
	case next == Work:
		n.work.Add(1)
	default:
		n.wait.Add(1)
	}
	return true
}
