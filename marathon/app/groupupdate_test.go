package app

import (
	"fmt"
	"slices"
	"testing"
)

func applyGroup(root *Group, request PathID, body string, s Settings) (*Group, error) {
	u, err := ParseGroup([]byte(body))
	if err != nil {
		return nil, err
	}
	id, err := u.ID(request)
	if err != nil {
		return nil, err
	}
	edited, err := u.Apply(root, id, s)
	if err != nil {
		return nil, err
	}
	return Commit(root, edited, Change{Now: testNow, Settings: s})
}

// outline lists groups with a slash at the end, and apps with their instances.
func outline(root *Group) []string {
	var lines []string
	for group := range root.AllGroups() {
		if group.ID != Root {
			lines = append(lines, string(group.ID)+"/")
		}
	}
	for a := range root.All() {
		lines = append(lines, fmt.Sprintf("%s %d", a.ID, a.Instances))
	}
	return lines
}

func TestGroupUpdates(t *testing.T) {
	root := mustCommit(t, EmptyRoot(), mustCreate(t, `{"id":"/g/a","cmd":"x","instances":2}`), mustCreate(t, `{"id":"/g/b","cmd":"x"}`),
		mustCreate(t, `{"id":"/g/h/c","cmd":"x","instances":3}`), mustCreate(t, `{"id":"/z","cmd":"x"}`))
	tests := []struct {
		name    string
		request PathID
		body    string
		want    []string
	}{
		{
			"a given list of apps replaces them, what is absent stays", "/g", `{"apps":[{"id":"a","cmd":"x","instances":5},{"id":"/g/n","cmd":"x"}]}`,
			[]string{"/g/", "/g/h/", "/g/a 5", "/g/h/c 3", "/g/n 1", "/z 1"},
		},
		{
			"a given list of groups replaces them", "/g", `{"groups":[{"id":"i","apps":[{"id":"d","cmd":"x"}],"groups":[{"id":"j"}]}]}`,
			[]string{"/g/", "/g/i/", "/g/i/j/", "/g/a 2", "/g/b 1", "/g/i/d 1", "/z 1"},
		},
		{"empty lists remove all", "/g", `{"apps":[],"groups":[]}`, []string{"/g/", "/z 1"}},
		{
			"a group that is listed keeps what it does not name", "/g", `{"groups":[{"id":"h","dependencies":["/z"]}]}`,
			[]string{"/g/", "/g/h/", "/g/a 2", "/g/b 1", "/g/h/c 3", "/z 1"},
		},
		{
			"a new group with its parents", "/", `{"id":"/p/q","apps":[{"id":"a","cmd":"x"}]}`,
			[]string{"/g/", "/g/h/", "/p/", "/p/q/", "/g/a 2", "/g/b 1", "/g/h/c 3", "/p/q/a 1", "/z 1"},
		},
		{
			"the id of the body is below that of the request", "/p", `{"id":"q"}`,
			[]string{"/g/", "/g/h/", "/p/", "/p/q/", "/g/a 2", "/g/b 1", "/g/h/c 3", "/z 1"},
		},
		{"everything below is scaled and rounded up", "/g", `{"scaleBy":1.5}`, []string{"/g/", "/g/h/", "/g/a 3", "/g/b 2", "/g/h/c 5", "/z 1"}},
		{"everything is scaled to nothing", "/", `{"scaleBy":0}`, []string{"/g/", "/g/h/", "/g/a 0", "/g/b 0", "/g/h/c 0", "/z 0"}},
		{"an app that is removed and a group of its name", "/", `{"apps":[],"groups":[{"id":"z"}]}`, []string{"/z/"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := applyGroup(root, tt.request, tt.body, allFeatures())
			if err != nil {
				t.Fatal(err)
			}
			if lines := outline(got); !slices.Equal(lines, tt.want) {
				t.Errorf("got  %q\nwant %q", lines, tt.want)
			}
		})
	}
}

