package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// reasonTexts say why an offer was not used.
var reasonTexts = map[string]string{
	"UnfulfilledRole":                 "offer to another role",
	"UnfulfilledConstraint":           "do not meet a constraint",
	"ExceededMaxLatency":              "are too far from what it is to be near to",
	"NoCorrespondingReservationFound": "have no reservation for it",
	"AgentMaintenance":                "are in maintenance",
	"InsufficientCpus":                "have too few cpus",
	"InsufficientMemory":              "have too little memory",
	"InsufficientDisk":                "have too little disk",
	"InsufficientGpus":                "have too few gpus",
	"InsufficientPorts":               "do not have the ports free",
	"DeclinedScarceResources":         "keep their gpus for apps that need some",
}

func reasonText(reason string) string {
	if text := reasonTexts[reason]; text != "" {
		return text
	}
	return "refuse for " + reason
}

// putOff is said of an app in its backoff.
const putOff = "failures put off the next launch"

// brief says in few words what an app in the queue waits for.
func (q *queued) brief() string {
	switch {
	case q.HeldBack != nil:
		return "most nodes seem dead"
	case !q.Delay.Overdue && q.Delay.TimeLeft > 0:
		return putOff + " for " + seconds(q.Delay.TimeLeft)
	case len(q.Unused) > 0:
		return strings.Join(q.reasons(), ", ")
	case q.Summary.Processed == 0:
		return "no offers yet"
	}
	return "for offers"
}

// reasons counts the nodes whose newest offer was refused for each reason, the commonest first.
func (q *queued) reasons() []string {
	nodes := map[string]int{}
	for _, o := range q.Unused {
		for _, r := range slices.Compact(slices.Sorted(slices.Values(o.Reason))) {
			nodes[r]++
		}
	}
	var names []string
	for r := range nodes {
		names = append(names, r)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(nodes[b]-nodes[a], strings.Compare(a, b)) })
	for i, r := range names {
		names[i] = fmt.Sprintf("%d of %d nodes %s", nodes[r], len(q.Unused), reasonText(r))
	}
	return names
}

func seconds(n int) string { return ago(float64(n)) }

// explanation is what "app why" finds out.
type explanation struct {
	ID      string   `json:"id"`
	Waiting bool     `json:"waiting"`
	Reasons []string `json:"reasons"`
	// Nodes tell what each node lacks, as far as its newest offer was refused.
	Nodes []nodeRefusal `json:"nodes,omitempty"`
}

type nodeRefusal struct {
	Host    string   `json:"host"`
	AgentID string   `json:"agentId,omitempty"`
	Reasons []string `json:"reasons"`
}

func appWhy(ctx context.Context, c *call) error {
	id, err := appID(c.args[0])
	if err != nil {
		return err
	}
	a, _, err := c.marathon.app(ctx, id)
	if err != nil {
		return err
	}
	queue, err := c.marathon.queue(ctx)
	if err != nil {
		return err
	}
	running, _, err := c.marathon.deployments(ctx)
	if err != nil {
		return err
	}
	e := explain(a, queue[id], running, time.Now())
	if c.print.json {
		return c.print.value(e)
	}
	for _, line := range e.Reasons {
		if err := c.print.text(clean(line)); err != nil {
			return err
		}
	}
	if len(e.Nodes) == 0 {
		return nil
	}
	rows := make([][]string, 0, len(e.Nodes))
	for _, n := range e.Nodes {
		rows = append(rows, []string{n.Host, strings.Join(n.Reasons, "; ")})
	}
	if err := c.print.text(""); err != nil {
		return err
	}
	return c.print.table([]string{"NODE", "WHY NOT"}, rows)
}

// explain says what keeps an app waiting; q is nil where it is not in the queue.
func explain(a *appStatus, q *queued, running []deploymentView, now time.Time) *explanation {
	e := &explanation{ID: a.ID}
	add := func(format string, args ...any) {
		e.Waiting = true
		e.Reasons = append(e.Reasons, fmt.Sprintf(format, args...))
	}
	if q != nil && q.Count > 0 {
		e.queue(a, q, now, add)
	}
	if q != nil && q.HeldBack != nil {
		add("%d of its instances can't be reached and are not replaced: %s.", q.HeldBack.Count, q.HeldBack.Why)
		add("See starling app brake; with --lift they are replaced at once.")
	}
	for i := range running {
		if d := &running[i]; slices.Contains(slices.Concat(d.Apps, d.Pods), a.ID) {
			deploymentWaits(a, d, add)
		}
	}
	e.tasks(a, now, add)
	if !e.Waiting {
		text := fmt.Sprintf("%s waits for nothing: %d of %d instances run", a.ID, a.Running, a.Instances)
		switch {
		case a.everywhere():
			text = fmt.Sprintf("%s waits for nothing: it runs on %d nodes, as on every one that makes an offer that fits", a.ID, a.Running)
		case a.Instances == 0:
			text = fmt.Sprintf("%s is suspended: no instance is wanted", a.ID)
		case len(a.HealthChecks) > 0:
			text += fmt.Sprintf(", %d healthy", a.Healthy)
		case a.Running < a.Instances:
			text = fmt.Sprintf("%s has %d of %d instances running, and Marathon does not say that it waits for anything", a.ID, a.Running, a.Instances)
		}
		e.Reasons = append(e.Reasons, text+".")
	}
	if f := a.LastFailure; f != nil && e.Waiting {
		e.Reasons = append(e.Reasons, "The last failure of a task: "+f.text(now)+".")
	}
	return e
}

