package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"starling/agent/checkpoint"
	"starling/agent/containerizer"
	"starling/agent/executor"
	"starling/agent/ledger"
	"starling/agent/sandbox"
	"starling/agent/status"
)

// ErrStopped is returned to callers once the agent has stopped.
var ErrStopped = errors.New("agent has stopped")

// Agent is one agent. Fields below "loop" are touched by the loop alone once Run was called.
type Agent struct {
	cfg       Config
	layout    sandbox.Layout
	collector *sandbox.Collector
	rotator   *sandbox.Rotator
	meter     *sandbox.Meter // nil where nobody asks for the disk
	executor  executor.Config
	started   time.Time

	store     *checkpoint.Store
	committer *checkpoint.Committer

	// inbox carries functions to the loop. Nobody closes it; who sends watches done as well. It is so large that a burst
	// of results does not hold up the workers.
	inbox chan func()
	// done is closed when the loop has ended.
	done chan struct{}
	// ready is set once recovery is through.
	ready atomic.Bool
	ran   atomic.Bool
	// crash ends everything as a kill of the process would, for tests: nothing waiting is written.
	crash chan struct{}

	// launches and control bound the work on containers. They are two so that a container that does not die can't hold up
	// the start of others; slowLaunches are those that may wait for a network.
	launches, slowLaunches, control pool
	// checking holds the goroutines that check tasks, at most two for each; work ends them at the latest.
	checking sync.WaitGroup

	// loop
	epoch       epochs
	leader      leader
	otherLeader leader // to try where leader does not take reports: one that has called, while leader is a hint, or the reverse
	reports     reports
	tasks       map[status.Key]*task
	containers  map[string]*task // those of tasks, by id
	// runs are the executors that are not command tasks' own, runIDs all runs of such that are not over, by container.
	runs         map[runKey]*run
	runIDs       map[string]*run
	frameworks   map[string]*framework
	ledger       *ledger.Ledger
	made         reservations
	streams      *status.Streams
	ended        *checkpoint.Ended
	lost         []string
	rebooted     bool
	timers       timers
	problems     map[string]string
	unsaved      map[*task]struct{} // acknowledged, and that is not on disk
	unsavedTimer *timer
	changed      changes
	answers      []func()
	counters     Counters
	// watching is set while a full disk is looked at.
	watching bool
	// degraded is why containers can't be started; empty while they can.
	degraded string
	// draining is set while no tasks are taken and those that there are end; leaving once the agent is gone for good.
	draining *checkpoint.Drain
	leaving  bool
	// orphans are running containers that are no tasks.
	orphans map[string]struct{}
	// nested are the containers that were launched over the API, by name; waiting those who wait for the end of one, waiters in
	// all; inputs the containers whose input somebody is attached to.
	nested         map[string]*nested
	nestedSequence uint64
	waiting        map[string][]chan containerizer.Exit
	waiters        int
	inputs         map[string]bool
	// stopping is set once Run is to end, impatient once it waited for tasks long enough.
	stopping, impatient bool
	// ending is set when tasks are to end before Run does.
	ending bool
	// work is the context of what the loop starts: it ends when a stop has waited long enough.
	work context.Context
}