func TestGroupRefusals(t *testing.T) {
	root := mustCommit(t, EmptyRoot(), mustCreate(t, `{"id":"/g/a","cmd":"x","instances":2}`), mustCreate(t, `{"id":"/g/s","cmd":"x","labels":{"MARATHON_SINGLE_INSTANCE_APP":"true"}}`))
	tests := []struct {
		name, request, body, message, path, text string
	}{
		{"app without id", "/g", `{"apps":[{"cmd":"x"}]}`, MessageJSON, "/apps(0)/id", "error.path.missing"},
		{"group without id", "/g", `{"groups":[{}]}`, MessageJSON, "/groups(0)/id", "error.path.missing"},
		{
			"wrong type far below", "/g", `{"groups":[{"id":"h","groups":[{"id":"i","apps":[{"id":"a"},{"id":"b","cpus":"x"}]}]}]}`,
			MessageJSON, "/groups(0)/groups(0)/apps(1)/cpus", "error.expected.jsnumber",
		},
		{"negative factor", "/g", `{"scaleBy":-1}`, MessageJSON, "/scaleBy", "error.min"},
		{"group's own id", "/", `{"id":"/G"}`, MessageObject, "/id", `segment "G"`},
		{"factor and apps", "/g", `{"scaleBy":2,"apps":[]}`, MessageObject, "/scaleBy", "not allowed in conjunction with other properties."},
		{"version and groups", "/g", `{"version":"2024-05-04T10:11:12.345Z","groups":[]}`, MessageObject, "/version", "not allowed in conjunction with other properties."},
		{"version of a child", "/g", `{"groups":[{"id":"h","version":"2024-05-04T10:11:12.345Z"}]}`, MessageObject, "/groups(0)/version", "not allowed"},
		{"factor of a child", "/g", `{"groups":[{"id":"h","scaleBy":2}]}`, MessageObject, "/groups(0)/scaleBy", "not allowed"},
		{"factor that is too large", "/g", `{"scaleBy":1e10}`, MessageObject, "/scaleBy", "more than an app can have"},
		{"factor for a single instance", "/g", `{"scaleBy":2}`, MessageObject, "/apps//g/s", "Single instance app"},
		{"app of another group", "/g", `{"apps":[{"id":"/x/a","cmd":"x"}]}`, MessageObject, "/apps(0)/id", "Identifier is not child of '/g'"},
		{"app not directly below", "/g", `{"apps":[{"id":"x/a","cmd":"x"}]}`, MessageObject, "/apps(0)/id", "Identifier is not child of '/g'"},
		{"group of another group", "/g", `{"groups":[{"id":"/x"}]}`, MessageObject, "/groups(0)/id", "Identifier is not child of '/g'"},
		{"group in itself", "/g", `{"groups":[{"id":"."}]}`, MessageObject, "/groups(0)/id", "Identifier is not child of '/g'"},
		{"bad id below", "/g", `{"apps":[{"id":"A","cmd":"x"}]}`, MessageObject, "/apps(0)/id", `segment "A"`},
		{"reserved id below", "/g", `{"apps":[{"id":"tasks","cmd":"x"}]}`, MessageObject, "/apps(0)/id", "reserved keywords"},
		{"app twice", "/g", `{"apps":[{"id":"b","cmd":"x"},{"id":"/g/b","cmd":"x"}]}`, MessageObject, "/apps(1)/id", "unique ids"},
		{"group twice", "/g", `{"groups":[{"id":"b"},{"id":"/g/b"}]}`, MessageObject, "/groups(1)/id", "unique ids"},
		{"rule of an app below", "/g", `{"groups":[{"id":"h","apps":[{"id":"a"}]}]}`, MessageObject, "/groups(0)/apps(0)", "must either contain one of"},
		{"old form of an app below", "/g", `{"apps":[{"id":"b","cmd":"x","ports":[1,1]}]}`, MessageObject, "/apps(0)/ports", "ports must be unique"},
		{"dependency of a group", "/g", `{"dependencies":["B"]}`, MessageObject, "/dependencies(0)", `segment "B"`},
		{
			"app and group of one id", "/g", `{"apps":[{"id":"b","cmd":"x"}],"groups":[{"id":"b","apps":[{"id":"c","cmd":"x"}]}]}`,
			MessageObject, "/apps//g/b", "Groups and Applications may not have the same identifier.",
		},
		{"role far below", "/g", `{"groups":[{"id":"h","enforceRole":true}]}`, MessageObject, "/groups(0)/enforceRole", "only allowed for top-level groups"},
		{"role with services", "/g", `{"enforceRole":true,"apps":[]}`, MessageObject, "/enforceRole", "may not change in a request that also changes services"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := applyGroup(root, PathID(tt.request), tt.body, allFeatures())
			checkRefused(t, err, tt.message, tt.path, tt.text)
		})
	}
}

func TestGroupRoles(t *testing.T) {
	root, err := applyGroup(EmptyRoot(), "/g", `{"enforceRole":true,"apps":[{"id":"a","cmd":"x"}],"groups":[{"id":"h","apps":[{"id":"b","cmd":"x"}]}]}`, DefaultSettings())
	if err != nil {
		t.Fatal(err)
	}
	if a, b := root.App("/g/a"), root.App("/g/h/b"); a.Role != "g" || b.Role != "g" {
		t.Errorf("roles are %q and %q, want that of the group", a.Role, b.Role)
	}
	if root.Group("/g/h").EnforceRole != nil || !*root.Group("/g").EnforceRole {
		t.Error("enforceRole is not where it belongs")
	}
	changed, err := root.WithEnforceRole("/g", false)
	if err != nil || *changed.Group("/g").EnforceRole || !*root.Group("/g").EnforceRole {
		t.Errorf("WithEnforceRole: %v", err)
	}
	if _, err := root.WithEnforceRole("/g/h", false); err == nil || err.Error() != "Path needs to be top-level" {
		t.Errorf("got %v", err)
	}
	plain, err := applyGroup(EmptyRoot(), "/g", `{"apps":[{"id":"a","cmd":"x"}]}`, DefaultSettings())
	if err != nil {
		t.Fatal(err)
	}
	if enforce := plain.Group("/g").EnforceRole; enforce == nil || *enforce || plain.App("/g/a").Role != "*" {
		t.Errorf("a new group has enforceRole %v, its app role %q", enforce, plain.App("/g/a").Role)
	}
}

func TestGroupRollback(t *testing.T) {
	old := mustCommit(t, EmptyRoot(), mustCreate(t, `{"id":"/g/a","cmd":"x"}`), mustCreate(t, `{"id":"/z","cmd":"x"}`))
	now, err := applyGroup(old, "/", `{"apps":[],"groups":[{"id":"g","apps":[{"id":"b","cmd":"x"}]}]}`, DefaultSettings())
	if err != nil {
		t.Fatal(err)
	}
	u, err := ParseGroup([]byte(`{"version":"` + old.Version.String() + `"}`))
	if err != nil {
		t.Fatal(err)
	}
	if version, ask, err := u.Rollback(); !ask || err != nil || version != old.Version {
		t.Fatalf("Rollback is %v, %v, %v", version, ask, err)
	}
	back, ok := now.Restored("/g", old)
	if want := []string{"/g/", "/g/a 1"}; !ok || !slices.Equal(outline(back), want) {
		t.Errorf("restored is %q, want %q", outline(back), want)
	}
	if _, ok := now.Restored("/none", old); ok {
		t.Error("a group that was not there was restored")
	}
}
