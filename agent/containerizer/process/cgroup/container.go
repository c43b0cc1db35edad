package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
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
	// CPUs is a share under contention, as Mesos has it by default. CPULimit is a cap; with Quota, CPUs is one where there
	// is no other. A negative CPULimit is no cap.
	CPUs, CPULimit float64
	Quota          bool
	// MemBytes is the most memory, at least minMem. MemLimit, if it is not zero, is that instead, and MemBytes what is
	// left to the container when memory is scarce; a negative one is no limit.
	MemBytes, MemLimit int64
	// NoSwap makes the limit of memory one of memory and swap.
	NoSwap bool
	// Pids is how many processes and threads there may be.
	Pids int64
	// Contained is set for a container with namespaces of its own, which is in all hierarchies.
	Contained bool
}

// quota returns the cap on CPUs, or 0.
func (l *Limits) quota() float64 {
	switch {
	case l.CPULimit != 0:
		return max(l.CPULimit, 0)
	case l.Quota:
		return l.CPUs
	}
	return 0
}

// hard returns the most memory in bytes, or 0.
func (l *Limits) hard() int64 {
	limit := l.MemLimit
	if limit == 0 {
		limit = l.MemBytes
	}
	if limit <= 0 {
		return 0
	}
	return max(limit, minMem)
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
	return t.CreateIn("", id, limits)
}

// CreateIn is Create within the limits of a group, unless group is empty.
func (t *Tree) CreateIn(group, id string, limits Limits) ([]string, error) {
	name := containerPrefix + encode(id)
	if group != "" {
		name = filepath.Join(groupPrefix+encode(group), name)
	}
	return t.create(name, &limits)
}

// The prefixes of the names of cgroups.
const (
	containerPrefix = "c-"
	groupPrefix     = "g-"
)

// CreateGroup makes the cgroups of a group of containers, or gives those that are there these limits.
func (t *Tree) CreateGroup(id string, limits Limits) error {
	limits.Contained = true
	for _, b := range t.bases {
		dir := filepath.Join(b.dir, groupPrefix+encode(id))
		if err := t.mkdir(b, dir); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("cannot make cgroup %q: %w", dir, err)
		}
		if b.unified {
			for _, controller := range b.has {
				if err := enable(dir, controller); err != nil {
					return fmt.Errorf("cannot pass on %s: %w", controller, err)
				}
			}
		}
		if err := apply(dir, b.settings(&limits)); err != nil {
			return err
		}
	}
	return nil
}

// HasGroup tells whether the cgroups of a group are there.
func (t *Tree) HasGroup(id string) bool {
	for _, b := range t.bases {
		if _, err := os.Stat(filepath.Join(b.dir, groupPrefix+encode(id))); err == nil {
			return true
		}
	}
	return false
}

// RemoveGroup removes the cgroups of a group without processes, those of its containers included. One that is not there
// is no error.
func (t *Tree) RemoveGroup(ctx context.Context, id string) error {
	var dirs []string
	for _, b := range t.bases {
		dir := filepath.Join(b.dir, groupPrefix+encode(id))
		entries, _ := os.ReadDir(dir)
		for _, entry := range entries {
			if entry.IsDir() && strings.HasPrefix(entry.Name(), containerPrefix) {
				dirs = append(dirs, filepath.Join(dir, entry.Name()))
			}
		}
		dirs = append(dirs, dir)
	}
	return t.Remove(ctx, dirs)
}

// Remove removes the cgroups of a container whose processes have ended, see Remove, and what is empty then of the folders
// above them that nobody else removes.
func (t *Tree) Remove(ctx context.Context, dirs []string) error {
	err := Remove(ctx, dirs)
	for _, b := range t.bases {
		if b.contained() && slices.ContainsFunc(dirs, func(dir string) bool { return strings.HasPrefix(dir, b.dir+"/") }) {
			_ = os.Remove(b.dir)
		}
	}
	return err
}

