package master

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"starling/master/allocator"
	"starling/master/election"
)

// Master is one master of a cluster. See the package comment for who owns what.
type Master struct {
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	rng     *rand.Rand
	started time.Time // wall clock

	running atomic.Bool
	// inbox carries work to the loop; it is never closed. Its size only smooths bursts: senders wait when it is full.
	inbox chan work
	// follows is set once the mesh has been read, and is followed from then on.
	follows atomic.Bool
	// stopped is closed by Run once the loop has ended.
	stopped chan struct{}

	// standing and view are written by the loop and read by anyone; version counts the changes to the loop's state.
	standing atomic.Pointer[Standing]
	view     atomic.Pointer[View]
	// viewAsked is the view that readers wait for and that the loop has not begun to make; nil when there is none.
	viewing   sync.Mutex
	viewAsked *viewRequest // guarded by viewing
	version   atomic.Uint64
	// cacheHits counts the requests that an encoding made for others has answered.
	cacheHits atomic.Uint64
	// knownEpoch is the highest epoch that this master has heard of, see heardOf.
	knownEpoch atomic.Uint64

	// All below belongs to the loop.

	term       *term // nil while not leading
	elected    time.Time
	settled    bool // the copy of the mesh may be trusted to be complete
	frameworks map[string]*framework
	completed  []*framework // oldest first
	agents     map[string]*agent
	inOrder    []*agent // see agentsInOrder
	tasks      map[taskKey]*task
	// orphans are those of the tasks, by agent id, whose agents the mesh has forgotten: given up, and kept to be shown.
	orphans    map[string]map[taskKey]*task
	offers     map[string]*offer
	operations map[string]*operation // by uuid
	inverse    map[string]*inverseOffer
	// askAbout are the agents whose frameworks may have to be asked by inverse offers, or not any more.
	askAbout map[*agent]bool
	// upkeep, restrictions (by agent id) and gone are what operators decided; outcasts are the agents, by id, that are in the
	// mesh and not admitted because of it.
	upkeep       upkeep
	restrictions map[string]*restriction
	// freed are the agents, by id, that are to hear that they drain no longer; false until that is stored.
	freed     map[string]bool
	gone      goneAgents
	outcasts  map[string]*outcast
	alloc     *allocator.Allocator // nil while not leading
	leaders   map[string]leaderEntry
	detected  *election.Candidate // the leader as the detector has it; nil when it has none
	withdrawn string              // its id, once it has withdrawn its claim in the mesh
	// weights and quotas are by role; both maps are replaced, never modified. A fault keeps them from being set.
	weights                  map[string]float64
	quotas                   map[string]allocator.Quota
	weightsFault, quotaFault error
	counters                 counters
	describes                describeQueue
	away                     int  // how many agents are dead to the mesh, or suspected
	frozen                   bool // too many of them at once to believe it
	probe                    probe
	audience                 audience
	told                     told

	allocTimer *time.Timer // gathers changes before an allocation
	allocArmed bool
	allocAsked time.Time   // when the first of them came
	wakeTimer  *time.Timer // the next end of a filter
	offerTimer *time.Timer // the next offer that times out
}

// work is a function for the loop. One that only looks leaves the version, and with it the cached view, as it is.
type work struct {
	f     func()
	looks bool
}

// New returns a master that does nothing until Run.
func New(cfg Config) (*Master, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("cannot make a master: %w", err)
	}
	m := &Master{
		cfg:        cfg,
		log:        cfg.Log.With("component", "master"),
		now:        cfg.Now,
		rng:        cfg.Rand,
		inbox:      make(chan work, 256),
		stopped:    make(chan struct{}),
		frameworks: make(map[string]*framework),
		agents:     make(map[string]*agent),
		tasks:      make(map[taskKey]*task),
		orphans:    make(map[string]map[taskKey]*task),
		offers:     make(map[string]*offer),
		operations: make(map[string]*operation),
		inverse:    make(map[string]*inverseOffer),
		askAbout:   make(map[*agent]bool),
		outcasts:   make(map[string]*outcast),
		leaders:    make(map[string]leaderEntry),
		weights:    cfg.Weights,
		counters:   newCounters(),
		told:       newTold(),
	}
	if m.now == nil {
		m.now = time.Now
	}
	if m.rng == nil {
		m.rng = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	m.started = m.now()
	m.standing.Store(&Standing{})
	return m, nil
}

