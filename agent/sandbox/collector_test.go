package sandbox

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"starling/agent/testenv"
)

func there(dir string) bool { _, err := os.Lstat(dir); return err == nil }

// collector is one on a machine that never sleeps, with an empty disk unless the configuration says otherwise.
func collector(t *testing.T, l Layout, cfg CollectorConfig) *Collector {
	t.Helper()
	cfg.Layout, cfg.Log = l, slog.New(slog.NewTextHandler(t.Output(), nil))
	if cfg.Usage == nil {
		cfg.Usage = func() (float64, error) { return 0, nil }
	}
	if cfg.Suspended == nil {
		cfg.Suspended = func() time.Duration { return 0 }
	}
	return NewCollector(cfg)
}

func TestTheAgeOfSandboxesSurvivesTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := layout(t)
		dir := create(t, l, "e1", "c1")
		c := collector(t, l, CollectorConfig{Delay: time.Hour, Headroom: 0.01})
		c.Keep("c1")
		time.Sleep(24 * time.Hour) // it runs: that does not count
		c.Release(dir, "c1")
		time.Sleep(40 * time.Minute)
		c.collect(t.Context())
		// Its user does what he likes with the times of the folder: nobody asks for them.
		for _, at := range []time.Time{time.Unix(0, 0), time.Now().AddDate(10, 0, 0)} {
			if err := os.Chtimes(dir, at, at); err != nil {
				t.Fatal(err)
			}
			c.collect(t.Context())
		}
		if !there(dir) {
			t.Fatal("removed before its time")
		}
		c.save()
		// A year passes by the wall clock while there is no agent.
		time.Sleep(365 * 24 * time.Hour)
		c = collector(t, l, CollectorConfig{Delay: time.Hour, Headroom: 0.01})
		c.collect(t.Context())
		if !there(dir) {
			t.Fatal("a jump of the clock has removed it")
		}
		time.Sleep(20 * time.Minute)
		c.collect(t.Context())
		if there(dir) {
			t.Error("what was counted before the restart is lost")
		}
	})
}

func TestAFileOfAgesThatDoesNotReadKeepsSandboxes(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":9}`, `{"version":1,"ended":{"../../x":5,"slaves/a-S0/frameworks/f1/executors/e1/runs/c1":-1}}`, "\x00\x00"} {
		synctest.Test(t, func(t *testing.T) {
			l := layout(t)
			dir := create(t, l, "e1", "c1")
			if err := os.WriteFile(l.endedFile(), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			c := collector(t, l, CollectorConfig{Delay: time.Hour, Headroom: 0.01})
			time.Sleep(59 * time.Minute)
			c.collect(t.Context())
			if !there(dir) {
				t.Errorf("%q: removed", text)
			}
		})
	}
}

// C2: a machine that wakes up removes nothing for a while, whatever has become due.
func TestNothingIsRemovedRightAfterSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := layout(t)
		dir := create(t, l, "e1", "c1")
		var slept time.Duration
		full := 0.0
		c := collector(t, l, CollectorConfig{
			Delay: time.Hour, Suspended: func() time.Duration { return slept },
			Usage: func() (float64, error) { return full, nil },
		})
		c.collect(t.Context())
		slept, full = time.Hour, 1
		for range 29 {
			c.collect(t.Context())
			if !there(dir) {
				t.Fatal("removed within 30 seconds of the resume")
			}
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Second)
		c.collect(t.Context())
		if there(dir) {
			t.Error("the collector has not come back to work")
		}
	})
}

func TestOnAFullDiskTheOldestGoFirstAndNoMoreThanNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := layout(t)
		var c *Collector
		full := false
		c = collector(t, l, CollectorConfig{Delay: time.Hour, Usage: func() (float64, error) {
			if removed, _, _ := c.Counts(); !full || removed > 0 {
				return 0, nil
			}
			return 1, nil
		}})
		var dirs []string
		for _, id := range []string{"c2", "c1", "c3"} {
			dir := create(t, l, "e", id)
			dirs = append(dirs, dir)
			c.Keep(id)
			c.Release(dir, id)
			time.Sleep(time.Minute)
		}
		c.collect(t.Context())
		if !there(dirs[0]) {
			t.Error("removed before the disk was full")
		}
		full = true
		c.collect(t.Context())
		if there(dirs[0]) || !there(dirs[1]) || !there(dirs[2]) {
			t.Error("what went is not the oldest alone")
		}
	})
}

func TestOfTooManyTheOldestGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := layout(t)
		c := collector(t, l, CollectorConfig{Most: 5})
		var dirs []string
		for n := range 8 { // as a task does that crashes again and again
			id := fmt.Sprint("c", n)
			dir := create(t, l, "e", id)
			dirs = append(dirs, dir)
			c.Keep(id)
			c.Release(dir, id)
			time.Sleep(time.Second)
		}
		c.collect(t.Context())
		for n, dir := range dirs {
			if there(dir) != (n >= 3) {
				t.Errorf("%s is there: %v", dir, there(dir))
			}
		}
	})
}

