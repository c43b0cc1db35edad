package libct

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"starling/agent/containerizer"
	"starling/agent/containerizer/console"
	"starling/agent/containerizer/process"
	"starling/master/mesos"
)

// Containerizer runs containers. It implements containerizer.Containerizer.
type Containerizer struct {
	cfg     Config
	log     *slog.Logger
	process *process.Containerizer

	// exits is fed by pump, which closes it.
	exits chan containerizer.Exit
	// wg holds all goroutines; they end with life, which stop ends.
	wg   sync.WaitGroup
	life context.Context
	stop context.CancelFunc

	// trash is how the folders begin that this life is removing; those of others are free for all.
	trash string

	ipc sync.Mutex // held while the IPC namespace of a group is made or given up

	mu sync.Mutex
	// held are the containers that have a folder, by id: true once what they held is given back, or is being.
	held map[string]bool
	// owed are those that could not give back what they held, until a later attempt could. Their ids stay taken.
	owed map[string]struct{}
	// retry is how long the first of these attempts waits.
	retry time.Duration
}

// New prepares a containerizer on top of p, which belongs to it then; see Recover.
func New(cfg Config, p *process.Containerizer) (*Containerizer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.SandboxDirectory == "" {
		cfg.SandboxDirectory = DefaultSandboxDirectory
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Containerizer{
		cfg: cfg, log: cfg.Log.With("component", "containerizer"), process: p,
		exits: make(chan containerizer.Exit), held: make(map[string]bool),
		owed: make(map[string]struct{}), retry: 5 * time.Second,
		trash: fmt.Sprintf("%s%d-%d-", trashPrefix, os.Getpid(), time.Now().UnixNano()),
	}, nil
}

// Recover finds the containers of an earlier life, and gives back what is left of those that are gone. See
// containerizer.Containerizer.
func (c *Containerizer) Recover(ctx context.Context) ([]containerizer.Container, error) {
	if c.life != nil {
		return nil, errors.New("containerizer was recovered before")
	}
	c.process.OnGone(c.lateGone)
	c.life, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	found, err := c.process.Recover(ctx)
	if err != nil && !errors.Is(err, containerizer.ErrDegraded) {
		c.stop()
		c.life = nil
		return nil, err
	}
	c.say()
	known := make(map[string]bool, len(found))
	for i := range found {
		k := &found[i]
		known[k.ID] = true
		if _, err := os.Stat(c.folder(k.ID)); err != nil {
			continue
		}
		if b, err := readBundle(c.folder(k.ID)); err == nil {
			k.Disk = c.disk(b)
		}
		c.mu.Lock()
		c.held[k.ID] = false
		c.mu.Unlock()
		if c.cfg.Networks != nil {
			if at, ok := c.cfg.Networks.Get(k.ID); ok {
				k.Networks = at.Infos
			}
		}
	}
	// From a supervisor that hangs nobody knows what is left over.
	sure := err == nil
	c.wg.Go(func() { c.collect(known, sure) })
	c.wg.Go(c.pump)
	return found, err
}

// say tells once what this node or this binary lacks.
func (c *Containerizer) say() {
	if why := c.lacks(); why != "" {
		c.log.Info("containers are plain processes only", "reason", why)
	} else if !seccompBuiltIn {
		c.log.Warn("containers have no seccomp filter", "reason", "this binary was built without libseccomp")
	}
	if folder, err := filepath.EvalSymlinks(filepath.Dir(c.cfg.Launcher[0])); err == nil && c.lacks() == "" && within(c.cfg.Dir, folder) {
		c.log.Warn("starting a container takes a copy of the program in memory", "reason", "the folder of the program holds that of the containers", "folder", folder)
	}
}

// lacks tells why there can't be more than plain processes here; it is empty where there can.
func (c *Containerizer) lacks() string {
	switch {
	case builtIn != "":
		return builtIn
	case os.Geteuid() != 0:
		return "the agent does not run as root"
	case !c.process.Tracks():
		return "there are no cgroups"
	}
	return ""
}

// Usable tells why a kind of container can't be had here; nil if it can. See containerizer.Composite.
func (c *Containerizer) Usable(info *mesos.ContainerInfo) error {
	demands := containerizer.Demands(info)
	if containerizer.IsDocker(info) {
		return fmt.Errorf("%w: a container of type DOCKER", containerizer.ErrUnsupported)
	}
	why := c.lacks()
	if len(demands) > 0 && why != "" {
		return fmt.Errorf("%w: %s cannot be had: %s", containerizer.ErrUnsupported, strings.Join(demands, ", "), why)
	}
	if info.GetMesos().GetImage() != nil && c.cfg.Images == nil {
		return fmt.Errorf("%w: there are no images on this agent", containerizer.ErrUnsupported)
	}
	return nil
}

// Check reports whether the supervisor answers; see process.Containerizer.
func (c *Containerizer) Check(ctx context.Context) error { return c.process.Check(ctx) }

// Close ends the goroutines and closes Exits; containers go on.
func (c *Containerizer) Close() error {
	err := c.process.Close()
	if c.life != nil {
		c.stop()
		c.wg.Wait()
	}
	return err
}

// StopSupervisor ends the supervisor, which works only while no container runs, and then closes the containerizer.
func (c *Containerizer) StopSupervisor(ctx context.Context) error {
	if err := c.process.StopSupervisor(ctx); err != nil {
		return err
	}
	return c.Close()
}

// Exits delivers each exit once; see containerizer.Containerizer.
func (c *Containerizer) Exits() <-chan containerizer.Exit { return c.exits }

// giveBackLimit is how long an exit waits for what its container held to be given back.
const giveBackLimit = 10 * time.Second

// pump passes exits on, each after what its container held is free. Containers do not wait for each other.
func (c *Containerizer) pump() {
	defer close(c.exits)
	var pending sync.WaitGroup
	defer pending.Wait()
	for exit := range c.process.Exits() {
		if !c.holds(exit.ID) {
			c.deliver(exit)
			continue
		}
		pending.Go(func() {
			c.giveBack(exit.ID)
			c.deliver(exit)
		})
	}
}

func (c *Containerizer) deliver(exit containerizer.Exit) {
	select {
	case c.exits <- exit:
	case <-c.life.Done():
	}
}

// holds tells whether a container is one with a folder.
func (c *Containerizer) holds(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.held[id]
	return ok
}

func (c *Containerizer) folder(id string) string {
	return filepath.Join(c.cfg.Dir, containerPrefix+safeName(id))
}

// giveBack frees what a container that has ended held, once.
func (c *Containerizer) giveBack(id string) {
	c.mu.Lock()
	given, ok := c.held[id]
	c.held[id] = true
	c.mu.Unlock()
	if !ok || given {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.life), giveBackLimit)
	defer cancel()
	c.awaitTerminal(ctx, id)
	if err := c.free(ctx, id); err != nil {
		c.log.Error("cannot give back what a container held", "container_id", id, "err", err)
		c.owe(id)
	}
}

