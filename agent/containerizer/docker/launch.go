package docker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/master/mesos"
)

// Launch starts a container; see containerizer.Containerizer. Errors are sentences for people. It ends early when the
// container is destroyed meanwhile.
func (c *Containerizer) Launch(ctx context.Context, spec containerizer.Spec) (containerizer.Container, error) {
	if err := ctx.Err(); err != nil {
		return containerizer.Container{}, err
	}
	p, err := c.plan(&spec)
	if err != nil {
		return containerizer.Container{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Work that waits for us must not be waited for by us.
	defer context.AfterFunc(c.life, cancel)()
	e := newEntry(spec.ID)
	e.cancel = cancel
	e.record = record{ID: spec.ID, Note: spec.Note, Stdout: spec.Stdout, Stderr: spec.Stderr, TTY: p.TTY, Memory: p.Memory}
	c.mu.Lock()
	if _, taken := c.entries[spec.ID]; taken {
		c.mu.Unlock()
		return containerizer.Container{}, fmt.Errorf("container %q: %w", spec.ID, containerizer.ErrExists)
	}
	c.entries[spec.ID] = e
	c.mu.Unlock()
	found, err := c.start(ctx, e, p, &spec)
	if err != nil {
		if c.life.Err() == nil {
			if err := c.files.forget(spec.ID); err != nil {
				c.log.Warn("cannot remove the state of a container", "container_id", spec.ID, "err", err)
			}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.entries, spec.ID)
		close(e.ready)
		return containerizer.Container{}, err
	}
	launched := outside(e.record, &found)
	c.wg.Go(func() { c.follow(e) })
	c.mu.Lock()
	close(e.ready)
	c.mu.Unlock()
	if found.ended() {
		c.settle(e)
	} else {
		// It may have ended before anybody could know that it is ours.
		nudge(c.wake)
	}
	return launched, nil
}

// start does all that Launch does with the engine, and leaves nothing behind when it fails.
func (c *Containerizer) start(ctx context.Context, e *entry, p *plan, spec *containerizer.Spec) (inspection, error) {
	if err := c.usable(); err != nil {
		return inspection{}, err
	}
	if err := c.ensure(ctx, p.Image, spec.Container.GetDocker().GetForcePullImage()); err != nil {
		return inspection{}, err
	}
	select {
	case c.starting <- struct{}{}:
		defer func() { <-c.starting }()
	case <-ctx.Done():
		return inspection{}, ctx.Err()
	}
	// Those before may have had to wait for it in vain.
	if err := c.usable(); err != nil {
		return inspection{}, err
	}
	if err := c.checkKept(ctx, p); err != nil {
		return inspection{}, err
	}
	for _, file := range []string{spec.Stdout, spec.Stderr} {
		if file == "" {
			continue
		}
		// Before the container runs, nobody can have put something else there.
		s, err := openSink(file)
		if err != nil {
			return inspection{}, fmt.Errorf("cannot open %s: %w", file, err)
		}
		s.Close()
	}
	if err := c.files.save(e.record); err != nil {
		return inspection{}, fmt.Errorf("cannot write down a container: %w", err)
	}
	id, err := c.engine.Create(ctx, p)
	if err != nil {
		if errors.Is(err, errConflict) {
			return inspection{}, fmt.Errorf("container %q: %w: %w", e.id, containerizer.ErrExists, err)
		}
		if errors.Is(err, errAway) || ctx.Err() != nil {
			c.wg.Go(func() { c.abandon(p.Name) })
		}
		return inspection{}, err
	}
	c.mu.Lock()
	e.record.Engine = id
	r := e.record
	c.mu.Unlock()
	c.save(r)
	err = c.engine.Start(ctx, id)
	var found inspection
	if err == nil {
		found, err = c.engine.Inspect(ctx, id)
	}
	if err != nil {
		c.undo(id, p.Name)
		return inspection{}, launchError(err)
	}
	c.learn(e, &found)
	if size := spec.Container.GetTtyInfo().GetWindowSize(); size != nil && found.Running {
		if err := c.engine.Resize(ctx, id, uint16(size.GetColumns()), uint16(size.GetRows())); err != nil {
			c.log.Warn("cannot tell a terminal its size", "container_id", e.id, "err", err)
		}
	}
	return found, nil
}

// learn takes what the engine says of a container that runs, or ran.
func (c *Containerizer) learn(e *entry, i *inspection) {
	handle, ticks := hold(i.PID, i.ID)
	c.mu.Lock()
	e.release()
	e.handle = handle
	e.record.Engine, e.record.Started, e.record.TTY, e.record.Memory = i.ID, i.Started, i.TTY, i.Memory
	if i.PID > 0 {
		e.record.PID, e.record.Ticks = i.PID, ticks
	}
	r := e.record
	c.mu.Unlock()
	c.save(r)
	if handle != nil {
		c.wg.Go(func() { c.observe(e, i.PID, ticks, i.ID) })
	}
}

// undo removes what a launch that failed has made.
func (c *Containerizer) undo(id, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.life), pingTimeout)
	defer cancel()
	if err := c.engine.Remove(ctx, id, true); err != nil && !errors.Is(err, errNotFound) {
		c.wg.Go(func() { c.abandon(name) })
	}
}

