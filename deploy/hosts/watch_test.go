package hosts

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// watch looks all the time at which tasks live, from outside.
type watch struct {
	t   testing.TB
	dir string

	mu          sync.Mutex
	pids        map[string]int // all that ever started, by task; guarded by mu, as all that follows
	ended       map[string]bool
	least, most int
	samples     int
}

func newWatch(t testing.TB, c *Cluster) *watch {
	w := &watch{t: t, dir: c.probes, pids: map[string]int{}, ended: map[string]bool{}}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			w.look()
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return w
}

// look takes one sample.
func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refresh()
	w.samples++
	if w.most == 0 {
		return
	}
	well, ill := w.living("web")
	all := well + ill
	if well < w.least {
		// They are looked at one by one: of two that take turns meanwhile the first may be gone, and the second not have been there.
		w.list()
		well, _ = w.living("web")
	}
	if well < w.least || all > w.most {
		w.t.Errorf("%d tasks live, %d with the ill ones, want %d at least and %d at most", well, all, w.least, w.most)
	}
}

// refresh reads what tasks have left, and sees which of them are over. The caller holds mu.
func (w *watch) refresh() {
	w.list()
	var over []string
	for id, pid := range w.pids {
		if !w.ended[id] && gone(pid) {
			w.ended[id] = true // for good: another process may get its number
			over = append(over, fmt.Sprintf("%s.%d", id, pid))
		}
	}
	for _, mark := range over {
		_ = os.Remove(filepath.Join(w.dir, mark))
	}
}

// list reads what tasks have left. The caller holds mu.
func (w *watch) list() {
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		return // the test is over
	}
	for _, e := range entries {
		dot := strings.LastIndexByte(e.Name(), '.')
		id := e.Name()[:max(dot, 0)]
		pid, err := strconv.Atoi(e.Name()[dot+1:])
		if err != nil {
			continue
		}
		if first, known := w.pids[id]; known && first != pid {
			w.t.Errorf("task %s was started more than once: processes %d and %d", id, first, pid)
		}
		w.pids[id] = pid
	}
}

// living counts the tasks of an app that live, and those of them that are ill. The caller holds mu.
func (w *watch) living(app string) (well, ill int) {
	for id := range w.pids {
		switch rest, sick := strings.CutPrefix(id, "ill-"); {
		case w.ended[id] || !strings.HasPrefix(rest, app+"."):
		case sick:
			ill++
		default:
			well++
		}
	}
	return well, ill
}

func (w *watch) alive(app string) (well, ill int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refresh()
	return w.living(app)
}

// bounds are what there has to be of /web from now on; zeros are none.
func (w *watch) bounds(least, most int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.least, w.most = least, most
}

func (w *watch) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.samples
}

// started lists the tasks of an app that were ever started.
func (w *watch) started(app string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refresh()
	var ids []string
	for id := range w.pids {
		if strings.HasPrefix(id, app+".") {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// ends lists the tasks of some that are over.
func (w *watch) ends(ids []string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refresh()
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !w.ended[id] })
}
