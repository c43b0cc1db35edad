//go:build !linux

package udp

import (
	"context"
	"net"
)

// Elsewhere a port has one socket, and one loop.
const (
	canShare   = false
	canPktinfo = false
)

func share(uintptr) error { return nil }

func prepare(uintptr, bool) error { return nil }

func (s *Server) loop(ctx, slow context.Context, conn *net.UDPConn, _ bool, n *counters) error {
	_ = conn.SetReadBuffer(socketBuffer)
	_ = conn.SetWriteBuffer(socketBuffer)
	return s.plain(ctx, slow, conn, n)
}
