//go:build linux || darwin || freebsd || netbsd || openbsd

package gossip

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// smallSegments keeps the segments of a stream, in both directions, as small as datagrams are. Where a link on the way is narrower
// than the hosts know, and routers may not say so, full ones vanish, and with them every record that is larger than one. It is told to
// the other side as the stream is opened, so whoever dials sees to it.
func smallSegments(_, _ string, c syscall.RawConn) error {
	_ = c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, safeDatagram)
	})
	return nil // most links carry full ones as well
}
