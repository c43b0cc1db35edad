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
	"starling/agent/containerizer/process/cgroup"
	"starling/agent/supervisor"
)

// launchLimit bounds a launch whose context has no deadline.
const launchLimit = 30 * time.Second

// defaultPath is searched when the environment of a container has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Launch starts a container; see containerizer.Containerizer. Errors are sentences for people.
func (c *Containerizer) Launch(ctx context.Context, spec containerizer.Spec) (containerizer.Container, error) {
	sspec, err := translate(&spec)
	if err != nil {
		return containerizer.Container{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, launchLimit)
	defer cancel()
	e := &entry{known: supervisor.Container{ID: spec.ID}, ready: make(chan struct{})}
	c.mu.Lock()
	if _, taken := c.entries[spec.ID]; taken {
		c.mu.Unlock()
		return containerizer.Container{}, fmt.Errorf("container %q: %w", spec.ID, containerizer.ErrExists)
	}
	c.entries[spec.ID] = e
	c.mu.Unlock()
	k, err := c.start(ctx, sspec, &spec)

	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(e.ready)
	if err != nil {
		delete(c.entries, spec.ID)
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

// start makes the cgroups and has the supervisor start the process. A broken connection is not the end: the start is
// idempotent, and asked for again.
func (c *Containerizer) start(ctx context.Context, sspec supervisor.Spec, spec *containerizer.Spec) (supervisor.Container, error) {
	if _, err := c.await(ctx); err != nil {
		return supervisor.Container{}, err
	}
	dirs, err := c.tree.Create(spec.ID, cgroup.Limits{CPUs: spec.CPUs, Quota: c.cfg.CPUQuota, MemBytes: spec.MemBytes})
	if err != nil {
		return supervisor.Container{}, err
	}
	sspec.Cgroups = dirs
	for {
		var client *supervisor.Client
		var k supervisor.Container
		client, err = c.await(ctx)
		if err == nil {
			k, err = client.Start(ctx, sspec)
		}
		if err == nil {
			return k, nil
		}
		if !errors.Is(err, supervisor.ErrDisconnected) || ctx.Err() != nil {
			break
		}
		// The client may not have been taken off the books yet.
		select {
		case <-client.Done():
		case <-ctx.Done():
		}
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

// abandon ends and removes a container that nobody wants any more, however long the supervisor takes.
func (c *Containerizer) abandon(id string, dirs []string) {
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
	if err := cgroup.Remove(ctx, dirs); err != nil {
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
