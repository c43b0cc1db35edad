// Package process runs containers as plain processes under the node's supervisor, in cgroups where those can be had.
//
// The supervisor holds the truth; this package holds a connection to it, which it makes again, starting a new
// supervisor if need be, whenever it breaks. Beside that it holds a handle on each first process of its own: so it can
// end a container while the supervisor hangs, and learn of an exit that happened while there was no supervisor. A life that
// begins while the supervisor hangs knows the containers from its records.
//
// Limits: where there are cgroup controllers for them, CPUs is a share under contention (a cap with Config.CPUQuota) and
// MemBytes a limit, at least 32 MiB, beyond which the container ends: the kernel ends one of its processes, whichever, and
// the rest is ended after it. Elsewhere there are none, and one line of the log says so at the start.
//
// New makes no process and no goroutine; Recover does, and Close ends the goroutines, never the supervisor or a
// container. Methods other than Recover and Close may be called from any goroutine in between.
package process

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"starling/agent/containerizer"
	"starling/agent/containerizer/process/cgroup"
	"starling/agent/supervisor"
)

// Config is what New takes.
type Config struct {
	// Dir is the supervisor's folder; it is made if it lacks, and must stay the same for the containers to be found
	// again.
	Dir string
	// Supervisor is the argv that runs a supervisor, without its flags: {"/usr/bin/starling", "supervisor"}. The program
	// is named by an absolute path.
	Supervisor []string
	// Env is added to the environment of the supervisor. No container sees it.
	Env []string
	// IdleExit is how long a supervisor without containers and clients stays; 0 is for ever.
	IdleExit time.Duration
	// RecoverWithin is how long Recover waits for the supervisor before its records have to do; zero is three seconds.
	RecoverWithin time.Duration
	// NoCgroups does without cgroups even where they can be had.
	NoCgroups bool
	// CgroupParent is the cgroup below which those of the containers stand, as seen from where the hierarchies are
	// mounted; empty is the agent's own.
	CgroupParent string
	// CPUQuota makes CPUs a cap, too.
	CPUQuota bool
	// NoSwap makes the limit of memory one of memory and swap together.
	NoSwap bool
	// Pids is how many processes and threads a container may have, where that is counted; 0 is no limit.
	Pids int64
	Log  *slog.Logger
}

// Validate tells all that is wrong with the configuration.
func (c *Config) Validate() error {
	var faults []error
	if c.Dir == "" {
		faults = append(faults, errors.New("folder of the supervisor is not set"))
	}
	if len(c.Supervisor) == 0 || !filepath.IsAbs(c.Supervisor[0]) {
		faults = append(faults, fmt.Errorf("command of the supervisor %q does not begin with an absolute path", c.Supervisor))
	}
	if strings.ContainsAny(c.CgroupParent, "\n\x00") || slices.Contains(strings.Split(c.CgroupParent, "/"), "..") {
		faults = append(faults, fmt.Errorf("root of the cgroups %q is no path of a cgroup", c.CgroupParent))
	}
	if c.IdleExit < 0 {
		faults = append(faults, fmt.Errorf("idle exit %v is negative", c.IdleExit))
	}
	if c.RecoverWithin < 0 {
		faults = append(faults, fmt.Errorf("time to recover within, %v, is negative", c.RecoverWithin))
	}
	return errors.Join(faults...)
}

