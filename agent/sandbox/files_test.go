package sandbox

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"starling/agent/testenv"
)

func contents(t *testing.T, l Layout, path string) (string, error) {
	t.Helper()
	f, _, err := l.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	return string(text), err
}

func TestWhereFilesAreFound(t *testing.T) {
	l := layout(t)
	run := create(t, l, "e1", "run")
	task, err := l.CreateNested(run, "c1", "")
	if err != nil {
		t.Fatal(err)
	}
	deep, err := l.CreateNested(task, "c2", "")
	if err != nil {
		t.Fatal(err)
	}
	alone, err := l.CreateStandalone("s1", "")
	if err != nil {
		t.Fatal(err)
	}
	within, err := l.CreateNested(alone, "s2", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.LinkTask(run, "t1", task); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(l.workDir, "agent.log")
	for path, text := range map[string]string{
		run + "/f": "run", task + "/f": "task", deep + "/f": "deep", alone + "/f": "alone", within + "/f": "within", log: "log",
	} {
		write(t, path, text)
	}
	l = l.WithFiles(map[string]string{"/slave/log": log})
	virtual := "/frameworks/f1/executors/e1/"
	for path, want := range map[string]string{
		run + "/f": "run", virtual + "runs/run/f": "run", virtual + "runs/latest/f": "run",
		filepath.Join(l.workDir, "slaves/latest", virtual, "runs/latest/f"): "run",
		task + "/f": "task", virtual + "runs/latest/containers/c1/f": "task", virtual + "runs/run/tasks/t1/f": "task",
		virtual + "tasks/t1/f": "task", deep + "/f": "deep", virtual + "tasks/t1/containers/c2/f": "deep",
		alone + "/f": "alone", "/containers/s1/f": "alone", within + "/f": "within", "/containers/s1/containers/s2/f": "within",
		"/slave/log": "log", "slave/log": "log",
	} {
		if got, err := contents(t, l, path); got != want || err != nil {
			t.Errorf("%s: got %q, %v; want %q", path, got, err, want)
		}
	}
	for _, path := range []string{
		log, "/slave", "/containers", "/containers/..", "/containers/s1/../../agent.log", l.workDir, filepath.Join(l.workDir, "slaves"),
		virtual + "tasks", virtual + "tasks/t2/f", virtual + "runs", "/frameworks", "/meta", filepath.Join(l.workDir, "slaves", "ended"),
	} {
		if got, err := contents(t, l, path); err == nil {
			t.Errorf("%s: got %q", path, got)
		}
		if found, err := l.List(path, 10); err == nil {
			t.Errorf("%s: listed %v", path, found)
		}
	}
	if found, err := l.List(virtual+"tasks/t1", 10); err != nil || len(found) != 4 {
		t.Errorf("a task's folder: %v, %v", found, err)
	}
}

// A task that exchanges files and links as fast as it can never has anything read that is not its own.
func TestLinksThatAreExchangedWhileFilesAreRead(t *testing.T) {
	l := layout(t)
	dir := create(t, l, "e1", "c1")
	secrets := filepath.Join(l.workDir, "secrets")
	write(t, filepath.Join(secrets, "file"), "secret")
	write(t, filepath.Join(dir, "kept", "file"), "own")
	if err := os.Symlink(secrets, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var exchanging sync.WaitGroup
	exchanging.Go(func() {
		at := filepath.Join(dir, "at")
		for !stop.Load() {
			_ = os.Rename(filepath.Join(dir, "kept"), at)
			_ = os.Rename(at, filepath.Join(dir, "kept"))
			_ = os.Rename(filepath.Join(dir, "link"), at)
			_ = os.Rename(at, filepath.Join(dir, "link"))
		}
	})
	defer exchanging.Wait()
	defer stop.Store(true)
	tries, own := 100_000, 0
	if testing.Short() {
		tries = 10_000
	}
	for range tries {
		text, err := contents(t, l, dir+"/at/file")
		switch {
		case text == "own":
			own++
		case err == nil:
			t.Fatalf("read %q", text)
		case !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrInaccessible):
			t.Fatal(err)
		}
	}
	if own == 0 {
		t.Error("the task's own file was never met: nothing was tried")
	}
}

func FuzzPath(f *testing.F) {
	l := New(f.TempDir(), "a-S0")
	if err := l.Init(); err != nil {
		f.Fatal(err)
	}
	dir, err := l.Create("f1", "e1", "c1", "")
	if err != nil {
		f.Fatal(err)
	}
	secret := filepath.Join(l.workDir, "secret")
	if err := errors.Join(
		os.WriteFile(secret, []byte("secret"), 0o600), os.Symlink("..", filepath.Join(dir, "up")), os.Symlink("/", filepath.Join(dir, "root")),
	); err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		dir + "/stdout", "/frameworks/f1/executors/e1/runs/latest/up/../x", dir + "/root" + secret, "/containers/x/..", "/slave/log",
		"/frameworks/f1/executors/e1/tasks/../runs/c1", "//", "\x00", dir + strings.Repeat("/up", 9) + "/secret", secret,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		file, _, err := l.Open(path)
		if err != nil {
			return
		}
		defer file.Close()
		if text, _ := io.ReadAll(file); string(text) == "secret" {
			t.Errorf("%q leads out of the sandbox", path)
		}
	})
}

// Opening a device may set it to work: what is no file is looked at, and not opened.
func TestDevicesAreNotOpened(t *testing.T) {
	testenv.NeedRoot(t, "to make a device")
	l := layout(t)
	dir := create(t, l, "e1", "c1")
	// There is no such device: to open it fails, to look at it does not.
	if err := syscall.Mknod(filepath.Join(dir, "device"), syscall.S_IFCHR|0o600, 511<<8|200); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Open(dir + "/device"); !errors.Is(err, ErrNoFile) {
		t.Errorf("got %v, want %v", err, ErrNoFile)
	}
	if found, err := l.List(dir+"/device", 10); err != nil || len(found) != 1 || found[0].Info.Mode()&os.ModeDevice == 0 {
		t.Errorf("listed %v, %v", found, err)
	}
}
