package cli

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// lookAgain is after how long apps are looked at once more whose tasks nobody checks: those that end at once have by then.
const lookAgain = 500 * time.Millisecond

// shortOf says which of the apps that a deployment has changed have fewer instances running than they want: a task that has run
// for a moment is enough for a deployment, and may have ended since. Empty is none, or that it can't be told.
func (c *call) shortOf(ctx context.Context, version string) string {
	short, unchecked := c.shortNow(ctx, version)
	if short != "" || !unchecked {
		return short
	}
	select {
	case <-time.After(lookAgain):
	case <-ctx.Done():
	}
	short, _ = c.shortNow(ctx, version)
	return short
}

// shortNow is shortOf at this moment; unchecked tells of an app without health checks among those that were changed.
func (c *call) shortNow(ctx context.Context, version string) (text string, unchecked bool) {
	if version == "" {
		return "", false
	}
	var answer struct {
		Apps []appStatus `json:"apps"`
	}
	if _, err := c.marathon.get(ctx, withQuery("/v2/apps", "embed", "apps.counts", "embed", "apps.lastTaskFailure"), &answer); err != nil {
		return "", false // the deployment is done, whatever this says
	}
	if pods, _, err := c.marathon.pods(ctx); err == nil {
		for i := range pods {
			answer.Apps = append(answer.Apps, *pods[i].app())
		}
	}
	var short []string
	for i := range answer.Apps {
		a := &answer.Apps[i]
		if a.Version != version {
			continue
		}
		unchecked = unchecked || len(a.HealthChecks) == 0 && a.Instances > 0
		if a.Running >= a.Instances {
			continue
		}
		text := fmt.Sprintf("%d of %d instances of %s run", a.Running, a.Instances, a.ID)
		if f := a.LastFailure; f != nil {
			text += " (the last failure: " + f.text(time.Now()) + ")"
		}
		short = append(short, text+"; see starling app why "+a.ID)
	}
	return strings.Join(short, "; "), unchecked
}
