package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"starling/marathon/app"
	"starling/marathon/deployment"
)

// appPlan is "app plan".
type appPlan struct{}

func (*appPlan) run(ctx context.Context, c *call) error {
	all, err := readDefinitions(c.io.In, c.args)
	if err != nil {
		return err
	}
	changes, err := showPlan(ctx, c, all)
	if err != nil {
		return err
	}
	if changes {
		return &exitError{code: exitChanges}
	}
	return nil
}

// planned is what deploying would do.
type planned struct {
	Changes []plannedChange   `json:"changes"`
	Steps   []deployment.Step `json:"steps"`
}

// plannedChange is what happens to one app.
type plannedChange struct {
	ID string `json:"id"`
	// Action is create, remove, scale, restart, or update, which needs no restart.
	Action string `json:"action"`
	// From and To are the numbers of instances.
	From   int           `json:"from"`
	To     int           `json:"to"`
	Fields []fieldChange `json:"fields,omitempty"`
	// wants is what an instance of a new app needs.
	wants string
}

// showPlan prints what deploying would change, and tells whether that is anything.
func showPlan(ctx context.Context, c *call, all []*definitions) (bool, error) {
	root, settings, err := c.marathon.tree(ctx)
	if err != nil {
		return false, err
	}
	p, err := plan(root, settings, all, time.Now())
	if err != nil {
		return false, err
	}
	if c.print.json {
		return len(p.Steps) > 0, c.print.value(p)
	}
	return len(p.Steps) > 0, p.print(c.print)
}

// plan finds what deploying would do, as Marathon does: definitions are completed by the same rules, and compared. What does not say
// its number of instances is given the one that it has.
func plan(root *app.Group, settings app.Settings, all []*definitions, now time.Time) (*planned, error) {
	out := &planned{Changes: []plannedChange{}, Steps: []deployment.Step{}}
	for _, one := range all {
		if err := one.keepInstances(root); err != nil {
			return nil, err
		}
		edited, err := one.apply(root, settings)
		if err != nil {
			return nil, one.named(refusedHere(err))
		}
		next, err := app.Commit(root, edited, app.Change{Now: now, Settings: settings})
		if err != nil {
			return nil, refusedHere(err)
		}
		p := deployment.Diff("", root, next, nil)
		for _, change := range p.Changes {
			planned, err := plannedOf(change)
			if err != nil {
				return nil, err
			}
			out.Changes = append(out.Changes, planned)
		}
		out.Steps = append(out.Steps, p.Steps...)
		root = next
	}
	return out, nil
}

// refusedHere writes what is wrong with a definition as if Marathon had said it.
func refusedHere(err error) error {
	invalid, ok := errors.AsType[*app.Invalid](err)
	if !ok {
		return err
	}
	r := &marathonRefusal{message: invalid.Message}
	if invalid.Syntax != "" {
		r.details = append(r.details, invalid.Syntax)
	}
	for _, d := range invalid.Details {
		r.detail(d.Path, d.Errors)
	}
	return r
}

// apply makes the tree that the definitions ask for.
func (d *definitions) apply(root *app.Group, settings app.Settings) (*app.Group, error) {
	if d.pod {
		return applyPod(d.body, root, settings)
	}
	if d.group != "" {
		update, err := app.ParseGroup(d.body)
		if err != nil {
			return nil, err
		}
		return update.Apply(root, app.PathID(d.group), settings)
	}
	drafts, err := d.drafts()
	if err != nil {
		return nil, err
	}
	for _, draft := range drafts {
		id, err := draft.ID(app.Root)
		if err != nil {
			return nil, err
		}
		rules := root.RulesFor(id, settings)
		var def *app.App
		if old := root.App(id); old != nil {
			def, err = draft.Replace(old, rules)
		} else {
			def, err = draft.Create(id, rules)
		}
		if err != nil {
			return nil, d.at(id, refusedHere(err))
		}
		root = root.WithApp(def)
	}
	return root, nil
}