// longSilence is how long offers may stay away before something is wrong.
const longSilence = 10 * time.Second

func (e *explanation) queue(a *appStatus, q *queued, now time.Time, add func(string, ...any)) {
	since := ""
	if !q.Since.IsZero() {
		since = ", for " + ago(max(0, now.Sub(q.Since).Seconds()))
	}
	if a.everywhere() {
		add("%s is to run on every node that fits, and no node does%s.", a.ID, since)
	} else {
		add("%s waits to launch %d of %d instances%s.", a.ID, q.Count, a.Instances, since)
	}
	if !q.Delay.Overdue && q.Delay.TimeLeft > 0 {
		add("Its tasks have failed, so the next launch is put off for another %s (backoff).", seconds(q.Delay.TimeLeft))
	}
	switch {
	case len(q.Unused) > 0:
		add("Of the nodes that made offers, %s.", strings.Join(q.reasons(), ", "))
		for _, o := range q.Unused {
			n := nodeRefusal{Host: o.Offer.Hostname, AgentID: o.Offer.AgentID, Reasons: o.Why}
			if len(n.Reasons) == 0 {
				n.Reasons = o.Reason
			}
			e.Nodes = append(e.Nodes, n)
		}
	case q.Summary.Processed == 0 && (q.Delay.Overdue || q.Delay.TimeLeft == 0):
		add("No node has made an offer to role %q since.", cmp.Or(q.Role, "*"))
		if now.Sub(q.Since) > longSilence {
			e.Reasons = append(e.Reasons, "See whether nodes have anything free, and whether a master leads: starling node ls, starling mesh members.")
		}
	}
}

// deploymentWaits says what a deployment that is at work on an app waits for.
func deploymentWaits(a *appStatus, d *deploymentView, add func(string, ...any)) {
	at := slices.IndexFunc(d.Current, func(one action) bool { return one.id() == a.ID })
	if at < 0 {
		add("Deployment %s has not come to it, or is done with it: it is at step %d of %d, which is to %s.", d.ID, d.Step, d.Steps, actionsText(d.Current))
		return
	}
	add("Deployment %s is at step %d of %d, and has to %s.", d.ID, d.Step, d.Steps, d.Current[at].text())
	for _, r := range d.Current[at].Readiness {
		if !r.Ready {
			add("Task %s is not ready: %s.", r.TaskID, r.text())
		}
	}
	if n := a.Running - a.Healthy - a.Unhealthy; len(a.HealthChecks) > 0 && n > 0 {
		add("%s had no result of a health check yet.", tasks(n))
	}
}

// text says what a readiness check found.
func (r *readiness) text() string {
	if r.LastResponse == nil {
		return fmt.Sprintf("check %q has had no answer", r.Name)
	}
	return fmt.Sprintf("check %q answers %d", r.Name, r.LastResponse.Status)
}

// tasks says what tasks that there are lack.
func (e *explanation) tasks(a *appStatus, now time.Time, add func(string, ...any)) {
	for i := range a.Tasks {
		t := &a.Tasks[i]
		switch t.State {
		case "TASK_STAGING", "TASK_STARTING":
			add("Task %s is %s on %s, for %s.", t.ID, shortState(t.State), t.Host, cmp.Or(t.age(now), "an unknown time"))
		case "TASK_UNREACHABLE":
			add("Task %s is unreachable: its node %s is not heard of.", t.ID, t.Host)
		case "TASK_KILLING":
			add("Task %s on %s is being ended.", t.ID, t.Host)
		}
		for _, h := range t.Health {
			if !h.Alive && t.State == "TASK_RUNNING" {
				add("Task %s on %s is unhealthy: %s.", t.ID, t.Host, cmp.Or(strings.TrimRight(h.Cause, "."), "its check fails"))
			}
		}
	}
}

// tasks is a number of tasks, as the beginning of a sentence.
func tasks(n int) string {
	if n == 1 {
		return "1 task has"
	}
	return fmt.Sprintf("%d tasks have", n)
}

// actionTexts say what a step of a deployment does.
var actionTexts = map[string]string{
	"StartApplication": "start", "StopApplication": "stop", "ScaleApplication": "scale", "RestartApplication": "restart",
	"StartPod": "start", "StopPod": "stop", "ScalePod": "scale", "RestartPod": "restart",
}

func (a *action) text() string { return cmp.Or(actionTexts[a.Action], a.Action) + " " + a.id() }

// actionsText names the first few actions.
func actionsText(list []action) string {
	if len(list) == 0 {
		return "begin"
	}
	var out []string
	for i := range list {
		if i == candidatesMax {
			out = append(out, fmt.Sprintf("%d more", len(list)-i))
			break
		}
		out = append(out, list[i].text())
	}
	return strings.Join(out, ", ")
}