// Containerizer runs containers as processes. It implements containerizer.Containerizer.
type Containerizer struct {
	containerizer.Without

	cfg    Config
	log    *slog.Logger
	tree   *cgroup.Tree
	ensure supervisor.Config
	// upgraded is set once the supervisor was asked to become another program; whoever connects has it, one at a time.
	upgraded bool

	// exits is fed by pump, which closes it.
	exits chan containerizer.Exit
	// sessions has an element for each process beside the first ones.
	sessions chan struct{}
	// wg holds all goroutines; they end with life, which stop ends.
	wg   sync.WaitGroup
	life context.Context
	stop context.CancelFunc

	mu      sync.Mutex
	entries map[string]*entry
	// client is nil while there is no connection; online is closed when there is one, and replaced when it breaks.
	client *supervisor.Client
	online chan struct{}
	// ending is set while the supervisor is told to end: then no other is started.
	ending bool
	// expelled are the containers that nobody wants and that are not gone yet, true once they are being ended; gone, if set, is
	// called for each that is.
	expelled map[string]bool
	gone     func(id string)
	alarms   alarms
	// queue holds the exits that nobody has read yet, at most one for each container; more wakes pump.
	queue []containerizer.Exit
	more  chan struct{}
}

// entry is one container. Its fields are guarded by Containerizer.mu.
type entry struct {
	known supervisor.Container
	// handle is nil when the process could not be held, and once the exit is told.
	handle *supervisor.Handle
	// alarm is nil where there is none, and once the exit is told.
	alarm *alarm
	// ready is closed when the launch is over. Until then the entry keeps its id taken, and its exit is not told.
	ready chan struct{}
	// told is set when the exit went into the queue.
	told bool
}

// New prepares a containerizer; see Recover.
func New(cfg Config) (*Containerizer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg.Dir = dir
	if cfg.RecoverWithin == 0 {
		cfg.RecoverWithin = recoverPatience
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Containerizer{
		cfg: cfg, log: cfg.Log.With("component", "containerizer"),
		ensure: supervisor.Config{Dir: dir, Command: cfg.Supervisor, IdleExit: cfg.IdleExit, Env: cfg.Env},
		exits:  make(chan containerizer.Exit), sessions: make(chan struct{}, sessionsMax),
		entries: make(map[string]*entry), expelled: make(map[string]bool),
		online: make(chan struct{}),
		more:   make(chan struct{}, 1),
	}, nil
}

// Recover finds the supervisor, or starts it, and returns the containers that it holds, the ended ones too. The exits
// of the ended ones come through Exits as well. From a supervisor that does not answer within Config.RecoverWithin it returns what
// its records say, and an error that is containerizer.ErrDegraded; the connection is tried for on and on.
func (c *Containerizer) Recover(ctx context.Context) ([]containerizer.Container, error) {
	if c.life != nil {
		return nil, errors.New("containerizer was recovered before")
	}
	if err := c.findCgroups(); err != nil {
		return nil, err
	}
	client, found, err := c.connectSoon(ctx)
	if err != nil && !errors.Is(err, containerizer.ErrDegraded) {
		return nil, err
	}
	if c.tree.Has("memory") {
		if err := c.openAlarms(); err != nil {
			c.log.Error("cannot hear of the OOM killer", "err", err)
		}
	}
	c.life, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	containers := make([]containerizer.Container, 0, len(found))
	dirs := make(map[string]bool)
	for _, k := range found {
		for _, dir := range k.Cgroups {
			dirs[dir] = true
		}
		if client != nil && k.PID == 0 && k.Exit == nil {
			// It is being started for a life of the agent that is over: it ends when it is there.
			c.expelled[k.ID] = false
			continue
		}
		e := &entry{known: k, handle: c.hold(k), ready: closed()}
		if k.Exit == nil {
			c.arm(e, k.Cgroups)
		}
		c.mu.Lock()
		c.entries[k.ID] = e
		c.mu.Unlock()
		containers = append(containers, outside(k))
	}
	if client != nil {
		// Damaged records do not tell their cgroups, so without a supervisor nobody knows which are left over.
		c.tree.Sweep(func(dir string) bool { return dirs[dir] })
	}
	c.wg.Go(c.pump)
	c.wg.Go(c.hearAlarms)
	c.wg.Go(func() { c.keepConnected(client, found) })
	return containers, err
}

// Close ends the connection and the goroutines, and closes Exits. Containers and supervisor go on.
func (c *Containerizer) Close() error {
	if c.life == nil {
		return nil
	}
	c.stop()
	c.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		c.releaseLocked(e)
	}
	c.closeAlarms()
	return nil
}

