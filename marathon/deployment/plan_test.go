package deployment

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"starling/marathon/app"
)

var start = time.Date(2024, 5, 4, 10, 11, 12, 0, time.UTC)

// clock gives each commit its own second.
type clock struct{ now time.Time }

func (c *clock) commit(t *testing.T, old, edited *app.Group, restart ...app.PathID) *app.Group {
	t.Helper()
	c.now = c.now.Add(time.Second)
	out, err := app.Commit(old, edited, app.Change{Now: c.now, Settings: app.DefaultSettings(), Restart: restart})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// apps returns the tree with each app made of "id", or of "id {fields}".
func apps(t *testing.T, tree *app.Group, texts ...string) *app.Group {
	t.Helper()
	for _, text := range texts {
		id, fields, _ := strings.Cut(text, " ")
		d, err := app.ParseUpdate([]byte(`{"cmd":"x"` + strings.TrimSuffix(","+strings.Trim(fields, "{}"), ",") + `}`))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		a, err := d.Create(app.PathID(id), tree.RulesFor(app.PathID(id), app.DefaultSettings()))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		tree = tree.WithApp(a)
	}
	return tree
}

// outline writes one line for a step: "ScaleApplication /a, StopApplication /b".
func outline(p *Plan) []string {
	lines := []string{}
	for _, step := range p.Steps {
		var actions []string
		for _, a := range step.Actions {
			actions = append(actions, fmt.Sprintf("%s %s", strings.TrimSuffix(string(a.Kind), "Application"), a.App))
		}
		lines = append(lines, strings.Join(actions, ", "))
	}
	return lines
}

func TestDiff(t *testing.T) {
	c := &clock{now: start}
	from := c.commit(t, app.EmptyRoot(), apps(t, app.EmptyRoot(), "/a", "/b", "/g/c {\"instances\":3}"))
	tests := []struct {
		name    string
		edit    func(*app.Group) *app.Group
		restart []app.PathID
		want    []string
	}{
		{"nothing", func(g *app.Group) *app.Group { return g }, nil, []string{}},
		{"a new app is started, then scaled", func(g *app.Group) *app.Group { return apps(t, g, "/n") }, nil, []string{"Start /n", "Scale /n"}},
		{"a new app without instances too", func(g *app.Group) *app.Group { return apps(t, g, "/n {\"instances\":0}") }, nil, []string{"Start /n", "Scale /n"}},
		{"only the number of instances", func(g *app.Group) *app.Group { return g.WithApp(g.App("/a").WithInstances(4)) }, nil, []string{"Scale /a"}},
		{"a changed definition", func(g *app.Group) *app.Group { return apps(t, g, "/a {\"mem\":1}") }, nil, []string{"Restart /a"}},
		{"a changed definition with nothing to run", func(g *app.Group) *app.Group { return apps(t, g, "/a {\"mem\":1,\"instances\":0}") }, nil, []string{"Scale /a"}},
		{"a restart that was asked for", func(g *app.Group) *app.Group { return g }, []app.PathID{"/b"}, []string{"Restart /b"}},
		{"a removed app", func(g *app.Group) *app.Group { return g.WithoutApp("/g/c") }, nil, []string{"Stop /g/c"}},
		{"a removed group", func(g *app.Group) *app.Group { return g.WithoutGroup("/g") }, nil, []string{"Stop /g/c"}},
		{"stops first, starts next, targets last, and side by side", func(g *app.Group) *app.Group {
			return apps(t, g.WithoutApp("/a").WithApp(g.App("/b").WithInstances(2)), "/n", "/g/c {\"mem\":2}", "/g/m")
		}, nil, []string{"Stop /a", "Start /g/m, Start /n", "Scale /b, Restart /g/c, Scale /g/m, Scale /n"}},
		{"dependencies come first", func(g *app.Group) *app.Group {
			return apps(t, g, "/web {\"dependencies\":[\"api\",\"db\"]}", "/api {\"dependencies\":[\"/db\"]}", "/db")
		}, nil, []string{"Start /api, Start /db, Start /web", "Scale /db", "Scale /api", "Scale /web"}},
		{"levels without a change are left out", func(g *app.Group) *app.Group {
			return apps(t, g, "/web {\"dependencies\":[\"/a\"]}")
		}, nil, []string{"Start /web", "Scale /web"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			to := c.commit(t, from, tt.edit(from), tt.restart...)
			plan := Diff("id", from, to, nil)
			if got := outline(plan); !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			if plan.Empty() != (len(tt.want) == 0) || plan.Version != to.Version {
				t.Errorf("empty %v, version %s", plan.Empty(), plan.Version)
			}
		})
	}
}

func TestConflicts(t *testing.T) {
	c := &clock{now: start}
	from := c.commit(t, app.EmptyRoot(), apps(t, app.EmptyRoot(), "/a", "/b", "/c"))
	plan := func(id string, ids ...app.PathID) *Plan {
		edited := from
		for _, a := range ids {
			edited = edited.WithApp(edited.App(a).WithInstances(2))
		}
		return Diff(id, from, c.commit(t, from, edited), nil)
	}
	a, bc, ab := plan("a", "/a"), plan("bc", "/b", "/c"), plan("ab", "/a", "/b")
	running := []*Plan{a, bc}
	if got := ab.Conflicts(running); !slices.Equal(got, running) {
		t.Errorf("got %d conflicts, want both", len(got))
	}
	if got := a.Conflicts([]*Plan{bc, a}); got != nil {
		t.Errorf("a plan is in conflict with %s", got[0].ID)
	}
	if !slices.Equal(bc.Affected(), []app.PathID{"/b", "/c"}) || bc.Affects("/a") || !bc.Affects("/c") {
		t.Errorf("affected are %v", bc.Affected())
	}
}

func TestPlanForms(t *testing.T) {
	c := &clock{now: start}
	from := c.commit(t, app.EmptyRoot(), apps(t, app.EmptyRoot(), "/shop/web {\"instances\":2}", "/old"))
	to := c.commit(t, from, apps(t, from.WithoutApp("/old"), "/new").WithApp(from.App("/shop/web").WithInstances(1)))
	victim := app.InstanceID{App: "/shop/web", UUID: uuid.MustParse("5a0e8c51-0a01-11ef-8b3c-0242ac110002")}
	plan := Diff("97c136bf-5a28-4821-9d94-480d9fbb01c8", from, to, map[app.PathID][]app.InstanceID{"/shop/web": {victim}})

	readiness := func(id app.PathID) []json.RawMessage {
		if id == "/new" {
			return []json.RawMessage{json.RawMessage(`{"ready":true}`)}
		}
		return nil
	}
	steps := `"steps":[{"actions":[{"action":"StopApplication","app":"/old"}]},{"actions":[{"action":"StartApplication","app":"/new"}]},
		{"actions":[{"action":"ScaleApplication","app":"/new"},{"action":"ScaleApplication","app":"/shop/web"}]}]`
	checkJSON(t, plan.View(3, readiness), `{"id":"97c136bf-5a28-4821-9d94-480d9fbb01c8","version":"2024-05-04T10:11:14.000Z",
		"affectedApps":["/new","/old","/shop/web"],"affectedPods":[],`+steps+`,"currentStep":3,"totalSteps":3,
		"currentActions":[{"action":"ScaleApplication","app":"/new","readinessCheckResults":[{"ready":true}]},
		{"action":"ScaleApplication","app":"/shop/web","readinessCheckResults":[]}]}`)
	checkJSON(t, plan.View(0, nil).CurrentActions, `[]`)
	checkJSON(t, plan.Light(), `{"id":"97c136bf-5a28-4821-9d94-480d9fbb01c8","version":"2024-05-04T10:11:14.000Z",`+steps+`,
		"original":{"id":"/"},"target":{"id":"/","version":"2024-05-04T10:11:14.000Z"}}`)

	plan.Origin = Origin{Begun: plan.Version - 1000, By: "ann", Undoes: "another"}
	plan.Steps[0].Actions[0].Pod = true
	encoded, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	stored := new(Plan)
	if err := json.Unmarshal(encoded, stored); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(stored)
	if err != nil || string(again) != string(encoded) {
		t.Errorf("stored and read the plan is %s, %v, want %s", again, err, encoded)
	}
	if got, want := fmt.Sprint(stored.Steps), fmt.Sprint(plan.Steps); got != want {
		t.Errorf("stored and read the steps are %s, want %s", got, want)
	}
	if stored.Origin != plan.Origin {
		t.Errorf("stored and read it comes from %+v, want %+v", stored.Origin, plan.Origin)
	}
	if err := json.Unmarshal([]byte(`{"steps":1}`), stored); err == nil {
		t.Error("a broken plan was read")
	}
}

func checkJSON(t *testing.T, v any, want string) {
	t.Helper()
	encoded, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var got, wish any
	if err := json.Unmarshal(encoded, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(want), &wish); err != nil {
		t.Fatalf("bad test: %v in %s", err, want)
	}
	if diff := cmp.Diff(wish, got); diff != "" {
		t.Errorf("JSON differs (-want +got):\n%s", diff)
	}
}

func TestRevert(t *testing.T) {
	c := &clock{now: start}
	before := apps(t, app.EmptyRoot(), "/a {\"instances\":2}", "/g/b", "/g/keep", "/other")
	before = c.commit(t, app.EmptyRoot(), before.WithGroup(&app.Group{ID: "/deps", Dependencies: []app.PathID{"/g"}}))

	// One deployment changes, adds and removes apps and groups.
	edited := apps(t, before, "/a {\"mem\":7,\"instances\":3}", "/new/sub/n").WithoutGroup("/g")
	edited = c.commit(t, before, edited.WithGroup(&app.Group{ID: "/deps", Dependencies: []app.PathID{"/a"}}))
	plan := Diff("id", before, edited, nil)

	// Another changes an app of its own meanwhile.
	now := c.commit(t, edited, edited.WithApp(edited.App("/other").WithInstances(9)))

	data, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	stored := new(Plan)
	if err := json.Unmarshal(data, stored); err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]*Plan{"as it was made": plan, "after the store": stored} {
		t.Run(name, func(t *testing.T) {
			back := c.commit(t, now, p.Revert(now))
			for _, id := range []app.PathID{"/a", "/g/b", "/g/keep"} {
				if got := back.App(id); got == nil || !app.SameConfig(got, before.App(id)) || got.Instances != before.App(id).Instances {
					t.Errorf("%s is not what it was: %v", id, got)
				}
			}
			if back.App("/other").Instances != 9 {
				t.Error("the change of somebody else was undone")
			}
			if back.Group("/new") != nil {
				t.Error("the groups that were added are still there")
			}
			if got := back.Group("/deps").Dependencies; !slices.Equal(got, []app.PathID{"/g"}) {
				t.Errorf("the dependencies of the group are %v", got)
			}
			want := []string{"Stop /new/sub/n", "Start /g/b, Start /g/keep", "Restart /a, Scale /g/b, Scale /g/keep"}
			if got := outline(Diff("back", now, back, nil)); !slices.Equal(got, want) {
				t.Errorf("the way back is %q, want %q", got, want)
			}
		})
	}
}
