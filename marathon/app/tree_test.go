package app

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func versions(a *App) [3]Timestamp {
	return [3]Timestamp{a.Version, a.VersionInfo.LastScalingAt, a.VersionInfo.LastConfigChangeAt}
}

func TestCommitVersions(t *testing.T) {
	settings := allFeatures()
	root := mustCommit(t, EmptyRoot(), mustCreate(t, `{"id":"/g/a","cmd":"x","healthChecks":[{},{"protocol":"TCP"}],"constraints":[["hostname","UNIQUE"],["x","LIKE","y"]]}`),
		mustCreate(t, `{"id":"/g/b","cmd":"x"}`))
	v1 := At(testNow)
	if got := versions(root.App("/g/a")); got != [3]Timestamp{v1, v1, v1} || root.Version != v1 || root.Group("/g").Version != v1 {
		t.Fatalf("a new app has versions %v, its root %v", got, root.Version)
	}
	now := testNow
	step := func(root *Group, update string) *Group {
		t.Helper()
		now = now.Add(time.Second)
		out, err := Commit(root, root.WithApp(mustUpdate(t, root, "/g/a", update)), Change{Now: now, Settings: settings})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}

	same := step(root, `{"cmd":"x","constraints":[["x","LIKE","y"],["hostname","UNIQUE"]],"healthChecks":[{"protocol":"TCP"},{}]}`)
	if same != root {
		t.Error("an update that changes nothing but the order of sets made a new tree")
	}

	scaled := step(root, `{"instances":3}`)
	v2 := At(now)
	if got := versions(scaled.App("/g/a")); got != [3]Timestamp{v2, v2, v1} {
		t.Errorf("a scaled app has versions %v", got)
	}
	if scaled.App("/g/b") != root.App("/g/b") || scaled.App("/g/b").Version != v1 {
		t.Error("an app that did not change is another one")
	}

	changed := step(scaled, `{"labels":{"a":"b"}}`)
	v3 := At(now)
	if got := versions(changed.App("/g/a")); got != [3]Timestamp{v3, v2, v3} {
		t.Errorf("a changed app has versions %v", got)
	}

	both := step(changed, `{"instances":1,"mem":1}`)
	v4 := At(now)
	if got := versions(both.App("/g/a")); got != [3]Timestamp{v4, v4, v4} {
		t.Errorf("an app both scaled and changed has versions %v", got)
	}

	// The clock stands still, and versions grow nevertheless.
	restarted, err := Commit(both, both, Change{Now: now, Settings: settings, Restart: []PathID{"/g/a", "/none"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := versions(restarted.App("/g/a")); got != [3]Timestamp{v4 + 1, v4, v4 + 1} {
		t.Errorf("a restarted app has versions %v", got)
	}
	if restarted.App("/g/b") != root.App("/g/b") {
		t.Error("the restart touched another app")
	}
}

func TestServicePorts(t *testing.T) {
	settings := allFeatures()
	settings.ServicePortMin, settings.ServicePortMax = 10000, 10003
	commit := func(root *Group, edited *Group) (*Group, error) {
		return Commit(root, edited, Change{Now: testNow, Settings: settings})
	}
	ports := func(root *Group, id PathID) []int { return root.App(id).ServicePorts() }
	check := func(what string, got []int, want ...int) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: got ports %v, want %v", what, got, want)
		}
	}
	root, err := commit(EmptyRoot(), EmptyRoot().
		WithApp(mustCreate(t, `{"id":"/a","cmd":"x","ports":[0,8080,0]}`)).
		WithApp(mustCreate(t, `{"id":"/b","cmd":"x","networks":[{"mode":"container/bridge"}]}`)))
	if err != nil {
		t.Fatal(err)
	}
	check("lowest first, by id", ports(root, "/a"), 10000, 8080, 10001)
	check("mappings", ports(root, "/b"), 10002)

	again, err := commit(root, root.WithApp(mustCreate(t, `{"id":"/a","cmd":"x","ports":[0,8080,0]}`)))
	if err != nil {
		t.Fatal(err)
	}
	if again != root {
		t.Error("posting the same app again is a change")
	}

	moved, err := commit(root, root.WithApp(mustCreate(t, `{"id":"/a","cmd":"x","ports":[0,10000,0]}`)))
	if err != nil {
		t.Fatal(err)
	}
	check("ports that the new definition names are not reused", ports(moved, "/a"), 10001, 10000, 10003)

	_, err = commit(moved, moved.WithApp(mustCreate(t, `{"id":"/c","cmd":"x"}`)))
	if err == nil || err.Error() != "All ports in the range [10000-10003) are already in use" {
		t.Errorf("with no port left the error is %v", err)
	}

	freed, err := commit(moved, moved.WithoutApp("/b"))
	if err != nil {
		t.Fatal(err)
	}
	freed, err = commit(freed, freed.WithApp(mustCreate(t, `{"id":"/c","cmd":"x"}`)))
	if err != nil {
		t.Fatal(err)
	}
	check("a removed app frees its ports", ports(freed, "/c"), 10002)

	twice, err := commit(freed, freed.WithApp(mustCreate(t, `{"id":"/d","cmd":"x","ports":[10000]}`)))
	if err != nil {
		t.Fatal(err)
	}
	check("users may choose a port that is taken", ports(twice, "/d"), 10000)
}

func TestTreeIsNotChanged(t *testing.T) {
	root := mustCommit(t, EmptyRoot(), mustCreate(t, `{"id":"/g/a","cmd":"x"}`), mustCreate(t, `{"id":"/g/h/b","cmd":"x"}`))
	before, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	edited := root.WithApp(mustCreate(t, `{"id":"/g/c","cmd":"x"}`)).WithoutApp("/g/a").WithGroup(&Group{ID: "/x/y"}).WithoutGroup("/g/h")
	var ids []PathID
	for group := range edited.AllGroups() {
		ids = append(ids, group.ID)
	}
	for a := range edited.All() {
		ids = append(ids, a.ID)
	}
	if want := []PathID{"/", "/g", "/x", "/x/y", "/g/c"}; !slices.Equal(ids, want) {
		t.Errorf("the edited tree has %v, want %v", ids, want)
	}
	if root.WithoutApp("/none") != root || root.WithoutGroup("/none/x") != root || root.App("/g") != nil || root.Group("/g/a") != nil {
		t.Error("what does not exist was found")
	}
	if !root.WithoutGroup(Root).Empty() {
		t.Error("a tree without its root is not empty")
	}
	after, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(before), string(after)); diff != "" {
		t.Errorf("the tree that was edited changed:\n%s", diff)
	}

	back := new(Group)
	if err := json.Unmarshal(before, back); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(back)
	if err != nil || string(again) != string(before) {
		t.Errorf("stored and read the tree is %s, %v, want %s", again, err, before)
	}
}

