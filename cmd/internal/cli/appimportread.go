package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"starling/marathon/app"
)

// foreign is what another Marathon has, as it is to be taken over.
type foreign struct {
	runs   []foreignRun
	groups []foreignGroup
	// notes say what was changed on the way, problems what can't be taken over: by the path of each.
	notes, problems []string
}

// foreignRun is an app or a pod.
type foreignRun struct {
	id   app.PathID
	pod  bool
	body map[string]json.RawMessage
	deps []app.PathID
}

// foreignGroup is what a group says of itself.
type foreignGroup struct {
	ID           app.PathID   `json:"id"`
	Dependencies []app.PathID `json:"dependencies,omitempty"`
	EnforceRole  *bool        `json:"enforceRole,omitempty"`
	empty        bool         // of apps and pods, with all below it
}

// readForeign reads what is at a URL, in a file, or on stdin for "-".
func readForeign(ctx context.Context, c *call, from, auth string) (*foreign, error) {
	text, err := fetchForeign(ctx, c, from, auth)
	if err != nil {
		return nil, err
	}
	var top struct {
		ID     *string           `json:"id"`
		Apps   []json.RawMessage `json:"apps"`
		Groups json.RawMessage   `json:"groups"`
	}
	f := &foreign{}
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")) {
		err = json.Unmarshal(text, &top.Apps)
	} else {
		err = json.Unmarshal(text, &top)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", shownSource(from), positioned(text, err))
	case top.ID != nil && (top.Apps != nil || top.Groups != nil):
		_, err = f.group(text, app.Root)
	case top.Apps != nil: // the answer of /v2/apps, or a list
		for _, one := range top.Apps {
			f.run(one, app.Root, false)
		}
	default:
		return nil, fmt.Errorf("%s: neither groups, as /v2/groups of a Marathon shows them, nor a list of apps", shownSource(from))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shownSource(from), err)
	}
	return f, nil
}

func isURL(text string) bool {
	return strings.HasPrefix(text, "http://") || strings.HasPrefix(text, "https://")
}

// shownSource is where definitions come from, without a password.
func shownSource(from string) string {
	if u, err := marathonURL(from); isURL(from) && err == nil {
		return u.Redacted()
	}
	if from == "-" {
		return "stdin"
	}
	return from
}

func fetchForeign(ctx context.Context, c *call, from, auth string) ([]byte, error) {
	if isURL(from) {
		other, err := newMarathon(&marathonFlags{urls: strings.TrimSuffix(strings.TrimRight(from, "/"), "/v2/groups"), auth: auth})
		if err != nil {
			return nil, err
		}
		defer other.close()
		other.foreign = true
		return other.get(ctx, "/v2/groups?embed=group.groups&embed=group.apps&embed=group.pods", nil)
	}
	return slurp(c.io.In, from, maxAnswer)
}

// group reads a group and all below it, and tells whether there is an app or pod.
func (f *foreign) group(text json.RawMessage, base app.PathID) (empty bool, err error) {
	var g struct {
		ID           string            `json:"id"`
		Apps         []json.RawMessage `json:"apps"`
		Pods         []json.RawMessage `json:"pods"`
		Groups       []json.RawMessage `json:"groups"`
		Dependencies []string          `json:"dependencies"`
		EnforceRole  *bool             `json:"enforceRole"`
	}
	if err := json.Unmarshal(text, &g); err != nil {
		return false, err
	}
	id := app.Root
	if g.ID != "" && g.ID != "/" {
		if id, err = app.ParseID(g.ID, base); err != nil {
			return false, fmt.Errorf("group %q: %w", g.ID, err)
		}
	}
	own := foreignGroup{ID: id, EnforceRole: g.EnforceRole}
	for _, d := range g.Dependencies {
		dep, err := app.ParseID(d, id)
		if err != nil {
			return false, fmt.Errorf("group %s: dependency %q: %w", id, d, err)
		}
		own.Dependencies = append(own.Dependencies, dep)
	}
	own.empty = len(g.Apps)+len(g.Pods) == 0
	for _, one := range g.Apps {
		f.run(one, id, false)
	}
	for _, one := range g.Pods {
		f.run(one, id, true)
	}
	at := len(f.groups)
	f.groups = append(f.groups, own)
	for _, one := range g.Groups {
		none, err := f.group(one, id)
		if err != nil {
			return false, err
		}
		own.empty = own.empty && none
	}
	f.groups[at].empty = own.empty
	return own.empty, nil
}

// told are the fields of answers that are no part of a definition.
var told = []string{
	"version", "versionInfo", "tasks", "tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy", "deployments", "lastTaskFailure",
	"readinessCheckResults", "taskStats", "tasksStats",
}

// run reads an app or a pod.
func (f *foreign) run(text json.RawMessage, base app.PathID, pod bool) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		f.problems = append(f.problems, fmt.Sprintf("below %s: not an object: %.60s", base, text))
		return
	}
	if spec := fields["spec"]; pod && spec != nil { // a pod's status, as groups show it
		text, fields = spec, nil
		if err := json.Unmarshal(spec, &fields); err != nil {
			f.problems = append(f.problems, fmt.Sprintf("below %s: not an object: %.60s", base, spec))
			return
		}
	}
	id, ok := idOf(text, base)
	if !ok {
		f.problems = append(f.problems, fmt.Sprintf("below %s: %q is not an id", base, writtenID(text)))
		return
	}
	for name, value := range fields {
		if slices.Contains(told, name) || bytes.Equal(value, []byte("null")) {
			delete(fields, name)
		}
	}
	fields["id"], _ = json.Marshal(id)
	r := foreignRun{id: id, pod: pod, body: fields}
	if !pod {
		f.modern(&r)
		var deps []string
		_ = json.Unmarshal(fields["dependencies"], &deps) // what is wrong with it is found where it is checked
		for _, d := range deps {
			if dep, err := app.ParseID(d, id.Parent()); err == nil {
				r.deps = append(r.deps, dep)
			}
		}
	}
	f.runs = append(f.runs, r)
}

// modern drops the old forms of what an app has in today's form, too, as Marathon 1.4 and older ones show it.
func (f *foreign) modern(r *foreignRun) {
	said := func(name string) bool {
		var v any
		if json.Unmarshal(r.body[name], &v) != nil {
			return false
		}
		switch v := v.(type) {
		case []any:
			return len(v) > 0
		case map[string]any:
			return len(v) > 0
		}
		return v != nil
	}
	drop := func(name, why string) {
		if r.body[name] == nil {
			return
		}
		if said(name) {
			f.notes = append(f.notes, fmt.Sprintf("%s: /%s is left out: %s", r.id, name, why))
		}
		delete(r.body, name)
	}
	var container struct {
		Docker struct {
			Network      string
			PortMappings []json.RawMessage
		}
		PortMappings []json.RawMessage
	}
	_ = json.Unmarshal(r.body["container"], &container)
	switch network := container.Docker.Network; {
	case said("ipAddress"), network == "BRIDGE", network == "USER", len(container.PortMappings) > 0, len(container.Docker.PortMappings) > 0:
		drop("ports", "the ports are those of the container")
		drop("portDefinitions", "the ports are those of the container")
	case said("portDefinitions"):
		drop("ports", "portDefinitions say the same")
	}
	if said("fetch") {
		drop("uris", "fetch says the same")
	}
	if !said("uris") {
		delete(r.body, "uris")
	}
	if !said("storeUrls") {
		delete(r.body, "storeUrls")
	}
	if said("networks") {
		drop("ipAddress", "networks say the same")
	}
}
