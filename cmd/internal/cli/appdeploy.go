package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"starling/cmd/internal/flags"
)

// appDeploy is "app deploy".
type appDeploy struct {
	waitFlags
	dryRun bool
}

func (d *appDeploy) register(s *flags.Set) {
	d.waitFlags.register(s)
	s.BoolVar(&d.dryRun, "dry-run", false, "show what would change, as \"app plan\" does, and change nothing")
}

func (d *appDeploy) run(ctx context.Context, c *call) error {
	all, err := readDefinitions(c.io.In, c.args)
	if err != nil {
		return err
	}
	if d.dryRun {
		_, err := showPlan(ctx, c, all)
		return err
	}
	if len(all) > 1 && d.detach {
		return usagef("pods and groups are deployed one after the other, each in a deployment of its own: --detach cannot wait between them; give one file at a time")
	}
	root, settings, err := c.marathon.tree(ctx)
	if err != nil {
		return err
	}
	if len(all) > 1 {
		// What is wrong with one is found before another is sent: they are deployments of their own.
		if _, err := plan(root, settings, all, time.Now()); err != nil {
			return err
		}
	} else if err := all[0].keepInstances(root); err != nil {
		return err
	}
	for _, one := range all {
		method, path, body, err := one.request(d.force)
		if err != nil {
			return err
		}
		if err := d.change(ctx, c, one.deployed(), method, path, body); err != nil {
			return c.located(ctx, one, err)
		}
	}
	return nil
}

// located names the apps in what Marathon says is wrong with one of several, where it does not: what is wrong is looked for
// here, too.
func (c *call) located(ctx context.Context, d *definitions, err error) error {
	r, ok := errors.AsType[*marathonRefusal](err)
	if !ok || r.status != http.StatusUnprocessableEntity || len(d.apps) < 2 || ctx.Err() != nil {
		return err
	}
	if root, settings, failed := c.marathon.tree(ctx); failed == nil {
		_, here := plan(root, settings, []*definitions{d}, time.Now())
		if found, ok := errors.AsType[*marathonRefusal](here); ok && len(found.details) == len(r.details) {
			r.details = found.details
			return r
		}
	}
	return d.named(r)
}

// deployed is what is said once it is.
func (d *definitions) deployed() string {
	if d.group != "" {
		return "group " + d.group + " is deployed"
	}
	if d.pod {
		return writtenID(d.body) + " is deployed"
	}
	if len(d.apps) > 1 {
		return fmt.Sprintf("%d apps are deployed", len(d.apps))
	}
	return writtenID(d.apps[0]) + " is deployed"
}
