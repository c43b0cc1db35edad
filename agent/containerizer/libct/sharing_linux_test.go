//go:build linux && cgo

package libct

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/agent/image"
	"starling/agent/network"
	"starling/master/mesos"
)

// A container with an image that asks for the node's network by name does not get the node's files to write on.
func TestTheNodesFilesAreReadOnly(t *testing.T) {
	n := newNode(t)
	n.withBusybox()
	nets, err := network.New(network.Config{Dir: filepath.Join(n.dir, "network"), Log: n.cfg.Log})
	if err != nil {
		t.Fatal(err)
	}
	n.cfg.Networks = nets
	c, x := n.begin()
	for name, infos := range map[string][]*mesos.NetworkInfo{
		"none": nil, "nameless": {{}}, "host": {{Name: proto.String(network.Host)}},
	} {
		// Opened for writing, and nothing is written: it is the node's.
		spec := n.shell(name, `for f in hosts resolv.conf hostname; do [ -e /etc/$f ] && (: >>/etc/$f) 2>/dev/null && echo "$f is writable"; done; cat /etc/hosts`)
		spec.Container.Mesos, spec.Container.NetworkInfos = busyboxImage(), infos
		want, err := os.ReadFile("/etc/hosts")
		if err != nil {
			t.Fatal(err)
		}
		if out, e := n.run(c, x, spec); out != strings.TrimSpace(string(want)) || e.Status != 0 {
			t.Errorf("%s: got %q, %+v, want the node's hosts", name, out, e)
		}
	}
	// Under a hostname of its own it has copies.
	spec := n.shell("named", "echo 192.0.2.1 mine >>/etc/hosts && tail -n 1 /etc/hosts")
	spec.Container.Mesos, spec.Container.Hostname = busyboxImage(), proto.String("web")
	spec.Container.NetworkInfos = []*mesos.NetworkInfo{{}}
	if out, _ := n.run(c, x, spec); out != "192.0.2.1 mine" {
		t.Errorf("got %q, %q", out, n.errOutput("named"))
	}
	if text, _ := os.ReadFile("/etc/hosts"); strings.Contains(string(text), "192.0.2.1 mine") {
		t.Error("the node's file has it")
	}
}

func TestGroupsShareTheirOwnIPC(t *testing.T) {
	n := newNode(t)
	n.withBusybox()
	c, x := n.begin()
	const ask = `ls -l /proc/self/ns/ipc | sed 's/.*-> //'; df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d' ' -f2; cat /dev/shm/* 2>/dev/null; true`
	nodes, err := os.Readlink("/proc/self/ns/ipc")
	if err != nil {
		t.Fatal(err)
	}
	applets := filepath.Join(n.dir, "layer0", "bin")
	for _, applet := range []string{"sed", "df", "tr", "cut"} {
		if err := os.Symlink("busybox", filepath.Join(applets, applet)); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	open := func(id string, linux *mesos.LinuxInfo) error {
		_, err := c.OpenGroup(t.Context(), containerizer.Group{
			ID: id, Dir: n.dir, Container: &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), LinuxInfo: linux},
		})
		return err
	}
	run := func(group, id string, image bool, linux *mesos.LinuxInfo, script string) []string {
		t.Helper()
		spec := n.shell(id, script+ask)
		spec.Parent, spec.Container = group, nil
		if linux != nil || image {
			spec.Container = isolated()
			spec.Container.LinuxInfo = linux
		}
		if image {
			spec.Container.Mesos = busyboxImage()
		}
		out, e := n.run(c, x, spec)
		if e.Status != 0 {
			t.Errorf("%s: %+v: %s", id, e, n.errOutput(id))
		}
		return strings.Split(out, "\n")
	}
	share := func() *mesos.LinuxInfo { return &mesos.LinuxInfo{IpcMode: mesos.LinuxInfo_SHARE_PARENT.Enum()} }
	private := func(shm uint32) *mesos.LinuxInfo {
		return &mesos.LinuxInfo{IpcMode: mesos.LinuxInfo_PRIVATE.Enum(), ShmSize: &shm}
	}

	if err := open("own", private(7)); err != nil {
		t.Fatal(err)
	}
	first := run("own", "first", true, share(), "echo hello >/dev/shm/word; ")
	if len(first) != 3 || first[0] == nodes || first[1] != "7168" || first[2] != "hello" {
		t.Fatalf("got %q, the node has %s", first, nodes)
	}
	if _, err := os.Stat("/dev/shm/word"); err == nil {
		t.Error("the node has the file")
	}
	// By a later life of the agent too, with and without an image, and where nothing is said but by the executor.
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	c, x = n.begin()
	for id, linux := range map[string]*mesos.LinuxInfo{"second": share(), "silent": nil, "unset": {}} {
		if got := run("own", id, false, linux, ""); !slices.Equal(got, first) {
			t.Errorf("%s: got %q, want %q", id, got, first)
		}
	}
	if got := run("own", "private", false, private(3), ""); len(got) != 2 || got[0] == first[0] || got[0] == nodes || got[1] != "3072" {
		t.Errorf("a private one has %q", got)
	}
	// Another group, that was asked nothing of.
	if err := open("other", nil); err != nil {
		t.Fatal(err)
	}
	if got := run("other", "theirs", false, share(), ""); len(got) != 2 || got[0] == first[0] || got[0] == nodes {
		t.Errorf("another group has %q", got)
	}
	if got := run("other", "usual", false, nil, ""); got[0] != nodes {
		t.Errorf("one that asks for nothing has %q", got)
	}

	spec := n.shell("pids", "true")
	spec.Parent, spec.Container.LinuxInfo.SharePidNamespace = "own", proto.Bool(true)
	if _, err := c.Launch(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "no process whose PID namespace") {
		t.Errorf("share_pid_namespace in a group: got %v", err)
	}
	for want, linux := range map[string]*mesos.LinuxInfo{
		"the node's IPC namespace": share(), "the node's PID namespace": {SharePidNamespace: proto.Bool(true)},
		"needs a private ipc_mode": {ShmSize: proto.Uint32(7)},
	} {
		if err := open("refused", linux); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if groups, err := c.ListGroups(t.Context()); err != nil || slices.Contains(groups, "refused") {
		t.Errorf("groups: %v, %v", groups, err)
	}
	if err := c.CloseGroup(t.Context(), "own"); err != nil {
		t.Error(err)
	}
	if mounts, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(mounts), c.ipcFolder("own")) {
		t.Error("what the group shared is still mounted")
	}
}

