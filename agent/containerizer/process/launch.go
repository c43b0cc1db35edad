package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"starling/agent/containerizer"
	"starling/agent/supervisor"
	"starling/master/mesos"
)

// launchLimit bounds a launch whose context has no deadline.
const launchLimit = 30 * time.Second

// defaultPath is searched when the environment of a container has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Launch starts a container; see containerizer.Containerizer. Errors are sentences for people.
func (c *Containerizer) Launch(ctx context.Context, spec containerizer.Spec) (containerizer.Container, error) {
	if err := c.Usable(spec.Container); err != nil {
		return containerizer.Container{}, err
	}
	sspec, err := translate(&spec)
	if err != nil {
		return containerizer.Container{}, err
	}
	return c.launch(ctx, sspec, &spec, nil)
}

// launch starts what is in the specs: sspec itself, or by a launcher that makes more of it.
func (c *Containerizer) launch(ctx context.Context, sspec supervisor.Spec, spec *containerizer.Spec, by *Launcher) (containerizer.Container, error) {
	ctx, cancel := context.WithTimeout(ctx, launchLimit)
	defer cancel()
	e := &entry{known: supervisor.Container{ID: spec.ID}, ready: make(chan struct{})}
	c.mu.Lock()
	_, taken := c.entries[spec.ID]
	if _, leaving := c.expelled[spec.ID]; taken || leaving {
		c.mu.Unlock()
		return containerizer.Container{}, fmt.Errorf("container %q: %w", spec.ID, containerizer.ErrExists)
	}
	c.entries[spec.ID] = e
	c.mu.Unlock()
	k, err := c.start(ctx, e, sspec, spec, by)

	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(e.ready)
	if err != nil {
		delete(c.entries, spec.ID)
		c.releaseLocked(e)
		return containerizer.Container{}, err
	}
	exit := e.known.Exit
	if exit == nil {
		exit = k.Exit
	}
	e.known = k
	e.known.Exit = nil
	launched := outside(e.known)
	if exit == nil {
		e.handle = c.hold(k)
	} else {
		c.tellLocked(e, *exit)
	}
	return launched, nil
}

// Usable returns why a kind of container can't be had: a process has nothing of its own but its limits.
func (c *Containerizer) Usable(info *mesos.ContainerInfo) error {
	if demands := containerizer.Demands(info); len(demands) > 0 {
		return fmt.Errorf("%w: a plain process cannot have %s", containerizer.ErrUnsupported, strings.Join(demands, ", "))
	}
	return nil
}

// start makes the cgroups and has the supervisor start the process. A broken connection is not the end: the start is
// idempotent, and asked for again.
func (c *Containerizer) start(ctx context.Context, e *entry, sspec supervisor.Spec, spec *containerizer.Spec, by *Launcher) (supervisor.Container, error) {
	if _, err := c.await(ctx); err != nil {
		return supervisor.Container{}, err
	}
	group := ""
	if spec.Parent != "" && c.tree.HasGroup(spec.Parent) {
		group = spec.Parent
	}
	limits := c.limits(spec.Limits)
	limits.Contained = by != nil
	dirs, err := c.tree.CreateIn(group, spec.ID, limits)
	if err != nil {
		return supervisor.Container{}, err
	}
	sspec.Cgroups = dirs
	c.arm(e, dirs)
	if by != nil {
		if err := by.complete(ctx, &sspec); err != nil {
			c.removeCgroups(spec.ID, dirs)
			return supervisor.Container{}, err
		}
	}
	var k supervisor.Container
	err = c.ask(ctx, func(client *supervisor.Client) (err error) {
		k, err = client.Start(ctx, sspec)
		return err
	})
	if err == nil {
		return k, nil
	}
	var refusal *supervisor.Error
	if errors.As(err, &refusal) {
		c.removeCgroups(spec.ID, dirs)
		return supervisor.Container{}, err
	}
	// Nobody knows whether it was started, or will be.
	c.wg.Go(func() { c.abandon(spec.ID, dirs) })
	return supervisor.Container{}, fmt.Errorf("cannot start container %q: %w", spec.ID, err)
}

