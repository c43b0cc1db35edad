package docker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"starling/agent/containerizer"
	"starling/agent/containerizer/process/cgroup"
)

// Usage tells what a container uses: by its cgroups where they are to be seen, which costs the engine nothing and works
// while it hangs, otherwise by the engine. An ended container uses nothing.
func (c *Containerizer) Usage(ctx context.Context, id string) (containerizer.Usage, error) {
	e, err := c.lookup(ctx, id)
	if err != nil {
		return containerizer.Usage{}, err
	}
	c.mu.Lock()
	engine, pid, over, err := e.record.Engine, 0, isClosed(e.told), c.away
	if !over && e.handle != nil {
		if _, _, ended := e.handle.Exit(); !ended {
			pid = e.record.PID
		}
	}
	c.mu.Unlock()
	if over {
		return containerizer.Usage{}, nil
	}
	if pid > 0 {
		if u, ok := usageOf(pid, engine); ok {
			return u, nil
		}
	}
	if err != nil {
		return containerizer.Usage{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	u, err := c.engine.Stats(ctx, engine)
	if err != nil {
		return containerizer.Usage{}, fmt.Errorf("cannot learn the usage of container %q: %w", id, err)
	}
	return u, nil
}

// cgroupsOf lists where the cgroups may be that a process is in and that are named after its container.
func cgroupsOf(pid int, engineID string) (dirs []string) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return nil
	}
	const top = "/sys/fs/cgroup"
	for line := range strings.Lines(string(data)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 || !strings.Contains(part[2], engineID) {
			continue
		}
		if part[1] == "" {
			// The unified hierarchy, alone or beside the others.
			dirs = append(dirs, filepath.Join(top, part[2]), filepath.Join(top, "unified", part[2]))
			continue
		}
		dirs = append(dirs, filepath.Join(top, part[1], part[2]))
	}
	return dirs
}

// usageOf reads the cgroups of a process.
func usageOf(pid int, engineID string) (u containerizer.Usage, ok bool) {
	dirs := cgroupsOf(pid, engineID)
	used, ok := cgroup.ReadUsage(dirs)
	if !ok {
		return u, false
	}
	u.CPUUser, u.CPUSystem = used.User, used.System
	memory := false
	for _, dir := range dirs {
		if n, ok := residentMemory(filepath.Join(dir, "memory.stat")); ok {
			u.MemBytes, memory = n, true
		}
		if procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err == nil && u.Processes == 0 {
			u.Processes = strings.Count(string(procs), "\n")
		}
	}
	return u, memory && u.Processes > 0
}

// residentMemory is the memory of a cgroup that belongs to no file, by the names that both versions have for it.
func residentMemory(file string) (int64, bool) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "total_rss" || name == "anon" {
			n, err := strconv.ParseInt(value, 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
