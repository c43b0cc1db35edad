package state_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"starling/marathon/app"
	"starling/marathon/deployment"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
	"starling/marathon/state"
	"starling/master/store"
	"starling/master/store/storetest"
)

var begin = time.Date(2024, 5, 4, 10, 0, 0, 0, time.UTC)

// book writes to a store as a scheduler would.
type book struct {
	t     *testing.T
	store *mastertest.Store
	state *state.State
	root  *app.Group
	ids   *app.UUIDs
}

func open(t *testing.T, st *mastertest.Store, keep int) (*book, *scheduler.Stored) {
	t.Helper()
	s, stored, err := state.Open(t.Context(), st, keep)
	if err != nil {
		t.Fatal(err)
	}
	return &book{t: t, store: st, state: s, root: stored.Root, ids: app.NewUUIDs(rand.New(rand.NewPCG(1, 2)))}, stored
}

func (b *book) save(writes ...scheduler.Write) {
	b.t.Helper()
	transaction, err := b.state.Prepare(writes)
	if err == nil {
		err = b.state.Commit(b.t.Context(), transaction)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// put commits a definition at a time, and returns the plan.
func (b *book) put(at time.Duration, id app.PathID, body string) (*app.Group, *deployment.Plan) {
	b.t.Helper()
	draft, err := app.ParseUpdate([]byte(body))
	if err != nil {
		b.t.Fatal(err)
	}
	rules := b.root.RulesFor(id, app.DefaultSettings())
	var a *app.App
	if old := b.root.App(id); old != nil {
		a, err = draft.Update(old, rules)
	} else {
		a, err = draft.Create(id, rules)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	root, err := app.Commit(b.root, b.root.WithApp(a), app.Change{Now: begin.Add(at), Settings: app.DefaultSettings()})
	if err != nil {
		b.t.Fatal(err)
	}
	plan := deployment.Diff("plan-"+at.String(), b.root, root, nil)
	return root, plan
}

func (b *book) define(at time.Duration, id app.PathID, body string) {
	b.t.Helper()
	root, plan := b.put(at, id, body)
	tree := &scheduler.Tree{Root: root}
	for _, c := range plan.Changes {
		tree.Changed = append(tree.Changed, c.New)
	}
	b.save(scheduler.Write{Kind: scheduler.KindTree, Tree: tree})
	b.root = root
}

func (b *book) instance(a *app.App) *scheduler.Instance {
	id := app.InstanceID{App: a.ID, UUID: b.ids.Next(begin)}
	i := &scheduler.Instance{
		ID: id, Goal: scheduler.GoalRunning, Condition: scheduler.Running, Since: begin, Version: a.Version, Incarnation: 3,
		TaskID: id.Task(3).String(), AgentID: "a1", Host: "h1", Ports: []int{31000}, Attributes: map[string]string{"rack": "r1"},
		Addresses: []scheduler.Address{{IP: "10.0.0.1", Protocol: "IPv4"}}, StagedAt: begin, StartedAt: begin.Add(time.Second),
	}
	b.save(scheduler.Write{Kind: scheduler.KindInstance, Key: id.String(), Instance: i})
	return i
}

func TestWhatIsSavedIsLoaded(t *testing.T) {
	b, empty := open(t, mastertest.NewStore(), 0)
	if empty.Root.Len() != 0 || empty.Doubt {
		t.Errorf("an empty store gives %+v", empty)
	}
	b.save(scheduler.Write{Kind: scheduler.KindFramework, Key: "f-1"})
	b.define(0, "/shop/web", `{"cmd":"one","instances":2}`)
	old := b.root.App("/shop/web")
	i := b.instance(old)
	root, plan := b.put(time.Second, "/shop/web", `{"cmd":"two"}`)
	failure := &scheduler.Failure{App: "/shop/web", State: "TASK_FAILED", TaskID: i.TaskID, Timestamp: 5, Version: old.Version}
	b.save(
		scheduler.Write{Kind: scheduler.KindTree, Tree: &scheduler.Tree{Root: root, Changed: []*app.App{root.App("/shop/web")}}},
		scheduler.Write{Kind: scheduler.KindDeployment, Key: plan.ID, Deployment: &scheduler.Deployment{Plan: plan}},
		scheduler.Write{Kind: scheduler.KindFailure, Key: "/shop/web", Failure: failure},
	)
	again, stored := open(t, b.store, 0)
	want := &scheduler.Stored{
		FrameworkID: "f-1", Root: root, Instances: []*scheduler.Instance{i}, Definitions: []*app.App{old},
		Deployments: []*deployment.Plan{plan}, Failures: []*scheduler.Failure{failure},
	}
	if d := cmp.Diff(want, stored, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b app.InstanceID) bool { return a.String() == b.String() })); d != "" {
		t.Errorf("loaded differs (-want +got):\n%s", d)
	}
	if got := again.state.Versions("/shop/web"); len(got) != 2 || got[0] != root.Version {
		t.Errorf("versions %v", got)
	}
	tree, err := again.state.Tree(t.Context(), old.Version)
	if err != nil || tree.App("/shop/web").Cmd != "one" {
		t.Errorf("older tree: %v, %v", tree, err)
	}
	if _, err := again.state.App(t.Context(), "/shop/web", 77); !errors.Is(err, state.ErrNoVersion) {
		t.Errorf("version that never was: %v, want %v", err, state.ErrNoVersion)
	}
}

func TestOldVersionsGoUnlessInUse(t *testing.T) {
	b, _ := open(t, mastertest.NewStore(), 3)
	b.save(scheduler.Write{Kind: scheduler.KindFramework, Key: "f-1"})
	b.define(0, "/web", `{"cmd":"0"}`)
	first := b.root.App("/web")
	i := b.instance(first)
	for n := range 10 {
		b.define(time.Duration(n+1)*time.Second, "/web", fmt.Sprintf(`{"cmd":"%d"}`, n+1))
	}
	// The three that are kept, of which one is the oldest, since a task runs with it.
	versions := b.state.Versions("/web")
	if len(versions) != 3 || versions[2] != first.Version {
		t.Errorf("versions kept: %v", versions)
	}
	if got := len(b.state.Trees()); got != 3 {
		t.Errorf("%d trees are kept, want 3", got)
	}
	if got := len(b.store.Keys("marathon/apps/")); got != 3 {
		t.Errorf("%d definitions are stored, want 3", got)
	}
	b.save(scheduler.Write{Kind: scheduler.KindInstance, Key: i.ID.String()})
	b.define(20*time.Second, "/web", `{"cmd":"20"}`)
	if versions := b.state.Versions("/web"); len(versions) != 3 || versions[2] == first.Version {
		t.Errorf("versions kept when nothing runs with the first any more: %v", versions)
	}
	b.save(scheduler.Write{Kind: scheduler.KindApp, Key: "/web"})
	if got := b.store.Keys("marathon/apps/"); len(got) != 0 {
		t.Errorf("left of a removed app: %v", got)
	}
}

// Whatever definitions allow, what comes to be of them later can be stored: a leader that can't store what it has decided would end its
// term again and again.
func TestTheLargestInstanceCanBeStored(t *testing.T) {
	b, _ := open(t, mastertest.NewStore(), 0)
	const longest = 800
	id, err := app.ParseID(strings.Repeat("/a", longest/2), app.Root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := app.ParseID(string(id)+"b", app.Root); err == nil {
		t.Fatalf("an id of %d characters is taken, and not tried here", longest+1)
	}
	const most = 100
	pod := func(containers int) error {
		list := strings.Repeat(`{"name":"x","resources":{"cpus":0,"mem":0}},`, containers)
		_, err := app.ParsePod([]byte(`{"id":"/p","containers":[` + strings.TrimSuffix(list, ",") + `]}`))
		return err
	}
	if pod(most) != nil || pod(most+1) == nil {
		t.Fatalf("pods may have another number of containers than %d", most)
	}
	i := &scheduler.Instance{ID: app.InstanceID{App: id, UUID: b.ids.Next(begin)}, Goal: scheduler.GoalRunning, AgentID: strings.Repeat("S", 100)}
	for range most {
		healthy, code := true, 137
		i.Containers = append(i.Containers, scheduler.ContainerTask{
			Name: strings.Repeat("n", 63), TaskID: i.ID.String() + strings.Repeat("n", 70), Condition: scheduler.Failed, Since: begin, StartedAt: begin,
			Healthy: &healthy, HealthSince: begin, ExitCode: &code, Heard: true, Message: strings.Repeat("\x01", 1000),
			Networks: []scheduler.ContainerNetwork{{Name: strings.Repeat("n", 63), Addresses: make([]scheduler.Address, 3)}},
		})
	}
	d := &scheduler.Discard{Instance: i.ID, AgentID: i.AgentID, Role: "r"}
	b.save(
		scheduler.Write{Kind: scheduler.KindInstance, Key: i.ID.String(), Instance: i},
		scheduler.Write{Kind: scheduler.KindDiscard, Key: d.Key(), Discard: d})
}

func TestTooLargeIsRefusedAsAWhole(t *testing.T) {
	b, _ := open(t, mastertest.NewStore(), 0)
	root, plan := b.put(0, "/web", `{"cmd":"x","labels":{"l":"`+strings.Repeat("y", store.MaxSize)+`"}}`)
	_, err := b.state.Check(root, plan)
	large, ok := errors.AsType[*state.TooLarge](err)
	if !ok || large.What != "app /web" || large.Size <= large.Limit {
		t.Errorf("got %v", large)
	}
	root, plan = b.put(0, "/web", `{"cmd":"x"}`)
	if size, err := b.state.Check(root, plan); err != nil || size < 500 || size > 10_000 {
		t.Errorf("a small change takes %d bytes: %v", size, err)
	}
	// Every document is small enough, and all together are not.
	for n := range 40 {
		id := app.PathID(fmt.Sprintf("/many/%d", n))
		draft, err := app.ParseUpdate([]byte(`{"cmd":"x","labels":{"l":"` + strings.Repeat("y", 900<<10) + `"}}`))
		if err != nil {
			t.Fatal(err)
		}
		a, err := draft.Create(id, root.RulesFor(id, app.DefaultSettings()))
		if err != nil {
			t.Fatal(err)
		}
		root = root.WithApp(a)
	}
	plan = deployment.Diff("many", b.root, root, nil)
	_, err = b.state.Check(root, plan)
	if large, ok := errors.AsType[*state.TooLarge](err); !ok || large.What != "the change as a whole" {
		t.Errorf("forty large apps at once: %v", err)
	}
	if got := b.store.Writes(); got != 0 {
		t.Errorf("%d writes", got)
	}
}

// What the store itself cannot read may be anything: nothing begins without it, and the key is told.
func TestDamageOfTheStoreEndsTheStart(t *testing.T) {
	st := new(storetest.Fake)
	for _, key := range []string{"marathon/framework", "marathon/instances/web.1"} {
		if _, err := st.Write(t.Context(), store.Op{Key: key, Data: []byte(`{}`)}); err != nil {
			t.Fatal(err)
		}
	}
	st.Damage("marathon/instances/web.1")
	_, _, err := state.Open(t.Context(), st, 0)
	if !errors.Is(err, state.ErrDamaged) || !strings.Contains(fmt.Sprint(err), "marathon/instances/web.1") {
		t.Errorf("want %v with the key, got %v", state.ErrDamaged, err)
	}
}

// Apps may be wanted before the first master is seen, and Marathon may end before it is.
func TestWhatWaitsNeedsNoFramework(t *testing.T) {
	b, _ := open(t, mastertest.NewStore(), 0)
	b.define(0, "/web", `{"cmd":"x"}`)
	waiting := *b.instance(b.root.App("/web"))
	waiting.Condition, waiting.TaskID, waiting.AgentID = scheduler.Scheduled, "", ""
	b.save(scheduler.Write{Kind: scheduler.KindInstance, Key: waiting.ID.String(), Instance: &waiting})
	b.save(scheduler.Write{Kind: scheduler.KindCallbacks, Callbacks: []string{"http://h/"}})
	_, stored, err := state.Open(t.Context(), b.store, 0)
	if err != nil || len(stored.Instances) != 1 || stored.FrameworkID != "" || len(stored.Callbacks) != 1 || len(stored.Problems) != 0 {
		t.Errorf("%v, %+v", err, stored)
	}
}

func TestDamageCostsWhatItHitsAndNoMore(t *testing.T) {
	for name, tc := range map[string]struct {
		damage func(b *book, i *scheduler.Instance)
		check  func(t *testing.T, s *scheduler.Stored)
		fails  error
	}{
		"definition": {
			damage: func(b *book, i *scheduler.Instance) { b.overwrite("marathon/apps/", "{") },
			check: func(t *testing.T, s *scheduler.Stored) {
				if len(s.Quarantined) != 1 || s.Quarantined[0] != "/web" || s.Root.App("/web") != nil || len(s.Instances) != 1 {
					t.Errorf("got %+v", s)
				}
			},
		},
		"definition of another app": {
			damage: func(b *book, i *scheduler.Instance) { b.overwrite("marathon/apps/", `{"id":"/other","instances":1}`) },
			check: func(t *testing.T, s *scheduler.Stored) {
				if len(s.Quarantined) != 1 {
					t.Errorf("got %+v", s)
				}
			},
		},
		"instance": {
			damage: func(b *book, i *scheduler.Instance) { b.overwrite("marathon/instances/", `{"id":"web`) },
			check: func(t *testing.T, s *scheduler.Stored) {
				if !s.Doubt || len(s.Instances) != 0 || s.Root.App("/web") == nil {
					t.Errorf("got %+v", s)
				}
			},
		},
		"instance without sense": {
			damage: func(b *book, i *scheduler.Instance) {
				b.overwrite("marathon/instances/", `{"id":"`+i.ID.String()+`","goal":"Fly","condition":"Running"}`)
			},
			check: func(t *testing.T, s *scheduler.Stored) {
				if !s.Doubt || len(s.Instances) != 0 {
					t.Errorf("got %+v", s)
				}
			},
		},
		"deployment": {
			damage: func(b *book, i *scheduler.Instance) { b.write("marathon/deployments/x", `[]`) },
			check: func(t *testing.T, s *scheduler.Stored) {
				if !s.Doubt || len(s.Deployments) != 0 {
					t.Errorf("got %+v", s)
				}
			},
		},
		"failure": {
			damage: func(b *book, i *scheduler.Instance) { b.write("marathon/failures/web", `7`) },
			check: func(t *testing.T, s *scheduler.Stored) {
				if s.Doubt || len(s.Problems) != 1 {
					t.Errorf("got %+v", s)
				}
			},
		},
		"callbacks": {
			damage: func(b *book, i *scheduler.Instance) { b.write("marathon/callbacks", `7`) },
			check: func(t *testing.T, s *scheduler.Stored) {
				if s.Doubt || len(s.Problems) != 1 || len(s.Callbacks) != 0 {
					t.Errorf("got %+v", s)
				}
			},
		},
		"something unknown": {
			damage: func(b *book, i *scheduler.Instance) { b.write("marathon/pods/x", `{}`) },
			check: func(t *testing.T, s *scheduler.Stored) {
				if !s.Doubt {
					t.Errorf("got %+v", s)
				}
			},
		},
		"framework id": {
			damage: func(b *book, i *scheduler.Instance) { b.overwrite("marathon/framework", `{}`) },
			fails:  state.ErrDamaged,
		},
		"no framework id": {
			damage: func(b *book, i *scheduler.Instance) { b.remove("marathon/framework") },
			fails:  state.ErrNoFramework,
		},
		"tree": {
			damage: func(b *book, i *scheduler.Instance) { b.overwrite("marathon/trees/", `x`) },
			fails:  state.ErrDamaged,
		},
		"no tree": {
			damage: func(b *book, i *scheduler.Instance) { b.remove("marathon/tree") },
			fails:  state.ErrDamaged,
		},
		"format of tomorrow": {
			damage: func(b *book, i *scheduler.Instance) { b.overwrite("marathon/tree", `{"format":2}`) },
			fails:  state.ErrFormat,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := open(t, mastertest.NewStore(), 0)
			b.save(scheduler.Write{Kind: scheduler.KindFramework, Key: "f-1"})
			b.define(0, "/web", `{"cmd":"x"}`)
			b.define(time.Second, "/other", `{"cmd":"x"}`)
			i := b.instance(b.root.App("/web"))
			tc.damage(b, i)
			_, stored, err := state.Open(t.Context(), b.store, 0)
			if tc.fails != nil {
				if !errors.Is(err, tc.fails) {
					t.Errorf("got %v, want %v", err, tc.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if stored.Root.App("/other") == nil || len(stored.Problems) == 0 {
				t.Errorf("the rest is lost, or nobody is told: %+v", stored)
			}
			tc.check(t, stored)
		})
	}
}

// overwrite replaces the last document under a prefix that is about /web, or about nothing in particular.
func (b *book) overwrite(prefix, data string) {
	b.t.Helper()
	key := ""
	for _, k := range b.store.Keys(prefix) {
		if !strings.Contains(k, "other") {
			key = k
		}
	}
	if prefix == "marathon/tree" {
		key = prefix
	}
	b.write(key, data)
}

func (b *book) write(key, data string) {
	b.t.Helper()
	if _, err := b.store.Write(b.t.Context(), store.Op{Key: key, Version: store.Any, Data: []byte(data)}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *book) remove(key string) {
	b.t.Helper()
	if _, err := b.store.Write(b.t.Context(), store.Op{Key: key, Version: store.Any, Delete: true}); err != nil {
		b.t.Fatal(err)
	}
}

// FuzzOpen lets anything stand in a document: opening gives state or an error, and never panics.
func FuzzOpen(f *testing.F) {
	for _, key := range []string{"framework", "tree", "trees/00001714816800000", "apps/web/01714816800000", "instances/x", "deployments/x", "failures/web", "x"} {
		f.Add(key, []byte(`{"format":1,"version":"2024-05-04T10:00:00.000Z"}`))
	}
	f.Fuzz(func(t *testing.T, key string, data []byte) {
		st := mastertest.NewStore()
		if _, err := st.Write(t.Context(), store.Op{Key: "marathon/" + key, Version: store.Any, Data: data}); err != nil {
			return
		}
		_, stored, err := state.Open(t.Context(), st, 0)
		if err == nil && stored.Root == nil {
			t.Error("state without a tree")
		}
	})
}
