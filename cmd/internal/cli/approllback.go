package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"starling/cmd/internal/flags"
	"starling/marathon/app"
)

// appRollback is "app rollback".
type appRollback struct {
	waitFlags
	dryRun bool
}

func (r *appRollback) register(s *flags.Set) {
	r.waitFlags.register(s)
	s.BoolVar(&r.dryRun, "dry-run", false, "show what it would go back to and what that changes, and change nothing")
}

// rollbackPlan is what a dry run says as JSON.
type rollbackPlan struct {
	// Version is the one that is gone back to.
	Version string `json:"version"`
	*planned
}

func (r *appRollback) run(ctx context.Context, c *call) error {
	id, err := appID(c.args[0])
	if err != nil {
		return err
	}
	root, settings, err := c.marathon.tree(ctx)
	if err != nil {
		return err
	}
	present, _, err := c.marathon.app(ctx, id)
	if err != nil {
		return err
	}
	version, body, err := r.target(ctx, c, id, present)
	if err != nil {
		return err
	}
	back, err := rollbackTo(body, present)
	if err != nil {
		return err
	}
	// What can't be planned here is sent all the same: Marathon says what is wrong with it.
	p, unplanned := plan(root, settings, []*definitions{back}, time.Now())
	switch {
	case r.dryRun && unplanned != nil:
		return unplanned
	case r.dryRun && c.print.json:
		return c.print.value(rollbackPlan{version, p})
	case !c.print.json:
		if err := c.print.text(clean(fmt.Sprintf("%s goes back to version %s", id, version))); err != nil {
			return err
		}
		if unplanned == nil {
			if err := p.print(c.print); err != nil {
				return err
			}
		}
	}
	if r.dryRun {
		return nil
	}
	back.known = present.Pod
	method, path, body, err := back.request(r.force)
	if err != nil {
		return err
	}
	return r.change(ctx, c, fmt.Sprintf("%s is as it was in version %s", id, version), method, path, body)
}

// target finds the version to go back to, and its definition as Marathon shows it.
func (r *appRollback) target(ctx context.Context, c *call, id string, present *appStatus) (version string, body []byte, err error) {
	versions, err := c.marathon.versions(ctx, id, present.Pod)
	if err != nil {
		return "", nil, err
	}
	if len(c.args) > 1 {
		version = c.args[1]
		if !slices.Contains(versions, version) {
			return "", nil, fmt.Errorf("%s has no version %q; starling app history %s lists them", id, version, id)
		}
		_, body, err = c.marathon.definition(ctx, id, version, present.Pod)
		return version, body, err
	}
	if !slices.Contains(versions, present.Version) {
		versions = append([]string{present.Version}, versions...)
	}
	// What was undone is taken off the list by what undid it: from a definition that was there before, all since is.
	type kept struct {
		version string
		def     *app.App
		body    []byte
	}
	var line []kept
	for _, v := range slices.Backward(versions) {
		if v > present.Version {
			continue
		}
		one := kept{version: v}
		if one.def, one.body, err = c.marathon.definition(ctx, id, v, present.Pod); err != nil {
			return "", nil, err
		}
		at := len(line)
		for i := range line {
			fields, err := appDifference(line[i].def, one.def)
			if err != nil {
				return "", nil, err
			}
			if len(fields) == 0 {
				at = i
				break
			}
		}
		line = append(line[:at], one)
	}
	if len(line) < 2 {
		return "", nil, fmt.Errorf("%s has no version before %s that is another one and was not undone; starling app history %s lists all, and "+
			"starling app rollback %s VERSION goes to any of them", id, present.Version, id, id)
	}
	before := line[len(line)-2]
	return before.version, before.body, nil
}

// rollbackTo makes the definition to send of the one that a version has: that with the present number of instances.
func rollbackTo(body []byte, present *appStatus) (*definitions, error) {
	read := &foreign{}
	read.run(body, app.Root, present.Pod)
	if len(read.runs) != 1 {
		return nil, fmt.Errorf("cannot read the definition of the version: %.200s", body)
	}
	fields := read.runs[0].body
	var def struct {
		Starling app.Starling `json:"starling"`
	}
	// The number of the one kind of app means nothing to the other.
	if err := json.Unmarshal(body, &def); err != nil || def.Starling.Daemon == present.Starling.Daemon {
		n := fmt.Sprint(present.Instances)
		if present.Pod {
			fields["scaling"] = json.RawMessage(`{"kind":"fixed","instances":` + n + `}`)
		} else {
			fields["instances"] = json.RawMessage(n)
		}
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	if present.Pod {
		return &definitions{pod: true, body: text}, nil
	}
	return &definitions{apps: []json.RawMessage{text}}, nil
}
