package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"starling/cmd/internal/flags"
)

// waitFlags say how a command waits for the deployment that it starts.
type waitFlags struct {
	force, detach bool
	timeout       time.Duration
}

func (p *waitFlags) register(s *flags.Set) {
	s.BoolVar(&p.force, "force", false, "cancel deployments that stand in the way; what they have done by then stays")
	s.BoolVar(&p.detach, "detach", false, "do not wait for the deployment to end")
	p.registerTimeout(s)
}

func (p *waitFlags) registerTimeout(s *flags.Set) {
	s.DurationVar(&p.timeout, "timeout", 0, "wait for the deployment no longer than this `duration`, such as 5m; it goes on then. 0 waits without end")
}

const (
	lookEvery = time.Second      // how often Marathon is asked how far a deployment is
	eventWait = 3 * time.Second  // how long the event may come later than the deployment is gone
	holdOut   = 90 * time.Second // how long a Marathon may be away: another one takes over meanwhile
)

// change makes a change that starts a deployment, and waits for its end.
func (p *waitFlags) change(ctx context.Context, c *call, done, method, path string, body []byte) error {
	if p.timeout < 0 {
		return usagef("--timeout %v is negative", p.timeout)
	}
	var ends *endings
	if !p.detach {
		ends = c.marathon.listen(ctx)
		defer ends.close()
	}
	var result deploymentResult
	if _, err := c.marathon.ask(ctx, method, path, body, &result); err != nil {
		return err
	}
	if p.detach {
		if c.print.json {
			return c.print.value(deploymentEnd{ID: result.ID, Version: result.Version, State: "running"})
		}
		return c.print.text(clean(fmt.Sprintf("deployment %s has begun; starling deployment watch %s shows it", result.ID, result.ID)))
	}
	return p.wait(ctx, c, ends, done, result)
}