func TestTreeRules(t *testing.T) {
	settings := allFeatures()
	settings.MaxApps = 3
	volume := `"container":{"type":"MESOS","volumes":[{"containerPath":"p","mode":"RW","external":{"name":"v","provider":"dvdi","options":{"dvdi/driver":"d"}}}]}`
	tests := []struct {
		name, path, text string
		apps             []string
		groups           []*Group
	}{
		{"an app below an app", "/apps//a", "Groups and Applications may not have the same identifier.", []string{`{"id":"/a","cmd":"x"}`, `{"id":"/a/b","cmd":"x"}`}, nil},
		{"an app in the place of a group", "/apps//a", "Groups and Applications may not have the same identifier.", []string{`{"id":"/a/b","cmd":"x"}`, `{"id":"/a","cmd":"x"}`}, nil},
		{"an app in the place of an empty group", "", "", []string{`{"id":"/a","cmd":"x"}`}, []*Group{{ID: "/a"}}},
		{"a cycle", "/", "Dependency graph has cyclic dependencies.", []string{`{"id":"/a","cmd":"x","dependencies":["b"]}`, `{"id":"/b","cmd":"x","dependencies":["a"]}`}, nil},
		{"a cycle is named", "/", "/a -> /b -> /a", []string{`{"id":"/a","cmd":"x","dependencies":["b"]}`, `{"id":"/b","cmd":"x","dependencies":["a"]}`}, nil},
		{"an app that waits for itself", "/", "/a -> /a", []string{`{"id":"/a","cmd":"x","dependencies":["a"]}`}, nil},
		{
			"a cycle through groups", "/", "cyclic",
			[]string{`{"id":"/g/a","cmd":"x"}`, `{"id":"/h/b","cmd":"x"}`},
			[]*Group{{ID: "/g", Dependencies: []PathID{"/h"}}, {ID: "/h", Dependencies: []PathID{"/g"}}},
		},
		{"an app that waits for its group", "/", "cyclic", []string{`{"id":"/g/a","cmd":"x","dependencies":["/g"]}`}, nil},
		{"groups that wait in one direction", "", "", []string{`{"id":"/g/a","cmd":"x"}`, `{"id":"/h/b","cmd":"x"}`}, []*Group{{ID: "/g", Dependencies: []PathID{"/h"}}}},
		{"an unknown dependency", "", "", []string{`{"id":"/a","cmd":"x","dependencies":["/later"]}`}, nil},
		{"one volume for two apps", "/apps//b/container/volumes(0)/external/name", "must be unique", []string{`{"id":"/a","cmd":"x",` + volume + `}`, `{"id":"/b","cmd":"x",` + volume + `}`}, nil},
		{"too many apps", "/", "There are 4 apps, and at most 3 are allowed", []string{`{"id":"/a","cmd":"x"}`, `{"id":"/b","cmd":"x"}`, `{"id":"/c","cmd":"x"}`, `{"id":"/d","cmd":"x"}`}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tree := EmptyRoot()
			for _, group := range tt.groups {
				tree = tree.WithGroup(group)
			}
			for _, body := range tt.apps {
				tree = tree.WithApp(mustCreate(t, body))
			}
			_, err := Commit(EmptyRoot(), tree, Change{Now: testNow, Settings: settings})
			if tt.text == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			checkRefused(t, err, MessageObject, tt.path, tt.text)
		})
	}
}