// retryMost is how long an attempt to give back what a container held waits at most for the next one.
const retryMost = time.Minute

// owe tries again to give back what a container held, until it is done or this life ends: the next one collects it.
func (c *Containerizer) owe(id string) {
	c.mu.Lock()
	_, twice := c.owed[id]
	c.owed[id] = struct{}{}
	c.mu.Unlock()
	if twice {
		return
	}
	c.wg.Go(func() {
		for wait := c.retry; ; wait = min(2*wait, retryMost) {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-c.life.Done():
				timer.Stop()
				return
			}
			ctx, cancel := context.WithTimeout(c.life, giveBackLimit)
			err := c.free(ctx, id)
			cancel()
			if err == nil {
				break
			}
			c.log.Warn("cannot give back what a container held", "container_id", id, "err", err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.owed, id)
	})
}

// lastOutputLimit is how long an exit waits for the last output of a terminal to be written.
const lastOutputLimit = 5 * time.Second

// awaitTerminal returns once the relay of a container that has ended, if it has one, has written all and ended too.
func (c *Containerizer) awaitTerminal(ctx context.Context, id string) {
	if b, err := readBundle(c.folder(id)); err != nil || b.Terminal == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lastOutputLimit)
	defer cancel()
	s, err := console.Attach(ctx, filepath.Join(c.folder(id), consoleName))
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	_, _ = io.Copy(io.Discard, s.Output())
	_ = s.Close()
}

