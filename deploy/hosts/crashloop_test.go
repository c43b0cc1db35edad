package hosts

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestFaultsCrashLoop (W2): hundreds of instances of an app end as soon as they begin, for ever. They are launched no more often than their
// backoff says; another app is launched about as soon as without them; each leaves little on disk. How many of these sandboxes are kept is
// tested in agent/sandbox.
func TestFaultsCrashLoop(t *testing.T) {
	instances, launches, lasts := 50, 5, 8*time.Second
	if *fullRows {
		instances, launches, lasts = 500, 100, 3*time.Minute
	} else {
		t.Parallel()
	}
	f, r := NewFlockWithTasks(t, 2)
	w := newWatch(t, r)
	r.ProbeApp("/good", 0, `{"cpus":0.01}`)
	good := 0
	// launch scales the good app by one, again and again, and returns how long each launch took, sorted.
	launch := func(most int, during time.Duration) []time.Duration {
		var took []time.Duration
		for end := time.Now().Add(during); len(took) < most && time.Now().Before(end) || len(took) < 5; {
			good++
			began := time.Now()
			if _, _, err := r.request("PUT", r.Marathon+"/v2/apps/good?force=true", fmt.Sprintf(`{"instances":%d}`, good)); err != nil {
				t.Fatal(err)
			}
			eventually(t, time.Minute, 2*time.Millisecond, "the good app is launched", func() error {
				if n := len(w.started("good")); n < good {
					return fmt.Errorf("%d of %d", n, good)
				}
				return nil
			})
			took = append(took, time.Since(began))
			<-time.After(100 * time.Millisecond)
		}
		slices.Sort(took)
		return took
	}
	idle := launch(launches, time.Minute)
	filesBefore, sizeBefore := onDisk(f)
	marks := t.TempDir()
	if err := os.Chmod(marks, 0o777); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(marks, "starts")
	body := fmt.Sprintf(`{"id":"/bad","cmd":"echo >> %s; exit 1","cpus":0.001,"mem":16,"instances":%d}`, file, instances)
	began := time.Now()
	if _, _, err := r.request("POST", r.Marathon+"/v2/apps", body); err != nil {
		t.Fatal(err)
	}
	// The launch of hundreds for the first time is no crash yet; it is told apart.
	first := launch(launches, 5*time.Second)
	busy := launch(launches, lasts-time.Since(began))
	<-time.After(time.Until(began.Add(lasts)))
	passed := time.Since(began)
	data, _ := os.ReadFile(file)
	starts := len(data)
	// Rounds by the backoff: 1, 1.15, 1.32 ... seconds apart, and the first.
	rounds := 1
	for at, delay := 0.0, 1.0; at+delay < passed.Seconds(); rounds++ {
		at, delay = at+delay, delay*1.15
	}
	t.Logf("%d instances: %d starts in %v, %d rounds by the backoff", instances, starts, passed.Round(time.Second), rounds)
	if starts > instances*rounds {
		t.Errorf("%d starts, want %d times %d at most", starts, rounds, instances)
	}
	if starts < instances/10 {
		t.Errorf("%d starts: it does not crash", starts)
	}
	// What the machine does beside differs from minute to minute: the time without crashes is that before and that after.
	if _, _, err := r.request("DELETE", r.Marathon+"/v2/apps/bad?force=true", ""); err != nil {
		t.Fatal(err)
	}
	idle = append(idle, launch(launches, time.Minute)...)
	slices.Sort(idle)
	at := func(took []time.Duration, part float64) time.Duration { return took[int(float64(len(took)-1)*part)] }
	t.Logf("launch of another app in the first seconds: %d, median %v, worst %v", len(first), at(first, 0.5), at(first, 1))
	t.Logf("launch of another app: %d without, median %v, p99 %v; %d with, median %v, p99 %v", len(idle), at(idle, 0.5), at(idle, 0.99), len(busy), at(busy, 0.5), at(busy, 0.99))
	if *fullRows && at(busy, 0.99) > 2*at(idle, 0.99) {
		t.Errorf("the launch of another app took %v beside the crashes, want twice %v at most", at(busy, 0.99), at(idle, 0.99))
	}
	files, size := onDisk(f)
	files, size = files-filesBefore, size-sizeBefore
	t.Logf("left on disk: %d files and folders with %d KiB", files, size>>10)
	if launched := starts + len(first) + len(busy) + len(idle); files > launched*16 || size > int64(launched)<<16 {
		t.Errorf("%d launches left %d files and folders with %d KiB", launched, files, size>>10)
	}
}

// onDisk is what the agents of a flock and its Marathon have on disk: files and folders, and the bytes in them.
func onDisk(f *Flock) (files int, size int64) {
	dirs := []string{f.MarathonProcess.args[2]}
	for _, a := range f.Agents {
		dirs = append(dirs, a.Dir)
	}
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err == nil {
				if info, err := d.Info(); err == nil { // else it has just gone
					files++
					size += info.Size()
				}
			}
			return nil
		})
	}
	return files, size
}
