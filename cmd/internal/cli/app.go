package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"starling/cmd/internal/flags"
	"starling/marathon/app"
)

// The exit codes of the commands about apps and deployments beside those of all.
const (
	exitChanges  = 2 // of a plan: there is something to do
	exitFailed   = 3 // a deployment did not get where it should
	exitPatience = 4 // it has not ended in time, and goes on
	exitShort    = 5 // it is done, and fewer instances run than are wanted
)

// marathonCodes is what the help says of them.
const marathonCodes = "Exit codes: 0 done (or left running with --detach), 1 Marathon cannot be asked or refuses, 2 the command is wrong, 3 the " +
	"deployment was\ncancelled, undone or replaced, 4 it has not ended within --timeout and goes on, 5 it is done, but fewer instances run than are wanted,\n" +
	"130 interrupted while waiting: it goes on, too " +
	"(\"deployment watch\" is ended so, with 0).\n" +
	"\"app plan\" has its own: 0 nothing to do, 2 something to do, 1 all else."

// App is "starling app ...". It returns the exit code.
//
// What is said of apps holds for pods, too. All is asked of Marathon's REST API; what tasks have written, of the agents, which the mesh tells of.
func App(ctx context.Context, io Streams, args, environ []string) int {
	var ls appList
	var deploy appDeploy
	var plan appPlan
	var scale, restart, suspend waitFlags
	var rollback appRollback
	var rm appRemove
	var logs appLogs
	var history appHistory
	var imported appImport
	var orphans appOrphans
	var brake appBrake
	g := group{
		name: "app", about: "Deploys apps, and tells how they are.", marathon: true, codes: marathonCodes,
		commands: []command{
			{
				name: "ls", flags: ls.register, run: ls.run,
				about:   "List the apps: how many instances are wanted, run and are healthy, and what is going on.",
				example: "starling app ls --label tier==front -o json",
			},
			{
				name: "show", takes: "ID", min: 1, max: 1, run: appShow,
				about:   "Show an app and its tasks; with -o json the whole definition.",
				example: "starling app show /shop/web",
			},
			{
				name: "deploy", takes: "FILE...", min: 1, max: anyNumber, flags: deploy.register, run: deploy.run,
				about: "Create or update what the files define, an app, a pod, a list of apps or a group each, in JSON; - reads stdin. A definition is the " +
					"whole one: what it lacks gets its default, but for instances, whose number stays as it is. Waits until the deployment has ended.",
				example: "starling app deploy web.json --timeout 5m",
			},
			{
				name: "plan", takes: "FILE...", min: 1, max: anyNumber, run: plan.run, wrong: exitFailure,
				about:   "Show what deploying the files would change, field by field, what would restart and what only scale. Nothing is changed.",
				example: "starling app plan web.json",
			},
			{
				name: "scale", takes: "ID N", min: 2, max: 2, flags: scale.register, run: scale.scale,
				about:   "Have N instances of an app.",
				example: "starling app scale /shop/web 5",
			},
			{
				name: "restart", takes: "ID", min: 1, max: 1, flags: restart.register, run: restart.restart,
				about:   "Replace all instances of an app, as its upgrade strategy allows.",
				example: "starling app restart /shop/web",
			},
			{
				name: "suspend", takes: "ID", min: 1, max: 1, flags: suspend.register, run: suspend.suspend,
				about:   "Have no instance of an app, and keep its definition. How many there were is not remembered: \"app scale\" brings it back.",
				example: "starling app suspend /shop/web",
			},
			{
				name: "rm", takes: "ID", min: 1, max: 1, flags: rm.register, run: rm.run,
				about:   "Remove an app, with its tasks and its history. Asks first, on a terminal; elsewhere --yes is needed.",
				example: "starling app rm /shop/web --yes",
			},
			{
				name: "logs", takes: "ID", min: 1, max: 1, node: true, flags: logs.register, run: logs.run,
				about: "Print what the tasks of an app have written, each line behind the name of its task. With -f it goes on, with " +
					"tasks that are started later, too.",
				example: "starling app logs -f --tail 20 /shop/web",
			},
			{
				name: "why", takes: "ID", min: 1, max: 1, run: appWhy,
				about:   "Say what keeps an app waiting.",
				example: "starling app why /shop/web",
			},
			{
				name: "brake", flags: brake.register, run: brake.run,
				about:   "Tell whether replacing is held back since most nodes seem dead, and lift that with --lift.",
				example: "starling app brake --lift",
			},
			{
				name: "history", takes: "ID", min: 1, max: 1, flags: history.register, run: history.run,
				about:   "List the versions of an app, the newest first, and what each has changed.",
				example: "starling app history /shop/web",
			},
			{
				name: "import", takes: "URL|FILE", min: 1, max: 1, flags: imported.register, run: imported.run,
				about: "Take over the apps, pods and groups of another Marathon: from its URL, or from what its /v2/groups has answered; - reads stdin. " +
					"What is there already stays as it is, so an import that was interrupted is completed by another.",
				example: "starling app import http://old.example:8080 --suspended --dry-run",
			},
			{
				name: "orphans", takes: "[TASK...]", max: anyNumber, flags: orphans.register, run: orphans.run,
				about: "List tasks that no app has, as there are after a backup was restored: they are left alone until somebody says what is to " +
					"become of them, with --adopt or --dismiss. --settle ends the doubt for good: what nobody knows then is killed.",
				example: "starling app orphans --adopt --all",
			},
			{
				name: "rollback", takes: "ID [VERSION]", min: 1, max: 2, flags: rollback.register, run: rollback.run,
				about: "Give an app a definition back that it had before: that of a version, or the newest one that is another than the present " +
					"one and was not undone itself. The number of instances stays as it is.",
				example: "starling app rollback /shop/web --dry-run",
			},
		},
	}
	return g.run(ctx, io, args, environ)
}

