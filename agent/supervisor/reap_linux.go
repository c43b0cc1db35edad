package supervisor

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reapWait is how long an adopted process may stay unreaped by whoever is its parent now before we give up on learning
// its status from the kernel.
const reapWait = 5 * time.Second

// syncers is how many exits are written at once: syncs of several files share the work of the disk.
const syncers = 8

// ending is an exit on its way to the disk.
type ending struct {
	c *container
	// record is that of c with the exit.
	record record
	// swept is set when nothing of the container is left; struck are those that it left.
	swept  bool
	struck struck
}

// pauseRequest asks the reaper to rest between two rounds. It closes rested and goes on when resume is closed.
type pauseRequest struct {
	rested chan struct{}
	resume chan struct{}
}

// reapLoop waits for all processes at once. An exit goes through these steps, in this order: its status is read without
// reaping; what the process left behind is killed (while the zombie keeps its numbers from being reused); the record is
// written and synced; the process is reaped; watchers are told.
func (s *server) reapLoop() {
	defer s.wg.Done()
	var (
		events  = make([]unix.EpollEvent, 128)
		waiting []*container // adopted, ended, and not yet reaped by their parents
		unsaved []ending     // could not be written
		retry   time.Time    // when to write unsaved again
		backoff time.Duration
	)
	for {
		n, err := unix.EpollWait(s.epoll, events, timeout(waiting, unsaved, retry))
		if err != nil && err != unix.EINTR {
			s.log.Error("cannot wait for processes", "err", err)
			time.Sleep(time.Second)
		}
		var endings []ending
		for _, event := range events[:max(n, 0)] {
			if fd := int(event.Fd); fd == s.wakeup {
				var buf [8]byte
				_, _ = unix.Read(fd, buf[:])
			} else if e, wait := s.examine(fd); e != nil {
				endings = append(endings, *e)
			} else if wait != nil {
				waiting = append(waiting, wait)
			}
		}
		select {
		case <-s.stop:
			return
		case p := <-s.pause:
			close(p.rested)
			<-p.resume
		default:
		}
		endings, waiting = s.impatient(endings, waiting)
		s.sweep(endings)
		if len(unsaved) > 0 && !time.Now().Before(retry) {
			endings = append(unsaved, endings...)
			unsaved = nil
		}
		if failed := s.settle(endings); len(failed) > 0 {
			unsaved = append(unsaved, failed...)
			backoff = min(max(2*backoff, 100*time.Millisecond), 5*time.Second)
			retry = time.Now().Add(backoff)
		} else if len(unsaved) == 0 {
			backoff = 0
		}
		s.reapOrphans()
	}
}

// timeout is how long to wait, in milliseconds; -1 is for ever.
func timeout(waiting []*container, unsaved []ending, retry time.Time) int {
	wait := time.Duration(-1)
	if len(unsaved) > 0 {
		wait = max(time.Until(retry), time.Millisecond)
	}
	for _, c := range waiting {
		if left := max(time.Until(c.reapBy), time.Millisecond); wait < 0 || left < wait {
			wait = left
		}
	}
	if wait < 0 {
		return -1
	}
	return int(wait/time.Millisecond) + 1
}

// examine looks at a process that ended. It returns its ending, or the container if the status is not to be had yet.
func (s *server) examine(fd int) (*ending, *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.byPidfd[fd]
	if !ok {
		return nil, nil
	}
	if c.child {
		status, ended, err := childStatus(fd)
		if err == nil {
			if !ended {
				return nil, nil
			}
			return s.endingLocked(c, status, true), nil
		}
		s.log.Warn("a child is not ours", "container_id", c.ID, "err", err)
		c.child = false
	}
	status, known, final := reapedStatus(fd)
	if !known {
		status, known = zombieStatus(c.PID, c.Ticks)
	}
	if known || final {
		return s.endingLocked(c, status, known), nil
	}
	if !c.reapBy.IsZero() {
		return nil, nil
	}
	// The end of the zombie shows as a hang-up, which needs no asking for.
	c.reapBy = time.Now().Add(reapWait)
	_ = unix.EpollCtl(s.epoll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Fd: int32(fd)})
	return nil, c
}

