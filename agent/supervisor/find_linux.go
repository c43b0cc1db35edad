package supervisor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// markOf names the supervisor of a folder in the environments of its tasks.
func markOf(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return hex.EncodeToString(sum[:8])
}

// members picks the processes of the container c out of the process table: see the package comment for the means.
// Zombies are part of it, since they keep a session and a line of descent together. sessions are the first processes
// of other containers, whose sessions can't hold anything of c. It is for containers without a cgroup.
func members(procs []proc, c *Container, mark string, sessions map[int]bool) []proc {
	self := os.Getpid()
	in := make(map[int]bool)
	// The numbers of session and group mean something only as long as the leader is in the table, be it as a zombie:
	// only that keeps another process from having got its number.
	leader := false
	for _, p := range procs {
		if p.pid == c.PID && p.ticks == c.Ticks {
			leader = true
		}
	}
	for _, p := range procs {
		switch {
		case p.pid == self, p.pid == 1:
		case leader && (p.pid == c.PID || p.sid == c.PID || p.pgrp == c.PID):
			in[p.pid] = true
		case p.ticks < c.Ticks || sessions[p.sid] || p.zombie():
		case hasMark(p.pid, mark, c.ID):
			in[p.pid] = true
		}
	}
	for grown := len(in) > 0; grown; {
		grown = false
		for _, p := range procs {
			if in[p.ppid] && !in[p.pid] && p.pid != self {
				in[p.pid] = true
				grown = true
			}
		}
	}
	var found []proc
	for _, p := range procs {
		if in[p.pid] {
			found = append(found, p)
		}
	}
	return found
}

// struck are processes that were sent SIGKILL, with their start times. One that is dying gives up its memory, and with that its
// mark, before its files: it is not found any more, and holds its ports still.
type struck map[int]uint64

// killMembers sends SIGKILL to all that members finds and returns how many of them, and of those struck before, were alive.
func killMembers(procs []proc, c *Container, mark string, sessions map[int]bool, before struck) int {
	for _, p := range members(procs, c, mark, sessions) {
		if p.zombie() {
			continue
		}
		before[p.pid] = p.ticks
		fd, err := openPidfd(p.pid, p.ticks)
		if err != nil {
			continue
		}
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		unix.Close(fd)
	}
	alive := 0
	for _, p := range procs {
		if ticks, ok := before[p.pid]; ok && ticks == p.ticks && !p.zombie() {
			alive++
		}
	}
	return alive
}

// killOnce sends SIGKILL to all processes of the container and returns how many were alive before, those struck included.
func killOnce(c *Container, mark string, sessions map[int]bool, before struck) (int, error) {
	if dir := trackingCgroup(c.Cgroups); dir != "" {
		return cgroupKill(dir)
	}
	procs, err := listProcs()
	if err != nil {
		return 0, err
	}
	return killMembers(procs, c, mark, sessions, before), nil
}

// KillProcesses ends all processes of a container of the supervisor of dir without asking the supervisor: for when that
// hangs. It returns when none is alive any more or ctx ends.
func KillProcesses(ctx context.Context, dir string, c Container) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	return killUntilGone(ctx, &c, markOf(dir), nil, make(struck))
}

func killUntilGone(ctx context.Context, c *Container, mark string, sessions map[int]bool, before struck) error {
	pause := time.Millisecond
	for {
		alive, err := killOnce(c, mark, sessions, before)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot find the processes of container %q: %w", c.ID, err)
		}
		if alive == 0 {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: container %q still has %d processes", ErrTimeout, c.ID, alive)
		case <-timer.C:
		}
		pause = min(2*pause, 100*time.Millisecond)
	}
}

// Processes lists the living processes of a container of the supervisor of dir.
func Processes(dir string, c Container) ([]int, error) {
	if tracking := trackingCgroup(c.Cgroups); tracking != "" {
		pids, err := cgroupPIDs(tracking)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return pids, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	procs, err := listProcs()
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, p := range members(procs, &c, markOf(dir), nil) {
		if !p.zombie() {
			pids = append(pids, p.pid)
		}
	}
	return pids, nil
}

// findByMark looks for the first process of a container whose record tells no pid: the oldest one with its mark that
// leads a session.
func findByMark(procs []proc, mark, id string) (proc, bool) {
	var first proc
	for _, p := range procs {
		if p.sid == p.pid && !p.zombie() && (first.pid == 0 || p.ticks < first.ticks) && hasMark(p.pid, mark, id) {
			first = p
		}
	}
	return first, first.pid != 0
}
