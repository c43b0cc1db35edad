//go:build linux && cgo

package libct

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"starling/agent/testenv"
)

// guestTests are run in the machine with the other version of cgroups. It is slow: what starts many at once is left out.
const guestTests = "^(TestContainersAreIsolated|TestWhatIsShownAndHidden|TestLimitsAreEnforced|TestNothingSurvives|TestGroup|TestLeftoversOfGroups|TestExec|TestTerminal)$"

// guestInit is the first process of that machine. Overlays want a proper file system below, so /tmp is one of memory.
const guestInit = `#!/bin/sh
export PATH=/bin:/sbin:/usr/bin CI=true HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
[ -e /dev/null ] || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o mode=1777 tmp /tmp
insmod /overlay.ko
mount -t cgroup2 none /sys/fs/cgroup
echo "+cpu +memory +pids" > /sys/fs/cgroup/cgroup.subtree_control
ifconfig lo 127.0.0.1 up
cd /tmp
/libct.test -test.v -test.timeout 8m -test.run '%s'
echo "RESULT $?"
sync
poweroff -f
`

// The machine at hand has one version of cgroups; a user-mode Linux shows the other: only the second one is mounted there.
func TestUnifiedCgroups(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		t.Skip("this machine has no other cgroups: all other tests are on them")
	}
	linux, err := exec.LookPath("linux.uml")
	if err != nil {
		testenv.Lacks(t, "needs a user-mode Linux (Debian: user-mode-linux)")
	}
	modules, _ := filepath.Glob("/usr/lib/uml/modules/*/kernel/fs/overlayfs/overlay.ko")
	if len(modules) == 0 {
		testenv.Lacks(t, "needs the module for overlays of the user-mode Linux")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		testenv.Lacks(t, "needs busybox-static")
	}
	if !seccompBuiltIn {
		testenv.Lacks(t, "needs the build tag seccomp")
	}
	root := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	for _, dir := range []string{"bin", "sbin", "usr/bin", "usr/sbin", "etc", "proc", "sys", "dev", "tmp", "mnt"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run("cp", "/bin/busybox", modules[0], root)
	run("mv", root+"/busybox", root+"/bin/busybox")
	applets, err := exec.Command("/bin/busybox", "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(string(applets)) {
		if name != "busybox" {
			_ = os.Symlink("/bin/busybox", filepath.Join(root, "bin", name))
		}
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n", "etc/group": "root:x:0:\nnogroup:x:65534:\n",
		"etc/hostname": "guest\n", "etc/hosts": "127.0.0.1 localhost\n", "etc/resolv.conf": "\n", "init": fmt.Sprintf(guestInit, guestTests),
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run("go", "test", "-c", "-tags", "netgo,osusergo,seccomp", "-ldflags", "-s -w -extldflags=-static", "-o", root+"/libct.test", ".")
	library := filepath.Join(t.TempDir(), "xstate.so")
	run("gcc", "-O2", "-shared", "-fPIC", "-o", library, filepath.Join("testdata", "xstate.c"))
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
	defer cancel()
	guest := exec.CommandContext(ctx, linux, "mem=1024M", "rootfstype=hostfs", "rootflags="+root, "rw", "init=/init", "con=null", "con0=fd:0,fd:1", "quiet")
	guest.Env = append(os.Environ(), "LD_PRELOAD="+library)
	guest.WaitDelay = 5 * time.Second
	out, err := guest.CombinedOutput()
	text := string(out)
	if !strings.Contains(text, "RESULT 0") || strings.Contains(text, "--- SKIP") {
		t.Fatalf("the tests fail on cgroups of the second version (%v):\n%s", err, text)
	}
	t.Logf("%d tests pass on cgroups of the second version", strings.Count(text, "--- PASS"))
}