// A container that shares the IPC namespace of one with a /dev/shm of its own does not get the node's.
func TestNestedDoNotShareTheNodesMemory(t *testing.T) {
	n := newNode(t)
	n.withBusybox()
	c, x := n.begin()
	parent := n.shell("parent", "echo up; exec sleep 1000")
	parent.Container.Mesos = busyboxImage()
	if _, err := c.Launch(t.Context(), parent); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the parent", func() bool { return n.output("parent") == "up" })
	child := n.shell("child", "echo x >/dev/shm/starling-test-child")
	child.Parent, child.Container.LinuxInfo.IpcMode = "parent", mesos.LinuxInfo_SHARE_PARENT.Enum()
	if _, e := n.run(c, x, child); e.Status != 0 {
		t.Errorf("got %+v: %s", e, n.errOutput("child"))
	}
	if os.Remove("/dev/shm/starling-test-child") == nil {
		t.Error("it wrote to the node's memory")
	}
	if err := c.Destroy(t.Context(), "parent"); err != nil {
		t.Error(err)
	}
	x.await("parent")
}

// What a container writes into its image is told, for it to be measured; by a later life too.
func TestDiskIsTold(t *testing.T) {
	n := newNode(t)
	n.withBusybox()
	c, x := n.begin()
	spec := n.shell("writer", "dd if=/dev/zero of=/mnt/large bs=1024 count=300 2>/dev/null; echo up; exec sleep 1000")
	spec.Container.Mesos = busyboxImage()
	k, err := c.Launch(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the file", func() bool { return n.output("writer") == "up" })
	if len(k.Disk) != 1 {
		t.Fatalf("told %q", k.Disk)
	}
	if info, err := os.Stat(filepath.Join(k.Disk[0], "mnt/large")); err != nil || info.Size() != 300<<10 {
		t.Errorf("got %v, %v", info, err)
	}
	next := n.open()
	found, err := next.Recover(t.Context())
	if err != nil || len(found) != 1 || !slices.Equal(found[0].Disk, k.Disk) {
		t.Errorf("a later life is told %+v, %v, want %q", found, err, k.Disk)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Destroy(t.Context(), "writer"); err != nil {
		t.Error(err)
	}
	x.await("writer")
}

// flakyImages fail to release an image until they are mended.
type flakyImages struct {
	*fakeImages
	mended chan struct{}
	failed *atomic.Int32
}

func (f flakyImages) Prepare(ctx context.Context, container string, img *mesos.Image, dir string) (image.Prepared, error) {
	return f.fakeImages.Prepare(ctx, container, img, dir)
}

func (f flakyImages) Release(ctx context.Context, container string) error {
	select {
	case <-f.mended:
		return f.fakeImages.Release(ctx, container)
	default:
		f.failed.Add(1)
		return errors.New("not now")
	}
}

func TestGivingBackIsTriedAgain(t *testing.T) {
	n := newNode(t)
	flaky := flakyImages{n.withBusybox(), make(chan struct{}), new(atomic.Int32)}
	n.cfg.Images = flaky
	c, x := n.begin()
	c.retry = 100 * time.Millisecond
	spec := n.shell("short", "true")
	spec.Container.Mesos = busyboxImage()
	if _, e := n.run(c, x, spec); e.Status != 0 {
		t.Fatalf("got %+v", e)
	}
	if held, _ := flaky.Held(t.Context()); len(held) != 1 {
		t.Fatalf("held by %q", held)
	}
	if _, err := c.Launch(t.Context(), spec); !errors.Is(err, containerizer.ErrExists) {
		t.Errorf("a container of that id meanwhile: got %v", err)
	}
	waitFor(t, "three attempts", func() bool { return flaky.failed.Load() >= 3 })
	close(flaky.mended)
	waitFor(t, "the image to be given back", func() bool { held, _ := flaky.Held(t.Context()); return len(held) == 0 })
	waitFor(t, "the id to be free", func() bool { _, err := c.Launch(t.Context(), spec); return err == nil })
}