// deploymentEnd is what is said of a deployment as JSON.
type deploymentEnd struct {
	ID      string `json:"deploymentId"`
	Version string `json:"version,omitempty"`
	// State is "done", "failed", "running" where it was not waited for to the end, or "cancelled" where just that was asked for.
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// errGoesOn is the cause where nobody waits any longer.
var errGoesOn = errors.New("the deployment goes on")

// wait shows how a deployment goes, until its end. done is what is said then.
func (p *waitFlags) wait(ctx context.Context, c *call, ends *endings, done string, result deploymentResult) error {
	waiting := ctx
	if p.timeout > 0 {
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeoutCause(ctx, p.timeout, errGoesOn)
		defer cancel()
	}
	begun := time.Now()
	show := newDeploymentProgress(c)
	if ends.deaf != nil && ctx.Err() == nil {
		fmt.Fprintln(c.io.Err, clean(fmt.Sprintf("events can't be heard, so how it ends is judged by what runs then: %v", ends.deaf)))
	}
	end, err := c.follow(waiting, ends, show, result)
	show.end()
	watch := fmt.Sprintf("; starling deployment watch %s shows it", result.ID)
	switch {
	case ctx.Err() != nil:
		return &exitError{exitInterrupted, fmt.Errorf("interrupted: deployment %s goes on%s", result.ID, watch)}
	case errors.Is(context.Cause(waiting), errGoesOn):
		return &exitError{exitPatience, errors.Join(
			fmt.Errorf("deployment %s has not ended within %v and goes on%s", result.ID, p.timeout, watch), c.sayEnd(deploymentEnd{ID: result.ID, Version: result.Version, State: "running"}))}
	case err != nil:
		return fmt.Errorf("cannot tell how deployment %s goes%s: %w", result.ID, watch, err)
	}
	if err := c.sayEnd(end); err != nil {
		return err
	}
	if end.State != "done" {
		return &exitError{exitFailed, fmt.Errorf("deployment %s has failed: %s", result.ID, end.Reason)}
	}
	if !c.print.json {
		if err := c.print.text(clean(fmt.Sprintf("%s, after %s", done, ago(time.Since(begun).Seconds())))); err != nil {
			return err
		}
	}
	if short := c.shortOf(ctx, result.Version); short != "" {
		return &exitError{exitShort, errors.New("the deployment is done, but only " + short)}
	}
	return nil
}

// sayEnd tells programs how it ended.
func (c *call) sayEnd(end deploymentEnd) error {
	if !c.print.json {
		return nil
	}
	return c.print.value(end)
}

// follow asks how far a deployment is until it has ended, or ctx has.
func (c *call) follow(ctx context.Context, ends *endings, show *deploymentProgress, result deploymentResult) (deploymentEnd, error) {
	end := deploymentEnd{ID: result.ID, Version: result.Version, State: "done"}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var last *deploymentView
	var gone, away time.Time // since when it is not listed, and since when Marathon does not answer
	for {
		list, _, err := c.marathon.deployments(ctx)
		at := slices.IndexFunc(list, func(d deploymentView) bool { return d.ID == result.ID })
		e, ended := ends.of(result.ID)
		switch {
		case ctx.Err() != nil:
			return end, context.Cause(ctx)
		case ended && e.failed:
			end.State, end.Reason = "failed", e.reason
			return end, nil
		case ended:
			return end, nil
		case err != nil:
			if away.IsZero() {
				away = time.Now()
				show.line("Marathon can't be asked, and is tried again: " + err.Error())
			}
			if refused, ok := errors.AsType[*marathonRefusal](err); time.Since(away) > holdOut || ok && refused.status < http.StatusInternalServerError {
				return end, err
			}
		case at >= 0:
			away, gone = time.Time{}, time.Time{}
			last = &list[at]
			show.deployment(ctx, last)
		default:
			away = time.Time{}
			if gone.IsZero() {
				gone = time.Now()
			}
			if !ends.listens() || time.Since(gone) > eventWait {
				end.State, end.Reason, err = c.judge(ctx, last, result.Version)
				return end, err
			}
		}
		select {
		case <-look.C:
		case <-ends.news():
		case <-ctx.Done():
		}
	}
}

// judge finds out how a deployment has ended that is not listed any more, where no event has told: by what is there now. last is
// how it was seen last, nil if never.
func (c *call) judge(ctx context.Context, last *deploymentView, version string) (state, why string, err error) {
	if last == nil {
		if last, err = c.changedBy(ctx, version); err != nil {
			return "", "", err
		}
	}
	for _, id := range slices.Concat(last.Apps, last.Pods) {
		stops := slices.ContainsFunc(last.AllSteps, func(s deploymentStep) bool {
			return slices.ContainsFunc(s.Actions, func(a action) bool { return a.stops() && a.id() == id })
		})
		a, _, err := c.marathon.app(ctx, id)
		switch {
		case isMarathonStatus(err, http.StatusNotFound):
			if !stops {
				return "failed", id + " is not there any more", nil
			}
		case err != nil:
			return "", "", err
		case stops:
			return "failed", id + " is there still", nil
		case version != "" && a.Version > version:
			return "failed", id + " was changed again meanwhile", nil
		}
		switch running, healthy := a.current(); {
		case running < a.Instances && a.Running >= a.Instances:
			return "failed", fmt.Sprintf("%d of %d instances of %s are of the new definition", running, a.Instances, id), nil
		case running < a.Instances:
			return "failed", fmt.Sprintf("%d of %d instances of %s run", running, a.Instances, id), nil
		case len(a.HealthChecks) > 0 && healthy < a.Instances:
			return "failed", fmt.Sprintf("%d of %d instances of %s are healthy", healthy, a.Instances, id), nil
		}
	}
	return "done", "", nil
}

// changedBy puts together what a deployment was about that was never seen, from the apps and pods that have its version.
func (c *call) changedBy(ctx context.Context, version string) (*deploymentView, error) {
	var answer struct {
		Apps []appStatus `json:"apps"`
	}
	if _, err := c.marathon.get(ctx, "/v2/apps", &answer); err != nil {
		return nil, err
	}
	d := &deploymentView{}
	for i := range answer.Apps {
		if a := &answer.Apps[i]; a.Version == version && version != "" {
			d.Apps = append(d.Apps, a.ID)
		}
	}
	pods, _, err := c.marathon.pods(ctx)
	for i := range pods {
		if p := &pods[i]; p.Spec.Version == version && version != "" {
			d.Pods = append(d.Pods, p.ID)
		}
	}
	return d, err
}

// current counts the tasks that run with the newest configuration, and those of them that are healthy. What was cancelled leaves
// older ones running. The tasks of a pod are parts of its instances, and these are what counts.
func (a *appStatus) current() (running, healthy int) {
	if a.Pod {
		return a.Running, a.Healthy
	}
	for i := range a.Tasks {
		if t := &a.Tasks[i]; t.State == "TASK_RUNNING" && !t.Version.Before(a.VersionInfo.LastConfigChangeAt) {
			running++
			if t.health() == "healthy" {
				healthy++
			}
		}
	}
	return running, healthy
}

// ending is how a deployment has ended, as an event told.
type ending struct {
	failed bool
	reason string
}

// endings listens for the ends of deployments.
type endings struct {
	deaf   error // why nothing can be heard; nil where it can
	cancel context.CancelFunc
	done   chan struct{} // closed when nothing comes any more
	fresh  chan struct{} // has something in it when there is news
	mu     sync.Mutex
	known  map[string]ending // guarded by mu
}

// listen begins to listen; what has ended by the time it returns is not told of. Where it can't, none is ever told of.
func (m *marathon) listen(ctx context.Context) *endings {
	ctx, cancel := context.WithCancel(ctx)
	e := &endings{cancel: cancel, done: make(chan struct{}), fresh: make(chan struct{}, 1), known: map[string]ending{}}
	res, err := m.do(ctx, http.MethodGet, withQuery("/v2/events", "event_type", "deployment_success", "event_type", "deployment_failed",
		"plan-format", "light"), nil, "text/event-stream")
	if err != nil {
		e.deaf = err
		close(e.done)
		return e
	}
	go func() {
		defer close(e.done)
		defer res.Body.Close()
		in := bufio.NewScanner(res.Body)
		in.Buffer(nil, maxEvent)
		for in.Scan() {
			if data, ok := bytes.CutPrefix(in.Bytes(), []byte("data:")); ok {
				e.take(data)
			}
		}
	}()
	return e
}

// maxEvent bounds the length of an event: it names the steps of a whole plan.
const maxEvent = 16 << 20

// take reads an event.
func (e *endings) take(data []byte) {
	var event struct{ EventType, ID, Reason string }
	if err := json.Unmarshal(data, &event); err != nil || event.ID == "" {
		return
	}
	one := ending{}
	switch event.EventType {
	case "deployment_success":
	case "deployment_failed":
		one = ending{failed: true, reason: cmp.Or(event.Reason, "it was cancelled, undone, or replaced by another one")}
	default:
		return
	}
	e.mu.Lock()
	e.known[event.ID] = one
	e.mu.Unlock()
	select {
	case e.fresh <- struct{}{}:
	default:
	}
}

// close ends the listening, and waits for that.
func (e *endings) close() {
	e.cancel()
	<-e.done
}

// listens tells whether more may come.
func (e *endings) listens() bool {
	select {
	case <-e.done:
		return false
	default:
		return true
	}
}

func (e *endings) news() <-chan struct{} { return e.fresh }

func (e *endings) of(id string) (ending, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	one, ok := e.known[id]
	return one, ok
}

// deploymentStep is what is done at once.
type deploymentStep struct {
	Actions []action `json:"actions"`
}

// described names what a deployment is at.
func (d *deploymentView) described() string {
	if d.Step == 0 {
		return fmt.Sprintf("has not begun with its %d steps", d.Steps)
	}
	return fmt.Sprintf("step %d of %d: %s", d.Step, d.Steps, actionsText(d.Current))
}

// affected names the first few of what it changes.
func (d *deploymentView) affected() string {
	all := slices.Concat(d.Apps, d.Pods)
	if len(all) > candidatesMax {
		all = append(all[:candidatesMax:candidatesMax], fmt.Sprintf("%d more", len(all)-candidatesMax))
	}
	return strings.Join(all, ", ")
}
