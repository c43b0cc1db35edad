package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"starling/agent/containerizer"
	"starling/agent/containerizer/process/cgroup"
	"starling/agent/supervisor"
)

// lookup returns the entry of a container whose launch is over.
func (c *Containerizer) lookup(ctx context.Context, id string) (*entry, error) {
	for {
		c.mu.Lock()
		e, ok := c.entries[id]
		c.mu.Unlock()
		if !ok {
			return nil, fmt.Errorf("container %q: %w", id, containerizer.ErrUnknownContainer)
		}
		if e.isReady() {
			return e, nil
		}
		select {
		case <-e.ready: // the launch may have failed: look again
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Signal sends a signal to the first process group. While the supervisor does not answer, it goes there directly.
func (c *Containerizer) Signal(ctx context.Context, id string, signal int) error {
	if signal <= 0 || signal > 64 {
		return fmt.Errorf("signal %d is not between 1 and 64", signal)
	}
	e, err := c.lookup(ctx, id)
	if err != nil {
		return err
	}
	soon, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := c.await(soon)
	if err == nil {
		err = client.Signal(soon, id, signal)
	}
	var refusal *supervisor.Error
	if err == nil || errors.As(err, &refusal) && !errors.Is(err, supervisor.ErrUnknown) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.told {
		return nil
	}
	if e.handle == nil {
		return fmt.Errorf("cannot signal container %q: %w", id, err)
	}
	return e.handle.SignalGroup(syscall.Signal(signal))
}

// Destroy ends all processes of a container. While the supervisor does not answer, it finds and kills them itself, and
// takes the exit status from where the kernel shows it.
func (c *Containerizer) Destroy(ctx context.Context, id string) error {
	e, err := c.lookup(ctx, id)
	if err != nil {
		return err
	}
	for {
		k, err := c.killBySupervisor(ctx, id)
		if err == nil {
			c.ended(k)
			return nil
		}
		if ctx.Err() == nil {
			if done := c.killAround(ctx, e); done {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot end container %q: %w", id, errors.Join(ctx.Err(), err))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *Containerizer) killBySupervisor(ctx context.Context, id string) (supervisor.Container, error) {
	soon, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := c.await(soon)
	if err != nil {
		return supervisor.Container{}, err
	}
	return client.Kill(soon, id)
}

// killAround ends a container without the supervisor, and reports whether its exit is known then.
func (c *Containerizer) killAround(ctx context.Context, e *entry) bool {
	c.mu.Lock()
	k := e.known
	c.mu.Unlock()
	soon, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := supervisor.KillProcesses(soon, c.cfg.Dir, k); err != nil {
		c.log.Warn("cannot end a container without the supervisor", "container_id", k.ID, "err", err)
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !e.told && e.handle != nil {
		if status, known, ended := e.handle.Exit(); ended && known {
			oom := supervisor.OOMKilled(k.Cgroups, status)
			c.tellLocked(e, supervisor.Exit{Known: true, Status: status, OOM: oom, At: time.Now()})
		}
	}
	return e.told
}

// Remove forgets an ended container: its record, its exit and its cgroups. A container that is not held is forgotten.
func (c *Containerizer) Remove(ctx context.Context, id string) error {
	e, err := c.lookup(ctx, id)
	if errors.Is(err, containerizer.ErrUnknownContainer) {
		return nil
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	told, dirs := e.told, e.known.Cgroups
	c.mu.Unlock()
	if !told {
		return fmt.Errorf("container %q: %w", id, containerizer.ErrRunning)
	}
	for {
		client, err := c.await(ctx)
		if err == nil {
			err = client.Remove(ctx, id)
		}
		if errors.Is(err, supervisor.ErrDisconnected) && ctx.Err() == nil {
			select {
			case <-client.Done():
			case <-ctx.Done():
			}
			continue
		}
		if errors.Is(err, supervisor.ErrRunning) {
			// We saw the end before the supervisor did. A kill waits for it to catch up.
			if _, err = client.Kill(ctx, id); err == nil {
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("cannot remove container %q: %w", id, err)
		}
		break
	}
	c.mu.Lock()
	if c.entries[id] == e {
		delete(c.entries, id)
	}
	c.mu.Unlock()
	c.removeCgroups(id, dirs)
	return nil
}

// Usage tells what the processes of a container use. Without a cgroup that counts, the CPU time of a process that ended
// and was nobody's child is missing. An ended container uses nothing.
func (c *Containerizer) Usage(ctx context.Context, id string) (containerizer.Usage, error) {
	e, err := c.lookup(ctx, id)
	if err != nil {
		return containerizer.Usage{}, err
	}
	c.mu.Lock()
	k := e.known
	c.mu.Unlock()
	if k.Exit != nil {
		return containerizer.Usage{}, nil
	}
	pids, err := supervisor.Processes(c.cfg.Dir, k)
	if err != nil {
		return containerizer.Usage{}, fmt.Errorf("cannot find the processes of container %q: %w", id, err)
	}
	var u containerizer.Usage
	for _, pid := range pids {
		if p, ok := processUsage(pid); ok {
			u.CPUUser += p.CPUUser
			u.CPUSystem += p.CPUSystem
			u.MemBytes += p.MemBytes
			u.Processes++
		}
	}
	if counted, ok := cgroup.ReadUsage(k.Cgroups); ok {
		u.CPUUser, u.CPUSystem = counted.User, counted.System
	}
	return u, nil
}

// processUsage reads what one process uses, its reaped children included in the CPU time.
func processUsage(pid int) (containerizer.Usage, bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return containerizer.Usage{}, false
	}
	text := string(stat)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	// f[0] is field 3 of proc(5).
	if len(f) < 22 {
		return containerizer.Usage{}, false
	}
	field := func(i int) int64 {
		n, _ := strconv.ParseInt(f[i-3], 10, 64)
		return n
	}
	const tick = 10 * time.Millisecond
	return containerizer.Usage{
		CPUUser:   time.Duration(field(14)+field(16)) * tick,
		CPUSystem: time.Duration(field(15)+field(17)) * tick,
		MemBytes:  field(24) * int64(os.Getpagesize()),
	}, true
}
