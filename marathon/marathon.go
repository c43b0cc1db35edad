package marathon

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"starling/marathon/event"
	"starling/marathon/scheduler"
	"starling/marathon/state"
	"starling/master/mesos/client"
	"starling/master/mesos/codec"
)

var (
	// ErrNotReady is returned while the state is being loaded, and after the end.
	ErrNotReady = errors.New("marathon is not ready")
	// ErrFrameworkRemoved ends Run: the master has ended this framework for good, and its tasks with it.
	ErrFrameworkRemoved = errors.New("the framework has been removed by the master")
	// ErrSuperseded ends Run: another scheduler has subscribed under the same framework id.
	ErrSuperseded = errors.New("another scheduler has taken over this framework id")

	errAbdicated = errors.New("leadership was given up")
	errStopped   = errors.New("marathon is stopping")
)

// inboxSize only smooths bursts: senders wait when the inbox is full. batchSize bounds what is decided on at once.
const (
	inboxSize = 1024
	batchSize = 512
)

// Marathon keeps apps running. See the package comment for who owns what. All methods but Run may be called from any
// goroutine.
type Marathon struct {
	cfg    Config
	log    *slog.Logger
	client *client.Client
	events event.Bus

	running atomic.Bool
	started time.Time // wall clock
	counters

	// inbox carries work to the loop; it is never closed.
	inbox chan work
	// stopped is closed when Run has ended.
	stopped chan struct{}

	// mu guards what follows. The loop alone writes, and holds it only while the core decides, never during I/O; everyone
	// else reads.
	mu      sync.RWMutex
	core    *scheduler.Scheduler // nil while there is no state
	state   *state.State
	session *session // nil while there is none
	elected time.Time
	master  masterInfo
	// failed, once set, ends the term.
	failed error
}

// masterInfo is what the master of the session has said about itself.
type masterInfo struct {
	hostname string
	port     int
}

// work is something for the loop to do under the lock. Its error is for whoever asked, and is told when all that follows
// from the work is stored.
type work struct {
	do   func(now time.Time) error
	ctx  context.Context // nil: it is done in any case
	done chan<- error    // buffered; nil: nobody waits
}

// New returns a Marathon that does nothing until Run.
func New(cfg Config) (*Marathon, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("cannot make a marathon: %w", err)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Rand == nil {
		var seed [32]byte
		_, _ = crand.Read(seed[:]) // never fails
		cfg.Rand = rand.New(rand.NewPCG(binary.LittleEndian.Uint64(seed[:]), binary.LittleEndian.Uint64(seed[8:])))
	}
	cfg.Scheduler.Role, cfg.App.DefaultRole = cfg.Role, cfg.Role
	if cfg.Scheduler.Task.MesosBridgeName == "" {
		cfg.Scheduler.Task.MesosBridgeName = cfg.App.MesosBridgeName
	}
	log := cfg.Log.With("component", "marathon")
	return &Marathon{
		cfg: cfg, log: log, started: cfg.Now(), inbox: make(chan work, inboxSize), stopped: make(chan struct{}),
		client: client.New(client.Config{
			Masters: cfg.Masters, Resolve: cfg.Resolve, Codec: codec.Protobuf, Transport: cfg.Transport, Log: log,
			MinBackoff: cfg.MinBackoff, MaxBackoff: cfg.MaxBackoff,
		}),
	}, nil
}

