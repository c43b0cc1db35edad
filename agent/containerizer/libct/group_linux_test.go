//go:build linux && cgo

package libct

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"starling/agent/containerizer"
	"starling/master/mesos"
)

// netOf is the network namespace of a process.
func netOf(t *testing.T, pid any) string {
	t.Helper()
	at, err := os.Readlink(fmt.Sprintf("/proc/%v/ns/net", pid))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// member is a container of a group that stays.
func (n *node) member(c *Containerizer, group, id string, change func(*containerizer.Spec)) containerizer.Container {
	n.t.Helper()
	spec := n.shell(id, "echo up; sleep 1000")
	spec.Parent = group
	if change != nil {
		change(&spec)
	}
	k, err := c.Launch(n.t.Context(), spec)
	if err != nil {
		n.t.Fatal(err)
	}
	waitFor(n.t, id, func() bool { return n.output(id) == "up" })
	return k
}

func withImage(s *containerizer.Spec) { s.Container.Mesos = busyboxImage() }

// The containers of a group have one network and live within its limits, also those that a later life of the agent adds,
// and all end with it.
func TestGroup(t *testing.T) {
	n := newNode(t)
	n.withBusybox()
	nets := n.withFakeNetworks()
	c, _ := n.begin()
	group := containerizer.Group{
		ID: "g", Dir: n.dir, Container: inNetwork(isolated(), "fake"), Limits: containerizer.Limits{CPUs: 1, MemBytes: 48 << 20},
	}
	for range 2 {
		infos, err := c.OpenGroup(t.Context(), group)
		if err != nil || len(infos) != 1 || infos[0].GetName() != "fake" {
			t.Fatalf("got %v, %v", infos, err)
		}
	}
	one := n.member(c, "g", "one", nil)
	two := n.member(c, "g", "two", withImage)
	// One that asks for nothing has the network all the same.
	plain := n.member(c, "g", "plain", func(s *containerizer.Spec) { s.Container = nil })
	nested := n.member(c, "two", "nested", withImage)
	stranger := n.member(c, "", "stranger", withImage)
	if netOf(t, one.PID) == netOf(t, "self") || netOf(t, stranger.PID) != netOf(t, "self") {
		t.Error("the group's network is the node's")
	}
	for _, k := range []containerizer.Container{two, plain, nested} {
		if netOf(t, k.PID) != netOf(t, one.PID) {
			t.Errorf("%s is in another network than its group", k.ID)
		}
	}
	if name, err := exec.Command("nsenter", "-u", "-t", fmt.Sprint(one.PID), "hostname").Output(); err == nil && strings.TrimSpace(string(name)) != "of-g" {
		t.Errorf("the host is called %q", name)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}

	c, x := n.begin()
	if groups, err := c.ListGroups(t.Context()); err != nil || !slices.Equal(groups, []string{"g"}) {
		t.Errorf("got %v, %v", groups, err)
	}
	late := n.member(c, "g", "late", withImage)
	if netOf(t, late.PID) != netOf(t, one.PID) {
		t.Error("who comes later is in another network")
	}
	// Its own limit is beyond that of the group.
	hungry := n.shell("hungry", "exec tail /dev/zero")
	hungry.Parent, hungry.Limits.MemBytes = "g", 512<<20
	if _, err := c.Launch(t.Context(), hungry); err != nil {
		t.Fatal(err)
	}
	if e := x.await("hungry"); !e.OOM || syscall.WaitStatus(e.Status).Signal() != syscall.SIGKILL {
		t.Errorf("got %+v", e)
	}
	dirs, err := c.process.Cgroups(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(dirs, func(dir string) bool { return strings.Contains(dir, "/g-g/c-one") }) {
		t.Errorf("cgroups are %v", dirs)
	}
	if err := c.CloseGroup(t.Context(), "g"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"one", "two", "plain", "late"} {
		if e := x.await(id); !e.Known || syscall.WaitStatus(e.Status).Signal() != syscall.SIGKILL {
			t.Errorf("%s: got %+v", id, e)
		}
	}
	if !alive(stranger.PID) {
		t.Error("a container of no group has ended with it")
	}
	if groups, err := c.ListGroups(t.Context()); err != nil || len(groups) > 0 {
		t.Errorf("left are %v, %v", groups, err)
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Dir(dir)); err == nil {
			t.Errorf("%s is left", filepath.Dir(dir))
		}
	}
	if slices.Contains(nets.list(), "g") {
		t.Error("the network of the group is left")
	}
	if err := c.CloseGroup(t.Context(), "g"); err != nil {
		t.Errorf("of a group that is not there: %v", err)
	}
}

// What a crash leaves of groups and networks is found, and goes.
func TestLeftoversOfGroups(t *testing.T) {
	n := newNode(t)
	nets := n.withFakeNetworks()
	c, _ := n.begin()
	for _, id := range []string{"noted", "cgroups"} {
		if _, err := c.OpenGroup(t.Context(), containerizer.Group{ID: id, Dir: n.dir, Container: inNetwork(isolated(), "fake")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	// A reboot takes the cgroups of one; the file of the other is lost. A network is nobody's.
	if out, err := exec.Command("find", "/sys/fs/cgroup", "-depth", "-type", "d", "-path", "*/"+cgroupName(n.sv.Dir)+"/g-noted", "-exec", "rmdir", "{}", ";").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Remove(c.groupFile("cgroups")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(nets.dir, "nobodys"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, _ = n.begin()
	waitFor(t, "what is nobody's to go", func() bool { return !slices.Contains(nets.list(), "nobodys") })
	groups, err := c.ListGroups(t.Context())
	if slices.Sort(groups); err != nil || !slices.Equal(groups, []string{"cgroups", "noted"}) {
		t.Fatalf("got %v, %v", groups, err)
	}
	for _, id := range groups {
		if err := c.CloseGroup(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if left := nets.list(); len(left) > 0 {
		t.Errorf("networks are left: %v", left)
	}
}

// Volumes of the parent's sandbox are shared by the members of a group, and by a container with its nested one.
func TestVolumesOfTheParent(t *testing.T) {
	n := newNode(t)
	n.withBusybox()
	c, x := n.begin()
	dir := filepath.Join(n.dir, "executor")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.OpenGroup(t.Context(), containerizer.Group{ID: "g", Dir: dir}); err != nil {
		t.Fatal(err)
	}
	of := func(at, path string) *mesos.Volume {
		return &mesos.Volume{ContainerPath: &at, Mode: mesos.Volume_RW.Enum(), Source: &mesos.Volume_Source{
			Type: mesos.Volume_Source_SANDBOX_PATH.Enum(), SandboxPath: &mesos.Volume_Source_SandboxPath{
				Type: mesos.Volume_Source_SandboxPath_PARENT.Enum(), Path: &path,
			},
		}}
	}
	for i, change := range []func(*containerizer.Spec){func(*containerizer.Spec) {}, withImage} {
		spec := n.shell(fmt.Sprintf("m%d", i), fmt.Sprintf("echo m%d >>mine/said; cat mine/said; sleep 0", i))
		spec.Parent, spec.Container.Volumes = "g", []*mesos.Volume{of("mine", "shared/deep")}
		change(&spec)
		want := strings.TrimSpace("m0\nm1"[:3*i+2])
		if out, e := n.run(c, x, spec); out != want || e.Status != 0 {
			t.Errorf("%s: got %q, want %q, %+v, %s", spec.ID, out, want, e, n.errOutput(spec.ID))
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, "shared/deep/said")); err != nil || string(text) != "m0\nm1\n" {
		t.Errorf("the sandbox of the group has %q, %v", text, err)
	}
	for _, path := range []string{"..", "../x", "/etc", "out", "out/x"} {
		spec := n.shell("bad", "true")
		spec.Parent, spec.Container.Volumes = "g", []*mesos.Volume{of("mine", path)}
		if _, err := c.Launch(t.Context(), spec); err == nil || !strings.Contains(err.Error(), `volume at "mine"`) {
			t.Errorf("volume of %q: got %v", path, err)
		}
	}
	outer := n.member(c, "", "outer", withImage)
	inner := n.shell("inner", "echo within >mine/said; echo said")
	inner.Parent, inner.Container.Volumes = outer.ID, []*mesos.Volume{of("mine", "given")}
	if out, e := n.run(c, x, inner); out != "said" || e.Status != 0 {
		t.Errorf("got %q, %+v, %s", out, e, n.errOutput("inner"))
	}
	if text, err := os.ReadFile(filepath.Join(n.dir, "sandbox-outer/given/said")); err != nil || string(text) != "within\n" {
		t.Errorf("the sandbox of the outer container has %q, %v", text, err)
	}
}
