package udp

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
)

// workers are goroutines made on demand, within bounds.
type workers struct {
	config *Config
	group  sync.WaitGroup
	busy   [2]atomic.Int64 // by kind
	max    [2]int64
}

func (w *workers) init(c *Config) {
	w.config = c
	w.max = [2]int64{int64(c.MaxWork), int64(c.MaxWait)}
}

func (w *workers) wait() { w.group.Wait() }

// take books a worker of a kind, or tells that all are busy.
func (w *workers) take(kind Next) bool {
	n := &w.busy[kind-Work]
	if n.Add(1) > w.max[kind-Work] {
		n.Add(-1)
		return false
	}
	return true
}

// run has a worker that was booked answer a query, which becomes its own.
func (w *workers) run(ctx context.Context, kind Next, query []byte, from netip.AddrPort, send func(answer []byte)) {
	w.group.Go(func() {
		defer w.busy[kind-Work].Add(-1)
		defer func() {
			if v := recover(); v != nil {
				w.config.Panicked(v)
			}
		}()
		if answer := w.config.Slow(ctx, query, from); answer != nil {
			send(answer)
		}
	})
}
