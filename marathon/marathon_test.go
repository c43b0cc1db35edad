package marathon_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"starling/marathon"
	"starling/marathon/app"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
	"starling/master/mesos"
	call "starling/master/mesos/scheduler"
	"starling/master/store"
)

// patience is how long a test waits for something that ought to happen soon.
const patience = 20 * time.Second

type rig struct {
	t       *testing.T
	store   *mastertest.Store
	cluster *mastertest.Cluster
	server  *mastertest.Server
	m       *marathon.Marathon
	// configure, if set, changes the settings of the next start.
	configure func(c *marathon.Config)
	stop      context.CancelFunc
	ended     chan error
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, store: mastertest.NewStore(), cluster: mastertest.New(nil)}
	r.server = mastertest.NewServer(t, r.cluster)
	r.cluster.Add(mastertest.Agent{ID: "a1", Host: "127.0.0.1", CPUs: 200, Mem: 1 << 20, Disk: 1 << 20, FirstPort: 31000, LastPort: 31999})
	t.Cleanup(func() {
		if r.stop != nil {
			r.kill()
		}
	})
	return r
}

// start runs a Marathon on what is stored.
func (r *rig) start() {
	r.t.Helper()
	c := marathon.DefaultConfig()
	c.Masters, c.Hostname, c.Address, c.User = []string{r.server.Address()}, "here", "127.0.0.1:8080", "nobody"
	c.Store, c.Log = r.store, slog.New(slog.NewTextHandler(r.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	c.MinBackoff, c.MaxBackoff = 5*time.Millisecond, 50*time.Millisecond
	c.Scheduler.ScaleInitialDelay = 50 * time.Millisecond
	if r.configure != nil {
		r.configure(&c)
	}
	m, err := marathon.New(c)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.m, r.stop, r.ended = m, cancel, make(chan error, 1)
	go func() { r.ended <- m.Run(ctx) }()
	r.eventually("marathon is ready", m.Ready)
}

// kill ends the process as far as a test can: nothing more is written or sent.
func (r *rig) kill() {
	r.t.Helper()
	r.stop()
	r.stop = nil
	select {
	case err := <-r.ended:
		if err != nil {
			r.t.Errorf("run ended with %v", err)
		}
	case <-time.After(patience):
		r.t.Fatal("marathon does not stop")
	}
}

func (r *rig) eventually(what string, is func() bool) {
	r.t.Helper()
	deadline := time.After(patience)
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for !is() {
		select {
		case <-look.C:
		case <-deadline:
			r.t.Fatalf("not in time: %s", what)
		}
	}
}

func (r *rig) put(body string) (marathon.Result, error) {
	draft, err := app.ParseUpdate([]byte(body))
	if err != nil {
		return marathon.Result{}, err
	}
	id, err := draft.ID(app.Root)
	if err != nil {
		return marathon.Result{}, err
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	return r.m.Change(ctx, marathon.Change{Group: id.Parent(), Edit: func(v scheduler.View) (marathon.Edited, error) {
		root := v.Root()
		rules := root.RulesFor(id, r.m.Config().App)
		var a *app.App
		var err error
		if old := root.App(id); old != nil {
			a, err = draft.Update(old, rules)
		} else {
			a, err = draft.Create(id, rules)
		}
		if err != nil {
			return marathon.Edited{}, err
		}
		return marathon.Edited{Root: root.WithApp(a)}, nil
	}})
}

func (r *rig) running(name string) int {
	n := 0
	for _, t := range r.cluster.Tasks() {
		if t.Info.GetName() == name && t.State == mesos.TaskState_TASK_RUNNING && t.Pending == 0 {
			n++
		}
	}
	return n
}

func (r *rig) deployments() int {
	n := -1
	if err := r.m.Read(func(v scheduler.View, _ time.Time) { n = len(v.Deployments()) }); err != nil {
		return -1
	}
	return n
}

func (r *rig) settled(name string, n int) {
	r.t.Helper()
	r.eventually(fmt.Sprintf("%d tasks of %s run, and no deployment", n, name), func() bool {
		return r.running(name) == n && r.deployments() == 0
	})
}

func (r *rig) taskIDs() string {
	var ids []string
	for _, t := range r.cluster.Tasks() {
		ids = append(ids, t.Info.GetTaskId().GetValue())
	}
	return strings.Join(ids, " ")
}

func TestLaunchScaleAndRemove(t *testing.T) {
	r := newRig(t)
	r.start()
	if _, err := r.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1,"instances":2}`); err != nil {
		t.Fatal(err)
	}
	r.settled("web", 2)
	before := r.store.Writes()
	if _, err := r.put(`{"id":"/web","instances":100}`); err != nil {
		t.Fatal(err)
	}
	r.settled("web", 100)
	// One write for the change, one for all launches of the offer, some for statuses as they come in: batches, not one
	// write a task.
	if writes := r.store.Writes() - before; writes > 120 {
		t.Errorf("98 launches took %d writes", writes)
	}
	if _, err := r.put(`{"id":"/web","instances":1}`); err != nil {
		t.Fatal(err)
	}
	r.settled("web", 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := r.m.Change(ctx, marathon.Change{Edit: func(v scheduler.View) (marathon.Edited, error) {
		return marathon.Edited{Root: v.Root().WithoutApp("/web")}, nil
	}}); err != nil {
		t.Fatal(err)
	}
	r.settled("web", 0)
	r.eventually("nothing of it is left in the store", func() bool {
		return len(r.store.Keys("marathon/instances/"))+len(r.store.Keys("marathon/apps/")) == 0
	})
}

func TestRestartTouchesNoTask(t *testing.T) {
	r := newRig(t)
	r.start()
	if _, err := r.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1,"instances":10}`); err != nil {
		t.Fatal(err)
	}
	r.settled("web", 10)
	tasks, framework := r.taskIDs(), r.cluster.FrameworkID()
	for range 3 {
		r.kill()
		r.start()
		r.eventually("subscribed again", func() bool {
			connected := false
			_ = r.m.Read(func(v scheduler.View, _ time.Time) { connected = v.Connected() })
			return connected
		})
	}
	if _, err := r.put(`{"id":"/web","instances":12}`); err != nil {
		t.Fatal(err)
	}
	r.settled("web", 12)
	if got := r.cluster.FrameworkID(); got != framework {
		t.Errorf("framework id changed from %s to %s", framework, got)
	}
	now := r.taskIDs()
	for id := range strings.FieldsSeq(tasks) {
		if !strings.Contains(now, id) {
			t.Errorf("task %s is gone", id)
		}
	}
	if twice := r.cluster.Duplicates(); len(twice) > 0 {
		t.Errorf("launched twice: %v", twice)
	}
}

func TestDeploymentGoesOnAfterRestart(t *testing.T) {
	r := newRig(t)
	r.start()
	r.cluster.Hold(true)
	result, err := r.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1,"instances":3}`)
	if err != nil {
		t.Fatal(err)
	}
	r.eventually("tasks are launched", func() bool { return len(r.cluster.Tasks()) == 3 })
	r.kill()
	r.start()
	var ids []string
	if err := r.m.Read(func(v scheduler.View, _ time.Time) {
		for _, d := range v.Deployments() {
			ids = append(ids, d.Plan.ID)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if len(ids) != 1 || ids[0] != result.Plan.ID {
		t.Errorf("deployments after the restart: %v, want %s", ids, result.Plan.ID)
	}
	r.cluster.Hold(false)
	r.settled("web", 3)
	if twice := r.cluster.Duplicates(); len(twice) > 0 {
		t.Errorf("launched twice: %v", twice)
	}
}

func TestMasterGoesAndComesBack(t *testing.T) {
	r := newRig(t)
	r.start()
	if _, err := r.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1,"instances":3}`); err != nil {
		t.Fatal(err)
	}
	r.settled("web", 3)
	tasks := r.taskIDs()
	r.server.Down(true)
	if _, err := r.put(`{"id":"/web","instances":5}`); err != nil {
		t.Fatalf("a change is refused while the master is away: %v", err)
	}
	r.server.Down(false)
	r.settled("web", 5)
	for id := range strings.FieldsSeq(tasks) {
		if !strings.Contains(r.taskIDs(), id) {
			t.Errorf("task %s is gone", id)
		}
	}
}

