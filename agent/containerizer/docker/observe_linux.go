package docker

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// observe waits for the end of a container's first process and looks at once how often the kernel killed for want of
// memory in its cgroup: the engine misses that now and then, and a moment later the cgroup is gone.
func (c *Containerizer) observe(e *entry, pid int, ticks uint64, engineID string) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	file := oomCounter(pid, engineID)
	if startTicks(pid) != ticks || file == "" {
		return
	}
	defer context.AfterFunc(c.life, func() { f.Close() })()
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	err = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
	if err != nil {
		return // the containerizer ends
	}
	killed := oomKills(file) > 0
	c.mu.Lock()
	if killed && e.record.PID == pid {
		e.oom = true
	}
	c.mu.Unlock()
	c.settle(e)
}

// oomCounter is the file of a process's cgroup that counts kills for want of memory; empty where it is not to be seen.
func oomCounter(pid int, engineID string) string {
	for _, dir := range cgroupsOf(pid, engineID) {
		for _, name := range []string{"memory.oom_control", "memory.events"} {
			if file := filepath.Join(dir, name); oomKills(file) >= 0 {
				return file
			}
		}
	}
	return ""
}

// oomKills reads the counter, or returns -1.
func oomKills(file string) int {
	data, err := os.ReadFile(file)
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			if n, err := strconv.Atoi(value); err == nil {
				return n
			}
		}
	}
	return -1
}
