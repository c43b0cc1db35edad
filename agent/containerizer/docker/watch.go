package docker

import (
	"errors"
	"syscall"
	"time"

	"starling/agent/containerizer"
)

const (
	// lookInterval, with what a look takes, bounds how late an end is seen that no event told.
	lookInterval = 3 * time.Second
	// awayInterval is how often an engine that is away is looked for.
	awayInterval = time.Second
	// copyPatience is how long an exit waits for the output before it.
	copyPatience = 3 * time.Second
	// endPatience is how long the exit of a container that was to be ended waits for the engine's word of it.
	endPatience = 500 * time.Millisecond
	// awayPatience is how long an exit that is seen with the engine away waits for the engine, which may know more.
	awayPatience = 30 * time.Second
)

// watch compares the containers with the engine's list, on and on.
func (c *Containerizer) watch() {
	for {
		wait := lookInterval
		if !c.look() {
			wait = awayInterval
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-c.wake:
		case <-c.life.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// look looks once, and reports whether the engine answers.
func (c *Containerizer) look() bool {
	err := c.engine.Ping(c.life)
	if c.life.Err() != nil {
		return true
	}
	c.mu.Lock()
	was := c.away
	c.away = err
	var all []*entry
	for _, e := range c.entries {
		if isClosed(e.ready) && !isClosed(e.told) {
			all = append(all, e)
		}
	}
	c.mu.Unlock()
	switch {
	case err != nil && was == nil:
		c.log.Error("Docker engine does not answer: its containers go on, none can be launched", "err", err)
	case err == nil && was != nil:
		c.log.Info("Docker engine answers again")
	}
	if err != nil {
		for _, e := range all {
			c.lookWithout(e)
		}
		return false
	}
	list, err := c.engine.List(c.life, labelOwner+"="+c.owner)
	if err != nil {
		// It is there, and has much to do.
		return true
	}
	status := make(map[string]string, len(list))
	for _, l := range list {
		status[l.ID] = l.Status
	}
	for _, e := range all {
		switch s := status[e.engine(c)]; {
		case s == "" || s == "exited" || s == "dead" || s == "removing" || s == "created":
			c.settle(e)
		case c.isDoomed(e):
			// It was to be ended while the engine was away.
			if err := c.engine.Kill(c.life, e.engine(c), "KILL"); err != nil && !errors.Is(err, errConflict) && !errors.Is(err, errNotFound) {
				c.log.Warn("cannot end a container", "container_id", e.id, "err", err)
			}
		}
	}
	c.sort(list)
	c.sweep()
	return true
}

// sort judges containers that Recover did not see because the engine was away: those that nobody knows.
func (c *Containerizer) sort(list []listed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.unsorted {
		return
	}
	c.unsorted = false
	for _, l := range list {
		id := l.Labels[labelID]
		_, removed := c.removals[id]
		switch {
		case l.Name != namePrefix+id || c.entries[id] != nil || removed:
		case l.Labels[labelAgent] != c.cfg.AgentID:
			c.orphan(l)
		case l.Status == "created":
			c.wg.Go(func() { c.abandon(l.Name) })
		case l.Status == "exited" || l.Status == "dead":
			c.removals[id] = removal{l.ID, time.Now().Add(c.cfg.RemoveDelay)}
		default:
			c.log.Error("container without a task is left alone", "container_id", id)
		}
	}
}

func (e *entry) engine(c *Containerizer) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return e.record.Engine
}

func (c *Containerizer) isDoomed(e *entry) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return e.doomed
}

// lookWithout looks at the process of a container, for when the engine does not tell of it. One that was ended by us is over;
// of others the engine may know why, and is waited for.
func (c *Containerizer) lookWithout(e *entry) {
	c.mu.Lock()
	if e.handle == nil || isClosed(e.told) {
		c.mu.Unlock()
		return
	}
	status, known, ended := e.handle.Exit()
	if ended && e.gone.IsZero() {
		e.gone = time.Now()
	}
	at := e.gone
	over := ended && (e.doomed && known && time.Since(at) > endPatience || time.Since(at) > awayPatience)
	c.mu.Unlock()
	if over {
		c.tell(e, containerizer.Exit{ID: e.id, Known: known, Status: status, At: at})
	}
}

// listen takes the engine's events, on and on.
func (c *Containerizer) listen() {
	const most = 2 * time.Second
	wait := 50 * time.Millisecond
	for {
		begun := time.Now()
		err := c.engine.Events(c.life, labelOwner+"="+c.owner, c.happened)
		if c.life.Err() != nil {
			return
		}
		if time.Since(begun) > most {
			wait = 50 * time.Millisecond
		}
		c.log.Debug("events of the Docker engine ended", "err", err)
		nudge(c.wake)
		if !c.pause(wait) {
			return
		}
		wait = min(2*wait, most)
	}
}

// happened takes an event.
func (c *Containerizer) happened(ev event) {
	c.mu.Lock()
	var e *entry
	for _, one := range c.entries {
		if one.record.Engine == ev.ID {
			e = one
		}
	}
	if e == nil {
		c.mu.Unlock()
		return
	}
	if ev.Action == "kill" {
		e.sent(ev.Signal)
	}
	if ev.Action == "die" && ev.ExitCode >= 0 {
		e.died = &ev.ExitCode
	}
	ready := isClosed(e.ready)
	c.mu.Unlock()
	if ready && (ev.Action == "die" || ev.Action == "destroy") {
		c.settle(e)
	}
}

// sent notes a signal, and reports whether it is the first of its kind. Called with mu held.
func (e *entry) sent(signal int) bool {
	if signal <= 0 || signal > 63 || e.record.Signals&(1<<signal) != 0 {
		return false
	}
	e.record.Signals |= 1 << signal
	return true
}

// settle looks into the end of a container, in the background; one that has not ended after all is left alone.
func (c *Containerizer) settle(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.settled || isClosed(e.told) || c.life.Err() != nil {
		return
	}
	e.settled = true
	c.wg.Go(func() {
		select {
		case c.settling <- struct{}{}:
		case <-c.life.Done():
			return
		}
		exit, ended := c.learnEnd(e)
		<-c.settling
		if !ended {
			c.mu.Lock()
			e.settled = false
			c.mu.Unlock()
			return
		}
		timer := time.NewTimer(copyPatience)
		defer timer.Stop()
		select {
		case <-e.copied:
		case <-timer.C:
		case <-c.life.Done():
			return
		}
		c.tell(e, exit)
	})
}

// learnEnd asks the engine how a container ended.
func (c *Containerizer) learnEnd(e *entry) (exit containerizer.Exit, ended bool) {
	i, err := c.engine.Inspect(c.life, e.engine(c))
	if errors.Is(err, errNotFound) {
		return c.exitOf(e, nil), true
	}
	if err != nil {
		return exit, false
	}
	if !i.ended() {
		c.mu.Lock()
		other := i.Running && i.PID != e.record.PID
		c.mu.Unlock()
		if other {
			// Somebody restarted it.
			c.learn(e, &i)
		}
		return exit, false
	}
	return c.exitOf(e, &i), true
}

// exitOf is the exit of a container that has ended; i is nil for one that the engine does not have any more.
func (c *Containerizer) exitOf(e *entry, i *inspection) containerizer.Exit {
	c.mu.Lock()
	defer c.mu.Unlock()
	exit := containerizer.Exit{ID: e.id, At: time.Now()}
	code := -1
	if i != nil {
		code = i.ExitCode
		exit.Message = i.Error
		if !i.Finished.IsZero() {
			exit.At = i.Finished
		}
	} else {
		exit.Message = lost
		if e.died != nil {
			code = *e.died
		}
	}
	if code >= 0 {
		exit.Known, exit.Status = true, waitStatus(code, e.record.Signals)
	}
	if e.handle != nil {
		// The kernel tells a signal from an exit with the same number, the engine does not.
		if status, known, ended := e.handle.Exit(); ended && known {
			exit.Known, exit.Status = true, status
		}
	}
	if (e.oom || i != nil && i.OOM) && (code == 128+int(syscall.SIGKILL) || exit.Status == int(syscall.SIGKILL)) {
		// The kernel may have killed a child alone; then the exit of the first process counts.
		exit.OOM = true
		if e.handle == nil {
			exit.Status = int(syscall.SIGKILL)
		}
	}
	if exit.OOM {
		exit.MemLimit = e.record.Memory
	}
	return exit
}

// waitStatus makes a raw wait status of the engine's exit code, which is 128 more than the signal for a process that a
// signal ended. But a process may exit with such a code too: so it counts as a signal where that signal was sent.
func waitStatus(code int, sent uint64) int {
	if n := code - 128; n > 0 && n < 64 && sent&(1<<n) != 0 {
		return n
	}
	return code & 0xff << 8
}

// sweep removes containers whose time is over.
func (c *Containerizer) sweep() {
	now := time.Now()
	c.mu.Lock()
	due := make(map[string]removal)
	for id, r := range c.removals {
		if !now.Before(r.due) {
			due[id] = r
		}
	}
	c.mu.Unlock()
	for id, r := range due {
		if err := c.engine.Remove(c.life, r.engine, true); err != nil && !errors.Is(err, errNotFound) {
			if c.life.Err() != nil {
				return
			}
			if !errors.Is(err, errAway) {
				c.log.Warn("cannot remove a container", "container_id", id, "err", err)
			}
			continue
		}
		if err := c.files.forget(id); err != nil {
			c.log.Warn("cannot remove the state of a container", "container_id", id, "err", err)
		}
		c.mu.Lock()
		delete(c.removals, id)
		c.mu.Unlock()
	}
}
