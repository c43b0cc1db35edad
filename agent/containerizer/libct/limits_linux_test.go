//go:build linux && cgo

package libct

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/master/mesos"
)

func TestLimitsAreEnforced(t *testing.T) {
	n := newNode(t)
	n.withBusybox()
	n.sv.Pids, n.sv.CPUQuota = 20, true
	c, x := n.begin()
	t.Run("memory", func(t *testing.T) {
		spec := n.shell("oom", "exec tail /dev/zero")
		spec.Limits.MemBytes = 40 << 20
		_, e := n.run(c, x, spec)
		if !e.OOM || syscall.WaitStatus(e.Status).Signal() != syscall.SIGKILL || e.MemLimit != 40<<20 || e.MemPeak < 30<<20 {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("memory of a child", func(t *testing.T) {
		spec := n.shell("oom-child", "(tail /dev/zero); exec sleep 1000")
		spec.Limits.MemBytes = 40 << 20
		_, e := n.run(c, x, spec)
		if !e.OOM || syscall.WaitStatus(e.Status).Signal() != syscall.SIGKILL || e.MemLimit != 40<<20 {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("processes", func(t *testing.T) {
		spec := n.shell("pids", "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do sleep 5 & done; echo all")
		spec.Container.Mesos = busyboxImage()
		out, _ := n.run(c, x, spec)
		if !strings.Contains(n.errOutput("pids"), "can't fork") || strings.Contains(out, "all") {
			t.Errorf("got %q, %q", out, n.errOutput("pids"))
		}
	})
	t.Run("cpu", func(t *testing.T) {
		spec := n.shell("cpu", "while :; do :; done")
		spec.Limits.CPUs = 0.2
		if _, err := c.Launch(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		// What counts is what the kernel counts: by the clock, others on the machine would have a say.
		cpu := n.cpuGroup(c, "cpu")
		from := cpu.read()
		waitFor(t, "a few periods with work", func() bool { return cpu.read().periods >= from.periods+10 })
		to := cpu.read()
		allowed := time.Duration(to.periods-from.periods+2) * 20 * time.Millisecond
		// A kernel that ticks a hundred times a second takes some ticks to notice; without a cap it would be five times as much.
		if used := to.before - from.after; used > 2*allowed {
			t.Errorf("used %v, %v are allowed", used, allowed)
		}
		resize := func(limit float64) {
			t.Helper()
			if err := c.Resize(t.Context(), "cpu", containerizer.Limits{CPUs: 0.2, CPULimit: limit, MemBytes: 64 << 20}); err != nil {
				t.Fatal(err)
			}
		}
		resize(0.01)
		from = cpu.read()
		waitFor(t, "the kernel to hold it back", func() bool { return cpu.read().throttled > from.throttled })
		resize(containerizer.Unlimited)
		// What it was held back for before is over with a period.
		from = cpu.read()
		waitFor(t, "it to run freely", func() bool {
			to := cpu.read()
			if to.throttled > from.throttled {
				from = to
			}
			return to.before > from.after+200*time.Millisecond
		})
	})
	t.Run("rlimits", func(t *testing.T) {
		spec := n.shell("rlimits", "ulimit -n; ulimit -Hn; ulimit -c; ulimit -s")
		spec.Container.RlimitInfo = &mesos.RLimitInfo{Rlimits: []*mesos.RLimitInfo_RLimit{
			{Type: mesos.RLimitInfo_RLimit_RLMT_NOFILE.Enum(), Soft: proto.Uint64(123), Hard: proto.Uint64(456)},
			{Type: mesos.RLimitInfo_RLimit_RLMT_CORE.Enum(), Soft: proto.Uint64(0), Hard: proto.Uint64(0)},
			{Type: mesos.RLimitInfo_RLimit_RLMT_STACK.Enum()},
		}}
		if out, _ := n.run(c, x, spec); out != "123\n456\n0\nunlimited" {
			t.Errorf("got %q", out)
		}
	})
	t.Run("shm", func(t *testing.T) {
		spec := n.shell("shm", "df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2")
		spec.Container.LinuxInfo.IpcMode, spec.Container.LinuxInfo.ShmSize = mesos.LinuxInfo_PRIVATE.Enum(), proto.Uint32(7)
		if out, _ := n.run(c, x, spec); out != "7168" {
			t.Errorf("got %q", out)
		}
	})
}

// cpuGroup is the cgroup that holds a container's CPUs.
type cpuGroup struct {
	t   *testing.T
	c   *Containerizer
	id  string
	dir string
}

// counters are what the kernel counts there; the time used is read before and after the others.
type counters struct {
	periods, throttled int64
	before, after      time.Duration
}

func (n *node) cpuGroup(c *Containerizer, id string) cpuGroup {
	n.t.Helper()
	dirs, err := c.process.Cgroups(n.t.Context(), id)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, dir := range dirs {
		for _, name := range []string{"cpu.shares", "cpu.max"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				return cpuGroup{n.t.(*testing.T), c, id, dir}
			}
		}
	}
	n.t.Fatalf("no cgroup for CPUs among %v", dirs)
	return cpuGroup{}
}

func (g cpuGroup) read() (now counters) {
	g.t.Helper()
	used := func() time.Duration {
		u, err := g.c.Usage(g.t.Context(), g.id)
		if err != nil {
			g.t.Fatal(err)
		}
		return u.CPUUser + u.CPUSystem
	}
	now.before = used()
	text, err := os.ReadFile(filepath.Join(g.dir, "cpu.stat"))
	if err != nil {
		g.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var name string
		var value int64
		if _, err := fmt.Sscan(line, &name, &value); err != nil {
			continue
		}
		switch name {
		case "nr_periods":
			now.periods = value
		case "nr_throttled":
			now.throttled = value
		}
	}
	now.after = used()
	return now
}