// appList is "app ls".
type appList struct{ label, id string }

func (l *appList) register(s *flags.Set) {
	s.StringVar(&l.label, "label", "", "list only apps with such labels, as a `selector`: env==prod, tier in (front, api)")
	s.StringVar(&l.id, "id", "", "list only apps whose id has this `text` in it")
}

func (l *appList) run(ctx context.Context, c *call) error {
	var query []string
	if l.label != "" {
		query = append(query, "label", l.label)
	}
	if l.id != "" {
		query = append(query, "id", l.id)
	}
	var answer struct {
		Apps []appStatus `json:"apps"`
	}
	body, err := c.marathon.get(ctx, withQuery("/v2/apps", query...), &answer)
	if err != nil {
		return err
	}
	pods, rawPods, err := l.pods(ctx, c)
	if err != nil {
		return err
	}
	if c.print.json {
		if len(pods) == 0 {
			return c.print.raw(body)
		}
		var raw struct {
			Apps []json.RawMessage `json:"apps"`
			Pods []json.RawMessage `json:"pods"`
		}
		if err := json.Unmarshal(body, &raw); err != nil {
			return err
		}
		raw.Pods = rawPods
		return c.print.value(raw)
	}
	queue, err := c.marathon.queue(ctx)
	if err != nil {
		return err
	}
	c.warnUnsettled(ctx)
	answer.Apps = append(answer.Apps, pods...)
	slices.SortFunc(answer.Apps, func(a, b appStatus) int { return strings.Compare(a.ID, b.ID) })
	rows := make([][]string, 0, len(answer.Apps))
	for i := range answer.Apps {
		a := &answer.Apps[i]
		rows = append(rows, []string{
			a.ID, a.runningText(), a.healthText(), short3(a.CPUs), megabytes(a.Mem), a.Version, a.notes(queue[a.ID]),
		})
	}
	return c.print.table([]string{"ID", "RUNNING", "HEALTHY", "CPUS", "MEM", "VERSION", "NOTES"}, rows)
}

// everywhere tells of a daemon app: it has as many instances as there are nodes that fit.
func (a *appStatus) everywhere() bool { return a.Starling.Daemon && a.Instances > 0 }

func (a *appStatus) runningText() string {
	if a.everywhere() {
		return fmt.Sprintf("%d, one a node", a.Running)
	}
	return fmt.Sprintf("%d of %d", a.Running, a.Instances)
}

// pods lists the pods that are asked for, and what Marathon says of them.
func (l *appList) pods(ctx context.Context, c *call) ([]appStatus, []json.RawMessage, error) {
	selector, err := app.ParseSelector(l.label)
	if err != nil {
		return nil, nil, err
	}
	views, raw, err := c.marathon.pods(ctx)
	if err != nil || len(views) == 0 {
		return nil, nil, err
	}
	running, _, err := c.marathon.deployments(ctx)
	if err != nil {
		return nil, nil, err
	}
	var pods []appStatus
	var chosen []json.RawMessage
	for i := range views {
		if !selector.Matches(views[i].Spec.Labels) || !strings.Contains(views[i].ID, strings.ToLower(l.id)) {
			continue
		}
		a := views[i].app()
		a.deployed(running)
		pods, chosen = append(pods, *a), append(chosen, raw[i])
	}
	return pods, chosen, nil
}

func (a *appStatus) healthText() string {
	if len(a.HealthChecks) == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d", a.Healthy, a.Running)
}

// notes tells what is going on with an app.
func (a *appStatus) notes(q *queued) string {
	var notes []string
	if a.Pod {
		notes = append(notes, "pod of "+strings.Join(a.Containers, ", "))
	}
	if len(a.Deployments) > 0 {
		notes = append(notes, "deploying")
	}
	if a.Instances == 0 {
		notes = append(notes, "suspended")
	}
	if a.Staged > 0 {
		notes = append(notes, fmt.Sprintf("%d starting", a.Staged))
	}
	if q != nil && (q.Count > 0 || q.HeldBack != nil) {
		notes = append(notes, "waiting: "+q.brief())
	}
	if over := a.Running - a.Instances; over > 0 && len(a.Deployments) == 0 && !a.everywhere() {
		notes = append(notes, fmt.Sprintf("%d more than wanted", over))
	}
	return strings.Join(notes, ", ")
}