// abandon ends and removes a container that nobody wants any more, however long the supervisor takes. Where that is under
// way already it returns at once.
func (c *Containerizer) abandon(id string, dirs []string) {
	c.mu.Lock()
	underWay := c.expelled[id]
	c.expelled[id] = true
	c.mu.Unlock()
	if underWay {
		return
	}
	unknown := 0
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		ctx, cancel := context.WithTimeout(c.life, time.Minute)
		client, err := c.await(ctx)
		if err == nil {
			_, err = client.Kill(ctx, id)
		}
		if err == nil {
			err = client.Remove(ctx, id)
		}
		cancel()
		if errors.Is(err, supervisor.ErrUnknown) {
			// The kill may have overtaken the start.
			if unknown++; unknown > 3 {
				err = nil
			}
		}
		if err == nil {
			c.removeCgroups(id, dirs)
			c.log.Info("launch that was given up is undone", "container_id", id)
			c.mu.Lock()
			delete(c.expelled, id)
			c.mu.Unlock()
			if c.gone != nil {
				c.gone(id)
			}
			return
		}
		select {
		case <-c.life.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (c *Containerizer) removeCgroups(id string, dirs []string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.life), patience)
	defer cancel()
	if err := c.tree.Remove(ctx, dirs); err != nil {
		c.log.Warn("cannot remove a cgroup", "container_id", id, "err", err)
	}
}

// translate makes a spec for the supervisor, in which nothing is left to look up.
func translate(spec *containerizer.Spec) (supervisor.Spec, error) {
	path, err := lookPath(spec)
	if err != nil {
		return supervisor.Spec{}, err
	}
	cred, err := lookUser(spec.User, os.Geteuid())
	if err != nil {
		return supervisor.Spec{}, err
	}
	return supervisor.Spec{
		ID: spec.ID, Path: path, Args: spec.Args, Env: spec.Env, Dir: spec.Dir,
		Stdout: spec.Stdout, Stderr: spec.Stderr, Credential: cred,
		Note: spec.Note,
	}, nil
}

// LookPath finds the program of a spec on the node; the error is a sentence for people.
func LookPath(spec *containerizer.Spec) (string, error) { return lookPath(spec) }

// LookUser turns the name or number of a user of the node into numbers; nil is whoever we are.
func LookUser(name string) (*supervisor.Credential, error) { return lookUser(name, os.Geteuid()) }

// lookPath finds the program as a shell in the container would: by the container's PATH, from the container's folder.
func lookPath(spec *containerizer.Spec) (string, error) {
	if spec.Path == "" {
		return "", errors.New("no program given")
	}
	if strings.Contains(spec.Path, "/") {
		return spec.Path, nil
	}
	search := defaultPath
	for _, v := range spec.Env {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			search = p
		}
	}
	why := "no such file or directory"
	for _, dir := range filepath.SplitList(search) {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(spec.Dir, dir)
		}
		file := filepath.Join(dir, spec.Path)
		info, err := os.Stat(file)
		if err != nil || info.IsDir() {
			continue
		}
		if info.Mode()&0o111 != 0 {
			return file, nil
		}
		why = "permission denied"
	}
	return "", fmt.Errorf("cannot run %q: %s", spec.Path, why)
}

// lookUser turns the name or number of a user into numbers; nil is whoever we are, with the number self.
func lookUser(name string, self int) (*supervisor.Credential, error) {
	if name == "" {
		return nil, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			id, e := strconv.ParseUint(name, 10, 32)
			if e != nil || id == 1<<32-1 {
				return nil, fmt.Errorf("cannot run as user %q: no such user", name)
			}
			// A number may be used without a name; then the group has the same.
			u = &user.User{Uid: name, Gid: name}
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("cannot run as user %q: %w", name, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("cannot run as user %q: %w", name, err)
	}
	if int(uid) == self {
		return nil, nil
	}
	if self != 0 {
		return nil, fmt.Errorf("cannot run as user %q: only root may change the user, the agent is user %d", name, self)
	}
	cred := &supervisor.Credential{UID: uint32(uid), GID: uint32(gid)}
	if u.Username == "" {
		return cred, nil
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("cannot find the groups of user %q: %w", name, err)
	}
	for _, g := range groups {
		if id, err := strconv.ParseUint(g, 10, 32); err == nil {
			cred.Groups = append(cred.Groups, uint32(id))
		}
	}
	return cred, nil
}