// Run loads the state, and then leads until ctx ends. It may be called once. It returns nil when ctx ended, and otherwise
// why going on would do harm; tasks are left alone in any case.
func (m *Marathon) Run(ctx context.Context) error {
	if m.running.Swap(true) {
		return errors.New("marathon runs already")
	}
	defer close(m.stopped)
	defer m.events.Close()
	defer m.client.Close()
	for {
		err := m.term(ctx)
		if errors.Is(err, errAbdicated) && ctx.Err() == nil {
			m.log.Info("leadership given up, and taken again")
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
}

// term is one period of leading: from the loading of the state until ctx ends, or leading does.
func (m *Marathon) term(parent context.Context) error {
	st, stored, err := m.load(parent)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(errStopped)
	m.mu.Lock()
	core := scheduler.New(m.cfg.Scheduler, m.cfg.Rand)
	core.Load(m.cfg.Now(), stored)
	m.core, m.state, m.elected, m.failed = core, st, m.cfg.Now(), nil
	m.mu.Unlock()
	prober := newProber(ctx, m)
	var wg sync.WaitGroup
	wg.Go(func() { m.subscribe(ctx) })
	m.log.Info("leading", "apps", stored.Root.Len(), "instances", len(stored.Instances), "deployments", len(stored.Deployments))
	err = m.loop(ctx, prober)
	cancel(errStopped)
	wg.Wait()
	prober.wait()
	m.mu.Lock()
	m.core, m.state, m.session = nil, nil, nil
	m.mu.Unlock()
	// What is left in the inbox belongs to a state that is gone.
	for {
		select {
		case w := <-m.inbox:
			if w.done != nil {
				w.done <- ErrNotReady
			}
		default:
			return err
		}
	}
}

// load reads the state, again and again while the store can't be reached. State that makes no sense is an error.
func (m *Marathon) load(ctx context.Context) (*state.State, *scheduler.Stored, error) {
	pause := newPause(m.cfg)
	for {
		attempt, cancel := context.WithTimeout(ctx, m.cfg.StoreTimeout)
		st, stored, err := state.Open(attempt, m.cfg.Store, m.cfg.KeepVersions)
		cancel()
		switch {
		case err == nil:
			for _, problem := range stored.Problems {
				m.log.Error("stored document can't be read; what it tells of is left alone", "reason", problem)
			}
			return st, stored, nil
		case ctx.Err() != nil:
			return nil, nil, context.Cause(ctx)
		case errors.Is(err, state.ErrNoFramework), errors.Is(err, state.ErrDamaged), errors.Is(err, state.ErrFormat):
			return nil, nil, fmt.Errorf("cannot start: %w", err)
		}
		m.log.Warn("cannot load the state yet", "err", err)
		if !pause.wait(ctx) {
			return nil, nil, context.Cause(ctx)
		}
	}
}

// loop feeds the core and carries out what it decides.
func (m *Marathon) loop(ctx context.Context, prober *prober) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var batch []work
		select {
		case w := <-m.inbox:
			batch = m.gather(w)
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		errs, decisions, wake, failed := m.decide(batch)
		err := m.carryOut(ctx, decisions, prober)
		for i, w := range batch {
			if w.done != nil {
				w.done <- errors.Join(errs[i], err)
			}
		}
		if err := errors.Join(failed, err); err != nil {
			return err
		}
		if wake.IsZero() {
			timer.Stop()
			continue
		}
		timer.Reset(max(0, wake.Sub(m.cfg.Now())))
	}
}

// gather takes more work that is there already.
func (m *Marathon) gather(first work) []work {
	batch := []work{first}
	for len(batch) < batchSize {
		select {
		case w := <-m.inbox:
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

// decide does the work of a batch and asks the core what follows from it.
func (m *Marathon) decide(batch []work) (errs []error, decisions []scheduler.Decision, wake time.Time, failed error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.cfg.Now()
	errs = make([]error, len(batch))
	for i, w := range batch {
		if w.ctx != nil && w.ctx.Err() != nil {
			errs[i] = context.Cause(w.ctx) // nobody waits for it any more
			continue
		}
		errs[i] = w.do(now)
	}
	decisions = m.core.Ready(now)
	wake, _ = m.core.Wake()
	return errs, decisions, wake, m.failed
}

// enter hands work to the loop without waiting for it. It reports false when the term has ended.
func (m *Marathon) enter(ctx context.Context, do func(now time.Time)) bool {
	select {
	case m.inbox <- work{do: func(now time.Time) error { do(now); return nil }}:
		return true
	case <-ctx.Done():
		return false
	}
}

// await has work done by the loop, and waits until all that follows from it is stored. When ctx ends first the work may
// still be done, unless it had not begun.
func (m *Marathon) await(ctx context.Context, do func(now time.Time) error) error {
	if !m.Ready() {
		return ErrNotReady
	}
	done := make(chan error, 1)
	select {
	case m.inbox <- work{do: do, ctx: ctx, done: done}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-m.stopped:
		return ErrNotReady
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-m.stopped:
		return ErrNotReady
	}
}

// Ready tells whether the state is loaded, so that requests are answered.
func (m *Marathon) Ready() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.core != nil
}

// pause makes growing pauses between attempts.
type pause struct {
	next, most time.Duration
	least      time.Duration
}

func newPause(c Config) *pause {
	return &pause{next: c.MinBackoff, least: c.MinBackoff, most: c.MaxBackoff}
}

// wait pauses, for a random time between half and all of the present length. It reports false when ctx ended.
func (p *pause) wait(ctx context.Context) bool {
	timer := time.NewTimer(p.next/2 + rand.N(p.next/2+1))
	defer timer.Stop()
	p.next = min(2*p.next, p.most)
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (p *pause) reset() { p.next = p.least }
