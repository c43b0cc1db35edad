package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"starling/cmd/internal/flags"
	"starling/gossip/api"
	"starling/master/mesos"
)

// Task is "starling task ...". It returns the exit code.
//
// Which tasks there are is asked of the node's view of the mesh; what has ended and is acknowledged, of the leading master. The
// rest is asked of the agent that runs the task, or has run it.
func Task(ctx context.Context, io Streams, args, environ []string) int {
	var ls taskList
	var logs logs
	var exec exec
	var files files
	g := group{
		name: "task", about: "Looks at tasks, and into them.",
		commands: []command{
			{
				name: "ls", flags: ls.register, run: ls.run,
				about:   "List the tasks of all nodes, as one node sees the mesh.",
				example: "starling task ls --state running -o json",
			},
			{
				name: "logs", takes: "TASK", min: 1, max: 1, flags: logs.register, run: logs.run,
				about: "Print what a task has written; TASK is its id, how that begins, or its name. On a terminal, control characters are " +
					"escaped, all but colours.",
				example: "starling task logs -f --tail 20 web",
			},
			{
				name: "exec", takes: "TASK -- COMMAND [ARGUMENT...]", min: 2, max: anyNumber, flags: exec.register, run: exec.run,
				about: "Run a command in the container of a task. It exits with the code of the command, 128 and the number of the signal that " +
					"ended it, 125 where it cannot be run, 130 where it was interrupted.",
				example: "starling task exec -it web -- sh",
			},
			{
				name: "files", takes: "TASK [PATH]", min: 1, max: 2, flags: files.register, run: files.run,
				about:   "List the files in the sandbox of a task, or with --get print one.",
				example: "starling task files web stdout --get >stdout",
			},
		},
	}
	return g.run(ctx, io, args, environ)
}

// anyNumber is no bound of the number of arguments.
const anyNumber = 1 << 20

// taskList is "task ls".
type taskList struct {
	frameworkChoice
	state, node string
}

func (l *taskList) register(s *flags.Set) {
	l.frameworkChoice.register(s)
	s.StringVar(&l.state, "state", "", "list the tasks of one `state` alone, such as running")
	s.StringVar(&l.node, "node", "", "list the tasks of one `node` alone, by its name, how that begins, or its host name")
}

func (l *taskList) run(ctx context.Context, c *call) error {
	if _, ok := mesos.TaskState_value[l.wanted()]; !ok && l.state != "" {
		var known []string
		for name := range mesos.TaskState_value {
			known = append(known, shortState(name))
		}
		slices.Sort(known)
		return usagef("--state %q is no state of a task; there are %s", l.state, strings.Join(known, ", "))
	}
	tasks, err := c.tasks(ctx)
	if err != nil {
		return err
	}
	tasks = slices.DeleteFunc(tasks, func(t api.Task) bool { return !l.wants(&t) })
	slices.SortFunc(tasks, func(a, b api.Task) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID), strings.Compare(a.FrameworkID, b.FrameworkID))
	})
	if c.print.json {
		return c.print.value(tasks)
	}
	rows := make([][]string, 0, len(tasks))
	for i := range tasks {
		rows = append(rows, taskRow(&tasks[i], time.Now()))
	}
	return c.print.table([]string{"ID", "NAME", "STATE", "HEALTH", "FRAMEWORK", "HOST", "ADDRESS", "CPUS", "MEM", "AGE"}, rows)
}

func (l *taskList) wants(t *api.Task) bool {
	return l.includes(t) && isOneOf(l.node, t.Node, t.Host) && (l.state == "" || t.State == l.wanted())
}

// isOneOf tells whether what a user wants is an id, how that begins, or a name; all is if he wants nothing.
func isOneOf(want, id, name string) bool {
	return want == "" || want == name || strings.HasPrefix(id, want)
}

// frameworkChoice is the framework whose tasks a command is about; empty for those of all.
type frameworkChoice struct{ framework string }

func (f *frameworkChoice) register(s *flags.Set) {
	s.StringVar(&f.framework, "framework", "", "look at the tasks of one `framework` alone, by its id, how that begins, or its name")
}

func (f *frameworkChoice) includes(t *api.Task) bool {
	return isOneOf(f.framework, t.FrameworkID, t.Framework)
}

// wanted is the state asked for, as Mesos writes it.
func (l *taskList) wanted() string {
	return "TASK_" + strings.ToUpper(strings.TrimPrefix(strings.ToLower(l.state), "task_"))
}

// shortState is a state as people write it.
func shortState(name string) string { return strings.ToLower(strings.TrimPrefix(name, "TASK_")) }

func taskRow(t *api.Task, now time.Time) []string {
	row := []string{
		t.ID, t.Name, shortState(t.State), "", cmp.Or(t.Framework, t.FrameworkID), cmp.Or(t.Host, t.Node),
		strings.Join(t.Addresses, ","), "", "", "",
	}
	if t.NodeState != "alive" {
		row[2] += ", node " + t.NodeState
	}
	switch {
	case !running(t.State):
	case t.Healthy != nil:
		row[3] = map[bool]string{true: "healthy", false: "unhealthy"}[*t.Healthy]
	case t.Checked:
		row[3] = "waiting"
	}
	if r := t.Resources; r != nil {
		row[7], row[8] = short(r.CPUs), megabytes(r.Mem)
	}
	if !t.Launched.IsZero() {
		row[9] = ago(max(0, now.Sub(t.Launched).Seconds()))
	}
	return row
}

