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

	// ErrNotStored is returned where the store refuses for good what follows from a request: nothing was changed.
	ErrNotStored = errors.New("the store has refused the change")
	// ErrStore is returned, instead of waiting, while the store has not taken a write for long.
	ErrStore = errors.New("the store does not take writes")

	errAbdicated = errors.New("leadership was given up")
	errStopped   = errors.New("marathon is stopping")
)

const (
	// inboxSize only smooths bursts: senders wait when the inbox is full.
	inboxSize = 1024
	// batchSize bounds what is decided on at once, and batchBytes the definitions that are changed by that: one transaction
	// holds all of it, and what waits for the store should not wait for megabytes of others.
	batchSize  = 512
	batchBytes = 4 << 20
	// goodTerm is how long a term must have lasted for the next to begin without a pause.
	goodTerm = time.Minute
)

// Marathon keeps apps running. See the package comment for who owns what. All methods but Run may be called from any
// goroutine.
type Marathon struct {
	cfg     Config
	log     *slog.Logger
	client  *client.Client
	leaders *leaders // nil without a detector
	events  event.Bus

	running atomic.Bool
	started time.Time // wall clock
	counters

	// writing is when the write that is under way was begun, nil for none.
	writing atomic.Pointer[time.Time]
	// batched is the size of the definitions changed in this batch, in bytes; the loop's alone.
	batched int

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
	var leading *leaders
	mostPause := cfg.MaxBackoff
	if cfg.Detector != nil {
		leading = newLeaders(cfg.Detector, log)
		cfg.Resolve = leading.resolve
		// Only one master is asked. It may be a dead one for as long as the election takes to notice that.
		mostPause = min(mostPause, max(cfg.MinBackoff, 500*time.Millisecond))
	}
	return &Marathon{
		cfg: cfg, log: log, leaders: leading, started: cfg.Now(), inbox: make(chan work, inboxSize), stopped: make(chan struct{}),
		client: client.New(client.Config{
			Masters: cfg.Masters, Resolve: cfg.Resolve, Codec: codec.Protobuf, Transport: cfg.Transport, Log: log,
			MinBackoff: cfg.MinBackoff, MaxBackoff: mostPause,
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
	if m.leaders != nil {
		var wg sync.WaitGroup
		defer wg.Wait()
		following, cancel := context.WithCancel(ctx)
		defer cancel()
		wg.Go(func() { m.leaders.run(following, newPause(m.cfg)) })
	}
	pause := newPause(m.cfg)
	for {
		begun := time.Now()
		err := m.term(ctx)
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case errors.Is(err, errAbdicated):
			m.log.Info("leadership given up, and taken again")
		case errors.Is(err, ErrNotStored):
			m.log.Error("the store refuses what was decided; beginning again from what is stored", "err", err)
			if time.Since(begun) > goodTerm {
				pause.reset()
			}
			if !pause.wait(ctx) {
				return nil
			}
		default:
			return err
		}
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
	answer, err := m.loop(ctx, prober)
	cancel(errStopped)
	wg.Wait()
	prober.wait()
	m.mu.Lock()
	m.core, m.state, m.session = nil, nil, nil
	m.mu.Unlock()
	answer()
	// What is left in the inbox belongs to a state that is gone.
	for {
		select {
		case w := <-m.inbox:
			tell([]work{w}, ErrNotReady)
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

// loop feeds the core and carries out what it decides, until the term has to end. Whoever waits for something that was
// not done then, or not stored, is told by answer, which is to be called once nobody can see the core any more.
func (m *Marathon) loop(ctx context.Context, prober *prober) (answer func(), err error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var batch []work // what is to be done next, in order
	for {
		if len(batch) == 0 {
			select {
			case w := <-m.inbox:
				batch = m.gather(w)
			case <-timer.C:
			case <-ctx.Done():
				return func() {}, context.Cause(ctx)
			}
		}
		errs, decisions, wake, failed := m.decide(batch)
		err := m.carryOut(ctx, decisions, prober)
		answer := func() {
			for i := range errs {
				tell(batch[i:i+1], errors.Join(errs[i], err))
			}
		}
		if failed := errors.Join(failed, err); failed != nil {
			return func() { answer(); tell(batch[len(errs):], ErrNotReady) }, failed
		}
		answer()
		batch = batch[len(errs):]
		if wake.IsZero() {
			timer.Stop()
			continue
		}
		timer.Reset(max(0, wake.Sub(m.cfg.Now())))
	}
}

// tell gives whoever waits for the works their error.
func tell(batch []work, err error) {
	for _, w := range batch {
		if w.done != nil {
			w.done <- err
		}
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

// decide does the work of a batch and asks the core what follows from it. It does no more than fits well into one
// transaction: there is an error, or nil, for each work that was done, in order.
func (m *Marathon) decide(batch []work) (errs []error, decisions []scheduler.Decision, wake time.Time, failed error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.cfg.Now()
	errs = make([]error, 0, len(batch))
	m.batched = 0
	for _, w := range batch {
		if m.batched >= batchBytes {
			break
		}
		if w.ctx != nil && w.ctx.Err() != nil {
			errs = append(errs, context.Cause(w.ctx)) // nobody waits for it any more
			continue
		}
		errs = append(errs, w.do(now))
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
	if err := m.Health(); err != nil {
		return err
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

// Ready tells whether requests are answered; Health says why not.
func (m *Marathon) Ready() bool { return m.Health() == nil }

// Loaded tells whether the state is loaded, so that it can be read.
func (m *Marathon) Loaded() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.core != nil
}

// Health returns why requests are not answered: ErrNotReady while the state is not loaded, ErrStore while the store has not
// taken a write for longer than it may (Config.StorePatience). Nil is health.
func (m *Marathon) Health() error {
	if !m.Loaded() {
		return ErrNotReady
	}
	if begun := m.writing.Load(); begun != nil {
		if waited := time.Since(*begun); waited > m.cfg.StorePatience {
			return fmt.Errorf("%w: the present one was begun %s ago", ErrStore, waited.Round(time.Second))
		}
	}
	return nil
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