func TestRefusedCallLeadsToANewSession(t *testing.T) {
	r := newRig(t)
	r.start()
	failed := false
	r.server.Refuse(func(c *call.Call) (int, string) {
		if c.GetType() == call.Call_ACCEPT && !failed {
			failed = true
			return 500, "broken"
		}
		return 0, ""
	})
	if _, err := r.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1,"instances":3}`); err != nil {
		t.Fatal(err)
	}
	r.settled("web", 3)
	if twice := r.cluster.Duplicates(); len(twice) > 0 {
		t.Errorf("launched twice: %v", twice)
	}
}

func TestStoreFailureHoldsEverythingBack(t *testing.T) {
	r := newRig(t)
	r.start()
	if _, err := r.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1,"instances":1}`); err != nil {
		t.Fatal(err)
	}
	r.settled("web", 1)
	r.store.Fail(func([]store.Op) error { return errors.New("disk is full") })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := r.m.Change(ctx, marathon.Change{Edit: func(v scheduler.View) (marathon.Edited, error) {
		return marathon.Edited{Root: v.Root().WithoutApp("/web")}, nil
	}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("change with a broken store: %v, want %v", err, context.DeadlineExceeded)
	}
	if got := r.running("web"); got != 1 {
		t.Errorf("%d tasks run before the change is stored, want 1", got)
	}
	if err := r.m.Read(func(scheduler.View, time.Time) {}); err != nil {
		t.Errorf("reading fails while the store is broken: %v", err)
	}
	r.store.Fail(nil)
	r.settled("web", 0)
}

