package agent

import "sync"

// pool runs functions on at most max goroutines, in the order in which they came. It keeps no idle goroutines.
type pool struct {
	max int

	mu      sync.Mutex
	running int
	queue   []func()
	wg      sync.WaitGroup
}

// run hands over f and returns at once. What waits is bounded by the callers: each task has one piece of work at a time.
func (p *pool) run(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running >= p.max {
		p.queue = append(p.queue, f)
		return
	}
	p.running++
	p.wg.Go(func() { p.work(f) })
}

func (p *pool) work(f func()) {
	for {
		f()
		p.mu.Lock()
		if len(p.queue) == 0 {
			p.running--
			p.mu.Unlock()
			return
		}
		f, p.queue = p.queue[0], p.queue[1:]
		p.mu.Unlock()
	}
}

// drop forgets what has not begun, and returns when the rest is done.
func (p *pool) drop() {
	p.mu.Lock()
	p.queue = nil
	p.mu.Unlock()
	p.wg.Wait()
}
