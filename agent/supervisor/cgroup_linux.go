package supervisor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A cgroup here is just a folder that the client made. What kind it is shows by its files: only the first version has
// "tasks", only the second "cgroup.events".

func isUnified(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cgroup.events"))
	return err == nil
}

// splitCgroups separates the folder of the unified hierarchy, which a process is born into, from those of the first
// version, which the forking thread joins.
func splitCgroups(dirs []string) (unified string, legacy []string) {
	for _, dir := range dirs {
		if isUnified(dir) {
			unified = dir
		} else {
			legacy = append(legacy, dir)
		}
	}
	return unified, legacy
}

// cgroupPIDs lists the processes in the cgroup, ourselves left out: a thread of ours is in it for the moment of a fork.
// The error is fs.ErrNotExist when the cgroup is gone.
func cgroupPIDs(dir string) ([]int, error) {
	text, err := readFile(filepath.Join(dir, "cgroup.procs"), make([]byte, 512))
	if errors.Is(err, unix.ENODEV) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	self := os.Getpid()
	for line := range strings.Lines(string(text)) {
		// 0 is a process of another pid namespace: nothing that we could signal.
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 && pid != self {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// trackingCgroup picks the cgroup by which the processes of a container are found: any one will do, since all of them
// hold the same processes.
func trackingCgroup(dirs []string) string {
	unified, legacy := splitCgroups(dirs)
	if unified != "" {
		return unified
	}
	for _, dir := range legacy {
		if _, err := os.Stat(filepath.Join(dir, "freezer.state")); err == nil {
			return dir
		}
	}
	for _, dir := range legacy {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			return dir
		}
	}
	return ""
}

// cgroupKill sends SIGKILL to all in the cgroup and reports how many there were. Where the kernel can, it does so at
// once for all; otherwise they are frozen first, so that nobody forks while we go through the list.
func cgroupKill(dir string) (int, error) {
	pids, err := cgroupPIDs(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil || len(pids) == 0 {
		return 0, err
	}
	if writeFile(filepath.Join(dir, "cgroup.kill"), "1") == nil {
		return len(pids), nil
	}
	freezer := filepath.Join(dir, "freezer.state")
	if writeFile(freezer, "FROZEN") == nil {
		defer writeFile(freezer, "THAWED")
		if frozen, err := cgroupPIDs(dir); err == nil {
			pids = frozen
		}
	}
	killByNumber(dir, pids)
	return len(pids), nil
}

// killByNumber kills those of pids that are still in the cgroup once a pidfd holds them: the numbers were read a moment
// ago, and may have changed hands.
func killByNumber(dir string, pids []int) {
	fds := make(map[int]int, len(pids))
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			fds[pid] = fd
		}
	}
	still, _ := cgroupPIDs(dir)
	for _, pid := range still {
		if fd, ok := fds[pid]; ok {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// OOMKilled tells whether the OOM killer ended a container, by what its cgroups count and the wait status of its first
// process, 0 while that runs. In a cgroup of the first version, which counts its own processes only, the OOM killer ends a
// single one, and whoever watches ends the rest: there the count is enough. In one of the second version it ends all of
// them, and the count holds what was ended in cgroups that the container itself made: there the first process must have
// been killed too.
func OOMKilled(dirs []string, status int) bool {
	ws := syscall.WaitStatus(status)
	killed := ws.Signaled() && ws.Signal() == syscall.SIGKILL
	for _, dir := range dirs {
		if oomKills(filepath.Join(dir, "memory.oom_control")) > 0 || killed && oomKills(filepath.Join(dir, "memory.events")) > 0 {
			return true
		}
	}
	return false
}

// oomKills reads how many processes the OOM killer has ended.
func oomKills(file string) int {
	text, err := readFile(file, make([]byte, 1024))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(v))
			return n
		}
	}
	return 0
}
