package image

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"starling/agent/image/imagetest"
	"starling/agent/image/overlay"
	"starling/agent/testenv"
)

// within is set in the environment of a child whose mounts are its own.
const within = "STARLING_TEST_MOUNTS"

// inNamespace runs a test in a process whose mounts end with it. It returns true in that process.
func inNamespace(t *testing.T) bool {
	t.Helper()
	testenv.NeedRoot(t, "to unpack images")
	if os.Getenv(within) == t.Name() {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), within+"="+t.Name(), "TMPDIR="+t.TempDir())
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := child.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

func mountTmpfs(t *testing.T, dir, options string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

func TestOnOverlayfsImagesAreCopied(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	dir := t.TempDir()
	mountTmpfs(t, filepath.Join(dir, "fs"), "")
	for _, sub := range []string{"lower", "upper", "work", "target"} {
		if err := os.Mkdir(filepath.Join(dir, "fs", sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(dir, "fs", "target")
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", filepath.Join(dir, "fs"))
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	reg := imagetest.Registry(t)
	name := reg.Push(t, small(t, 3), "x:1")
	s := open(t, configFor(t, filepath.Join(dir, "store")))
	run := filepath.Join(root, "run")
	if err := os.Mkdir(run, 0o755); err != nil {
		t.Fatal(err)
	}
	p, err := s.Prepare(t.Context(), "c1", docker(name), run)
	if err != nil || p.Root != filepath.Join(run, "rootfs") || len(p.Layers) > 0 {
		t.Fatalf("%+v, %v; want a copy", p, err)
	}
	beside, err := s.Prepare(t.Context(), "c2", docker(name), t.TempDir())
	if err != nil || beside.Root != "" || len(beside.Layers) != 3 {
		t.Errorf("%+v, %v; want layers where an overlay can be had", beside, err)
	}
	for _, id := range []string{"c1", "c2"} {
		if err := s.Release(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if entries, err := os.ReadDir(run); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestFullDiskLeavesNothing(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	dir := filepath.Join(t.TempDir(), "fs")
	mountTmpfs(t, dir, "size=1m")
	reg := imagetest.Registry(t)
	// A file of zeros comes as next to nothing and needs four times the disk.
	big := reg.Push(t, imagetest.New(t, []imagetest.File{{Name: "zeros", Body: strings.Repeat("\x00", 4<<20), Mode: 0o644}}), "big:1")
	c := configFor(t, filepath.Join(dir, "store"))
	c.Reserve = 0
	s := open(t, c)
	_, err := s.Prepare(t.Context(), "c1", docker(big), t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "no space") {
		t.Errorf("%v; want that there is no space", err)
	}
	if n := left(t, s, filepath.Join("tmp", filepath.Base(s.tmp.Name()))); len(n) > 0 {
		t.Errorf("half layers are left: %v", n)
	}
	if held, _ := s.Held(t.Context()); len(held) > 0 {
		t.Errorf("held by %v", held)
	}
	if _, err := s.Prepare(t.Context(), "c2", docker(reg.Push(t, small(t, 2), "small:1")), t.TempDir()); err != nil {
		t.Errorf("a smaller one, after that: %v", err)
	}
}

func TestStoppedNeighbourHoldsNobodyUpForEver(t *testing.T) {
	s := store(t)
	reg := imagetest.Registry(t)
	name := reg.Push(t, small(t, 1), "x:1")
	unlock, err := s.lock(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	s.config.PullTimeout = 3 * time.Second // enough to get to the lock
	if _, err := s.Prepare(t.Context(), "c1", docker(name), t.TempDir()); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("%v; want that the store is locked", err)
	}
}

// mounted mounts and looks in a mount namespace that ends with it, so that nothing is left.
func mounted(t *testing.T, mount func() error, look func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends, and the namespace with it
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = mount()
		}
		if err == nil {
			look()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestWholeRootFileSystem(t *testing.T) {
	testenv.NeedRoot(t, "to unpack images")
	for _, layers := range []int{1, 120} {
		s := store(t)
		img := imagetest.Busybox(t, imagetest.WithLayers(layers), imagetest.WithLayer(imagetest.File{Name: "www/.wh.index.html", Mode: 0o600}))
		dir := t.TempDir()
		img.Layout(t, filepath.Join(dir, "oci"), "x")
		p, err := s.Prepare(t.Context(), "c1", docker("oci:"+dir+"/oci:x"), dir)
		if err != nil {
			t.Fatal(err)
		}
		if p.Root != "" {
			testenv.Lacks(t, "no overlay can be had here")
		}
		for _, sub := range []string{"upper", "work", "target, with : and ,"} {
			if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		target := filepath.Join(dir, "target, with : and ,")
		mounted(t, func() error {
			return overlay.Mount(target, filepath.Join(dir, "upper"), filepath.Join(dir, "work"), p.Layers)
		}, func() {
			if _, err := os.Stat(filepath.Join(target, "www/index.html")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("what a layer deletes is there: %v", err)
			}
			if b, err := os.ReadFile(filepath.Join(target, "layers", fmt.Sprint(layers-1))); err != nil || string(b) != fmt.Sprintf("%d\n", layers-1) {
				t.Errorf("the last layer: %q, %v", b, err)
			}
			if err := os.WriteFile(filepath.Join(target, "etc/new"), nil, 0o600); err != nil {
				t.Errorf("cannot write: %v", err)
			}
		})
	}
}
