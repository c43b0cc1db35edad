package dns

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// brokenConn fails to read, again and again.
type brokenConn struct {
	net.PacketConn
	reads int
}

func (c *brokenConn) ReadFrom([]byte) (int, net.Addr, error) {
	c.reads++
	return 0, nil, errors.New("no buffer space available")
}

func TestAReadErrorThatLastsIsNotSpunOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		conn := &brokenConn{}
		s := &Server{config: Config{UDP: conn}}
		if err := s.serveUDP(ctx); err != nil {
			t.Errorf("serveUDP() = %v, want nil at the end of the context", err)
		}
		if conn.reads < 2 || conn.reads > 102 {
			t.Errorf("read %d times in a second, want one each 10 ms", conn.reads)
		}
	})
}