// at says of which of several apps a refusal is.
func (d *definitions) at(id app.PathID, err error) error {
	if r, ok := errors.AsType[*marathonRefusal](err); ok && len(d.apps) > 1 {
		for i, text := range r.details {
			r.details[i] = string(id) + " at " + text
		}
	}
	return err
}

// drafts reads apps. What is wrong with the only one is told without its place in the list, as Marathon does.
func (d *definitions) drafts() ([]*app.Draft, error) {
	if len(d.apps) == 1 {
		draft, err := app.ParseUpdate(d.apps[0])
		return []*app.Draft{draft}, err
	}
	body, err := json.Marshal(d.apps)
	if err != nil {
		return nil, err
	}
	return app.ParseUpdates(body)
}

func plannedOf(change deployment.Change) (plannedChange, error) {
	out := plannedChange{ID: string(change.ID)}
	if change.Old != nil {
		out.From = change.Old.Instances
	}
	if change.New != nil {
		out.To = change.New.Instances
	}
	switch {
	case change.Old == nil:
		out.Action = "create"
		out.wants = fmt.Sprintf("%s cpus, %s", short3(change.New.CPUs), megabytes(change.New.Mem))
		return out, nil
	case change.New == nil:
		out.Action = "remove"
		return out, nil
	case app.SameConfig(change.Old, change.New) && out.From != out.To:
		out.Action = "scale"
		return out, nil
	case app.SameConfig(change.Old, change.New):
		out.Action = "update"
	default:
		out.Action = "restart"
	}
	var err error
	out.Fields, err = appDifference(change.Old, change.New)
	return out, err
}

// appDifference lists the fields in which two definitions differ, the number of instances and the versions apart.
func appDifference(from, to *app.App) ([]fieldChange, error) {
	plain := func(a *app.App) (any, error) {
		one := *a
		one.Instances, one.Version, one.VersionInfo = 0, 0, app.VersionInfo{}
		if a.Pod != nil {
			return decoded(one.PodDefinition())
		}
		return decoded(&one)
	}
	a, err := plain(from)
	if err != nil {
		return nil, err
	}
	b, err := plain(to)
	if err != nil {
		return nil, err
	}
	return difference("", a, b), nil
}

func (p *planned) print(to *printer) error {
	if len(p.Steps) == 0 {
		return to.text("nothing to do")
	}
	width := 0
	for _, c := range p.Changes {
		width = max(width, len(c.ID))
	}
	for _, c := range p.Changes {
		if err := to.text(clean(fmt.Sprintf("%-*s  %s", width, c.ID, c.text()))); err != nil {
			return err
		}
		for _, f := range c.Fields {
			if err := to.text("    " + clean(f.text())); err != nil {
				return err
			}
		}
	}
	for i, step := range p.Steps {
		var names []string
		for _, a := range step.Actions {
			one := action{Action: string(a.Kind), App: string(a.App)}
			names = append(names, one.text())
		}
		if err := to.text(clean(fmt.Sprintf("step %d: %s", i+1, strings.Join(names, ", ")))); err != nil {
			return err
		}
	}
	return nil
}

// text says what happens to an app.
func (c *plannedChange) text() string {
	switch c.Action {
	case "create":
		return fmt.Sprintf("new: %s, %s each", instances(c.To), c.wants)
	case "remove":
		return fmt.Sprintf("removed, with its %s", instances(c.From))
	case "scale":
		return fmt.Sprintf("scales from %d to %d; what runs goes on running", c.From, c.To)
	case "update":
		return "changes what needs no restart; what runs goes on running"
	}
	switch {
	case c.To == 0 && c.From == 0:
		return "changes, and has no instances to restart"
	case c.To == 0:
		return fmt.Sprintf("changes, and ends its %s", instances(c.From))
	case c.From == c.To:
		return fmt.Sprintf("restarts its %s", instances(c.To))
	}
	return fmt.Sprintf("restarts, and scales from %d to %d", c.From, c.To)
}

func instances(n int) string {
	if n == 1 {
		return "1 instance"
	}
	return fmt.Sprintf("%d instances", n)
}
