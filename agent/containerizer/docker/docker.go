package docker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"path/filepath"
	"sync"
	"time"

	"starling/agent/containerizer"
	"starling/agent/network/resolv"
	"starling/agent/supervisor"
	"starling/master/mesos"
)

// Config is what New takes.
type Config struct {
	// AgentID is the id of the agent, which goes on every container. Containers with the same Dir and another id are
	// orphans.
	AgentID string
	// Dir is the state folder; it is made if it lacks, and must stay the same for the containers to be found again.
	Dir string
	// Host is the engine's address: the path of a socket, unix://... or tcp://...; the last needs the environment variables
	// of Docker for TLS. Empty is what DOCKER_HOST says, or else /var/run/docker.sock.
	Host string
	// SandboxDirectory is where containers see their sandbox. Default /mnt/mesos/sandbox.
	SandboxDirectory string
	// Auth is what registries ask for.
	Auth Auth
	// RemoveDelay is how long the engine keeps a container after Remove; 0 is not at all.
	RemoveDelay time.Duration
	// KillOrphans ends and removes orphans; otherwise they are told in the log and left alone.
	KillOrphans bool
	// StopTimeout is how long Destroy leaves a container after the stop signal; 0 kills at once.
	StopTimeout time.Duration
	// CPUQuota makes CPUs a cap, too; LimitSwap counts swap against the limit of memory.
	CPUQuota, LimitSwap bool
	// AllowedHostPaths are the only folders of the node whose contents containers may have as volumes; empty is all.
	AllowedHostPaths []string
	// ForbidPrivileged refuses containers with more rights than the engine gives to all: privileged ones, and those with
	// parameters that add rights or devices, or take part in namespaces of the node.
	ForbidPrivileged bool
	// DNS are the name servers of containers that name none by parameters, by their network.
	DNS *resolv.Defaults
	// PullTimeout bounds the pull of an image, and PullStall the time within it without a word from the engine. Defaults 15
	// minutes and 2 minutes.
	PullTimeout, PullStall time.Duration
	Log                    *slog.Logger
}

// Validate tells all that is wrong with the configuration, but for the address of the engine.
func (c *Config) Validate() error {
	var faults []error
	if c.Dir == "" {
		faults = append(faults, errors.New("state folder of the Docker containerizer is not set"))
	}
	if c.SandboxDirectory != "" && !path.IsAbs(c.SandboxDirectory) {
		faults = append(faults, fmt.Errorf("sandbox directory %q is not an absolute path", c.SandboxDirectory))
	}
	for name, d := range map[string]time.Duration{
		"remove delay": c.RemoveDelay, "stop timeout": c.StopTimeout, "pull timeout": c.PullTimeout, "pull stall": c.PullStall,
	} {
		if d < 0 {
			faults = append(faults, fmt.Errorf("%s %v is negative", name, d))
		}
	}
	return errors.Join(faults...)
}

// Containerizer runs containers by a Docker engine. It implements containerizer.Containerizer.
type Containerizer struct {
	containerizer.Without

	cfg    Config
	log    *slog.Logger
	engine engine
	// socket is the path of the engine's socket, if it has one.
	socket string
	// owner is what labelOwner says of our containers.
	owner string
	files files
	pulls pulls
	// settling bounds how many ends are looked into at a time, starting how many containers are made: the engine does not get
	// faster by more of them.
	settling, starting chan struct{}

	// exits is fed by pump, which closes it.
	exits chan containerizer.Exit
	// wg holds all goroutines; they end with life, which stop ends.
	wg   sync.WaitGroup
	life context.Context
	stop context.CancelFunc
	// wake makes the next look come at once.
	wake chan struct{}

	mu      sync.Mutex
	entries map[string]*entry
	// away is why the engine cannot be used; nil while it answers.
	away error
	// unsorted is set until the engine's list was compared with what is known.
	unsorted bool
	// removals are the containers that the engine still keeps after Remove.
	removals map[string]removal
	// queue holds the exits that nobody has read yet, at most one for each container; more wakes pump.
	queue []containerizer.Exit
	more  chan struct{}
}

