//go:build linux && cgo

package libct

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/master/mesos"
)

// fields reads lines "name: value" off an output.
func fields(out string) map[string]string {
	m := make(map[string]string)
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		m[name] = strings.TrimSpace(value)
	}
	return m
}

const look = `for ns in mnt uts ipc pid net; do echo "$ns: $(readlink /proc/self/ns/$ns 2>/dev/null || ls -l /proc/self/ns/$ns | sed 's/.*-> //')"; done
grep -E '^(Seccomp|NoNewPrivs|CapBnd|CapEff|CapPrm)' /proc/self/status
echo "id: $(id -u) $(id -g) $(id -G)"
echo "pwd: $(pwd)"
echo "pid1: $$"
`

func TestContainersAreIsolated(t *testing.T) {
	n := newNode(t)
	n.withBusybox()
	c, x := n.begin()
	own := func(kind string) string {
		at, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	seccomp := "2"
	if !seccompBuiltIn {
		seccomp = "0"
	}
	for _, tt := range []struct {
		name    string
		image   bool
		change  func(*containerizer.Spec)
		private []string // namespaces of its own
		shared  []string
		want    map[string]string
	}{
		{
			"node", false, nil,
			[]string{"mnt", "uts"},
			[]string{"pid", "net", "ipc"},
			map[string]string{"Seccomp": seccomp, "NoNewPrivs": "1", "CapBnd": "00000000a00405fb", "CapEff": "00000000a00405fb", "id": "0 0 0"},
		},
		{
			"private-ipc", false, func(s *containerizer.Spec) { s.Container.LinuxInfo.IpcMode = mesos.LinuxInfo_PRIVATE.Enum() },
			[]string{"mnt", "uts", "ipc"},
			[]string{"pid", "net"},
			nil,
		},
		{
			"image", true, nil,
			[]string{"mnt", "uts", "ipc", "pid"},
			[]string{"net"},
			map[string]string{"Seccomp": seccomp, "NoNewPrivs": "1", "CapBnd": "00000000a00405fb", "pid1": "1", "pwd": DefaultSandboxDirectory, "id": "0 0 0"},
		},
		{
			"image-shared-pid", true, func(s *containerizer.Spec) { s.Container.LinuxInfo.SharePidNamespace = proto.Bool(true) },
			[]string{"mnt", "uts", "ipc"},
			[]string{"net", "pid"},
			nil,
		},
		{
			"user-of-image", true, func(s *containerizer.Spec) { s.User = "web" },
			nil, nil,
			map[string]string{"id": "4321 4322 4322 4323", "CapEff": "0000000000000000", "CapPrm": "0000000000000000"},
		},
		{
			"user-in-numbers", true, func(s *containerizer.Spec) { s.User = "77" },
			nil, nil,
			map[string]string{"id": "77 0 0"},
		},
		{
			"user-of-node", false, func(s *containerizer.Spec) { s.User = "nobody" },
			nil, nil,
			map[string]string{"id": "65534 65534 65534", "CapEff": "0000000000000000"},
		},
		{
			"capabilities", false, func(s *containerizer.Spec) {
				s.Container.LinuxInfo.EffectiveCapabilities = caps(mesos.CapabilityInfo_NET_ADMIN)
				s.Container.LinuxInfo.BoundingCapabilities = caps(mesos.CapabilityInfo_NET_ADMIN, mesos.CapabilityInfo_KILL)
			},
			nil, nil,
			map[string]string{"CapEff": "0000000000001000", "CapBnd": "0000000000001020"},
		},
		{
			"capabilities-of-a-user", false, func(s *containerizer.Spec) {
				s.User = "nobody"
				s.Container.LinuxInfo.EffectiveCapabilities = caps(mesos.CapabilityInfo_NET_BIND_SERVICE)
			},
			nil, nil,
			map[string]string{"CapEff": "0000000000000400", "CapBnd": "0000000000000400"},
		},
		{
			"unconfined", false, func(s *containerizer.Spec) {
				s.Container.LinuxInfo.Seccomp = &mesos.SeccompInfo{Unconfined: proto.Bool(true)}
			},
			nil, nil,
			map[string]string{"Seccomp": "0"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := n.shell(tt.name, look)
			if tt.image {
				spec.Container.Mesos = busyboxImage()
			}
			if spec.User = ""; tt.change != nil {
				tt.change(&spec)
			}
			out, e := n.run(c, x, spec)
			if !e.Known || e.Status != 0 {
				t.Errorf("got %+v: %s", e, n.errOutput(tt.name))
			}
			got := fields(out)
			for _, kind := range tt.private {
				if got[kind] == own(kind) || got[kind] == "" {
					t.Errorf("namespace %s is %q, want one of its own", kind, got[kind])
				}
			}
			for _, kind := range tt.shared {
				if got[kind] != own(kind) {
					t.Errorf("namespace %s is %q, want the node's", kind, got[kind])
				}
			}
			for name, want := range tt.want {
				if got[name] != want {
					t.Errorf("%s: got %q, want %q", name, got[name], want)
				}
			}
		})
	}
}

func caps(list ...mesos.CapabilityInfo_Capability) *mesos.CapabilityInfo {
	return &mesos.CapabilityInfo{Capabilities: list}
}

func TestWhatIsShownAndHidden(t *testing.T) {
	n := newNode(t)
	n.withBusybox()
	c, x := n.begin()
	for _, image := range []bool{false, true} {
		name := fmt.Sprintf("image-%v", image)
		t.Run(name, func(t *testing.T) {
			spec := n.shell(name, `head -c 1 /proc/kcore 2>/dev/null | wc -c 2>/dev/null; cat /proc/keys /proc/timer_list 2>/dev/null
echo 1 >/proc/sys/vm/swappiness || echo sys-readonly
touch /sys/x || echo sysfs-readonly
echo 1 >/proc/sysrq-trigger || echo sysrq-readonly
ls /dev
mount -t tmpfs none /mnt && echo mounted
touch /sys/fs/cgroup/x; touch /sys/fs/cgroup/memory/x && echo cgroup-writable
head -c 1 /dev/urandom >/dev/null && echo > /dev/null && echo devices
[ -e /dev/sda ] || [ -e /dev/vda ] || [ -e /dev/mem ] && echo node-devices
echo x >/dev/shm/y && rm /dev/shm/y && echo shm
exit 9`)
			if image {
				spec.Container.Mesos = busyboxImage()
			}
			out, e := n.run(c, x, spec)
			for _, want := range []string{"sys-readonly", "sysfs-readonly", "sysrq-readonly", "devices", "shm", "ptmx"} {
				if !strings.Contains(out, want) {
					t.Errorf("%s is missing in:\n%s", want, out)
				}
			}
			for _, bad := range []string{"mounted", "cgroup-writable", "node-devices"} {
				if strings.Contains(out, bad+"\n") {
					t.Errorf("%s in:\n%s", bad, out)
				}
			}
			if e.Status != 9<<8 {
				t.Errorf("got %+v", e)
			}
		})
	}
}

func TestVolumes(t *testing.T) {
	n := newNode(t)
	n.withBusybox()
	shared := filepath.Join(n.dir, "shared")
	if err := os.MkdirAll(filepath.Join(shared, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(shared, "file"), []byte("of the node\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	n.cfg.AllowedHostPaths = []string{shared}
	c, x := n.begin()
	vol := func(at string, mode mesos.Volume_Mode, set func(*mesos.Volume)) *mesos.Volume {
		v := &mesos.Volume{ContainerPath: &at, Mode: mode.Enum()}
		set(v)
		return v
	}
	host := func(path string) func(*mesos.Volume) { return func(v *mesos.Volume) { v.HostPath = &path } }
	sandbox := func(kind mesos.Volume_Source_SandboxPath_Type, path string) func(*mesos.Volume) {
		return func(v *mesos.Volume) {
			v.Source = &mesos.Volume_Source{
				Type:        mesos.Volume_Source_SANDBOX_PATH.Enum(),
				SandboxPath: &mesos.Volume_Source_SandboxPath{Type: kind.Enum(), Path: &path},
			}
		}
	}
	t.Run("seen", func(t *testing.T) {
		for _, image := range []bool{false, true} {
			id := fmt.Sprintf("v-%v", image)
			spec := n.shell(id, `cat in/file; echo w >in/new && echo written; echo w >ro/new 2>/dev/null || echo kept; echo s >own/s; ls mine data; cat /etc/hostname >/dev/null`)
			spec.Container.Volumes = []*mesos.Volume{
				vol("in", mesos.Volume_RW, host(shared)), vol("ro", mesos.Volume_RO, host(shared+"/sub")),
				vol("own", mesos.Volume_RW, sandbox(mesos.Volume_Source_SandboxPath_SELF, "mine")),
			}
			spec.Mounts = []containerizer.Mount{{Source: shared + "/sub", Target: "data"}}
			if image {
				spec.Container.Mesos = busyboxImage()
				spec.Container.Volumes = append(spec.Container.Volumes, vol("/deep/in/it", mesos.Volume_RO, host(shared+"/file")))
				*spec.Command.Value += "; cat /deep/in/it"
			}
			out, _ := n.run(c, x, spec)
			want := "of the node\nwritten\nkept\ndata:\n\nmine:\ns"
			if image {
				want += "\nof the node"
			}
			if out != want {
				t.Errorf("got %q, want %q, %s", out, want, n.errOutput(id))
			}
		}
	})
	t.Run("refused", func(t *testing.T) {
		if err := os.Symlink("/", filepath.Join(n.dir, "evil")); err != nil {
			t.Fatal(err)
		}
		for name, tt := range map[string]struct {
			volume *mesos.Volume
			want   string
		}{
			"not allowed":      {vol("x", mesos.Volume_RW, host("/etc")), `path "/etc" of the node is not allowed`},
			"through a link":   {vol("x", mesos.Volume_RW, host(shared+"/../evil/etc")), "is not allowed"},
			"missing":          {vol("x", mesos.Volume_RW, host(shared+"/none")), "does not exist on the node"},
			"out of sandbox":   {vol("../x", mesos.Volume_RW, host(shared)), "leads out of the sandbox"},
			"source out of it": {vol("x", mesos.Volume_RW, host("../../etc")), "leads out of the sandbox"},
			"link out of it":   {vol("x", mesos.Volume_RW, host("link/etc")), "sandbox"},
			"root":             {vol("/", mesos.Volume_RW, host(shared)), "cannot be mounted at the root"},
			"not on the node":  {vol("/no/such", mesos.Volume_RW, host(shared)), "the path does not exist"},
			"no parent":        {vol("x", mesos.Volume_RW, sandbox(mesos.Volume_Source_SandboxPath_PARENT, "y")), "no parent"},
			"secret": {vol("x", mesos.Volume_RW, func(v *mesos.Volume) {
				v.Source = &mesos.Volume_Source{Type: mesos.Volume_Source_SECRET.Enum()}
			}), "type SECRET are not supported"},
		} {
			spec := n.shell("refused", "true")
			_ = os.Symlink("/", filepath.Join(spec.Dir, "link"))
			spec.Container.Volumes = []*mesos.Volume{tt.volume}
			if _, err := c.Launch(t.Context(), spec); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want %q", name, err, tt.want)
			}
		}
	})
}

// Folders of an executor's sandbox are its tasks' own: what was made there, and what a task puts in its place while the image
// of another is pulled, are two things.
func TestWhatIsExchangedMeanwhileIsNotShown(t *testing.T) {
	n := newNode(t)
	images := n.withBusybox()
	c, x := n.begin()
	secrets := filepath.Join(n.dir, "secrets")
	if err := os.MkdirAll(filepath.Join(secrets, "v"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(secrets, "v", "key"), []byte("of the node"), 0o600); err != nil {
		t.Fatal(err)
	}
	exchange := func(path string) func() {
		return func() {
			if err := errors.Join(os.Rename(path, path+".was"), os.Symlink(secrets, path)); err != nil {
				t.Error(err)
			}
		}
	}
	for _, target := range []string{"/shared", "shared"} {
		for _, linked := range []string{"a", "a/v"} {
			id := safeName("swap" + strings.ReplaceAll(target+linked, "/", "-"))
			parent := filepath.Join(n.dir, "parent-"+id)
			if err := os.MkdirAll(filepath.Join(parent, "a", "v"), 0o755); err != nil {
				t.Fatal(err)
			}
			spec := n.shell(id, "cat /shared/key /mnt/mesos/sandbox/shared/key /shared/v/key")
			spec.Container.Mesos = busyboxImage()
			spec.Mounts = []containerizer.Mount{{Source: filepath.Join(parent, "a", "v"), Target: target}}
			images.pulling = exchange(filepath.Join(parent, linked))
			_, err := c.Launch(t.Context(), spec)
			if err == nil {
				x.await(id)
				t.Errorf("%s at %s: shown: %q", linked, target, n.output(id))
				_ = c.Remove(t.Context(), id)
			} else if !strings.Contains(err.Error(), "link") {
				t.Errorf("%s at %s: got %v", linked, target, err)
			}
		}
	}
	// The sandbox of a nested container lies there too.
	spec := n.shell("nested", "cat $MESOS_SANDBOX/v/key /mnt/mesos/sandbox/key")
	top := spec.Dir
	spec.Dir = filepath.Join(top, "containers", "v")
	spec.Stdout, spec.Stderr = "", ""
	spec.Container.Mesos = busyboxImage()
	if err := os.MkdirAll(spec.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	images.pulling = exchange(filepath.Join(top, "containers"))
	if _, err := c.Launch(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "link") {
		t.Errorf("a sandbox that was exchanged is shown: %v", err)
	}
}

func TestRefusalsTellAllReasonsAndLeaveNothing(t *testing.T) {
	n := newNode(t)
	n.withBusybox()
	n.cfg.ForbidPrivileged = true
	c, _ := n.begin()
	spec := n.shell("all", "true")
	spec.User = "no-such-user"
	spec.Container.LinuxInfo.EffectiveCapabilities = caps(mesos.CapabilityInfo_SYS_ADMIN)
	spec.Container.LinuxInfo.BoundingCapabilities = caps(mesos.CapabilityInfo_KILL)
	spec.Container.LinuxInfo.Seccomp = &mesos.SeccompInfo{ProfileName: proto.String("mine")}
	spec.Container.RlimitInfo = &mesos.RLimitInfo{Rlimits: []*mesos.RLimitInfo_RLimit{
		{Type: mesos.RLimitInfo_RLimit_RLMT_NOFILE.Enum(), Soft: proto.Uint64(10)},
		{Type: mesos.RLimitInfo_RLimit_RLMT_CORE.Enum(), Soft: proto.Uint64(10), Hard: proto.Uint64(5)},
	}}
	spec.Container.LinuxInfo.ShmSize = proto.Uint32(10)
	spec.Container.LinuxInfo.IpcMode = mesos.LinuxInfo_SHARE_PARENT.Enum()
	spec.Container.LinuxInfo.SharePidNamespace = proto.Bool(true)
	spec.Devices = []string{"/dev/no-such"}
	_, err := c.Launch(t.Context(), spec)
	for _, want := range []string{
		`cannot run as user "no-such-user": no such user`, "effective capabilities CAP_SYS_ADMIN are not among", `seccomp profile "mine" is unknown`,
		"RLMT_NOFILE has but one", "RLMT_CORE has a soft limit of 10 above", "needs a private ipc_mode",
		"the node's PID namespace is not allowed", "the node's IPC namespace is not allowed", `cannot find device "/dev/no-such"`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	image := n.shell("image", "true")
	image.Container.Mesos = busyboxImage()
	image.User = "ghost"
	if _, err := c.Launch(t.Context(), image); err == nil || !strings.Contains(err.Error(), `cannot run as user "ghost": no such user in the image`) {
		t.Errorf("got %v", err)
	}
	image.User = ""
	image.Container.Mesos.Image.Docker.Name = proto.String("other")
	if _, err := c.Launch(t.Context(), image); err == nil || !strings.Contains(err.Error(), "no such image") {
		t.Errorf("got %v", err)
	}
	docker := n.shell("docker", "true")
	docker.Container.Type = mesos.ContainerInfo_DOCKER.Enum()
	if _, err := c.Launch(t.Context(), docker); !errors.Is(err, containerizer.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
	net := n.shell("net", "true")
	net.Container.NetworkInfos = []*mesos.NetworkInfo{{Name: proto.String("nowhere")}}
	if _, err := c.Launch(t.Context(), net); err == nil || !strings.Contains(err.Error(), `no network "nowhere"`) {
		t.Errorf("got %v", err)
	}
	waitFor(t, "folders to go", func() bool { e, _ := os.ReadDir(n.cfg.Dir); return len(e) == 0 })
	if held, _ := n.cfg.Images.Held(t.Context()); len(held) != 0 {
		t.Errorf("images are held by %v", held)
	}
}

// What forks into the background and ignores SIGTERM is gone with its container, with all that it started.
func TestNothingSurvives(t *testing.T) {
	n := newNode(t)
	n.withBusybox()
	c, x := n.begin()
	for _, image := range []bool{false, true} {
		id := fmt.Sprintf("d-%v", image)
		spec := n.shell(id, `trap '' TERM HUP INT
(trap '' TERM; setsid sh -c 'trap "" TERM; while :; do sleep 1; done' & ) &
sh -c 'trap "" TERM; while :; do sleep 1; done' &
echo up; while :; do sleep 1; done`)
		if image {
			spec.Container.Mesos = busyboxImage()
		}
		if _, err := c.Launch(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "it to be up", func() bool { return n.output(id) == "up" })
		if err := c.Signal(t.Context(), id, 15); err != nil {
			t.Error(err)
		}
		dirs, err := c.process.Cgroups(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Destroy(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		x.await(id)
		for _, dir := range dirs {
			if pids, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs")); len(pids) > 0 {
				t.Errorf("processes are left in %s: %q", dir, pids)
			}
		}
	}
}
