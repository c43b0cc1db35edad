package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"starling/marathon/app"
)

// maxDefinitions is how much a file may have; Marathon takes no more.
const maxDefinitions = 10 << 20

// definitions is what is sent to Marathon at once: a list of apps, a pod, or a group.
type definitions struct {
	group string // the id, empty for others
	pod   bool
	known bool // of a pod that there is
	apps  []json.RawMessage
	body  json.RawMessage // of a group or pod
}

// readDefinitions reads files: all apps of all of them make one deployment, and each pod and group one of its own after that.
func readDefinitions(in io.Reader, files []string) ([]*definitions, error) {
	apps := &definitions{}
	var groups []*definitions
	if first := slices.Index(files, "-"); first >= 0 && slices.Contains(files[first+1:], "-") {
		return nil, usagef("- is given twice, and there is one stdin")
	}
	for _, name := range files {
		if err := readFile(in, name, apps, &groups); err != nil {
			return nil, err
		}
	}
	if len(apps.apps) > 0 {
		groups = append([]*definitions{apps}, groups...)
	}
	if len(groups) == 0 {
		return nil, errors.New("there is no app in what was given")
	}
	return groups, nil
}

func readFile(in io.Reader, name string, apps *definitions, groups *[]*definitions) error {
	text, err := slurp(in, name, maxDefinitions)
	if err != nil {
		return err
	}
	what := name
	if name == "-" {
		what = "stdin"
	}
	var list []json.RawMessage
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")) {
		err = json.Unmarshal(text, &list)
	} else {
		var one map[string]json.RawMessage
		err = json.Unmarshal(text, &one)
		if isGroup(one) {
			var id string
			if json.Unmarshal(one["id"], &id) != nil || id == "" {
				return fmt.Errorf("%s: the group has no id; the root's is \"/\"", what)
			}
			parsed, err := app.ParseID(id, app.Root)
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			*groups = append(*groups, &definitions{group: string(parsed), body: text})
			return nil
		}
		if one["containers"] != nil && err == nil {
			if id := writtenID(text); !strings.HasPrefix(id, "/") {
				return fmt.Errorf("%s: the id of a pod has to be absolute, and this is %q", what, id)
			}
			*groups = append(*groups, &definitions{pod: true, body: text})
			return nil
		}
		list = []json.RawMessage{text}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, positioned(text, err))
	}
	for i, one := range list {
		if err := checkApp(one); err != nil {
			if len(list) > 1 {
				return fmt.Errorf("%s: app %d: %w", what, i+1, err)
			}
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	apps.apps = append(apps.apps, list...)
	return nil
}

// slurp reads a file of so many bytes at most, or stdin for "-".
func slurp(in io.Reader, name string, most int) ([]byte, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	} else if in == nil {
		return nil, errors.New("there is no stdin to read")
	}
	text, err := io.ReadAll(io.LimitReader(in, int64(most)+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read %s: %w", shownSource(name), err)
	case len(text) > most:
		return nil, fmt.Errorf("%s has more than %d bytes, and no more are taken", shownSource(name), most)
	}
	return text, nil
}

// positioned says at which line JSON goes wrong.
func positioned(text []byte, err error) error {
	offset := int64(-1)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		offset = syntax.Offset
	} else if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("not an app, a pod, a list of apps or a group, but a JSON %s", kind.Value)
	}
	if offset < 0 || offset > int64(len(text)) {
		return err
	}
	return fmt.Errorf("line %d: not JSON: %w", 1+bytes.Count(text[:offset], []byte("\n")), err)
}

// isGroup tells a group from an app, by what only groups have.
func isGroup(one map[string]json.RawMessage) bool {
	return slices.ContainsFunc([]string{"apps", "groups", "enforceRole", "scaleBy"}, func(key string) bool { return one[key] != nil })
}

func checkApp(body json.RawMessage) error {
	var one struct {
		ID         string
		Containers json.RawMessage
		Apps       json.RawMessage
		Groups     json.RawMessage
	}
	if err := json.Unmarshal(body, &one); err != nil {
		return positioned(body, err)
	}
	switch {
	case one.Containers != nil:
		return errors.New("a pod, which has to be in a file of its own")
	case one.Apps != nil || one.Groups != nil:
		return errors.New("a group, which has to be in a file of its own")
	case one.ID == "":
		return errors.New("the app has no id")
	}
	return nil // Marathon says what else is wrong with it
}

// request is how the definitions are sent.
func (d *definitions) request(force bool) (method, path string, body []byte, err error) {
	query := []string{"force", fmt.Sprint(force)}
	if d.pod {
		if id, ok := idOf(d.body, app.Root); ok && d.known {
			return http.MethodPut, podPath(string(id), "", query...), d.body, nil
		}
		return http.MethodPost, withQuery("/v2/pods", query...), d.body, nil
	}
	if d.group != "" {
		return http.MethodPut, withQuery("/v2/groups"+d.group, query...), d.body, nil
	}
	query = append(query, "partialUpdate", "false")
	if id, ok := idOf(d.apps[0], app.Root); ok && id != app.Root && len(d.apps) == 1 {
		return http.MethodPut, appPath(string(id), "", query...), d.apps[0], nil
	}
	body, err = json.Marshal(d.apps)
	return http.MethodPut, withQuery("/v2/apps", query...), body, err
}

