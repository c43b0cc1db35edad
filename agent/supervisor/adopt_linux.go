package supervisor

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// adopt fills the books from the disk and takes hold of what still runs. pidfds are those that the process had before
// it re-executed itself, by id; they are better than any that can be opened now,
// since they know how a process ended that is gone.
func (s *server) adopt(pidfds map[string]handedPidfd) error {
	whole, torn, err := s.records.load()
	if err != nil {
		return fmt.Errorf("cannot read the records: %w", err)
	}
	var procs []proc
	for id, err := range torn {
		s.log.Warn("record quarantined", "container_id", id, "err", err)
		whole = append(whole, &record{Container: Container{ID: id}, Boot: s.boot})
	}
	adopted, lost := 0, 0
	for _, r := range whole {
		if e := validateID(r.ID); e != nil {
			s.log.Warn("record ignored", "err", e)
			continue
		}
		if r.Boot != s.boot {
			// Whoever has that number and start time now is somebody else.
			r.PID, r.Ticks = 0, 0
		}
		if r.Launcher && r.PID == 0 && r.Exit == nil {
			// What the launcher was to start never ran: for whoever asked for it, it was never there.
			s.undo(&r.Container, r.Boot == s.boot)
			continue
		}
		c := &container{record: *r, pidfd: -1}
		s.containers[r.ID] = c
		if r.Exit != nil {
			continue
		}
		fd := -1
		if handed, ok := pidfds[r.ID]; ok {
			fd, c.child = handed.FD, handed.Child
		} else if r.Boot == s.boot {
			if r.PID == 0 && procs == nil {
				if procs, err = listProcs(); err != nil {
					return fmt.Errorf("cannot read the process table: %w", err)
				}
			}
			fd = s.refind(r, procs)
		}
		if fd < 0 {
			lost++
			s.lose(c)
			continue
		}
		adopted++
		if err := s.hold(c, r, fd); err != nil {
			return err
		}
	}
	if len(whole) > 0 {
		s.log.Info("containers found", "running", adopted, "lost", lost, "ended", len(whole)-adopted-lost)
	}
	return nil
}

// refind returns a pidfd of the first process of r, or -1. A record without a pid is an intent, or a damaged one: its
// process may run all the same, and shows by its mark.
func (s *server) refind(r *record, procs []proc) int {
	if r.PID == 0 {
		p, ok := findByMark(procs, s.spawner.mark, r.ID)
		if !ok {
			return -1
		}
		r.PID, r.Ticks, r.Started = p.pid, p.ticks, startedAt(p.ticks)
		if err := s.records.write(r, false); err != nil {
			s.log.Error("cannot write a record", "container_id", r.ID, "err", err)
		}
	}
	fd, err := openPidfd(r.PID, r.Ticks)
	if err != nil {
		if !errors.Is(err, ErrGone) {
			s.log.Error("cannot hold a process", "container_id", r.ID, "err", err)
		}
		return -1
	}
	return fd
}

// lose ends a container whose process is gone, nobody knows how. What is left of it goes too.
func (s *server) lose(c *container) {
	before := make(struck)
	for range 3 {
		if c.Boot != s.boot {
			break
		}
		if n, err := killOnce(&c.Container, s.spawner.mark, nil, before); n == 0 || err != nil {
			break
		}
	}
	c.Exit = &Exit{At: time.Now()}
	if err := s.persist(&c.record); err != nil {
		// It would be found lost again by the next supervisor: nothing that is told now would change.
		s.log.Error("cannot write a record", "container_id", c.ID, "err", err)
	}
}

// startedAt turns ticks since boot into a time of the wall clock.
func startedAt(ticks uint64) time.Time {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Now()
	}
	// Linux shows ticks of 10 ms on all machines that Go runs on.
	age := time.Duration(now.Nano()) - time.Duration(ticks)*10*time.Millisecond
	return time.Now().Add(-age)
}
