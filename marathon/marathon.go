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

	"starling/marathon/app"
	"starling/marathon/deployment"
	"starling/marathon/event"
	"starling/marathon/event/callback"
	"starling/marathon/metric"
	"starling/marathon/scheduler"
	"starling/marathon/state"
	"starling/master/election"
	"starling/master/mesos/client"
	"starling/master/mesos/codec"
	"starling/master/store"
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

	// ErrTermEnded is returned where leadership ended while something was being stored: it may or may not take effect.
	ErrTermEnded = errors.New("leadership has ended meanwhile")

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
	leaders *leaders // of masters; nil without a detector
	office  *leaders // of this state; nil for a Marathon that is alone
	events  event.Bus
	sender  *callback.Sender // of callbacks; nil without
	memory  *memory
	carried atomic.Pointer[Carried] // what came of the last backup or restore, nil for none

	running  atomic.Bool
	started  time.Time // wall clock
	registry *metric.Registry
	counters
	// changing is how many changes of the definitions are under way.
	changing atomic.Int64
	// ActiveRequests is how many HTTP requests are being answered, kept by whoever answers them.
	ActiveRequests atomic.Int64

	// writing is when the write that is under way was begun, nil for none.
	writing atomic.Pointer[time.Time]
	// batched is the size of the definitions changed in this batch, in bytes; the loop's alone.
	batched int

	// orphansTold is how many orphans were written down last, at orphansTime; the loop's alone.
	orphansTold int
	orphansTime time.Time

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
	// What follows belongs to the term. documents takes its writes; nil while there is none. holds tells whether it lasts,
	// by the clock. leaving gets a token when it is to be given up in a moment. over is closed at its end.
	documents store.Store
	holds     func() error
	leaving   chan struct{}
	over      chan struct{}
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
	cfg.Scheduler.Task.Principal = cfg.Principal
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
	var office *leaders
	if cfg.Contender != nil {
		office = newLeaders(cfg.Election, log)
		office.changes = func(leader *election.Candidate) { tellLeader(log, &cfg, leader) }
	}
	m := &Marathon{
		cfg: cfg, log: log, leaders: leading, office: office, started: cfg.Now(), registry: metric.NewRegistry(cfg.Now), inbox: make(chan work, inboxSize), stopped: make(chan struct{}),
		client: client.New(client.Config{
			Masters: cfg.Masters, Resolve: cfg.Resolve, Codec: codec.Protobuf, Transport: cfg.Transport, Log: log,
			MinBackoff: cfg.MinBackoff, MaxBackoff: mostPause,
		}),
	}
	var err error
	if m.memory, err = newMemory(cfg.Memory, log); err != nil {
		return nil, err
	}
	m.client.Permit = m.permit
	m.touch()
	m.sender = m.newSender()
	return m, nil
}

// permit tells whether this Marathon may still speak to masters: a process that was frozen goes on where it was, before any
// timer tells it that its term is over.
func (m *Marathon) permit() error {
	m.mu.RLock()
	holds := m.holds
	m.mu.RUnlock()
	if holds == nil {
		return ErrNotReady
	}
	return holds()
}

