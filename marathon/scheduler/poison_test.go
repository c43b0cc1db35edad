package scheduler_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"starling/marathon/app"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
	"starling/marathon/state"
	"starling/master/store"
)

// poisons are what a document may have become. None of them is one that could have been meant.
var poisons = map[string]func(data []byte) []byte{
	"empty":           func([]byte) []byte { return nil },
	"half":            func(d []byte) []byte { return d[:len(d)/2] },
	"all but the end": func(d []byte) []byte { return d[:len(d)-1] },
	"zeros":           func(d []byte) []byte { return make([]byte, len(d)) },
	"null":            func([]byte) []byte { return []byte("null") },
	"a list":          func([]byte) []byte { return []byte("[]") },
	"a number":        func([]byte) []byte { return []byte("1e999") },
	"other types": func([]byte) []byte {
		return []byte(`{"id":7,"version":[],"urls":7,"format":"x","goal":{},"steps":"x","appId":[]}`)
	},
	"deep":       func([]byte) []byte { return []byte(strings.Repeat(`{"a":`, 20000)) },
	"deep lists": func([]byte) []byte { return []byte(strings.Repeat("[", 20000) + strings.Repeat("]", 20000)) },
	"no text":    func(d []byte) []byte { return append([]byte{0xff, 0xfe, 0x00}, d...) },
	"twice":      func(d []byte) []byte { return append(d[:len(d):len(d)], d...) },
}

// TestPoisonedDocuments (W1) has each stored document in turn be anything but what was stored. Either the state is refused with a
// reason that has a name, or what the document tells of is left alone and all else goes on; no task is killed in any case.
func TestPoisonedDocuments(t *testing.T) {
	m := newSim(t, 1)
	for n := range 3 {
		m.cluster.Add(mastertest.Agent{ID: fmt.Sprint("a", n), Host: fmt.Sprint("h", n), CPUs: 10, Mem: 1 << 16, Disk: 1 << 16, FirstPort: 31000, LastPort: 31999})
	}
	m.subscribe()
	for _, body := range []string{
		checked("/web", "one", 3, half), `{"id":"/g/db","cmd":"x","cpus":0.1,"instances":2}`,
		`{"id":"/g/api","cmd":"x","cpus":0.1,"instances":2,"dependencies":["/g/db"]}`, `{"id":"/huge","cmd":"x","cpus":1000}`,
	} {
		if _, err := m.put(body, false); err != nil {
			t.Fatal(err)
		}
	}
	m.s.SetCallbacks([]string{"http://example.com/"})
	m.advance(time.Minute)
	running := len(m.cluster.Tasks())
	if keys := m.store.Keys("marathon/"); running != 7 || len(keys) < 15 || len(m.store.Keys("marathon/deployments/")) != 2 {
		t.Fatalf("%d tasks run, %v are stored", running, keys)
	}
	refused, went := 0, 0
	trees := m.store.Keys("marathon/trees/")
	for _, key := range m.store.Keys("marathon/") {
		if strings.HasPrefix(key, "marathon/trees/") && key != trees[len(trees)-1] {
			continue // it is read when somebody asks for it
		}
		for name, poison := range poisons {
			st := m.store.Clone()
			d, err := st.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := st.Write(t.Context(), store.Op{Key: key, Version: store.Any, Data: poison(d.Data)}); err != nil {
				t.Fatal(err)
			}
			if startPoisoned(t, m, st, fmt.Sprintf("%s is %s", key, name)) {
				went++
			} else {
				refused++
			}
		}
	}
	t.Logf("%d times the state was refused, %d times all but what was poisoned went on", refused, went)
	if refused == 0 || went == 0 {
		t.Error("nothing was tried")
	}
}

// startPoisoned starts a process on a store, on a cluster of its own with the tasks of m, and reports false if it refuses.
func startPoisoned(t *testing.T, m *sim, st *mastertest.Store, what string) bool {
	opened, stored, err := state.Open(t.Context(), st, 0)
	if err != nil {
		if !errors.Is(err, state.ErrDamaged) && !errors.Is(err, state.ErrNoFramework) && !errors.Is(err, state.ErrFormat) {
			t.Errorf("%s: refused with %v", what, err)
		}
		return false
	}
	own := *m
	own.store, own.state, own.crashed = st, opened, false
	own.probes = make(map[app.InstanceID]scheduler.Probe)
	own.s = scheduler.New(m.config, rand.New(rand.NewPCG(1, 1)))
	own.s.Load(own.now, stored)
	kills := 0
	own.observe = func(d scheduler.Decision) bool {
		switch d.(type) {
		case scheduler.Kill:
			kills++
			return false
		case scheduler.Accept: // nothing changes in the cluster, which is that of all others too
			return false
		}
		return true
	}
	own.cluster.Disconnect()
	own.subscribe()
	own.advance(time.Minute)
	if kills > 0 {
		t.Errorf("%s: a task is killed, problems %q", what, stored.Problems)
	}
	if len(stored.Problems) == 0 && what != "marathon/callbacks is null" {
		t.Errorf("%s: nobody is told", what)
	}
	return true
}