func TestLevels(t *testing.T) {
	tree := EmptyRoot().WithGroup(&Group{ID: "/front", Dependencies: []PathID{"/back"}})
	for _, body := range []string{
		`{"id":"/db","cmd":"x"}`,
		`{"id":"/back/api","cmd":"x","dependencies":["/db"]}`,
		`{"id":"/back/log","cmd":"x"}`,
		`{"id":"/front/web","cmd":"x","dependencies":["/db","/front/cache"]}`,
		`{"id":"/front/cache","cmd":"x"}`,
	} {
		tree = tree.WithApp(mustCreate(t, body))
	}
	// Pods have no dependencies of their own, but their groups may have some, and others may wait for them.
	tree = tree.WithGroup(&Group{ID: "/edge", Dependencies: []PathID{"/front"}}).WithGroup(&Group{ID: "/last", Dependencies: []PathID{"/edge"}}).
		WithApp(&App{ID: "/edge/pod", Pod: &Pod{}}).WithApp(mustCreate(t, `{"id":"/last/app","cmd":"x"}`)).
		WithApp(&App{ID: "/alone", Pod: &Pod{}}).WithApp(mustCreate(t, `{"id":"/waits","cmd":"x","dependencies":["/alone"]}`))
	want := map[PathID]int{
		"/db": 1, "/back/api": 2, "/back/log": 1, "/front/cache": 3, "/front/web": 4, "/edge/pod": 5, "/last/app": 6, "/alone": 1, "/waits": 2,
	}
	if diff := cmp.Diff(want, tree.Levels()); diff != "" {
		t.Errorf("levels differ (-want +got):\n%s", diff)
	}
}

func TestRolesFor(t *testing.T) {
	yes := true
	held := mustCreate(t, `{"id":"/open/held","cmd":"x"}`)
	held.Role = "old"
	tree := EmptyRoot().WithGroup(&Group{ID: "/strict", EnforceRole: &yes}).WithGroup(&Group{ID: "/open"}).WithApp(held)
	enforcing := DefaultSettings()
	enforcing.NewGroupEnforceRole = true
	tests := []struct {
		id       PathID
		settings Settings
		want     Roles
	}{
		{"/a", DefaultSettings(), Roles{"*", []string{"*"}}},
		{"/open/a", DefaultSettings(), Roles{"*", []string{"*", "open"}}},
		{"/open/held", DefaultSettings(), Roles{"*", []string{"*", "open", "old"}}},
		{"/strict/x/a", DefaultSettings(), Roles{"strict", []string{"strict"}}},
		{"/new/a", DefaultSettings(), Roles{"*", []string{"*", "new"}}},
		{"/new/a", enforcing, Roles{"new", []string{"new"}}},
		{"/open/a", enforcing, Roles{"*", []string{"*", "open"}}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, tree.RolesFor(tt.id, tt.settings)); diff != "" {
			t.Errorf("roles for %s differ (-want +got):\n%s", tt.id, diff)
		}
	}
}
