package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Limits are what a container may use. Zero is no limit.
type Limits struct {
	// CPUs is a share under contention, as Mesos has it by default; with Quota it is a cap, too.
	CPUs  float64
	Quota bool
	// MemBytes is the most memory, at least minMem.
	MemBytes int64
}

const (
	// minMem is the lowest memory limit: with less, hardly a program gets to its first line. Mesos has the same.
	minMem = 32 << 20
	// period of a CPU quota in microseconds, and the least quota that the kernel takes.
	period, minQuota = 100_000, 1_000
)

// Create makes the cgroups of a container with its limits, as far as there are controllers for them, and returns their
// folders: none when no hierarchy can be used. What an earlier container of the same id left is replaced, if it holds
// no processes. On an error nothing is left.
func (t *Tree) Create(id string, limits Limits) ([]string, error) {
	return t.create("c-"+encode(id), &limits)
}

// Supervisor makes the cgroups of the supervisor, without limits.
func (t *Tree) Supervisor() ([]string, error) {
	var dirs []string
	for _, b := range t.bases {
		dir := filepath.Join(b.dir, "supervisor")
		if err := t.mkdir(b, dir); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// mkdir makes a cgroup in a base, and the base again where it is gone: a supervisor that ends in order takes its cgroups
// with it, and the base when that is empty, while the agent may live on and start another one.
func (t *Tree) mkdir(b base, dir string) error {
	err := t.cfg.Mkdir(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := t.cfg.Mkdir(b.dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if b.unified {
		for _, controller := range b.has {
			if err := enable(b.dir, controller); err != nil {
				return fmt.Errorf("cannot pass on %s: %w", controller, err)
			}
		}
	}
	return t.cfg.Mkdir(dir)
}

func (t *Tree) create(name string, limits *Limits) (dirs []string, err error) {
	defer func() {
		if err != nil {
			for _, dir := range dirs {
				_ = os.Remove(dir)
			}
			dirs = nil
		}
	}()
	for _, b := range t.bases {
		dir := filepath.Join(b.dir, name)
		err := t.mkdir(b, dir)
		if errors.Is(err, fs.ErrExist) {
			if err = os.Remove(dir); err == nil {
				err = t.mkdir(b, dir)
			}
		}
		if err != nil {
			return dirs, fmt.Errorf("cannot make cgroup %q: %w", dir, err)
		}
		dirs = append(dirs, dir)
		for _, s := range b.settings(limits) {
			if err := write(filepath.Join(dir, s.file), s.value); err != nil {
				return dirs, fmt.Errorf("cannot set %s to %s: %w", s.file, s.value, err)
			}
		}
	}
	return dirs, nil
}

type setting struct{ file, value string }

// settings are what to write where for the limits, in this hierarchy.
func (b base) settings(l *Limits) []setting {
	var s []setting
	if l.CPUs > 0 && slices.Contains(b.has, "cpu") {
		shares := min(max(int64(l.CPUs*1024), 2), 262144)
		quota := max(int64(l.CPUs*period), minQuota)
		if b.unified {
			// The usual map of shares (2 to 262144) onto weights (1 to 10000).
			s = append(s, setting{"cpu.weight", strconv.FormatInt(1+(shares-2)*9999/262142, 10)})
			if l.Quota {
				s = append(s, setting{"cpu.max", fmt.Sprintf("%d %d", quota, period)})
			}
		} else {
			s = append(s, setting{"cpu.shares", strconv.FormatInt(shares, 10)})
			if l.Quota {
				s = append(s, setting{"cpu.cfs_period_us", strconv.Itoa(period)}, setting{"cpu.cfs_quota_us", strconv.FormatInt(quota, 10)})
			}
		}
	}
	if l.MemBytes > 0 && slices.Contains(b.has, "memory") {
		file := "memory.limit_in_bytes"
		if b.unified {
			file = "memory.max"
		}
		s = append(s, setting{file, strconv.FormatInt(max(l.MemBytes, minMem), 10)})
	}
	return s
}

// encode makes a name of a cgroup out of an id, which may hold a newline.
func encode(id string) string {
	var b strings.Builder
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c == '%' || c == 0x7f {
			fmt.Fprintf(&b, "%%%02x", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Remove removes the cgroups of a container whose processes have ended. The kernel may take a moment to let go of the
// last one; ctx bounds the wait.
func Remove(ctx context.Context, dirs []string) error {
	pause := time.Millisecond
	for _, dir := range dirs {
		for {
			err := os.Remove(dir)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			if !errors.Is(err, syscall.EBUSY) {
				return err
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("cgroup is in use: %w", err)
			case <-time.After(pause):
			}
			pause = min(2*pause, 100*time.Millisecond)
		}
	}
	return nil
}

// Sweep removes the cgroups of containers that keep does not hold (it is asked with the folder), and that are empty:
// what a crash between making a cgroup and using it left.
func (t *Tree) Sweep(keep func(dir string) bool) {
	for _, b := range t.bases {
		entries, err := os.ReadDir(b.dir)
		if err != nil {
			continue
		}
		for _, entry := range entries {
			dir := filepath.Join(b.dir, entry.Name())
			if entry.IsDir() && strings.HasPrefix(entry.Name(), "c-") && !keep(dir) {
				_ = os.Remove(dir) // refused while processes are in it
			}
		}
	}
}

// Usage is CPU time that all processes of a cgroup have used, the ended ones too.
type Usage struct {
	User, System time.Duration
}

// ReadUsage reads the CPU time off the cgroups of a container. It reports false when they don't count it.
func ReadUsage(dirs []string) (Usage, bool) {
	for _, dir := range dirs {
		if f, err := readFields(filepath.Join(dir, "cpu.stat")); err == nil {
			// In the first version this file is about quotas only.
			if user, ok := f["user_usec"]; ok {
				return Usage{User: time.Duration(user) * time.Microsecond, System: time.Duration(f["system_usec"]) * time.Microsecond}, true
			}
		}
		if f, err := readFields(filepath.Join(dir, "cpuacct.stat")); err == nil {
			const tick = 10 * time.Millisecond
			return Usage{User: time.Duration(f["user"]) * tick, System: time.Duration(f["system"]) * tick}, true
		}
	}
	return Usage{}, false
}

// readFields reads a file of lines "name number".
func readFields(file string) (map[string]int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	fields := make(map[string]int64)
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseInt(value, 10, 64); ok && err == nil {
			fields[name] = n
		}
	}
	return fields, nil
}
