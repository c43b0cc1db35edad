package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Next says what becomes of a datagram that a Handler has looked at.
type Next int

const (
	// Drop gives the datagram no answer.
	Drop Next = iota
	// Send sends the answer that was returned.
	Send
	// Work passes the datagram on to a worker, which computes for a short while.
	Work
	// Wait passes the datagram on to a worker that may wait for others.
	Wait
)

// Handler answers the datagrams of one loop, which alone calls it.
type Handler interface {
	// Begin is called before the datagrams of a batch.
	Begin()
	// Answer returns the answer to one datagram, made in buf of BufferSize octets or elsewhere; it must stay as it is
	// until Begin is called again. The query belongs to the caller. Answer must not wait.
	Answer(query, buf []byte, from netip.AddrPort) ([]byte, Next)
}

// BufferSize is the octets of the largest datagram that is taken, and of the buffer for an answer: what an Ethernet frame
// carries. Larger ones are dropped and counted. (A multiple of a cache line, an odd one, so that the same octets of a
// batch's buffers do not compete for the same places of a cache.)
const BufferSize = 1472

// Config is what a Server needs.
type Config struct {
	Sockets []*Sockets
	// Handler makes the handler of one loop.
	Handler func() Handler
	// Slow answers, on a worker, what a handler passed on; nil is no answer. The query is the worker's own. The context
	// ends some while after that of Run, see Grace.
	Slow func(ctx context.Context, query []byte, from netip.AddrPort) []byte
	// MaxWork and MaxWait bound the workers of the two kinds, in all loops together.
	MaxWork, MaxWait int
	// Grace is how long, after the end of Run's context, workers may go on.
	Grace time.Duration
	// Panicked is told of what a handler or a worker panicked with.
	Panicked func(v any)
}

// Server runs the loops of some sockets. Use New.
type Server struct {
	config  Config
	loops   []*counters
	workers workers
}

// New makes a Server; Run makes it answer. Each socket becomes a loop.
func New(c Config) *Server {
	s := &Server{config: c}
	s.workers.init(&s.config)
	for _, g := range c.Sockets {
		for range g.conns {
			s.loops = append(s.loops, &counters{})
		}
	}
	return s
}

// Run answers until ctx ends: then what was read is answered, the sockets are closed, and all goroutines have ended when
// it returns. It may be called once. The first socket that fails for good ends it with an error.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var loops sync.WaitGroup
	var first error
	var once sync.Once
	slow, stopSlow := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSlow()
	i := 0
	for _, g := range s.config.Sockets {
		for _, conn := range g.conns {
			n := s.loops[i]
			i++
			loops.Go(func() {
				if err := s.loop(ctx, slow, conn, g.pktinfo, n); err != nil {
					once.Do(func() { first = fmt.Errorf("cannot read datagrams of %v: %w", conn.LocalAddr(), err) })
					cancel()
				}
			})
		}
	}
	loops.Wait()
	end := time.AfterFunc(s.config.Grace, stopSlow)
	s.workers.wait()
	end.Stop()
	for _, g := range s.config.Sockets {
		g.Close()
	}
	return first
}

// closedOrDone tells whether a failed read ends a loop, and with which error.
func closedOrDone(ctx context.Context, err error) (done bool, _ error) {
	switch {
	case ctx.Err() != nil:
		return true, nil
	case errors.Is(err, net.ErrClosed):
		return true, err
	}
	return false, nil
}

// errorPause is how long reading rests after an error: what the system tells of an earlier answer, that nobody listens
// there, say, is not ours to act on; but an error that stays must not take a whole processor.
const errorPause = 10 * time.Millisecond

func pause(ctx context.Context) {
	t := time.NewTimer(errorPause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