// abandon removes a container that nobody wants any more, however long the engine takes. A container that is not there
// may still come: the engine may be at work on a call that was given up.
func (c *Containerizer) abandon(name string) {
	missing := 0
	for wait := 100 * time.Millisecond; c.pause(wait); wait = min(2*wait, 5*time.Second) {
		err := c.engine.Remove(c.life, name, true)
		if errors.Is(err, errNotFound) {
			if missing++; missing < 4 {
				continue
			}
			return
		}
		if err == nil {
			c.log.Info("launch that was given up is undone", "container_id", strings.TrimPrefix(name, namePrefix))
			return
		}
	}
}

// launchError says what is wrong with a program in the words that all containerizers use; otherwise the engine has the
// word.
func launchError(err error) error {
	_, rest, ok := strings.Cut(err.Error(), `exec: "`)
	program, why, found := strings.Cut(rest, `": `)
	if !ok || !found {
		return err
	}
	why = strings.TrimSuffix(strings.TrimSpace(why), ": unknown")
	switch {
	case strings.Contains(why, "executable file not found in $PATH"), strings.HasSuffix(why, "no such file or directory"):
		why = "no such file or directory"
	case strings.HasSuffix(why, "permission denied"):
		why = "permission denied"
	}
	return fmt.Errorf("cannot run %q: %s", program, why)
}

// outside is what the agent sees of a container; i is nil where the engine was not asked.
func outside(r record, i *inspection) containerizer.Container {
	out := containerizer.Container{ID: r.ID, PID: r.PID, Started: r.Started, Exit: r.Exit, Note: r.Note}
	if i == nil {
		return out
	}
	if len(i.Raw) > 0 {
		out.Data = append(append([]byte{'['}, i.Raw...), ']')
	}
	for _, n := range i.Networks {
		info := &mesos.NetworkInfo{}
		if n.Network != "bridge" {
			info.Name = proto.String(n.Network)
		}
		if n.IPv4 != "" {
			info.IpAddresses = append(info.IpAddresses, &mesos.NetworkInfo_IPAddress{
				Protocol: mesos.NetworkInfo_IPv4.Enum(), IpAddress: proto.String(n.IPv4),
			})
		}
		if n.IPv6 != "" {
			info.IpAddresses = append(info.IpAddresses, &mesos.NetworkInfo_IPAddress{
				Protocol: mesos.NetworkInfo_IPv6.Enum(), IpAddress: proto.String(n.IPv6),
			})
		}
		out.Networks = append(out.Networks, info)
	}
	return out
}