// New opens the work directory, reads what an earlier life left there, and publishes it in the record of the node. It
// starts nothing; a second agent on the same directory is refused.
func New(cfg Config) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("cannot configure agent: %w", err)
	}
	// What is opened in sandboxes is opened without following links, those included that are the operator's.
	err := os.MkdirAll(cfg.WorkDir, 0o755)
	if err == nil {
		cfg.WorkDir, err = filepath.EvalSymlinks(cfg.WorkDir)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use work directory: %w", err)
	}
	store, loaded, err := checkpoint.Open(filepath.Join(cfg.WorkDir, "meta"), checkpoint.Options{
		AgentID: cfg.ID, BootID: bootID(), Reserve: cfg.DiskReserve, Now: cfg.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot open checkpoints: %w", err)
	}
	layout := sandbox.New(cfg.WorkDir, cfg.ID).WithLog(cfg.Log)
	if err := layout.Init(); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	a := &Agent{
		cfg: cfg, layout: layout, started: cfg.Now(), store: store, committer: checkpoint.NewCommitter(store),
		collector: sandbox.NewCollector(sandbox.CollectorConfig{
			Layout: layout, Delay: cfg.GCDelay, Headroom: cfg.GCHeadroom, Interval: cfg.GCInterval, Log: cfg.Log,
		}),
		executor: executor.Config{
			AgentID: cfg.ID, Address: cfg.Address, Port: cfg.Port, ShutdownGrace: cfg.ShutdownGrace,
			RecoveryTimeout: cfg.RecoveryTimeout, SubscriptionBackoff: cfg.ExecutorReregistrationTimeout,
			Environment: cfg.ExecutorEnvironment, SwitchUser: cfg.SwitchUser, SandboxDirectory: cfg.SandboxDirectory,
		},
		inbox: make(chan func(), 256), done: make(chan struct{}), crash: make(chan struct{}),
		launches: pool{max: 8}, slowLaunches: pool{max: 64}, control: pool{max: 16},
		tasks: map[status.Key]*task{}, containers: map[string]*task{}, runs: map[runKey]*run{}, runIDs: map[string]*run{}, frameworks: map[string]*framework{},
		ledger: ledger.New(cfg.Resources), streams: status.New(cfg.RetryFirst, cfg.RetryMax), ended: loaded.Ended,
		lost: loaded.Lost, rebooted: loaded.Rebooted, problems: map[string]string{}, unsaved: map[*task]struct{}{},
		changed: changes{tasks: map[status.Key]*task{}, runs: map[runKey]*run{}}, orphans: map[string]struct{}{},
		draining: loaded.Drain, leaving: loaded.Gone,
		nested: map[string]*nested{}, waiting: map[string][]chan containerizer.Exit{}, inputs: map[string]bool{},
		made: reservations{running: map[status.UUID]*operation{}, updates: status.New(cfg.RetryFirst, cfg.RetryMax)},
	}
	a.newBounds()
	a.epoch.obeyed, a.epoch.durable = loaded.Epoch, loaded.Epoch
	for i, p := range cfg.Problems {
		a.problems[fmt.Sprintf("config %d", i)] = p
	}
	for _, p := range loaded.Problems {
		a.problem(p.Path, p.String())
		a.counters.RecoveryErrors++
		cfg.Log.Error("checkpoint did not read", "path", p.Path, "kept", p.Kept, "err", p.Err)
	}
	a.restoreReservations(loaded.Resources)
	a.restore(loaded)
	a.restoreNested(loaded.Nested)
	if store.Low() {
		a.diskWorks()
	}
	a.changed.all = true
	if len(loaded.Lost) == 0 {
		a.publish()
	} // Otherwise containers may turn out to be tasks (regain), and a record without those would say that they are gone.
	return a, nil
}

// Close gives the work directory free; it is needed only for an agent that was never run.
func (a *Agent) Close() error { return a.store.Close() }

// ID returns the agent id.
func (a *Agent) ID() string { return a.cfg.ID }

// Config returns the configuration. What it holds must not be modified.
func (a *Agent) Config() Config { return a.cfg }

// Ready tells whether recovery is through; until then the API answers 503.
func (a *Agent) Ready() bool { return a.ready.Load() }

// Run finds the containers of an earlier life and then serves until ctx ends. Tasks go on afterwards, unless the
// configuration says otherwise. The error is ErrGone where a leader has told this agent that it is gone for good. It can be
// called once.
func (a *Agent) Run(ctx context.Context) (err error) {
	if a.ran.Swap(true) {
		return errors.New("cannot run an agent twice")
	}
	defer a.store.Close()
	defer func() { // nothing writes any more
		if err == nil && a.left() {
			err = a.renew()
		}
	}()
	work, endWork := context.WithCancel(context.WithoutCancel(ctx))
	defer endWork()
	a.work = work

	// The committer outlives the loop and the workers, so that what they submitted last is written.
	var committing sync.WaitGroup
	commit, endCommit := context.WithCancel(context.WithoutCancel(ctx))
	committing.Go(func() { a.committer.Run(commit) })
	defer committing.Wait()
	defer endCommit()

	if err := a.recover(ctx); err != nil {
		close(a.done)
		return err
	}
	var helpers sync.WaitGroup
	help, endHelp := context.WithCancel(ctx)
	helpers.Go(func() { a.collector.Run(help) })
	helpers.Go(func() { a.rotator.Run(help) })
	if a.meter != nil {
		helpers.Go(func() { a.meter.Run(help) })
	}
	helpers.Go(func() { a.watchLeader(help) })
	degraded := a.degraded
	helpers.Go(func() { a.watchContainerizer(help, degraded) })
	a.removeDestroyed()
	a.awaitExecutors()
	a.ready.Store(true)
	a.cfg.Log.Info("agent is ready", "agent_id", a.cfg.ID, "tasks", len(a.tasks), "epoch", a.epoch.obeyed)

	a.loop(ctx)

	close(a.done)
	for _, t := range a.tasks {
		a.stopChecks(t)
	}
	a.closeSessions()
	endHelp()
	a.stopWorkers(endWork)
	helpers.Wait()
	return nil
}