func appShow(ctx context.Context, c *call) error {
	id, err := appID(c.args[0])
	if err != nil {
		return err
	}
	a, body, err := c.marathon.app(ctx, id)
	if err != nil {
		return err
	}
	if c.print.json {
		return c.print.raw(body)
	}
	queue, err := c.marathon.queue(ctx)
	if err != nil {
		return err
	}
	if err := c.print.pairs(a.facts(queue[a.ID])); err != nil || len(a.Tasks) == 0 {
		return err
	}
	if err := c.print.text(""); err != nil {
		return err
	}
	rows := make([][]string, 0, len(a.Tasks))
	for i := range a.Tasks {
		t := &a.Tasks[i]
		rows = append(rows, []string{t.ID, shortState(t.State), t.health(), t.Host, numbers(t.Ports), t.age(time.Now()), versionText(t.Version)})
	}
	return c.print.table([]string{"TASK", "STATE", "HEALTH", "HOST", "PORTS", "AGE", "VERSION"}, rows)
}

// facts are what is shown of an app.
func (a *appStatus) facts(q *queued) [][2]string {
	facts := [][2]string{{"ID", a.ID}, {"VERSION", a.Version}}
	if a.Cmd != "" {
		facts = append(facts, [2]string{"COMMAND", a.Cmd})
	} else if len(a.Args) > 0 {
		facts = append(facts, [2]string{"ARGUMENTS", strings.Join(a.Args, " ")})
	}
	if a.Pod {
		facts = append(facts, [2]string{"POD OF", strings.Join(a.Containers, ", ")})
	}
	if a.Container != nil && a.Container.Docker != nil {
		facts = append(facts, [2]string{"IMAGE", a.Container.Docker.Image})
	}
	need := []string{short3(a.CPUs) + " cpus", megabytes(a.Mem)}
	if a.Disk > 0 {
		need = append(need, megabytes(a.Disk)+" disk")
	}
	if a.GPUs > 0 {
		need = append(need, short(a.GPUs)+" gpus")
	}
	facts = append(facts, [2]string{"EACH NEEDS", strings.Join(need, ", ")})
	count := fmt.Sprintf("%d wanted, %d running", a.Instances, a.Running)
	if a.everywhere() {
		count = fmt.Sprintf("one on every node that fits, %d running", a.Running)
	}
	if a.Staged > 0 {
		count += fmt.Sprintf(", %d starting", a.Staged)
	}
	if len(a.HealthChecks) > 0 {
		count += fmt.Sprintf(", %d healthy, %d unhealthy", a.Healthy, a.Unhealthy)
	}
	facts = append(facts, [2]string{"INSTANCES", count})
	if data := a.dataText(); data != "" {
		facts = append(facts, [2]string{"KEEPS", data + " of each instance"})
		for _, place := range a.places() {
			facts = append(facts, [2]string{"DATA", place})
		}
	}
	if len(a.Dependencies) > 0 {
		facts = append(facts, [2]string{"NEEDS FIRST", strings.Join(a.Dependencies, ", ")})
	}
	for _, d := range a.Deployments {
		facts = append(facts, [2]string{"DEPLOYMENT", d.ID})
	}
	if q != nil && q.Count > 0 {
		facts = append(facts, [2]string{"WAITING", q.brief()})
	}
	if f := a.LastFailure; f != nil {
		facts = append(facts, [2]string{"LAST FAILURE", f.text(time.Now())})
	}
	return facts
}

func (f *taskFailure) text(now time.Time) string {
	text := shortState(f.State)
	if f.Host != "" {
		text += " on " + f.Host
	}
	text += fmt.Sprintf(", %s ago", ago(max(0, now.Sub(f.Timestamp).Seconds())))
	if f.Message != "" {
		text += ": " + f.Message
	}
	return text
}

func (t *appTask) age(now time.Time) string {
	since := t.StartedAt
	if since.IsZero() {
		since = t.StagedAt
	}
	if since.IsZero() {
		return ""
	}
	return ago(max(0, now.Sub(since).Seconds()))
}

// pairs writes names and what they have, in two columns. It cleans both.
func (p *printer) pairs(pairs [][2]string) error {
	width := 0
	for _, pair := range pairs {
		width = max(width, len(pair[0]))
	}
	for _, pair := range pairs {
		if err := p.text(fmt.Sprintf("%-*s  %s", width, pair[0], clean(pair[1]))); err != nil {
			return err
		}
	}
	return nil
}

func numbers(list []int) string {
	var out []string
	for _, n := range list {
		out = append(out, strconv.Itoa(n))
	}
	return strings.Join(out, ",")
}

// short3 writes a number with up to three decimals: that is how exact resources are.
func short3(f float64) string {
	return strings.TrimRight(strings.TrimRight(strconv.FormatFloat(f, 'f', 3, 64), "0"), ".")
}

// versionText is a version as Marathon writes it.
func versionText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}
