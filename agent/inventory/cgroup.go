package inventory

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// memTotal reads MemTotal.
func (m Machine) memTotal() (uint64, error) {
	f, err := os.Open(filepath.Join(m.Proc, "meminfo"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && fields[0] == "MemTotal:" {
			kib, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("MemTotal is no number: %w", err)
			}
			return kib << 10, nil
		}
	}
	return 0, errors.Join(errors.New("meminfo has no MemTotal"), lines.Err())
}

// cpuLimit returns the quota of the cgroup that we are in, in processors; the smallest on the way up counts.
func (m Machine) cpuLimit() (limit float64, ok bool) {
	take := func(cpus float64) {
		if cpus > 0 && (!ok || cpus < limit) {
			limit, ok = cpus, true
		}
	}
	m.walk("", func(dir string) {
		if fields := strings.Fields(read(filepath.Join(dir, "cpu.max"))); len(fields) == 2 && fields[0] != "max" {
			take(number(fields[0]) / number(fields[1]))
		}
	})
	m.walk("cpu", func(dir string) {
		quota := number(read(filepath.Join(dir, "cpu.cfs_quota_us")))
		if period := number(read(filepath.Join(dir, "cpu.cfs_period_us"))); quota > 0 && period > 0 {
			take(quota / period)
		}
	})
	return limit, ok
}

// memLimit returns the memory limit of the cgroup that we are in, in bytes; the smallest on the way up counts.
func (m Machine) memLimit() (limit uint64, ok bool) {
	take := func(text string) {
		if n, err := strconv.ParseUint(text, 10, 64); err == nil && (!ok || n < limit) {
			limit, ok = n, true
		}
	}
	m.walk("", func(dir string) { take(read(filepath.Join(dir, "memory.max"))) })
	m.walk("memory", func(dir string) { take(read(filepath.Join(dir, "memory.limit_in_bytes"))) })
	return limit, ok
}

// walk calls visit for the folder of our cgroup and of each of its parents, in the hierarchy of the v1 controller given, or
// in the v2 hierarchy for an empty name. In a container the path of the host may not exist: then only the root counts,
// which is the container's own limit there.
func (m Machine) walk(controller string, visit func(dir string)) {
	roots := []string{filepath.Join(m.Sys, "fs/cgroup", controller)}
	if controller == "" {
		roots = append(roots, filepath.Join(m.Sys, "fs/cgroup/unified"))
	}
	path := m.cgroup(controller)
	for _, root := range roots {
		for at := path; ; at = filepath.Dir(at) {
			visit(filepath.Join(root, at))
			if at == "/" || at == "." {
				break
			}
		}
	}
}

// cgroup returns our path in a hierarchy, "/" where it is not told.
func (m Machine) cgroup(controller string) string {
	for line := range strings.SplitSeq(read(filepath.Join(m.Proc, "self/cgroup")), "\n") {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) != 3 {
			continue
		}
		for name := range strings.SplitSeq(parts[1], ",") {
			if name == controller && strings.HasPrefix(parts[2], "/") {
				return filepath.Clean(parts[2])
			}
		}
	}
	return "/"
}

// read returns the content of a small file without blanks around it, empty where it can't be read: a cgroup file that
// lacks is no limit.
func read(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func number(text string) float64 {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0
	}
	return f
}

// existing returns the path, or the nearest parent of it that exists.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil {
			return path
		}
		parent := filepath.Dir(path)
		if parent == path {
			return path
		}
		path = parent
	}
}