// entry is one container. Its fields are guarded by Containerizer.mu, but for those that never change.
type entry struct {
	id     string
	record record
	// handle holds the first process, if it is on this machine; nil after the exit was told.
	handle *supervisor.Handle
	// ready is closed when the launch is over; until then cancel gives it up.
	ready  chan struct{}
	cancel context.CancelFunc
	// copied is closed when all output is in the files, told when the exit went into the queue.
	copied, told chan struct{}
	// settled is set while the end is looked into.
	settled bool
	// died is what an event said of the end, oom what the kernel counted then.
	died *int
	oom  bool
	// doomed is set once Destroy was called, gone since when its process is seen to have ended with the engine away.
	doomed bool
	gone   time.Time
}

func newEntry(id string) *entry {
	return &entry{id: id, ready: make(chan struct{}), copied: make(chan struct{}), told: make(chan struct{})}
}

func isClosed(ch chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
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
	if cfg.SandboxDirectory == "" {
		cfg.SandboxDirectory = "/mnt/mesos/sandbox"
	}
	if cfg.PullTimeout == 0 {
		cfg.PullTimeout = 15 * time.Minute
	}
	if cfg.PullStall == 0 {
		cfg.PullStall = 2 * time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	client, err := dial(cfg.Host)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(dir))
	return &Containerizer{
		cfg: cfg, log: cfg.Log.With("component", "docker"), engine: client, socket: client.socket(),
		owner: hex.EncodeToString(sum[:8]), files: files{dir: filepath.Join(dir, "containers")},
		settling: make(chan struct{}, 16), starting: make(chan struct{}, 8),
		exits: make(chan containerizer.Exit), wake: make(chan struct{}, 1), more: make(chan struct{}, 1),
		entries: make(map[string]*entry), removals: make(map[string]removal),
	}, nil
}

// Close ends all goroutines and closes Exits. Containers go on.
func (c *Containerizer) Close() error {
	if c.life == nil {
		return c.engine.Close()
	}
	c.stop()
	c.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		e.release()
	}
	return c.engine.Close()
}

// Exits delivers each exit once; see containerizer.Containerizer.
func (c *Containerizer) Exits() <-chan containerizer.Exit { return c.exits }

// Check reports whether the engine answers, within a few seconds. While it does not, containers go on and can be
// signalled and destroyed where they are on this machine; none can be launched.
func (c *Containerizer) Check(ctx context.Context) error {
	if err := c.engine.Ping(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.away
}

// Usable returns why a container cannot be launched just now, without asking the engine.
func (c *Containerizer) Usable(*mesos.ContainerInfo) error { return c.usable() }

// usable returns why the engine cannot be used just now, as far as that is known without asking it.
func (c *Containerizer) usable() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.away
}

// pump delivers the exits in the queue.
func (c *Containerizer) pump() {
	defer close(c.exits)
	for {
		c.mu.Lock()
		var next *containerizer.Exit
		if len(c.queue) > 0 {
			next = &c.queue[0]
			c.queue = c.queue[1:]
		}
		c.mu.Unlock()
		if next == nil {
			select {
			case <-c.more:
			case <-c.life.Done():
				return
			}
			continue
		}
		select {
		case c.exits <- *next:
		case <-c.life.Done():
			return
		}
	}
}

// tell writes an exit down and delivers it, unless that was done.
func (c *Containerizer) tell(e *entry, exit containerizer.Exit) {
	c.mu.Lock()
	if e.record.Exit != nil && isClosed(e.told) {
		c.mu.Unlock()
		return
	}
	if e.record.Exit == nil {
		e.record.Exit = &exit
	}
	r := e.record
	c.mu.Unlock()
	c.save(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	if isClosed(e.told) {
		return
	}
	close(e.told)
	e.release()
	c.queue = append(c.queue, *r.Exit)
	nudge(c.more)
}

// save writes a record. A record that cannot be written costs what the engine does not know: it is told, and the
// container goes on.
func (c *Containerizer) save(r record) {
	if err := c.files.save(r); err != nil {
		c.log.Error("cannot write down the state of a container", "container_id", r.ID, "err", err)
	}
}

func (e *entry) release() {
	if e.handle != nil {
		e.handle.Close()
		e.handle = nil
	}
}

// nudge wakes whoever waits for a channel with room for one.
func nudge(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// pause waits, and reports whether the containerizer goes on.
func (c *Containerizer) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.life.Done():
		return false
	}
}
