package supervisor

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// spare is how many processes and threads a start may need at once: the task, and a thread to fork it from.
const spare = 2

// roomForMore reports whether our own cgroups let us have some more processes and threads. A program of Go that is refused a
// thread ends on the spot, and with it the parent of all tasks: so a start is refused ahead of that. What can't be read
// counts as room.
func roomForMore() bool {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		for _, mount := range pidsMounts(f[1]) {
			if !room(mount, f[2]) {
				return false
			}
		}
	}
	return true
}

// pidsMounts are where the hierarchy of these controllers is mounted, if it counts processes.
func pidsMounts(controllers string) []string {
	switch controllers {
	case "":
		return []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}
	case "pids":
		return []string{"/sys/fs/cgroup/pids"}
	}
	return nil
}

// room looks at a cgroup and those above it.
func room(mount, dir string) bool {
	for ; dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		most, err := readCount(filepath.Join(mount, dir, "pids.max"))
		if err != nil {
			continue // there is no limit, which is the word "max", or no such file
		}
		now, err := readCount(filepath.Join(mount, dir, "pids.current"))
		if err == nil && now+spare > most {
			return false
		}
	}
	return true
}

func readCount(path string) (int64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
}