// named puts the ids of apps for their places in the list, in what a refusal says of them.
func (d *definitions) named(err error) error {
	r, ok := errors.AsType[*marathonRefusal](err)
	if !ok || d.group != "" {
		return err
	}
	for i, text := range r.details {
		var place int
		if n, _ := fmt.Sscanf(text, "(%d)", &place); n == 1 && place >= 0 && place < len(d.apps) {
			r.details[i] = writtenID(d.apps[place]) + " at " + text[strings.Index(text, ")")+1:]
		}
	}
	return err
}

// keepInstances gives each app that is known and does not say how many instances it wants as many as there are: else a
// deployment would undo what "app scale" has done. The tree is that which Marathon has.
func (d *definitions) keepInstances(root *app.Group) error {
	for i, body := range d.apps {
		var err error
		if d.apps[i], err = keep(body, app.Root, root); err != nil {
			return err
		}
	}
	var err error
	if d.pod {
		id, ok := idOf(d.body, app.Root)
		d.known = ok && root.Pod(id) != nil
		d.body, err = keepPodInstances(d.body, root)
		return err
	}
	if d.group == "" {
		return nil
	}
	d.body, err = keepBelow(d.body, app.PathID(d.group), root)
	return err
}

// keepBelow does so in a group.
func keepBelow(body json.RawMessage, id app.PathID, root *app.Group) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, err
	}
	inside := func(name string, each func(json.RawMessage) (json.RawMessage, error)) error {
		var list []json.RawMessage
		if json.Unmarshal(fields[name], &list) != nil || list == nil {
			return nil // Marathon says what is wrong with it
		}
		for i := range list {
			var err error
			if list[i], err = each(list[i]); err != nil {
				return err
			}
		}
		var err error
		fields[name], err = json.Marshal(list)
		return err
	}
	err := errors.Join(
		inside("apps", func(one json.RawMessage) (json.RawMessage, error) { return keep(one, id, root) }),
		inside("groups", func(one json.RawMessage) (json.RawMessage, error) {
			child, ok := idOf(one, id)
			if !ok {
				return one, nil
			}
			return keepBelow(one, child, root)
		}))
	if err != nil {
		return nil, err
	}
	return json.Marshal(fields)
}

// writtenID is the id that a definition gives itself, be it one or not.
func writtenID(body json.RawMessage) string {
	var one struct{ ID string }
	if err := json.Unmarshal(body, &one); err != nil {
		return ""
	}
	return one.ID
}

// idOf is the id that a definition gives itself, if it is one.
func idOf(body json.RawMessage, base app.PathID) (app.PathID, bool) {
	text := writtenID(body)
	id, err := app.ParseID(text, base)
	return id, err == nil && text != ""
}

func keep(body json.RawMessage, base app.PathID, root *app.Group) (json.RawMessage, error) {
	id, ok := idOf(body, base)
	if !ok || root.App(id) == nil {
		return body, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, err
	}
	if n := fields["instances"]; n != nil && !bytes.Equal(n, []byte("null")) {
		return body, nil
	}
	var wants app.Starling
	if asked := fields["starling"]; asked != nil && json.Unmarshal(asked, &wants) == nil && wants.Daemon != root.App(id).Daemon() {
		return body, nil // the number of the one kind means nothing to the other
	}
	fields["instances"] = json.RawMessage(fmt.Sprint(root.App(id).Instances))
	return json.Marshal(fields)
}

// tree asks for all definitions that Marathon has, and the settings that others are completed by.
func (m *marathon) tree(ctx context.Context) (*app.Group, app.Settings, error) {
	settings := app.DefaultSettings()
	root := &app.Group{}
	if _, err := m.get(ctx, "/v2/groups", root); err != nil {
		return nil, settings, err
	}
	var info struct {
		Config struct {
			Role     string   `json:"mesos_role"`
			Network  string   `json:"default_network_name"`
			Bridge   string   `json:"mesos_bridge_name"`
			Min      int      `json:"local_port_min"`
			Max      int      `json:"local_port_max"`
			Enforce  string   `json:"new_group_enforce_role"`
			Features []string `json:"features"`
		} `json:"marathon_config"`
	}
	if _, err := m.get(ctx, "/v2/info", &info); err != nil && !isMarathonStatus(err, http.StatusForbidden) {
		return nil, settings, err
	}
	has := func(name string) bool { return slices.Contains(info.Config.Features, name) }
	config := &info.Config
	settings.DefaultNetworkName, settings.NewGroupEnforceRole = config.Network, config.Enforce == "top"
	settings.Secrets, settings.ExternalVolumes, settings.GPUResources = has("secrets"), has("external_volumes"), has("gpu_resources")
	if config.Role != "" {
		settings.DefaultRole = config.Role
	}
	if config.Bridge != "" {
		settings.MesosBridgeName = config.Bridge
	}
	if config.Min > 0 && config.Max >= config.Min {
		settings.ServicePortMin, settings.ServicePortMax = config.Min, config.Max
	}
	return root, settings, nil
}