// Run reads the mesh and stands for election until ctx ends, and returns nil then. It returns an error when contending is
// impossible. It may be called once.
func (m *Master) Run(ctx context.Context) error {
	if !m.running.CompareAndSwap(false, true) {
		return errors.New("a master runs only once")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	// The loop is the last to stop: the end of a term is work for it.
	quit := make(chan struct{})
	go m.loop(quit)
	defer func() { close(quit); <-m.stopped }()

	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	feed := m.cfg.Mesh.Feed()
	if err := m.do(ctx, m.readMesh); err != nil {
		return nil // ctx ended
	}
	m.follows.Store(true)
	wg.Go(func() { m.follow(ctx, feed) })
	if m.cfg.Detector != nil {
		wg.Go(func() { m.detect(ctx) })
	}
	settle := time.AfterFunc(m.cfg.Settle, func() { m.post(m.settle) })
	defer settle.Stop()

	err := m.cfg.Contender.Run(ctx, m.candidate(), m.lead)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("cannot stand for election: %w", err)
	}
	return nil
}

// loop runs everything that touches the master's state.
func (m *Master) loop(quit <-chan struct{}) {
	defer close(m.stopped)
	m.allocTimer, m.wakeTimer, m.offerTimer = stoppedTimer(), stoppedTimer(), stoppedTimer()
	defer func() {
		m.allocTimer.Stop()
		m.wakeTimer.Stop()
		m.offerTimer.Stop()
	}()
	for {
		select {
		case w := <-m.inbox:
			m.step(w)
		case <-m.allocTimer.C:
			m.allocArmed = false
			m.step(work{f: m.allocate})
		case <-m.wakeTimer.C:
			m.step(work{f: m.wantAllocation, looks: true})
		case <-m.offerTimer.C:
			m.step(work{f: m.expireOffers})
		case <-quit:
			return
		}
	}
}

// step runs one piece of work. A panic is a bug; it costs that piece alone, not the master.
func (m *Master) step(w work) {
	defer func() {
		if p := recover(); p != nil {
			m.counters.add("master/panics", 1)
			m.log.Error("master's loop panicked", "reason", p, "stack", string(debug.Stack()))
		}
	}()
	if !w.looks {
		m.version.Add(1)
	}
	w.f()
	m.tellFrameworks()
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// post hands f to the loop without waiting for it to run; it is lost when the loop has ended.
func (m *Master) post(f func()) {
	select {
	case m.inbox <- work{f: f}:
	case <-m.stopped:
	}
}

// do runs f on the loop and waits for it. After an error, f may still run, or not.
func (m *Master) do(ctx context.Context, f func()) error { return m.doWork(ctx, work{f: f}) }

// look is do for functions that change nothing.
func (m *Master) look(ctx context.Context, f func()) error {
	return m.doWork(ctx, work{f: f, looks: true})
}

func (m *Master) doWork(ctx context.Context, w work) error {
	if !m.running.Load() {
		return ErrStopped
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	done := make(chan struct{})
	var failed error // written before done is closed
	f := w.f
	w.f = func() {
		defer close(done)
		failed = errors.New("the master's loop has panicked") // unless f returns
		f()
		failed = nil
	}
	select {
	case m.inbox <- w:
	case <-m.stopped:
		return ErrStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-done:
		return failed
	case <-m.stopped:
		// The loop may have run it as the last thing.
		select {
		case <-done:
			return failed
		default:
			return ErrStopped
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// after posts f to the loop after d; stopping the timer stops it, unless it is on its way already.
func (m *Master) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() { m.post(f) })
}

// settle ends the time after the start in which the copy of the mesh may lack what others know.
func (m *Master) settle() {
	m.settled = true
	for _, f := range m.frameworks {
		for _, id := range slices.Collect(maps.Keys(f.kills)) {
			m.releaseKill(f, id)
		}
	}
	for _, a := range m.agents {
		m.watch(a)
	}
}