// Run keeps a Marathon running until ctx ends: it loads the state and leads, when it is alone at once, among several while it
// is elected. It may be called once. It returns nil when ctx ended, and otherwise why going on would do harm; tasks are left
// alone in any case.
func (m *Marathon) Run(ctx context.Context) error {
	if m.running.Swap(true) {
		return errors.New("marathon runs already")
	}
	defer close(m.stopped)
	defer m.events.Close()
	defer m.client.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	following, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, l := range []*leaders{m.leaders, m.office} {
		if l != nil {
			wg.Go(func() { l.run(following, newPause(m.cfg)) })
		}
	}
	if m.office != nil {
		wg.Go(func() { m.learn(following) })
	}
	err := m.stand(ctx)
	if errors.Is(err, ErrFrameworkRemoved) {
		m.memory.keep("") // there is nothing left that could get lost
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// term is one period of leading: from the loading of the state until ctx ends, or leading does.
func (m *Marathon) term(parent context.Context, won election.Term) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(errStopped)
	documents, st, stored, err := m.load(ctx, won)
	if err != nil {
		return err
	}
	leaving, over := make(chan struct{}, 1), make(chan struct{})
	defer close(over)
	m.counters.reset() // before anything of this term is counted
	m.registry.Reset()
	m.mu.Lock()
	settings := m.cfg.Scheduler
	settings.App = m.cfg.App
	settings.Check = func(root *app.Group, plan *deployment.Plan) error { _, err := st.Check(root, plan); return err }
	core := scheduler.New(settings, m.cfg.Rand)
	core.Load(m.cfg.Now(), stored)
	m.core, m.state, m.elected, m.failed = core, st, m.cfg.Now(), nil
	m.documents, m.holds, m.leaving, m.over = documents, won.Holds, leaving, over
	if m.sender != nil {
		m.startCallbacks()
	}
	m.mu.Unlock()
	prober := newProber(ctx, m)
	var wg sync.WaitGroup
	wg.Go(func() { m.subscribe(ctx) })
	wg.Go(func() { m.farewell(ctx, leaving) })
	if m.sender != nil {
		sub := m.events.Subscribe(0) // by now: the loop does not wait until the sender runs
		wg.Go(func() { m.sender.Run(ctx, &m.events, sub) })
	}
	m.log.Info("leading", "epoch", won.Epoch, "apps", stored.Root.Len(), "instances", len(stored.Instances), "deployments", len(stored.Deployments))
	answer, err := m.loop(ctx, prober)
	cancel(errStopped)
	wg.Wait()
	prober.wait()
	m.mu.Lock()
	m.core, m.state, m.session, m.documents = nil, nil, nil, nil
	m.mu.Unlock()
	m.counters.reset() // those who don't lead have done nothing
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

// load reads the state, again and again while the store can't be reached. State that makes no sense is an error. Writes go to
// the store that it returns.
func (m *Marathon) load(ctx context.Context, won election.Term) (store.Store, *state.State, *scheduler.Stored, error) {
	pause := newPause(m.cfg)
	for {
		documents, st, stored, err := m.open(ctx, won)
		switch {
		case err == nil:
			for _, problem := range stored.Problems {
				m.log.Error("stored document can't be read; what it tells of is left alone", "reason", problem)
			}
			if stored.Restored {
				m.log.Warn("the state was restored from a backup; tasks that it does not know are left alone until somebody settles that")
			}
			return documents, st, stored, nil
		case ctx.Err() != nil:
			return nil, nil, nil, context.Cause(ctx)
		case errors.Is(err, errFenced):
			return nil, nil, nil, err
		case errors.Is(err, ErrStateLost), errors.Is(err, state.ErrNoFramework), errors.Is(err, state.ErrDamaged), errors.Is(err, state.ErrFormat):
			return nil, nil, nil, fmt.Errorf("cannot start: %w", err)
		}
		m.log.Warn("cannot load the state yet", "err", err)
		if !pause.wait(ctx) {
			return nil, nil, nil, context.Cause(ctx)
		}
	}
}

// open is one attempt to read the state, after it was claimed where there are others.
func (m *Marathon) open(ctx context.Context, won election.Term) (store.Store, *state.State, *scheduler.Stored, error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.PrepareTimeout)
	defer cancel()
	documents := m.cfg.Store
	if m.office != nil {
		claiming, cancel := context.WithTimeout(ctx, m.cfg.StoreTimeout)
		claimed, err := claim(claiming, documents, won, m.cfg.Address)
		cancel()
		if err != nil {
			return nil, nil, nil, err
		}
		documents = claimed
	}
	if err := m.takeOver(ctx, documents); err != nil {
		return nil, nil, nil, err
	}
	for {
		st, stored, err := state.Open(ctx, documents, m.cfg.KeepVersions)
		if err != nil {
			return nil, nil, nil, err
		}
		if again, err := m.checkLost(ctx, documents, stored); err != nil || !again {
			return documents, st, stored, err
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
		m.tellOrphans(m.cfg.Now())
		told := err
		if err != nil && !errors.Is(err, ErrNotStored) {
			told = fmt.Errorf("%w: %w", ErrTermEnded, err)
		}
		answer := func() {
			for i := range errs {
				tell(batch[i:i+1], errors.Join(errs[i], told))
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
	m.mu.RLock()
	loaded, over := m.core != nil, m.over
	m.mu.RUnlock()
	if !loaded {
		return ErrNotReady
	}
	if err := m.Health(); err != nil {
		return err
	}
	// What comes too late for its term is left in the inbox, and not done in the next: ctx has ended by then.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	select {
	case m.inbox <- work{do: do, ctx: ctx, done: done}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-over:
		return ErrNotReady
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-over:
	}
	select {
	case err := <-done: // it was told in the last moment
		return err
	default:
		return ErrNotReady
	}
}

// Ready tells whether requests can be answered, by this Marathon or by the leader; Health says why not.
func (m *Marathon) Ready() bool { return m.Health() == nil }

// Loaded tells whether the state is loaded, so that it can be read.
func (m *Marathon) Loaded() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.core != nil
}

// Health returns why requests are not answered: ErrNotReady while the state is not loaded, ErrStore while the store has not
// taken a write for longer than it may (Config.StorePatience). Nil is health. One that does not lead is healthy while it
// knows who does.
func (m *Marathon) Health() error {
	switch s := m.Standing(); {
	case s.Leads:
	case s.Leader != "":
		return nil
	default:
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