func TestNestedSandboxesAreCollectedWhileTheirExecutorRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := layout(t)
		run := create(t, l, "e1", "run")
		nested := map[string]string{}
		for _, id := range []string{"t1", "t2"} {
			dir, err := l.CreateNested(run, id, "")
			if err != nil {
				t.Fatal(err)
			}
			nested[id] = dir
		}
		inner, err := l.CreateNested(nested["t2"], "debug", "")
		if err != nil {
			t.Fatal(err)
		}
		alone, err := l.CreateStandalone("s1", "")
		if err != nil {
			t.Fatal(err)
		}
		c := collector(t, l, CollectorConfig{Delay: time.Hour, Headroom: 0.01})
		for _, name := range []string{"run", "run.t1", "run.t2", "run.t2.debug", "s1"} {
			c.Keep(name)
		}
		c.collect(t.Context())
		c.Release(nested["t1"], "run.t1")
		c.Release(inner, "run.t2.debug")
		c.Release(run, "run") // what is nested in it is needed: it stays
		c.Release(alone, "s1")
		time.Sleep(2 * time.Hour)
		c.collect(t.Context())
		if there(nested["t1"]) || there(inner) || there(alone) || !there(nested["t2"]) || !there(run) {
			t.Errorf("t1 %v, debug %v, s1 %v gone? t2 %v, run %v there?", !there(nested["t1"]), !there(inner), !there(alone), there(nested["t2"]), there(run))
		}
		c.Release(nested["t2"], "run.t2")
		time.Sleep(2 * time.Hour)
		c.collect(t.Context()) // the time of all of the run begins now
		time.Sleep(2 * time.Hour)
		c.collect(t.Context())
		if there(run) {
			t.Error("the run is there")
		}
		if left, err := os.ReadDir(filepath.Join(l.Root(), "frameworks")); err != nil || len(left) != 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
}

// What a task puts in its sandbox leads the collector nowhere else.
func TestLinksInSandboxesLeadTheCollectorNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := layout(t)
		victim := filepath.Join(l.workDir, "victim")
		write(t, filepath.Join(victim, "c", "file"), "data")
		run, ended := create(t, l, "e1", "run"), create(t, l, "e2", "ended")
		if err := errors.Join(
			os.Symlink(victim, filepath.Join(run, "containers")), os.Symlink(victim, filepath.Join(ended, "link")),
		); err != nil {
			t.Fatal(err)
		}
		c := collector(t, l, CollectorConfig{Delay: time.Hour})
		c.Keep("run")
		time.Sleep(2 * time.Hour)
		c.collect(t.Context())
		time.Sleep(2 * time.Hour)
		c.collect(t.Context())
		if there(ended) || !there(run) {
			t.Error("the wrong sandbox went")
		}
		if err := c.Forget(filepath.Join(run, "containers", "c")); err == nil && !there(filepath.Join(victim, "c")) {
			t.Error("the wrong folder was forgotten")
		}
		if _, err := l.CreateNested(run, "new", ""); err == nil {
			t.Error("a sandbox was made behind a link")
		}
		if read(t, filepath.Join(victim, "c", "file")) != "data" {
			t.Error("a folder outside was harmed")
		}
	})
}

// What is mounted in a sandbox, a volume say, is not of the sandbox.
func TestASandboxWithAMountIsNotRemoved(t *testing.T) {
	testenv.NeedRoot(t, "to mount")
	l := layout(t)
	dir := create(t, l, "e1", "c1")
	volume := t.TempDir()
	write(t, filepath.Join(volume, "file"), "data")
	at := filepath.Join(dir, "a volume")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(volume, at, "", syscall.MS_BIND, ""); err != nil {
		testenv.Lacks(t, "cannot mount here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(at, syscall.MNT_DETACH) })
	c := collector(t, l, CollectorConfig{Usage: func() (float64, error) { return 1, nil }})
	c.collect(t.Context())
	if _, failed, _ := c.Counts(); failed != 1 || read(t, filepath.Join(volume, "file")) != "data" {
		t.Errorf("failed %d, want 1; or the volume was emptied", failed)
	}
	if err := syscall.Unmount(at, 0); err != nil {
		t.Fatal(err)
	}
	c.collect(t.Context())
	if there(dir) {
		t.Error("it is there without the mount")
	}
}

func TestTasksAreFoundByTheirIds(t *testing.T) {
	l := layout(t)
	run := create(t, l, "e1", "run")
	for _, id := range []string{"n1", "n2", "n2"} { // the last launch counts; doing it again does no harm
		dir, err := l.CreateNested(run, id, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := l.LinkTask(run, "my-task", dir); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(run, "containers", "n2", "out"), "text")
	if got := read(t, filepath.Join(run, "tasks", "my-task", "out")); got != "text" {
		t.Errorf("got %q", got)
	}
	for _, id := range []string{"..", "a/b", ""} {
		if err := l.LinkTask(run, id, filepath.Join(run, "containers", "n2")); err == nil {
			t.Errorf("task %q was taken", id)
		}
	}
	if err := l.LinkTask(run, "t", "/etc"); err == nil || !strings.Contains(err.Error(), "does not lie below") {
		t.Errorf("a folder elsewhere: %v", err)
	}
}
