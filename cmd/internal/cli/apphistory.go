package cli

import (
	"context"
	"fmt"
	"slices"

	"starling/cmd/internal/flags"
	"starling/marathon/app"
)

// appHistory is "app history".
type appHistory struct{ limit int }

func (h *appHistory) register(s *flags.Set) {
	s.IntVar(&h.limit, "limit", 10, "show the newest `number` of versions; 0 shows all")
}

// versions are those that are kept of an app, the newest first.
func (m *marathon) versions(ctx context.Context, id string, pod bool) ([]string, error) {
	var answer struct{ Versions []string }
	var err error
	if pod {
		answer.Versions, err = m.podVersions(ctx, id)
	} else {
		_, err = m.get(ctx, appPath(id, "/versions"), &answer)
	}
	slices.Sort(answer.Versions) // all of one form, so that they are in the order of time
	slices.Reverse(answer.Versions)
	return answer.Versions, err
}

// versionChange is what one version of an app has changed.
type versionChange struct {
	Version   string        `json:"version"`
	Instances int           `json:"instances"`
	Action    string        `json:"action"`
	Fields    []fieldChange `json:"fields,omitempty"`
	text      string
}

func (h *appHistory) run(ctx context.Context, c *call) error {
	if h.limit < 0 {
		return usagef("--limit %d is negative", h.limit)
	}
	id, err := appID(c.args[0])
	if err != nil {
		return err
	}
	pod, err := c.marathon.isPod(ctx, id)
	if err != nil {
		return err
	}
	versions, err := c.marathon.versions(ctx, id, pod)
	if err != nil {
		return err
	}
	// One more is read, to compare the last one with.
	read := len(versions)
	if h.limit > 0 {
		read = min(read, h.limit+1)
	}
	defs := make([]*app.App, read)
	for i, version := range versions[:read] {
		if defs[i], _, err = c.marathon.definition(ctx, id, version, pod); err != nil {
			return err
		}
	}
	shown := read
	if h.limit > 0 {
		shown = min(shown, h.limit)
	}
	list := []versionChange{}
	for i := range shown {
		one := versionChange{Version: versions[i], Instances: defs[i].Instances, Action: "create", text: "the first that is kept"}
		if i+1 < read {
			if err := one.compare(defs[i+1], defs[i]); err != nil {
				return err
			}
		}
		list = append(list, one)
	}
	if c.print.json {
		return c.print.value(list)
	}
	for i := range list {
		v := &list[i]
		if err := c.print.text(clean(fmt.Sprintf("%s  %s", v.Version, v.text))); err != nil {
			return err
		}
		for _, f := range v.Fields {
			if err := c.print.text("    " + clean(f.text())); err != nil {
				return err
			}
		}
	}
	if more := len(versions) - shown; more > 0 {
		return c.print.text(fmt.Sprintf("%d more; --limit 0 shows all", more))
	}
	return nil
}

// compare says what has changed from one version to the next.
func (v *versionChange) compare(from, to *app.App) error {
	var err error
	v.Fields, err = appDifference(from, to)
	scaled := from.Instances != to.Instances
	switch {
	case err != nil:
		return err
	case len(v.Fields) > 0 && scaled:
		v.Action, v.text = "change", fmt.Sprintf("changed, and scaled from %d to %d", from.Instances, to.Instances)
	case len(v.Fields) > 0:
		v.Action, v.text = "change", "changed"
	case scaled:
		v.Action, v.text = "scale", fmt.Sprintf("scaled from %d to %d", from.Instances, to.Instances)
	default:
		v.Action, v.text = "restart", "restarted"
	}
	return nil
}