// stopWorkers waits for work under way to end by itself, for a while: a launch that is cut off may be neither done nor
// undone. Nobody reads the results any more: the next life finds out.
func (a *Agent) stopWorkers(endWork func()) {
	patience := a.cfg.StopTimeout / 2
	select {
	case <-a.crash:
		patience = 0
	default:
	}
	cut := time.AfterFunc(patience, endWork)
	defer cut.Stop()
	a.launches.drop()
	a.slowLaunches.drop()
	a.control.drop()
	a.reports.wg.Wait()
	a.checking.Wait()
}

// loop owns the state until ctx ends.
func (a *Agent) loop(ctx context.Context) {
	exits := a.cfg.Containerizer.Exits()
	wake := time.NewTimer(0)
	defer wake.Stop()
	stop := ctx.Done()
	for {
		select {
		case f := <-a.inbox:
			f()
			a.drain()
		case exit, ok := <-exits:
			if !ok {
				exits = nil
				a.problem("containerizer", "the containerizer has ended: exits of tasks are not seen until the agent is restarted")
				break
			}
			a.exited(exit)
		case <-wake.C:
		case <-stop:
			stop = nil
			a.stop(context.Cause(ctx))
		case <-a.crash:
			a.committer.Abandon()
			return
		}
		now := time.Now()
		a.timers.fire(now)
		a.publish()
		for _, answer := range a.answers {
			answer()
		}
		a.answers = nil
		a.send(now)
		if a.left() {
			return
		}
		if a.stopping && (!a.ending || a.impatient || a.allEnded()) {
			return
		}
		if at, ok := a.nextWake(); ok {
			wake.Reset(max(0, time.Until(at)))
		} else {
			wake.Stop()
		}
	}
}

// drain takes what else is in the inbox, so that a burst is published once; not without end, for others wait too.
func (a *Agent) drain() {
	for range cap(a.inbox) {
		select {
		case f := <-a.inbox:
			f()
		default:
			return
		}
	}
}

func (a *Agent) nextWake() (at time.Time, ok bool) {
	take := func(t time.Time, have bool) {
		if have && (!ok || t.Before(at)) {
			at, ok = t, true
		}
	}
	take(a.timers.next())
	if a.canSend() {
		take(a.streams.Next())
		take(a.made.updates.Next())
	}
	return at, ok
}

// stop begins the end of the loop. With EndTasksAtStop it gives all tasks their grace period, and then no more.
func (a *Agent) stop(cause error) {
	a.stopping = true
	a.ending = a.cfg.EndTasksAtStop && !errors.Is(cause, ErrGone)
	if !a.ending {
		return
	}
	now := time.Now()
	half := a.cfg.StopTimeout / 2
	for _, r := range a.runIDs {
		a.shutdownRun(r, &half)
	}
	for _, t := range a.tasks {
		a.perform(t, t.cmd.Kill(now, nil))
	}
	a.endAllNested()
	a.timers.at(now.Add(half), func() {
		for _, t := range a.tasks {
			a.perform(t, t.cmd.Kill(time.Now(), noGrace))
		}
	})
	a.timers.at(now.Add(a.cfg.StopTimeout), func() { a.impatient = true })
}

func (a *Agent) allEnded() bool {
	for _, t := range a.tasks {
		if !t.cmd.Ended() || !t.clean {
			return false
		}
	}
	for _, r := range a.runIDs {
		if !r.clean {
			return false
		}
	}
	for _, n := range a.nested {
		if n.exit == nil {
			return false
		}
	}
	return true
}

// post hands a result to the loop; it is dropped once the loop has ended.
func (a *Agent) post(f func()) {
	select {
	case a.inbox <- f:
	case <-a.done:
	}
}

// do runs f on the loop and waits for it.
func (a *Agent) do(ctx context.Context, f func()) error {
	ran := make(chan struct{})
	select {
	case a.inbox <- func() { f(); close(ran) }:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.done:
		return ErrStopped
	}
	select {
	case <-ran:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.done:
		return ErrStopped
	}
}

// problem notes something for people to see with the node's health; an empty text takes it back.
func (a *Agent) problem(what, text string) {
	if a.problems[what] == text {
		return
	}
	if text == "" {
		delete(a.problems, what)
	} else {
		a.problems[what] = text
	}
	a.changed.health = true
}
