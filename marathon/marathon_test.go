package marathon_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
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

// patience is how long a test waits for something that ought to happen soon: where many others run beside it, what is large takes a while.
const patience = time.Minute

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
	r.m, r.stop, r.ended = r.launch()
	r.eventually("marathon is ready", r.m.Ready)
}

func (r *rig) launch() (*marathon.Marathon, context.CancelFunc, chan error) {
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
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	return m, cancel, ended
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

// breakStore has the store fail from the first write on that has to do with keys of a prefix. What it returns is closed then.
func (r *rig) breakStore(prefix string) (broken <-chan struct{}) {
	asked := make(chan struct{})
	r.store.Fail(func(ops []store.Op) error {
		select {
		case <-asked:
		default:
			if !slices.ContainsFunc(ops, func(op store.Op) bool { return strings.HasPrefix(op.Key, prefix) }) {
				return nil
			}
			close(asked)
		}
		return errors.New("disk is full")
	})
	return asked
}

// patientUntil is a context for something that is not to be waited for any longer once a channel is closed.
func (r *rig) patientUntil(given <-chan struct{}) context.Context {
	ctx, timeout := context.WithTimeout(r.t.Context(), patience)
	r.t.Cleanup(timeout)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		select {
		case <-given:
		case <-ctx.Done():
		}
	}()
	return ctx
}

func (r *rig) put(body string) (marathon.Result, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	return r.putWithin(ctx, body)
}

func (r *rig) putWithin(ctx context.Context, body string) (marathon.Result, error) {
	draft, err := app.ParseUpdate([]byte(body))
	if err != nil {
		return marathon.Result{}, err
	}
	id, err := draft.ID(app.Root)
	if err != nil {
		return marathon.Result{}, err
	}
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

// connected tells whether Marathon has heard from the master that it is subscribed.
func (r *rig) connected() bool {
	connected := false
	_ = r.m.Read(func(v scheduler.View, _ time.Time) { connected = v.Connected() })
	return connected
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
	r.cluster.Hold(true)
	before := r.store.Writes()
	if _, err := r.put(`{"id":"/web","instances":100}`); err != nil {
		t.Fatal(err)
	}
	r.eventually("98 more are launched", func() bool { return len(r.cluster.Tasks()) == 100 })
	// What comes in while the store is busy piles up.
	statuses, busy := make(chan int, 1), make(chan struct{})
	r.store.Fail(func(ops []store.Op) error {
		n := 0
		for _, op := range ops {
			if strings.HasPrefix(op.Key, "marathon/instances/") {
				n++
			}
		}
		select {
		case statuses <- n:
		default:
		}
		<-busy
		return nil
	})
	r.cluster.Hold(false)
	first := 0
	r.eventually("the first are stored", func() bool {
		select {
		case first = <-statuses:
		default:
		}
		return first > 0
	})
	r.eventually("the others wait", func() bool { return r.m.Waiting() >= 98-first })
	close(busy)
	r.settled("web", 100)
	// One write for the change, one for all launches of the offer, two for the first statuses that came in, and one for each that a task
	// runs at the most, since these come one by one as the first are acknowledged: batches, not one write a status.
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
		r.eventually("subscribed again", r.connected)
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
	// Whoever asked gives up once the change waits for the store, and not before: then it would not be made at all.
	ctx := r.patientUntil(r.breakStore("marathon/tree"))
	_, err := r.m.Change(ctx, marathon.Change{Edit: func(v scheduler.View) (marathon.Edited, error) {
		return marathon.Edited{Root: v.Root().WithoutApp("/web")}, nil
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("change with a broken store: %v, want %v", err, context.Canceled)
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

// intrude has another scheduler subscribe as the framework.
func (r *rig) intrude() {
	r.t.Helper()
	if err := r.cluster.Subscribe(&call.Call{Type: call.Call_SUBSCRIBE.Enum(), Subscribe: &call.Call_Subscribe{
		FrameworkInfo: &mesos.FrameworkInfo{User: new("u"), Name: new("n"), Id: &mesos.FrameworkID{Value: new(r.cluster.FrameworkID())}},
	}}); err != nil {
		r.t.Fatal(err)
	}
}

// One that is superseded gives way at once, also while it waits for the store: it would only begin a war.
func TestSupersededWhileItWaitsForTheStore(t *testing.T) {
	r := newRig(t)
	r.start()
	if _, err := r.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1,"instances":1}`); err != nil {
		t.Fatal(err)
	}
	r.settled("web", 1)
	ctx := r.patientUntil(r.breakStore("marathon/tree"))
	if _, err := r.putWithin(ctx, `{"id":"/web","instances":2}`); !errors.Is(err, context.Canceled) {
		t.Fatalf("change with a broken store: %v, want %v", err, context.Canceled)
	}
	before := r.cluster.Sessions()
	r.intrude()
	<-time.After(200 * time.Millisecond) // what must not happen would happen after a few
	if n := r.cluster.Sessions(); n != before+1 {
		t.Errorf("%d sessions after that of the other one", n-before-1)
	}
	r.store.Fail(nil)
	if err := r.until(); !errors.Is(err, marathon.ErrSuperseded) {
		t.Errorf("got %v, want %v", err, marathon.ErrSuperseded)
	}
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
		"id used by another": {(*rig).intrude, marathon.ErrSuperseded},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.start()
			if _, err := r.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1}`); err != nil {
				t.Fatal(err)
			}
			r.settled("web", 1)
			before := r.cluster.Sessions()
			tc.harm(r)
			var err error
			r.eventually("marathon ends", func() bool {
				select {
				case err = <-r.ended:
					return true
				default:
				}
				// A call that was on its way may make it look like a connection that broke, which is no reason to end.
				if now := r.cluster.Sessions(); now > before+1 {
					before = now
					tc.harm(r)
				}
				return false
			})
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
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
	tasks, before := r.taskIDs(), r.cluster.Sessions()
	if err := r.m.Abdicate(t.Context(), marathon.Handover{}); err != nil {
		t.Fatal(err)
	}
	r.eventually("leading again", func() bool { return r.cluster.Sessions() > before })
	if _, err := r.put(`{"id":"/web","instances":3}`); err != nil {
		t.Fatal(err)
	}
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

// TestTasksOfPodsAreKnown: the statuses of all containers of a pod belong to its instance, and count as unknown in no metric.
func TestTasksOfPodsAreKnown(t *testing.T) {
	r := newRig(t)
	r.start()
	draft, err := app.ParsePod([]byte(`{"id":"/p","containers":[
		{"name":"one","resources":{"cpus":0.1,"mem":32},"exec":{"command":{"shell":"x"}}},
		{"name":"two","resources":{"cpus":0.1,"mem":32},"exec":{"command":{"shell":"x"}}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := r.m.Change(ctx, marathon.Change{Group: app.Root, Edit: func(v scheduler.View) (marathon.Edited, error) {
		pod, err := draft.Create("/p", nil, v.Root().RulesFor("/p", r.m.Config().App))
		if err != nil {
			return marathon.Edited{}, err
		}
		return marathon.Edited{Root: v.Root().WithApp(pod)}, nil
	}}); err != nil {
		t.Fatal(err)
	}
	r.eventually("both containers run", func() bool { return r.running("one") == 1 && r.running("two") == 1 })
	if got := r.m.Registry().Timer("debug.killing-unknown-task-duration.timer.seconds").Rates().Count; got != 0 {
		t.Errorf("%d statuses count as those of unknown tasks", got)
	}
}