// tasks are those that the mesh knows.
func (c *call) tasks(ctx context.Context) ([]api.Task, error) {
	var tasks []api.Task
	_, err := c.client.get(ctx, api.PathTasks, &tasks)
	return tasks, err
}

// task finds the one task that a user means, among those that the mesh knows, else among those that have ended.
func (f *frameworkChoice) task(ctx context.Context, c *call, asked string) (*api.Task, error) {
	tasks, err := c.tasks(ctx)
	if err != nil {
		return nil, err
	}
	t, err := f.pick(asked, tasks)
	if !errors.Is(err, errNoTask) {
		return t, err
	}
	ended, why := c.endedTasks(ctx, f.framework != "")
	if why != nil {
		return nil, fmt.Errorf("%w, and those that have ended cannot be asked for: %w", err, why)
	}
	return f.pick(asked, ended)
}

var errNoTask = errors.New("no task")

// candidatesMax is how many candidates are named to a user.
const candidatesMax = 10

// pick returns the task with an id, else the one with a name, else the one whose id begins so.
func (f *frameworkChoice) pick(asked string, tasks []api.Task) (*api.Task, error) {
	for _, means := range []func(*api.Task) bool{
		func(t *api.Task) bool { return t.ID == asked },
		func(t *api.Task) bool { return t.Name == asked },
		func(t *api.Task) bool { return strings.HasPrefix(t.ID, asked) },
	} {
		var found []*api.Task
		for i := range tasks {
			if means(&tasks[i]) && f.includes(&tasks[i]) {
				found = append(found, &tasks[i])
			}
		}
		switch {
		case len(found) == 1:
			return found[0], nil
		case len(found) > 1:
			return nil, ambiguous(asked, found)
		}
	}
	if f.framework != "" {
		return nil, fmt.Errorf("%w %q of framework %q is known", errNoTask, asked, f.framework)
	}
	return nil, fmt.Errorf("%w %q is known", errNoTask, asked)
}

func ambiguous(asked string, found []*api.Task) error {
	var names []string
	several := false
	for _, t := range found[:min(len(found), candidatesMax)] {
		several = several || t.FrameworkID != found[0].FrameworkID
		names = append(names, fmt.Sprintf("%s (%s, on %s)", t.ID, cmp.Or(t.Framework, t.FrameworkID), cmp.Or(t.Host, t.Node)))
	}
	if more := len(found) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	hint := ""
	if several {
		hint = "; --framework says whose is meant"
	}
	return fmt.Errorf("%q may be any of: %s%s", asked, strings.Join(names, ", "), hint)
}

// endedTasks asks the leading master for the tasks that it remembers. named has it tell the names of their frameworks, too.
func (c *call) endedTasks(ctx context.Context, named bool) ([]api.Task, error) {
	members, err := c.members(ctx)
	if err != nil {
		return nil, err
	}
	master, err := leader(members)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Tasks []struct {
			ID, Name, State string
			FrameworkID     string `json:"framework_id"`
			ExecutorID      string `json:"executor_id"`
			AgentID         string `json:"slave_id"`
		}
	}
	if _, err := c.client.at(master).get(ctx, "/tasks?"+url.Values{"limit": {"1000000"}}.Encode(), &answer); err != nil {
		return nil, err
	}
	names := map[string]string{}
	if named {
		if names, err = c.client.at(master).frameworkNames(ctx); err != nil {
			return nil, err
		}
	}
	var out []api.Task
	for _, t := range answer.Tasks {
		one := api.Task{
			ID: t.ID, Name: t.Name, State: t.State, FrameworkID: t.FrameworkID, Framework: names[t.FrameworkID],
			ExecutorID: cmp.Or(t.ExecutorID, t.ID), Node: t.AgentID,
		}
		for i := range members {
			if m := &members[i]; m.AgentID == t.AgentID || m.Name == t.AgentID {
				one.Node, one.NodeState, one.Host, one.APIAddress = m.Name, m.State, m.Hostname, m.APIAddress
			}
		}
		out = append(out, one)
	}
	return out, nil
}

// frameworkNames asks a master for the names of all frameworks, by their ids.
func (c *client) frameworkNames(ctx context.Context) (map[string]string, error) {
	type framework struct{ ID, Name string }
	var answer struct {
		Frameworks []framework
		Completed  []framework `json:"completed_frameworks"`
	}
	if _, err := c.get(ctx, "/frameworks", &answer); err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, f := range slices.Concat(answer.Completed, answer.Frameworks) {
		names[f.ID] = f.Name
	}
	return names, nil
}

// members are the nodes that the mesh knows.
func (c *call) members(ctx context.Context) ([]api.Member, error) {
	var list []api.Member
	_, err := c.client.get(ctx, api.PathMembers, &list)
	return list, err
}

// leader is the address of the master that leads with the highest epoch.
func leader(members []api.Member) (string, error) {
	var newest *api.Leader
	for i := range members {
		if l := members[i].Leader; l != nil && members[i].State == "alive" && (newest == nil || l.Epoch > newest.Epoch) {
			newest = l
		}
	}
	if newest == nil {
		return "", errors.New("no master leads, as far as this node knows")
	}
	return newest.Address, nil
}

// agentOf is a client of the agent that runs a task.
func (c *call) agentOf(t *api.Task) (*client, error) {
	if t.APIAddress == "" {
		return nil, fmt.Errorf("node %s, on which task %q is or was, is not known to the mesh", cmp.Or(t.Node, "?"), t.ID)
	}
	return c.client.at(t.APIAddress), nil
}

// running tells whether a state is not a task's last.
func running(state string) bool {
	switch state {
	case "TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING":
		return true
	}
	return false
}