// impatient gives up on those whose parents don't reap them, and drops those that were dealt with.
func (s *server) impatient(endings []ending, waiting []*container) ([]ending, []*container) {
	if len(waiting) == 0 {
		return endings, waiting
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	still := waiting[:0]
	for _, c := range waiting {
		switch {
		case s.byPidfd[c.pidfd] != c || hasEnding(endings, c):
		case time.Now().Before(c.reapBy):
			still = append(still, c)
		default:
			endings = append(endings, *s.endingLocked(c, 0, false))
		}
	}
	clear(waiting[len(still):])
	return endings, still
}

func hasEnding(endings []ending, c *container) bool {
	for _, e := range endings {
		if e.c == c {
			return true
		}
	}
	return false
}

// endingLocked makes the ending of c, whose pidfd needs no more watching. Called with mu held.
func (s *server) endingLocked(c *container, status int, known bool) *ending {
	_ = unix.EpollCtl(s.epoll, unix.EPOLL_CTL_DEL, c.pidfd, nil)
	e := &ending{c: c, record: c.record}
	ws := syscall.WaitStatus(status)
	if known && ws.Signaled() && ws.Signal() == syscall.SIGKILL && c.meant != 0 {
		ws = syscall.WaitStatus(c.meant)
	}
	e.record.Exit = &Exit{Known: known, Status: int(ws), At: time.Now()}
	if known {
		e.record.Exit.OOM = OOMKilled(c.Cgroups, int(ws))
	}
	return e
}

// sweep kills what the first processes left behind. One look at the process table serves all of them; whoever forks
// faster than a few looks is met again by a kill.
func (s *server) sweep(endings []ending) {
	var plain []*ending
	for i := range endings {
		e := &endings[i]
		dir := trackingCgroup(e.record.Cgroups)
		if dir == "" {
			plain = append(plain, e)
			e.struck = make(struck)
			continue
		}
		left, err := cgroupKill(dir)
		if err != nil {
			s.log.Warn("cannot kill what a container left", "container_id", e.record.ID, "err", err)
		}
		// The zombie itself is not in the list.
		e.swept = err == nil && left == 0
	}
	for look := range 4 {
		if len(plain) == 0 {
			return
		}
		// The killed take a moment to die.
		time.Sleep(time.Duration(look) * time.Millisecond)
		procs, err := listProcs()
		if err != nil {
			s.log.Warn("cannot read the process table", "err", err)
			return
		}
		s.mu.Lock()
		sessions := s.sessionsLocked(0)
		s.mu.Unlock()
		left := plain[:0]
		for _, e := range plain {
			delete(sessions, e.record.PID)
			if killMembers(procs, &e.record.Container, s.spawner.mark, sessions, e.struck) > 0 {
				left = append(left, e)
			} else {
				e.swept = true
			}
			sessions[e.record.PID] = true
		}
		plain = left
	}
}

// settle writes endings, reaps and tells. It returns those that could not be written.
func (s *server) settle(endings []ending) (failed []ending) {
	if len(endings) == 0 {
		return nil
	}
	errs := make([]error, len(endings))
	next := make(chan int, len(endings))
	for i := range endings {
		next <- i
	}
	close(next)
	var writers sync.WaitGroup
	for range min(syncers, len(endings)) {
		writers.Go(func() {
			for i := range next {
				errs[i] = s.records.write(&endings[i].record, true)
			}
		})
	}
	writers.Wait()
	dirErr := s.records.syncDir()

	// Who removes our folder takes the way to us and the use of records away. There is nothing to wait for then.
	_, err := os.Stat(s.records.dir)
	gone := errors.Is(err, fs.ErrNotExist)

	s.mu.Lock()
	defer s.mu.Unlock()
	for i, e := range endings {
		if gone {
			s.log.Error("exit is lost, the folder was removed", "container_id", e.record.ID)
			s.tellLocked(e)
			continue
		}
		if errs[i] == nil {
			errs[i] = dirErr
		}
		if errs[i] != nil {
			s.log.Error("cannot write an exit, which is not told until it is", "container_id", e.record.ID, "err", errs[i])
			failed = append(failed, e)
			continue
		}
		s.tellLocked(e)
	}
	s.watchIdle()
	if gone && s.runningLocked() == 0 {
		s.endLocked()
	}
	return failed
}

// tellLocked reaps the process of an ending that is on disk and tells the watchers. Called with mu held.
func (s *server) tellLocked(e ending) {
	c := e.c
	if c.child {
		if err := reap(c.pidfd); err != nil {
			s.log.Warn("cannot reap", "container_id", c.ID, "err", err)
		}
	}
	delete(s.byPidfd, c.pidfd)
	delete(s.byPID, c.PID)
	unix.Close(c.pidfd)
	c.pidfd = -1
	if c.record, c.swept = e.record, e.swept; !e.swept {
		c.struck = e.struck
	}
	if c.ended != nil {
		close(c.ended)
		c.ended = nil
	}
	told := c.Container
	for conn := range s.conns {
		if conn.watching {
			conn.push(response{Container: &told})
		}
	}
}

// reapOrphans takes children out of the process table that are not the first process of any container: they were
// re-parented to us when their own parents ended.
func (s *server) reapOrphans() {
	s.spawning.Lock()
	defer s.spawning.Unlock()
	for {
		code, _, pid, err := waitid(unix.P_ALL, 0, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG)
		if err != nil || code == 0 {
			return
		}
		s.mu.Lock()
		_, known := s.byPID[pid]
		known = known || s.reserved[pid]
		s.mu.Unlock()
		if known {
			// It hides the others; its own turn comes first, and after that we are called again.
			return
		}
		if _, _, _, err := waitid(unix.P_PID, pid, unix.WEXITED|unix.WNOHANG); err != nil {
			return
		}
	}
}
