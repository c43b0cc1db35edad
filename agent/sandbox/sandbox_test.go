package sandbox

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"starling/agent/testenv"
)

func layout(t *testing.T) Layout {
	t.Helper()
	l := New(t.TempDir(), "a-S0")
	if err := l.Init(); err != nil {
		t.Fatal(err)
	}
	return l
}

func create(t *testing.T, l Layout, executor, container string) string {
	t.Helper()
	dir, err := l.Create("f1", executor, container, "")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCreate(t *testing.T) {
	l := layout(t)
	for _, container := range []string{"c1", "c2", "c2"} {
		dir := create(t, l, "e1", container)
		if want := filepath.Join(l.workDir, "slaves/a-S0/frameworks/f1/executors/e1/runs", container); dir != want {
			t.Errorf("got %q, want %q", dir, want)
		}
		for _, name := range []string{"stdout", "stderr"} {
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil || !info.Mode().IsRegular() {
				t.Errorf("%s: %v", name, err)
			}
		}
		if got, err := os.Readlink(filepath.Join(filepath.Dir(dir), "latest")); got != container {
			t.Errorf("latest: got %q, want %q (%v)", got, container, err)
		}
	}
	if got, err := os.Readlink(filepath.Join(l.workDir, "slaves", "latest")); got != "a-S0" {
		t.Errorf("latest agent: got %q (%v)", got, err)
	}
	for _, id := range []string{"", ".", "..", "a/b", "a\x00"} {
		if _, err := l.Create("f1", id, "c1", ""); err == nil {
			t.Errorf("id %q was taken", id)
		}
	}
	if _, err := l.Create("f1", "e1", "c1", "no-such-user-here"); err == nil {
		t.Error("a user who does not exist was taken")
	}
}

func TestAFolderInThePlaceOfALinkIsNoHarm(t *testing.T) {
	l := layout(t)
	for _, dir := range []string{filepath.Join(l.Root(), "..", "latest"), filepath.Join(l.Runs("f1", "e1"), "latest")} {
		if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(filepath.Join(dir, "something"), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	var said strings.Builder
	l = l.WithLog(slog.New(slog.NewTextHandler(&said, nil)))
	if err := l.Init(); err != nil {
		t.Errorf("init: %v", err)
	}
	if _, err := l.Create("f1", "e1", "c1", ""); err != nil {
		t.Errorf("create: %v", err)
	}
	if n := strings.Count(said.String(), "cannot point the link"); n != 2 {
		t.Errorf("said %d times, want twice: %s", n, said.String())
	}
}

func TestOwner(t *testing.T) {
	l := layout(t)
	create(t, l, "e1", "c1")
	create(t, l, "e2", "c2")
	if f, e, ok := l.Owner("c2"); f != "f1" || e != "e2" || !ok {
		t.Errorf("got %q %q %v", f, e, ok)
	}
	for _, id := range []string{"c3", "latest", "..", ""} { // "latest" is a link
		if f, e, ok := l.Owner(id); ok {
			t.Errorf("%q: got %q %q", id, f, e)
		}
	}
}

func TestASandboxBelongsToItsUser(t *testing.T) {
	owner := 65534
	if os.Geteuid() != 0 {
		owner = os.Getuid() // anybody may give files to himself
	}
	dir, err := layout(t).Create("f1", "e1", "c1", strconv.Itoa(owner))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "stdout"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Sys().(*syscall.Stat_t).Uid != uint32(owner) {
			t.Errorf("%q: %v %v", name, info.Sys(), err)
		}
	}
}

func TestOthersDoNotGetIntoASandbox(t *testing.T) {
	testenv.NeedRoot(t, "to become others")
	l := layout(t)
	for at := l.workDir; len(at) > len(os.TempDir()); at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// reads tells whether a user, in the group of his number, gets at the output in a sandbox.
	reads := func(id uint32, dir string) bool {
		cmd := exec.Command("/bin/cat", filepath.Join(dir, "stdout"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
		return cmd.Run() == nil
	}
	open := func(executor, owner string) string {
		dir, err := l.Create("f1", executor, "c1", owner)
		if err != nil {
			t.Fatal(err)
		}
		// As a container may that is root within.
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	const one, two = 60001, 60002
	of := map[string]string{"one": open("e1", "60001"), "root": open("e2", "root"), "agent": open("e3", "")}
	for name, dir := range of {
		if got, want := reads(one, dir), name == "one"; got != want {
			t.Errorf("sandbox of %s: user one reads it: %v", name, got)
		}
		if reads(two, dir) {
			t.Errorf("sandbox of %s: user two reads it", name)
		}
	}
	nest := func(parent, id, owner string) string {
		dir, err := l.CreateNested(parent, id, owner)
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	same := nest(of["one"], "n1", "60001")
	if !reads(one, same) || reads(two, same) {
		t.Error("a container of the same user changed who gets in")
	}
	other := nest(same, "n2", "60002")
	if !reads(two, other) {
		t.Error("the user of a nested container does not get to its sandbox")
	}
	if reads(one, of["root"]) || reads(two, of["root"]) {
		t.Error("that of another executor is open, too")
	}
	alone, err := l.CreateStandalone("s1", "60001")
	if err != nil {
		t.Fatal(err)
	}
	if dir := nest(alone, "n1", "60002"); !reads(two, dir) {
		t.Error("the user of a container that is nested in a standalone one does not get to its sandbox")
	}
}

func TestFilesStayInTheirSandbox(t *testing.T) {
	l := layout(t)
	dir := create(t, l, "e1", "c1")
	secret := filepath.Join(l.workDir, "secret")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(secret, "secret")
	write(filepath.Join(dir, "stdout"), "hello")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Symlink(secret, filepath.Join(dir, "escape")))
	must(os.Symlink("../../../../../../..", filepath.Join(dir, "up")))
	must(os.Symlink("stdout", filepath.Join(dir, "inside")))
	must(os.Symlink("loop", filepath.Join(dir, "loop")))
	must(syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644))
	must(os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	for _, tc := range []struct {
		path string
		want error
	}{
		{dir + "/stdout", nil},
		{"/frameworks/f1/executors/e1/runs/c1/stdout", nil},
		{"/frameworks/f1/executors/e1/runs/latest/stdout", nil},
		{filepath.Dir(dir) + "/latest/inside", nil},
		{dir + "/escape", ErrInaccessible},
		{dir + "/up/secret", ErrInaccessible},
		{dir + "/../../../../../../../../secret", ErrNotFound},
		{secret, ErrNotFound},
		{"/etc/passwd", ErrNotFound},
		{dir + "/loop", ErrInaccessible},
		{dir + "/pipe", ErrNoFile},
		{dir + "/sub", ErrIsDir},
		{dir, ErrIsDir},
		{dir + "/stdout/x", ErrNotFound},
		{dir + "/nothing", ErrNotFound},
		{"/frameworks/f1/executors/e1/runs/c9/stdout", ErrNotFound},
		{"", ErrNotFound},
	} {
		f, _, err := l.Open(tc.path)
		if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
			t.Errorf("%q: got %v, want %v", tc.path, err, tc.want)
		}
		if err == nil {
			if data, err := io.ReadAll(f); string(data) != "hello" || err != nil {
				t.Errorf("%q: got %q, %v", tc.path, data, err)
			}
			f.Close()
		}
	}
	entries, err := l.List(dir, 100)
	must(err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	if want := []string{"escape", "inside", "loop", "pipe", "stderr", "stdout", "sub", "up"}; !slices.Equal(names, want) {
		t.Errorf("listed %v, want %v", names, want)
	}
	if _, err := l.List(dir+"/up", 100); !errors.Is(err, ErrInaccessible) {
		t.Errorf("listing a link that leaves: got %v", err)
	}
}

func TestCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := layout(t)
		var full atomic.Bool
		c := collector(t, l, CollectorConfig{
			Delay: 10 * time.Hour,
			Usage: func() (float64, error) {
				if full.Load() {
					return 0.95, nil
				}
				return 0.3, nil
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { c.Run(ctx); close(done) }()
		old, live, fresh := create(t, l, "e1", "old"), create(t, l, "e1", "live"), create(t, l, "e2", "fresh")
		c.Keep("old")
		c.Keep("live")
		c.Release(old, "old")
		c.Keep("fresh")

		time.Sleep(5*time.Hour + 50*time.Minute) // 10 h less 30 % used and 10 % headroom is 6 h
		c.Release(fresh, "fresh")
		synctest.Wait()
		if !there(old) {
			t.Error("removed before its time")
		}
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if there(old) || !there(live) || !there(fresh) {
			t.Errorf("old %v, live %v, fresh %v", there(old), there(live), there(fresh))
		}
		full.Store(true) // hardly anything left: everything that is not needed goes
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if there(filepath.Dir(filepath.Dir(fresh))) || !there(live) {
			t.Error("a full disk did not make the ended go, empty folders included, and only these")
		}
		if removed, failed, _ := c.Counts(); removed != 2 || failed != 0 {
			t.Errorf("counted %d removed, %d failed", removed, failed)
		}
		cancel()
		<-done
	})
}

// What an agent left that had the work directory before is collected like the rest, and counted once.
func TestCollectorOfAnEarlierAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := layout(t)
		old := create(t, l, "e1", "c1")
		later := New(l.workDir, "later-S0")
		if err := later.Init(); err != nil {
			t.Fatal(err)
		}
		create(t, later, "e2", "c2")
		c := collector(t, later, CollectorConfig{Delay: time.Hour})
		c.Keep("c2")
		c.collect(t.Context())
		if _, _, pending := c.Counts(); pending != 1 {
			t.Errorf("%d sandboxes wait, want 1", pending)
		}
		time.Sleep(2 * time.Hour)
		c.collect(t.Context())
		if removed, failed, _ := c.Counts(); removed != 1 || failed != 0 {
			t.Errorf("removed %d, failed %d, want 1 and 0", removed, failed)
		}
		if there(old) {
			t.Error("the old sandbox is there")
		}
	})
}