// Groups lists the ids of the groups that are there.
func (t *Tree) Groups() []string {
	var ids []string
	for _, b := range t.bases {
		entries, _ := os.ReadDir(b.dir)
		for _, entry := range entries {
			name, ok := strings.CutPrefix(entry.Name(), groupPrefix)
			if id := decode(name); ok && entry.IsDir() && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// Set gives the cgroups of a container, which Create or CreateGroup made, other limits.
func (t *Tree) Set(dirs []string, limits Limits) error {
	for _, dir := range dirs {
		for _, b := range t.bases {
			if strings.HasPrefix(dir, b.dir+"/") {
				if err := reset(dir, b.settings(&limits)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// SetGroup gives a group other limits.
func (t *Tree) SetGroup(id string, limits Limits) error {
	var dirs []string
	for _, b := range t.bases {
		dirs = append(dirs, filepath.Join(b.dir, groupPrefix+encode(id)))
	}
	return t.Set(dirs, limits)
}

// apply writes settings.
func apply(dir string, settings []setting) error {
	for _, s := range settings {
		err := write(filepath.Join(dir, s.file), s.value)
		if s.optional && err != nil {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot set %s to %s: %w", s.file, s.value, err)
		}
	}
	return nil
}

// reset is apply on a cgroup in use: where two settings may not pass each other, the other order is tried.
func reset(dir string, settings []setting) error {
	if apply(dir, settings) == nil {
		return nil
	}
	slices.Reverse(settings)
	return apply(dir, settings)
}

// Supervisor makes the cgroups of the supervisor, without limits.
func (t *Tree) Supervisor() ([]string, error) {
	var dirs []string
	for _, b := range t.bases {
		if b.contained() {
			continue
		}
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
	if b.contained() {
		// Somebody may remove it, empty as it is, before we have got to ours.
		for range 10 {
			if err = t.mkdirAll(b.point, b.dir); err == nil {
				err = t.cfg.Mkdir(dir)
			}
			if !errors.Is(err, fs.ErrNotExist) {
				break
			}
		}
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
		if b.contained() && !limits.Contained {
			continue
		}
		dir := filepath.Join(b.dir, name)
		if in := filepath.Dir(dir); in != b.dir {
			// The group was made when there was no such hierarchy, or it is gone: then there is nothing to be in.
			if _, err := os.Stat(in); err != nil {
				return dirs, fmt.Errorf("cannot find the cgroup of the group: %w", err)
			}
		}
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
		settings := b.settings(limits)
		if b.unified && slices.Contains(b.has, "memory") {
			// The OOM killer ends all of a container, wherever the limit stands that it exceeds. In the first version the
			// kernel has no such setting.
			settings = append(settings, setting{file: "memory.oom.group", value: "1", optional: true})
		}
		if err := apply(dir, settings); err != nil {
			return dirs, err
		}
	}
	return dirs, nil
}

type setting struct {
	file, value string
	// optional is set for what not every kernel has.
	optional bool
}

// settings are what to write where for the limits, in this hierarchy. What is no limit is written too where a limit may
// have been.
func (b base) settings(l *Limits) []setting {
	var s []setting
	add := func(file, value string) { s = append(s, setting{file: file, value: value}) }
	if l.CPUs > 0 && slices.Contains(b.has, "cpu") {
		shares := min(max(int64(l.CPUs*1024), 2), 262144)
		quota := int64(-1)
		if q := l.quota(); q > 0 {
			quota = max(int64(q*period), minQuota)
		}
		switch {
		case b.unified:
			// The usual map of shares (2 to 262144) onto weights (1 to 10000).
			add("cpu.weight", strconv.FormatInt(1+(shares-2)*9999/262142, 10))
			if quota > 0 {
				add("cpu.max", fmt.Sprintf("%d %d", quota, period))
			} else if l.CPULimit < 0 {
				add("cpu.max", "max")
			}
		default:
			add("cpu.shares", strconv.FormatInt(shares, 10))
			if quota > 0 {
				add("cpu.cfs_period_us", strconv.Itoa(period))
			}
			if quota > 0 || l.CPULimit < 0 {
				add("cpu.cfs_quota_us", strconv.FormatInt(quota, 10))
			}
		}
	}
	if slices.Contains(b.has, "memory") {
		s = append(s, b.memory(l)...)
	}
	if l.Pids > 0 && slices.Contains(b.has, "pids") {
		add("pids.max", strconv.FormatInt(l.Pids, 10))
	}
	return s
}

// memory are the settings for memory.
func (b base) memory(l *Limits) (s []setting) {
	hard, soft := l.hard(), int64(0)
	if l.MemLimit != 0 && l.MemBytes > 0 {
		soft = max(l.MemBytes, minMem)
	}
	names := struct{ hard, soft, none string }{"memory.limit_in_bytes", "memory.soft_limit_in_bytes", "-1"}
	if b.unified {
		names = struct{ hard, soft, none string }{"memory.max", "memory.low", "max"}
	}
	if soft > 0 {
		s = append(s, setting{file: names.soft, value: strconv.FormatInt(soft, 10), optional: true})
	}
	switch {
	case hard > 0:
		s = append(s, setting{file: names.hard, value: strconv.FormatInt(hard, 10)})
		if l.NoSwap && b.unified {
			s = append(s, setting{file: "memory.swap.max", value: "0", optional: true})
		} else if l.NoSwap {
			s = append(s, setting{file: "memory.memsw.limit_in_bytes", value: strconv.FormatInt(hard, 10), optional: true})
		}
	case l.MemLimit < 0:
		s = append(s, setting{file: names.hard, value: names.none})
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

// decode undoes encode.
func decode(name string) string {
	id, err := url.PathUnescape(name)
	if err != nil {
		return name
	}
	return id
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
			if entry.IsDir() && strings.HasPrefix(entry.Name(), groupPrefix) {
				inner, _ := os.ReadDir(dir)
				for _, member := range inner {
					at := filepath.Join(dir, member.Name())
					if member.IsDir() && strings.HasPrefix(member.Name(), containerPrefix) && !keep(at) {
						_ = os.Remove(at)
					}
				}
			}
			if entry.IsDir() && strings.HasPrefix(entry.Name(), containerPrefix) && !keep(dir) {
				_ = os.Remove(dir) // refused while processes are in it
			}
		}
		if b.contained() {
			_ = os.Remove(b.dir)
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

// ReadMemory reads the limit of the memory of a container and how near it came to it, in bytes; 0 is unknown, or no limit. In
// a group these are those of the group, where that came nearer to its limit.
func ReadMemory(dirs []string) (limit, peak int64) {
	for _, dir := range dirs {
		l, p, ok := readMemory(dir)
		if !ok {
			continue
		}
		if Group(dir) != "" {
			if gl, gp, ok := readMemory(filepath.Dir(dir)); ok && gl > 0 && (l == 0 || gl-gp < l-p) {
				return gl, gp
			}
		}
		return l, p
	}
	return 0, 0
}

func readMemory(dir string) (limit, peak int64, ok bool) {
	for _, names := range [][2]string{{"memory.max", "memory.peak"}, {"memory.limit_in_bytes", "memory.max_usage_in_bytes"}} {
		if limit, ok = readNumber(filepath.Join(dir, names[0])); ok {
			peak, _ = readNumber(filepath.Join(dir, names[1]))
			return limit, peak, true
		}
	}
	return 0, 0, false
}

// readNumber reads a file that holds one number. What is as good as no limit is 0.
func readNumber(file string) (int64, bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n >= 1<<62 {
		n = 0
	}
	return n, true
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

// Group returns the id of the group that the cgroup of a container is in; empty for none.
func Group(dir string) string {
	name, ok := strings.CutPrefix(filepath.Base(filepath.Dir(dir)), groupPrefix)
	if !ok {
		return ""
	}
	return decode(name)
}
