package cgroup

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fake is a file system that looks like a machine with cgroups. A folder made below a mount gets the files that the
// kernel would put there.
type fake struct {
	t    *testing.T
	root string
	// files are those that a new cgroup has, by mount point.
	files map[string][]string
	// denied are mount points where nothing can be made.
	denied []string
}

func newFake(t *testing.T, mountinfo, own string) *fake {
	t.Helper()
	f := &fake{t: t, root: t.TempDir(), files: make(map[string][]string)}
	f.write("proc/self/mountinfo", mountinfo)
	f.write("proc/self/cgroup", own)
	return f
}

func (f *fake) write(name, text string) {
	f.t.Helper()
	path := filepath.Join(f.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fake) read(name string) string {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(f.root, name))
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

func (f *fake) mkdir(dir string) error {
	rel, err := filepath.Rel(f.root, dir)
	if err != nil {
		return err
	}
	for _, point := range f.denied {
		if strings.HasPrefix(rel, point+"/") {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: fs.ErrPermission}
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for point, names := range f.files {
		if strings.HasPrefix(rel, point+"/") {
			for _, name := range names {
				f.write(filepath.Join(rel, name), "")
			}
		}
	}
	return nil
}

func (f *fake) find(cfg Config) *Tree {
	cfg.Name, cfg.Root, cfg.Mkdir = "starling-test", f.root, f.mkdir
	return Find(cfg)
}

const mountsV1 = `25 20 0:22 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro
26 25 0:23 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
27 25 0:24 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
28 25 0:25 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
29 25 0:26 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
30 25 0:27 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
`

func newV1(t *testing.T) *fake {
	f := newFake(t, mountsV1, "5:freezer:/\n4:devices:/\n3:memory:/user.slice\n2:cpu,cpuacct:/user.slice\n1:name=systemd:/\n")
	common := []string{"tasks", "cgroup.procs"}
	f.files = map[string][]string{
		"sys/fs/cgroup/cpu,cpuacct": append(common, "cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpuacct.stat"),
		"sys/fs/cgroup/memory":      append(common, "memory.limit_in_bytes"),
		"sys/fs/cgroup/freezer":     append(common, "freezer.state"),
	}
	for point := range f.files {
		f.write(filepath.Join(point, "cgroup.procs"), "")
		f.write(filepath.Join(point, "user.slice/cgroup.procs"), "")
	}
	return f
}

func TestVersionOne(t *testing.T) {
	f := newV1(t)
	tree := f.find(Config{})
	if got := tree.Lacks(); got != "" {
		t.Errorf("lacks %q", got)
	}
	dirs, err := tree.Create("a b", Limits{CPUs: 1.5, Quota: true, MemBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if len(dirs) != 3 {
		t.Errorf("got %d folders: %v", len(dirs), dirs)
	}
	for name, want := range map[string]string{
		"cpu,cpuacct/user.slice/starling-test/c-a%20b/cpu.shares":        "1536",
		"cpu,cpuacct/user.slice/starling-test/c-a%20b/cpu.cfs_quota_us":  "150000",
		"cpu,cpuacct/user.slice/starling-test/c-a%20b/cpu.cfs_period_us": "100000",
		"memory/user.slice/starling-test/c-a%20b/memory.limit_in_bytes":  "67108864",
		"freezer/starling-test/c-a%20b/freezer.state":                    "",
	} {
		if got := f.read("sys/fs/cgroup/" + name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := f.read("sys/fs/cgroup/cpu,cpuacct/user.slice/starling-test/cpu.shares"); got != "" {
		t.Errorf("the containers together got %q shares, want the kernel's, as much as the agent beside them has", got)
	}
	f.write("sys/fs/cgroup/cpu,cpuacct/user.slice/starling-test/c-a%20b/cpuacct.stat", "user 12\nsystem 3\n")
	if got, ok := ReadUsage(dirs); !ok || got != (Usage{User: 120 * time.Millisecond, System: 30 * time.Millisecond}) {
		t.Errorf("usage: got %v, %v", got, ok)
	}
}

func TestLimitsHaveFloors(t *testing.T) {
	f := newV1(t)
	if _, err := f.find(Config{}).Create("x", Limits{CPUs: 0.000001, Quota: true, MemBytes: 1}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"cpu,cpuacct/user.slice/starling-test/c-x/cpu.shares":       "2",
		"cpu,cpuacct/user.slice/starling-test/c-x/cpu.cfs_quota_us": "1000",
		"memory/user.slice/starling-test/c-x/memory.limit_in_bytes": strconv.Itoa(minMem),
	} {
		if got := f.read("sys/fs/cgroup/" + name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	// No limit, nothing written.
	if _, err := f.find(Config{}).Create("y", Limits{}); err != nil {
		t.Fatal(err)
	}
	if got := f.read("sys/fs/cgroup/cpu,cpuacct/user.slice/starling-test/c-y/cpu.shares"); got != "" {
		t.Errorf("got %q without a limit", got)
	}
}

const mountsV2 = "25 20 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"

func newV2(t *testing.T, own, controllers string) *fake {
	f := newFake(t, mountsV2, "0::"+own+"\n")
	names := []string{"cgroup.procs", "cgroup.events", "cgroup.kill", "cgroup.controllers", "cgroup.subtree_control", "cpu.stat"}
	for _, c := range strings.Fields(controllers) {
		names = append(names, map[string][]string{"cpu": {"cpu.weight", "cpu.max"}, "memory": {"memory.max", "memory.events", "memory.oom.group"}}[c]...)
	}
	f.files = map[string][]string{"sys/fs/cgroup": names}
	for dir := filepath.Join("sys/fs/cgroup", own); ; dir = filepath.Dir(dir) {
		f.write(filepath.Join(dir, "cgroup.procs"), "")
		f.write(filepath.Join(dir, "cgroup.controllers"), controllers+"\n")
		f.write(filepath.Join(dir, "cgroup.subtree_control"), "")
		if dir == "sys/fs/cgroup" {
			return f
		}
	}
}

func TestVersionTwo(t *testing.T) {
	f := newV2(t, "/starling.service/agent", "cpu io memory pids")
	tree := f.find(Config{})
	if got := tree.Lacks(); got != "" {
		t.Errorf("lacks %q", got)
	}
	// The folder stands beside that of the agent, since only leaves hold processes.
	base := "sys/fs/cgroup/starling.service/starling-test/"
	dirs, err := tree.Create("x", Limits{CPUs: 1, Quota: true, MemBytes: 100 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"c-x/cpu.weight": "39", "c-x/cpu.max": "100000 100000", "c-x/memory.max": "104857600", "c-x/memory.oom.group": "1"} {
		if got := f.read(base + name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	f.write(base+"c-x/cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\n")
	if got, ok := ReadUsage(dirs); !ok || got != (Usage{User: 20 * time.Microsecond, System: 10 * time.Microsecond}) {
		t.Errorf("usage: got %v, %v", got, ok)
	}
	// A member of a group ends alone.
	if err := tree.CreateGroup("g", Limits{MemBytes: 100 << 20}); err != nil {
		t.Fatal(err)
	}
	if got := f.read(base + "g-g/memory.oom.group"); got != "" {
		t.Errorf("memory.oom.group of a group: got %q", got)
	}
	own, err := tree.Supervisor()
	if err != nil || len(own) != 1 || filepath.Base(own[0]) != "supervisor" {
		t.Errorf("supervisor: got %v, %v", own, err)
	}
}

func TestVersionTwoWithoutControllers(t *testing.T) {
	f := newV2(t, "/user", "")
	tree := f.find(Config{})
	if got, want := tree.Lacks(), "cpu, memory: no such controller"; got != want {
		t.Errorf("lacks %q, want %q", got, want)
	}
	dirs, err := tree.Create("x", Limits{CPUs: 1, MemBytes: 1 << 30})
	if err != nil || len(dirs) != 1 || !tree.Tracks() {
		t.Errorf("got %v, %v", dirs, err)
	}
}

func TestHybrid(t *testing.T) {
	f := newV1(t)
	f.write("proc/self/mountinfo", mountsV1+"31 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n")
	f.write("proc/self/cgroup", f.read("proc/self/cgroup")+"0::/\n")
	f.write("sys/fs/cgroup/unified/cgroup.procs", "")
	f.files["sys/fs/cgroup/unified"] = []string{"cgroup.procs", "cgroup.events"}
	dirs, err := f.find(Config{}).Create("x", Limits{CPUs: 1, MemBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(dirs, " ")
	if strings.Contains(got, "freezer") || !strings.Contains(got, "unified") || !strings.Contains(got, "memory") {
		t.Errorf("got %s: want the unified hierarchy in place of the freezer", got)
	}
}

func TestWithoutRights(t *testing.T) {
	f := newV1(t)
	f.denied = []string{"sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/memory", "sys/fs/cgroup/freezer", "sys/fs/cgroup/devices"}
	tree := f.find(Config{})
	if got := tree.Lacks(); !strings.HasPrefix(got, "cpu,cpuacct, memory, freezer: permission denied") {
		t.Errorf("lacks %q", got)
	}
	if dirs, err := tree.Create("x", Limits{CPUs: 1}); err != nil || len(dirs) != 0 || tree.Tracks() {
		t.Errorf("got %v, %v", dirs, err)
	}
	if err := tree.CreateGroup("g", Limits{CPUs: 1}); err != nil {
		t.Errorf("a group: %v", err)
	}
	if got := newFake(t, "", "").find(Config{}).Lacks(); got != "cgroups: none are mounted" {
		t.Errorf("lacks %q", got)
	}
}

func TestParentAndPartialMounts(t *testing.T) {
	f := newV2(t, "/own", "")
	dirs, err := f.find(Config{Parent: "/other"}).Create("x", Limits{})
	if err != nil || len(dirs) != 1 || !strings.HasSuffix(dirs[0], "/sys/fs/cgroup/other/starling-test/c-x") {
		t.Errorf("got %v, %v", dirs, err)
	}
	// A container sees a part of the hierarchy, mounted as the whole.
	f = newV2(t, "/", "")
	f.write("proc/self/mountinfo", strings.Replace(mountsV2, " / /sys", " /docker/1 /sys", 1))
	f.write("proc/self/cgroup", "0::/docker/1\n")
	dirs, err = f.find(Config{}).Create("x", Limits{})
	if err != nil || len(dirs) != 1 || !strings.HasSuffix(dirs[0], "/sys/fs/cgroup/starling-test/c-x") {
		t.Errorf("got %v, %v", dirs, err)
	}
}

func TestFailureLeavesNothing(t *testing.T) {
	f := newV1(t)
	tree := f.find(Config{})
	f.files["sys/fs/cgroup/memory"] = []string{"cgroup.procs"} // the file of the limit lacks
	if _, err := tree.Create("x", Limits{MemBytes: 1 << 30}); err == nil || !strings.Contains(err.Error(), "cannot set memory.limit_in_bytes") {
		t.Errorf("got %v", err)
	}
}

// On the real machine, whatever it allows.
func TestReal(t *testing.T) {
	name := "starling-test-" + strconv.Itoa(os.Getpid())
	tree := Find(Config{Name: name})
	t.Logf("tracks: %v, memory: %v, cpu: %v; lacks: %s", tree.Tracks(), tree.Has("memory"), tree.Has("cpu"), tree.Lacks())
	t.Cleanup(func() {
		for _, b := range tree.bases {
			if err := os.Remove(b.dir); err != nil && !b.contained() {
				t.Error(err)
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for range 2 { // the second replaces the first
		if _, err := tree.Create("line\nbreak", Limits{CPUs: 0.5, MemBytes: 64 << 20}); err != nil {
			t.Fatal(err)
		}
	}
	dirs, err := tree.Create("other", Limits{Contained: true, Pids: 10})
	if err != nil {
		t.Fatal(err)
	}
	if len(dirs) != len(tree.bases) {
		t.Errorf("a contained one is in %d of %d hierarchies", len(dirs), len(tree.bases))
	}
	tree.Sweep(func(dir string) bool { return slices.Contains(dirs, dir) })
	for _, b := range tree.bases {
		entries, err := os.ReadDir(b.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() && e.Name() != "c-other" {
				t.Errorf("%s is left", e.Name())
			}
		}
	}
	for range 2 {
		if err := tree.Remove(ctx, dirs); err != nil {
			t.Error(err)
		}
	}
	for _, b := range tree.bases {
		if _, err := os.Stat(b.dir); b.contained() && err == nil {
			t.Errorf("%s is left", b.dir)
		}
	}
}
