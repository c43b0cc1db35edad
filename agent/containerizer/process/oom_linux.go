package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"starling/agent/containerizer"
	"starling/agent/supervisor"
)

// In cgroups of the first version the OOM killer ends one process, and leaves the others of the container to live without
// it. The kernel tells of it through an eventfd for each container, an alarm here; all of them are in one epoll instance,
// which waits in the poller of the Go runtime. While memory suffices none of this does anything. In cgroups of the second
// version the kernel itself ends all of a container, and there are no alarms.

// alarms hears of the OOM killer. Its map is guarded by Containerizer.mu.
type alarms struct {
	// epoll is the epoll instance.
	epoll *os.File
	// rung are the entries of the alarms, by file descriptor.
	rung map[int32]*entry
}

// alarm is that of one container. Its fields are guarded by Containerizer.mu, but for dir, which does not change.
type alarm struct {
	fd int
	// dir is the cgroup that counts.
	dir string
	// closed is set when the container has ended.
	closed bool
	// until is how long somebody looks at the counter; zero while nobody does.
	until time.Time
}

// lookFor is how long the counter is looked at after an alarm: the kernel rings before it looks for whom to kill.
const lookFor = 10 * time.Second

// openAlarms prepares to hear of the OOM killer.
func (c *Containerizer) openAlarms() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	c.alarms.epoll, c.alarms.rung = os.NewFile(uintptr(fd), "epoll"), make(map[int32]*entry)
	return nil
}

// arm sets the alarm of a container that is about to have processes, or may have had them for long.
func (c *Containerizer) arm(e *entry, cgroups []string) {
	if c.alarms.epoll == nil {
		return
	}
	for _, dir := range cgroups {
		fd, err := notify(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			if err = c.control(unix.EPOLL_CTL_ADD, fd); err != nil {
				unix.Close(fd)
			}
		}
		if err != nil {
			c.log.Warn("cannot hear of the OOM killer", "cgroup", dir, "err", err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		e.alarm = &alarm{fd: fd, dir: dir}
		c.alarms.rung[int32(fd)] = e
		return
	}
}

// notify has the kernel tell of the OOM killer in a cgroup. It is os.ErrNotExist where the cgroup is none of the first version
// that counts memory.
func notify(dir string) (int, error) {
	counter, err := unix.Open(filepath.Join(dir, "memory.oom_control"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(counter)
	to, err := unix.Open(filepath.Join(dir, "cgroup.event_control"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(to)
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, err
	}
	if _, err := unix.Write(to, fmt.Appendf(nil, "%d %d", fd, counter)); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// control adds an alarm to the epoll instance, or takes it out. Each ring is an edge: nobody has to read the eventfd.
func (c *Containerizer) control(op, fd int) error {
	raw, err := c.alarms.epoll.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(epoll uintptr) {
		failed = unix.EpollCtl(int(epoll), op, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)})
	})
	return errors.Join(err, failed)
}

// disarmLocked removes the alarm of a container. Called with mu held.
func (c *Containerizer) disarmLocked(e *entry) {
	if e.alarm == nil {
		return
	}
	_ = c.control(unix.EPOLL_CTL_DEL, e.alarm.fd)
	delete(c.alarms.rung, int32(e.alarm.fd))
	unix.Close(e.alarm.fd)
	e.alarm.closed = true
	e.alarm = nil
}

// hearAlarms sees to what rings until life ends, and before that to what rang while there was no agent.
func (c *Containerizer) hearAlarms() {
	if c.alarms.epoll == nil {
		return
	}
	stop := context.AfterFunc(c.life, func() { _ = c.alarms.epoll.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	c.mu.Lock()
	held := make(map[string]*alarm, len(c.alarms.rung))
	for _, e := range c.alarms.rung {
		held[e.known.ID] = e.alarm
	}
	c.mu.Unlock()
	for id, a := range held {
		if a.struck() {
			c.wg.Go(func() { c.endStruck(id) })
		}
	}
	raw, err := c.alarms.epoll.SyscallConn()
	if err != nil {
		c.log.Error("cannot hear of the OOM killer", "err", err)
		return
	}
	events := make([]unix.EpollEvent, 32)
	for c.life.Err() == nil {
		n := 0
		err := raw.Read(func(epoll uintptr) bool {
			n, _ = unix.EpollWait(int(epoll), events, 0)
			return n > 0
		})
		if err != nil && c.life.Err() == nil {
			c.log.Error("cannot hear of the OOM killer", "err", err)
			return
		}
		for _, event := range events[:max(n, 0)] {
			c.rings(event.Fd)
		}
	}
}

// rings has somebody look whether it is true: the kernel rings too when it finds nobody to kill after all, when the cgroups
// above run out of memory, and when a cgroup is removed.
func (c *Containerizer) rings(fd int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.alarms.rung[fd]
	if !ok {
		return
	}
	looking := !e.alarm.until.IsZero()
	e.alarm.until = time.Now().Add(lookFor)
	if !looking {
		id, a := e.known.ID, e.alarm
		c.wg.Go(func() { c.look(id, a) })
	}
}

// look ends a container once its counter tells that the OOM killer struck.
func (c *Containerizer) look(id string, a *alarm) {
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		if a.struck() {
			c.endStruck(id)
			return
		}
		c.mu.Lock()
		over := a.closed || time.Now().After(a.until)
		if over {
			a.until = time.Time{}
		}
		c.mu.Unlock()
		if over {
			return
		}
		select {
		case <-time.After(pause):
		case <-c.life.Done():
			return
		}
	}
}

// struck tells whether the OOM killer ended a process of a container that runs.
func (a *alarm) struck() bool { return supervisor.OOMKilled([]string{a.dir}, 0) }

// endStruck ends a container. That its memory limit did it the supervisor reads off the same counter.
func (c *Containerizer) endStruck(id string) {
	c.log.Info("container is ended, the OOM killer has struck in it", "container_id", id)
	for {
		ctx, cancel := context.WithTimeout(c.life, time.Minute)
		err := c.Destroy(ctx, id)
		cancel()
		if err == nil || errors.Is(err, containerizer.ErrUnknownContainer) || c.life.Err() != nil {
			return
		}
		c.log.Error("cannot end a container in which the OOM killer has struck", "container_id", id, "err", err)
	}
}

// closeAlarms removes all alarms. The goroutines have ended.
func (c *Containerizer) closeAlarms() {
	if c.alarms.epoll != nil {
		_ = c.alarms.epoll.Close()
	}
}