// free gives back a container's network, image and folder.
func (c *Containerizer) free(ctx context.Context, id string) error {
	var errs []error
	if c.cfg.Networks != nil {
		errs = append(errs, c.cfg.Networks.Detach(ctx, id))
	}
	if c.cfg.Images != nil {
		errs = append(errs, c.cfg.Images.Release(ctx, id))
	}
	return errors.Join(append(errs, c.discard(c.folder(id)))...)
}

// discard moves a folder out of the way at once; it may take its time to be removed.
func (c *Containerizer) discard(folder string) error {
	trash, err := os.MkdirTemp(c.cfg.Dir, c.trash)
	if err != nil {
		return err
	}
	if err := os.Rename(folder, filepath.Join(trash, "c")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	c.wg.Go(func() {
		if err := os.RemoveAll(trash); err != nil {
			c.log.Warn("cannot remove the folder of a container", "err", err)
		}
	})
	return nil
}

// collect gives back what containers and groups of an earlier life left that are not known any more; unless it is sure,
// everything is taken for known. Containers and groups of this life may come up meanwhile.
func (c *Containerizer) collect(known map[string]bool, sure bool) {
	ctx, cancel := context.WithTimeout(c.life, 30*time.Second)
	defer cancel()
	groups := make(map[string]bool)
	for _, id := range c.groupIDs() {
		groups[id] = true
	}
	keep := func(id string) bool {
		if !sure || known[id] || groups[id] || c.holds(id) {
			return true
		}
		_, err := c.readGroup(id)
		return err == nil
	}
	if c.cfg.Networks != nil {
		if err := c.cfg.Networks.Collect(ctx, keep); err != nil {
			c.log.Warn("cannot collect what networks an earlier life left", "err", err)
		}
	}
	if !sure {
		return
	}
	if c.cfg.Images != nil {
		ids, err := c.cfg.Images.Held(ctx)
		if err != nil {
			c.log.Warn("cannot list the images in use", "err", err)
		}
		for _, id := range ids {
			if !keep(id) {
				_ = c.cfg.Images.Release(ctx, id)
			}
		}
	}
	entries, _ := os.ReadDir(c.cfg.Dir)
	mine := make(map[string]bool)
	for id := range known {
		mine[containerPrefix+safeName(id)] = true
	}
	for _, entry := range entries {
		path := filepath.Join(c.cfg.Dir, entry.Name())
		switch {
		case strings.HasPrefix(entry.Name(), c.trash):
		case strings.HasPrefix(entry.Name(), trashPrefix):
			_ = os.RemoveAll(path)
		case strings.HasPrefix(entry.Name(), containerPrefix) && !mine[entry.Name()] && !c.uses(path):
			if err := c.discard(path); err != nil {
				c.log.Warn("cannot remove what a container left", "err", err)
			}
		}
	}
}

// lateGone gives back what a container held that nobody wanted any more when it came up.
func (c *Containerizer) lateGone(id string) {
	if c.holds(id) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.life), giveBackLimit)
	defer cancel()
	if err := c.free(ctx, id); err != nil {
		c.log.Error("cannot give back what a container held", "container_id", id, "err", err)
		c.owe(id)
	}
}

// uses tells whether a folder is that of a container that we hold, or that is about to come up and to end.
func (c *Containerizer) uses(folder string) bool {
	name := filepath.Base(folder)
	if b, err := readBundle(folder); err == nil && c.process.Unwanted(b.ID) {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.held {
		if containerPrefix+safeName(id) == name {
			return true
		}
	}
	return false
}

// Signal implements containerizer.Containerizer.
func (c *Containerizer) Signal(ctx context.Context, id string, signal int) error {
	return c.process.Signal(ctx, id, signal)
}

// Destroy implements containerizer.Containerizer.
func (c *Containerizer) Destroy(ctx context.Context, id string) error {
	return c.process.Destroy(ctx, id)
}

// Usage implements containerizer.Containerizer.
func (c *Containerizer) Usage(ctx context.Context, id string) (containerizer.Usage, error) {
	return c.process.Usage(ctx, id)
}

// Resize implements containerizer.Containerizer.
func (c *Containerizer) Resize(ctx context.Context, id string, limits containerizer.Limits) error {
	return c.process.Resize(ctx, id, limits)
}

// Remove implements containerizer.Containerizer.
func (c *Containerizer) Remove(ctx context.Context, id string) error {
	if err := c.process.Remove(ctx, id); err != nil {
		return err
	}
	c.giveBack(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.held, id)
	return nil
}