// StopSupervisor ends the supervisor, which works only while no container runs, and then closes the containerizer. It is
// for those who want to leave nothing behind: others let the supervisor wait for the next life of the agent.
func (c *Containerizer) StopSupervisor(ctx context.Context) error {
	client, err := c.await(ctx)
	if err != nil {
		return err
	}
	c.setEnding(true)
	if err := client.Stop(ctx); err != nil {
		c.setEnding(false)
		return fmt.Errorf("cannot end the supervisor: %w", err)
	}
	select {
	case <-client.Done():
	case <-ctx.Done():
	}
	return c.Close()
}

func (c *Containerizer) setEnding(ending bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ending = ending
}

// Exits delivers each exit once; see containerizer.Containerizer.
func (c *Containerizer) Exits() <-chan containerizer.Exit { return c.exits }

// Check reports whether the supervisor answers, within two seconds. While it does not, containers go on, can be
// signalled and destroyed; none can be launched.
func (c *Containerizer) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return c.ask(ctx, func(client *supervisor.Client) error {
		if _, err := client.Hello(ctx); err != nil {
			return fmt.Errorf("supervisor does not answer: %w", err)
		}
		return nil
	})
}

// findCgroups sees what can be had, and says what can't.
func (c *Containerizer) findCgroups() error {
	if c.cfg.NoCgroups {
		c.tree = new(cgroup.Tree)
		c.log.Info("containers are not limited", "reason", "cgroups are switched off")
		return nil
	}
	sum := sha256.Sum256([]byte(c.cfg.Dir))
	c.tree = cgroup.Find(cgroup.Config{Name: "starling-" + hex.EncodeToString(sum[:4]), Parent: c.cfg.CgroupParent})
	if lacks := c.tree.Lacks(); lacks != "" {
		level := slog.LevelInfo
		if c.cfg.CgroupParent != "" && !c.tree.Tracks() {
			level = slog.LevelWarn // somebody meant them to be
		}
		c.log.Log(context.Background(), level, "containers are not fully limited", "reason", lacks)
	}
	own, err := c.tree.Supervisor()
	if err != nil {
		c.log.Warn("supervisor gets no cgroup of its own", "err", err)
	}
	c.ensure.Cgroups = own
	return nil
}

// hold opens a handle on the first process, if it still runs.
func (c *Containerizer) hold(k supervisor.Container) *supervisor.Handle {
	if k.Exit != nil {
		return nil
	}
	h, err := supervisor.OpenHandle(k.PID, k.Ticks)
	if err != nil {
		// It has ended: the supervisor will tell.
		return nil
	}
	return h
}

// releaseLocked gives back what is held of the processes of a container. Called with mu held.
func (c *Containerizer) releaseLocked(e *entry) {
	c.disarmLocked(e)
	if e.handle != nil {
		e.handle.Close()
		e.handle = nil
	}
}

// outside is what the agent sees of a container.
func outside(k supervisor.Container) containerizer.Container {
	out := containerizer.Container{ID: k.ID, PID: k.PID, Started: k.Started, Note: k.Note}
	if k.Exit != nil {
		e := outsideExit(k)
		out.Exit = &e
	}
	return out
}

func outsideExit(k supervisor.Container) containerizer.Exit {
	e := containerizer.Exit{ID: k.ID, Known: k.Exit.Known, Status: k.Exit.Status, OOM: k.Exit.OOM, At: k.Exit.At}
	if e.OOM {
		e.MemLimit, e.MemPeak = cgroup.ReadMemory(k.Cgroups)
	}
	return e
}

func closed() chan struct{} {
	ch := make(chan struct{})
	close(ch)
	return ch
}
