package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"starling/agent/containerizer"
	"starling/agent/containerizer/process/cgroup"
	"starling/agent/supervisor"
)

// Launcher is how to start a container that is more than a process: by a program that makes what it needs and starts its
// first process (see supervisor.Launcher). It runs as the supervisor's user.
type Launcher struct {
	// Prepare is called once the cgroups of the container are there, and returns the argv of the launcher, whose program is
	// named by an absolute path. After an error the cgroups are removed.
	Prepare func(ctx context.Context, cgroups []string) ([]string, error)
	// Env is the environment of the launcher.
	Env []string
	// Within is how long the launcher may take; launchLimit where it is longer or zero.
	Within time.Duration
}

func (l *Launcher) complete(ctx context.Context, spec *supervisor.Spec) error {
	argv, err := l.Prepare(ctx, spec.Cgroups)
	if err != nil {
		return err
	}
	if len(argv) == 0 {
		return errors.New("launcher has no program")
	}
	spec.Path, spec.Args, spec.Env, spec.Dir = argv[0], argv, l.Env, "/"
	spec.LaunchWithin = l.Within
	if spec.LaunchWithin <= 0 || spec.LaunchWithin > launchLimit {
		spec.LaunchWithin = launchLimit
	}
	return nil
}

// LaunchBy is Launch by a launcher; all other methods treat the container like any other. Of the spec, what to run does not
// count.
func (c *Containerizer) LaunchBy(ctx context.Context, spec containerizer.Spec, by Launcher) (containerizer.Container, error) {
	sspec := supervisor.Spec{ID: spec.ID, Stdout: spec.Stdout, Stderr: spec.Stderr, Note: spec.Note}
	// The user may be one of the image only. The output files are the node's.
	if cred, err := lookUser(spec.User, os.Geteuid()); err == nil {
		sspec.Credential = cred
	}
	return c.launch(ctx, sspec, &spec, &by)
}

// Tracks tells whether the processes of a container are known by its cgroup. It is known after Recover.
func (c *Containerizer) Tracks() bool { return c.tree != nil && c.tree.Tracks() }

// Cgroups returns the folders of the cgroups of a container.
func (c *Containerizer) Cgroups(ctx context.Context, id string) ([]string, error) {
	e, err := c.lookup(ctx, id)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return e.known.Cgroups, nil
}

// MakeGroup makes a group: cgroups that those of its containers (Spec.Parent) are made in. Nothing else belongs to it.
func (c *Containerizer) MakeGroup(id string, limits containerizer.Limits) error {
	return c.tree.CreateGroup(id, c.limits(limits))
}

// RemoveGroup removes a group whose containers have ended. One that is not there is no error.
func (c *Containerizer) RemoveGroup(ctx context.Context, id string) error {
	return c.tree.RemoveGroup(ctx, id)
}

// GroupIDs lists the groups that are there.
func (c *Containerizer) GroupIDs() []string { return c.tree.Groups() }

// Resize gives a container, or a group, other limits.
func (c *Containerizer) Resize(ctx context.Context, id string, limits containerizer.Limits) error {
	e, err := c.lookup(ctx, id)
	if errors.Is(err, containerizer.ErrUnknownContainer) && c.tree != nil && c.tree.HasGroup(id) {
		if err := c.tree.SetGroup(id, c.limits(limits)); err != nil {
			return fmt.Errorf("cannot resize group %q: %w", id, err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	dirs, told := e.known.Cgroups, e.told
	c.mu.Unlock()
	if told {
		return nil
	}
	if err := c.tree.Set(dirs, c.limits(limits)); err != nil {
		return fmt.Errorf("cannot resize container %q: %w", id, err)
	}
	return nil
}

// limits turns limits into those of cgroups.
func (c *Containerizer) limits(l containerizer.Limits) cgroup.Limits {
	return cgroup.Limits{
		CPUs: l.CPUs, CPULimit: l.CPULimit, Quota: c.cfg.CPUQuota,
		MemBytes: l.MemBytes, MemLimit: l.MemLimit, NoSwap: c.cfg.NoSwap, Pids: c.cfg.Pids,
	}
}

// PID returns the first process of a container that runs.
func (c *Containerizer) PID(id string) (int, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[id]
	if !ok || e.told || e.known.PID == 0 {
		return 0, false
	}
	return e.known.PID, true
}

// Members lists the containers of a group that are held.
func (c *Containerizer) Members(group string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for id, e := range c.entries {
		if len(e.known.Cgroups) > 0 && cgroup.Group(e.known.Cgroups[0]) == group {
			ids = append(ids, id)
		}
	}
	return ids
}

// OnGone has f called with the id of each container that nobody wanted any more (its launch was given up, or the agent that
// asked for it is no more) once it is gone. It is called before Recover.
func (c *Containerizer) OnGone(f func(id string)) { c.gone = f }

// Unwanted tells whether a container is to end that nobody wants any more.
func (c *Containerizer) Unwanted(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, leaving := c.expelled[id]
	return leaving
}
