package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"starling/cmd/internal/flags"
)

// Deployment is "starling deployment ...". It returns the exit code.
func Deployment(ctx context.Context, io Streams, args, environ []string) int {
	var cancel waitFlags
	var watch waitFlags
	var history deploymentHistory
	g := group{
		name: "deployment", about: "Looks at the changes that Marathon makes, and undoes them.", marathon: true, codes: marathonCodes,
		commands: []command{
			{
				name: "ls", run: deploymentList,
				about:   "List the deployments that are under way.",
				example: "starling deployment ls",
			},
			{
				name: "history", flags: history.register, run: history.run,
				about: "List the deployments that have ended, up to a hundred, the newest first: what they did, who asked for them, and how they " +
					"ended.",
				example: "starling deployment history --limit 20",
			},
			{
				name: "cancel", takes: "ID", min: 1, max: 1,
				flags: func(s *flags.Set) {
					s.BoolVar(&cancel.force, "force", false, "leave everything as it is by now, instead of undoing it")
					s.BoolVar(&cancel.detach, "detach", false, "do not wait until it is undone")
					cancel.registerTimeout(s)
				},
				run:     cancel.cancelDeployment,
				about:   "Undo a deployment, by another one that is waited for; ID is its id, or how that begins.",
				example: "starling deployment cancel 97c136bf",
			},
			{
				name: "watch", takes: "[ID]", max: 1, flags: watch.registerTimeout, run: watch.watchDeployments,
				about: "Show how a deployment goes, until it has ended; ID is its id, or how that begins. Without one, all that are under way now, " +
					"one after the other.",
				example: "starling deployment watch 97c136bf --timeout 10m",
			},
		},
	}
	return g.run(ctx, io, args, environ)
}

func deploymentList(ctx context.Context, c *call) error {
	list, body, err := c.marathon.deployments(ctx)
	if err != nil {
		return err
	}
	if c.print.json {
		return c.print.raw(body)
	}
	rows := make([][]string, 0, len(list))
	for i := range list {
		d := &list[i]
		rows = append(rows, []string{d.ID, d.Version, d.affected(), fmt.Sprintf("%d of %d", d.Step, d.Steps), actionsText(d.Current)})
	}
	return c.print.table([]string{"ID", "VERSION", "AFFECTS", "STEP", "NOW"}, rows)
}

// pickDeployment finds the one that a user means.
func pickDeployment(asked string, list []deploymentView) (*deploymentView, error) {
	var found []*deploymentView
	var names []string
	for i := range list {
		if list[i].ID == asked {
			return &list[i], nil
		}
		if strings.HasPrefix(list[i].ID, asked) {
			found, names = append(found, &list[i]), append(names, list[i].ID)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("no deployment %q is under way; it may have ended", asked)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("%q may be any of: %s", asked, strings.Join(names[:min(len(names), candidatesMax)], ", "))
}

func (p *waitFlags) cancelDeployment(ctx context.Context, c *call) error {
	list, _, err := c.marathon.deployments(ctx)
	if err != nil {
		return err
	}
	d, err := pickDeployment(c.args[0], list)
	if err != nil {
		return err
	}
	path := "/v2/deployments/" + url.PathEscape(d.ID)
	if !p.force {
		return p.change(ctx, c, fmt.Sprintf("deployment %s is undone", d.ID), http.MethodDelete, path, nil)
	}
	if _, err := c.marathon.ask(ctx, http.MethodDelete, path+"?force=true", nil, nil); err != nil {
		return err
	}
	if c.print.json {
		return c.print.value(deploymentEnd{ID: d.ID, Version: d.Version, State: "cancelled"})
	}
	return c.print.text(clean(fmt.Sprintf("deployment %s is cancelled; what it has done by now stays: %s", d.ID, d.affected())))
}

func (p *waitFlags) watchDeployments(ctx context.Context, c *call) error {
	if p.timeout < 0 {
		return usagef("--timeout %v is negative", p.timeout)
	}
	ends := c.marathon.listen(ctx)
	defer ends.close()
	list, _, err := c.marathon.deployments(ctx)
	if err != nil {
		return err
	}
	if len(c.args) == 1 {
		d, err := pickDeployment(c.args[0], list)
		if err != nil {
			return err
		}
		list = []deploymentView{*d}
	}
	if len(list) == 0 && !c.print.json {
		return c.print.text("no deployment is under way")
	}
	slices.SortFunc(list, func(a, b deploymentView) int { return strings.Compare(a.Version, b.Version) })
	var failed error
	for i := range list {
		d := &list[i]
		err := p.wait(ctx, c, ends, fmt.Sprintf("deployment %s is done", d.ID), deploymentResult{ID: d.ID, Version: d.Version})
		if ctx.Err() != nil {
			return nil // Ctrl-C is the way to end this
		}
		failed = errors.Join(failed, err) // the others are looked at all the same
	}
	return failed
}