func TestStopsWhereGoingOnWouldDoHarm(t *testing.T) {
	for name, tc := range map[string]struct {
		harm func(r *rig)
		want error
	}{
		"framework removed": {func(r *rig) {
			if err := r.cluster.Call(&call.Call{
				FrameworkId: &mesos.FrameworkID{Value: new(r.cluster.FrameworkID())}, Type: call.Call_TEARDOWN.Enum(),
			}); err != nil {
				r.t.Fatal(err)
			}
		}, marathon.ErrFrameworkRemoved},
		"id used by another": {func(r *rig) {
			if err := r.cluster.Subscribe(&call.Call{Type: call.Call_SUBSCRIBE.Enum(), Subscribe: &call.Call_Subscribe{
				FrameworkInfo: &mesos.FrameworkInfo{
					User: new("u"), Name: new("n"), Id: &mesos.FrameworkID{Value: new(r.cluster.FrameworkID())},
				},
			}}); err != nil {
				r.t.Fatal(err)
			}
		}, marathon.ErrSuperseded},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.start()
			if _, err := r.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1}`); err != nil {
				t.Fatal(err)
			}
			r.settled("web", 1)
			tc.harm(r)
			select {
			case err := <-r.ended:
				if !errors.Is(err, tc.want) {
					t.Errorf("got %v, want %v", err, tc.want)
				}
			case <-time.After(patience):
				t.Fatal("marathon goes on")
			}
			r.stop()
			r.stop = nil
		})
	}
}

func TestAbdicationKeepsEverything(t *testing.T) {
	r := newRig(t)
	r.start()
	if _, err := r.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1,"instances":2}`); err != nil {
		t.Fatal(err)
	}
	r.settled("web", 2)
	tasks := r.taskIDs()
	if err := r.m.Abdicate(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.eventually("leading again", func() bool {
		_, err := r.put(`{"id":"/web","instances":3}`)
		return err == nil
	})
	r.settled("web", 3)
	for id := range strings.FieldsSeq(tasks) {
		if !strings.Contains(r.taskIDs(), id) {
			t.Errorf("task %s is gone", id)
		}
	}
}

func TestConfigListsAllFaults(t *testing.T) {
	c := marathon.DefaultConfig()
	_, err := marathon.New(c)
	for _, want := range []string{"master", "hostname", "address", "store", "log", "user"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not complained about: %v", want, err)
		}
	}
}

func TestUnhealthyTaskIsReplaced(t *testing.T) {
	r := newRig(t)
	r.start()
	var ill atomic.Bool
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if ill.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer service.Close()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(service.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.put(`{"id":"/web","cmd":"x","cpus":0.1,"healthChecks":[{"protocol":"HTTP","port":` + port +
		`,"gracePeriodSeconds":0,"intervalSeconds":1,"maxConsecutiveFailures":1}]}`); err != nil {
		t.Fatal(err)
	}
	r.settled("web", 1) // the deployment waits for health
	first := r.taskIDs()
	ill.Store(true)
	r.eventually("the ill task is killed", func() bool { return r.taskIDs() != first })
	ill.Store(false)
	r.settled("web", 1)
	if err := r.m.Read(func(v scheduler.View, _ time.Time) {
		f := v.Failure("/web")
		if f == nil || f.TaskID != first || !strings.Contains(f.Message, "500 Internal Server Error") {
			t.Errorf("last failure: %+v", f)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

func TestPoisonedStateCostsOneAppAlone(t *testing.T) {
	r := newRig(t)
	r.start()
	for _, id := range []string{"/good", "/bad"} {
		if _, err := r.put(`{"id":"` + id + `","cmd":"x","cpus":0.1,"instances":2}`); err != nil {
			t.Fatal(err)
		}
		r.settled(id[1:], 2)
	}
	r.kill()
	key := r.store.Keys("marathon/apps/bad/")[0]
	if _, err := r.store.Write(t.Context(), store.Op{Key: key, Version: store.Any, Data: []byte(`{"id":7}`)}); err != nil {
		t.Fatal(err)
	}
	r.start()
	if _, err := r.put(`{"id":"/good","instances":3}`); err != nil {
		t.Fatal(err)
	}
	r.settled("good", 3)
	if got := r.running("bad"); got != 2 {
		t.Errorf("%d tasks of the app that can't be read run, want 2", got)
	}
	if _, err := r.put(`{"id":"/bad","cmd":"y"}`); err == nil || !strings.Contains(err.Error(), "can't be read") {
		t.Errorf("app in quarantine is overwritten: %v", err)
	}
}

func TestInDoubtNothingIsKilled(t *testing.T) {
	r := newRig(t)
	r.start()
	if _, err := r.put(`{"id":"/web","cmd":"x","cpus":0.1,"instances":2}`); err != nil {
		t.Fatal(err)
	}
	r.settled("web", 2)
	tasks := r.taskIDs()
	r.kill()
	key := r.store.Keys("marathon/instances/")[0]
	if _, err := r.store.Write(t.Context(), store.Op{Key: key, Version: store.Any, Data: []byte(`{`)}); err != nil {
		t.Fatal(err)
	}
	r.start()
	// One instance is not known any more, so another is launched; the task of the lost one lives on.
	r.eventually("a third task", func() bool { return r.running("web") == 3 })
	for id := range strings.FieldsSeq(tasks) {
		if !strings.Contains(r.taskIDs(), id) {
			t.Errorf("task %s was killed in doubt", id)
		}
	}
}
