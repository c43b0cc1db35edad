package scheduler_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"starling/marathon/app"
	"starling/marathon/event"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
	"starling/master/mesos"
)

var rewrite = flag.Bool("update", false, "rewrite the output of the stories in testdata")

// TestStories plays testdata/*.txt. A story opens with the property that it shows; each command stands on a line of its
// own and is followed by the decisions that it led to, indented. Instances are named by their order, tasks with the number
// of the launch behind: web#2.1 is the first launch of the second instance of web. The commands are:
//
//	agent ID CPUS MEM           adds an agent
//	put JSON                    creates or updates an app; put! forces
//	restart APP, remove APP     with ! forced
//	cancel N                    cancels the n-th deployment and leaves things as they are
//	kill INSTANCE               ends the task of an instance, which will be replaced
//	end TASK STATE MESSAGE      lets a task end by itself
//	health TASK true|false      the result of a check by the agent
//	probe INSTANCE true|false   the result of the first check by Marathon
//	undo N                      rolls the n-th deployment back
//	hold, release               keeps launched tasks from starting, and lets them
//	lose AGENT, return AGENT    cuts an agent off, and lets it come back
//	report TASK STATE           a status from nowhere
//	subscribe, disconnect       opens and ends the session
//	crash                       ends the process just before the next decision of that kind is carried out: crash KIND
//	process                     starts a new process on what is stored
//	wait DURATION               lets time pass
//	show                        lists the instances
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := tell(t, want)
			if *rewrite {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(got, want) {
				t.Errorf("story differs from %s, which -update rewrites:\n%s", file, diff(string(want), string(got)))
			}
		})
	}
}

type story struct {
	*sim
	out   strings.Builder
	names map[app.InstanceID]string
	count map[app.PathID]int
	crash string
}

func tell(t *testing.T, script []byte) []byte {
	s := &story{sim: newSim(t, 1), names: make(map[app.InstanceID]string), count: make(map[app.PathID]int)}
	s.observe = s.note
	var out strings.Builder
	for line := range strings.Lines(string(script)) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "    ") {
			continue
		}
		out.WriteString(line + "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		s.out.Reset()
		if err := s.do(line); err != nil {
			fmt.Fprintf(&s.out, "error: %v\n", err)
		}
		s.pump()
		for said := range strings.Lines(s.out.String()) {
			out.WriteString("    " + said)
		}
	}
	return []byte(out.String())
}

func (s *story) do(line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	verb, force := strings.CutSuffix(verb, "!")
	args := strings.Fields(rest)
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	var err error
	switch verb {
	case "agent":
		cpus, _ := strconv.ParseFloat(arg(1), 64)
		mem, _ := strconv.ParseFloat(arg(2), 64)
		s.cluster.Add(mastertest.Agent{ID: arg(0), Host: "host-" + arg(0), CPUs: cpus, Mem: mem, Disk: 1000, FirstPort: 31000, LastPort: 31099})
	case "put":
		_, err = s.put(rest, force)
	case "restart":
		_, err = s.restart(app.PathID(arg(0)), force)
	case "remove":
		_, err = s.remove(app.PathID(arg(0)), force)
	case "cancel":
		err = s.s.Cancel(s.now, "deployment-"+arg(0), "")
	case "undo":
		s.undo("deployment-"+arg(0), "")
	case "kill":
		s.s.KillTasks(s.now, scheduler.KillRequest{Instances: []app.InstanceID{s.instance(arg(0))}})
	case "end":
		state := mesos.TaskState(mesos.TaskState_value[arg(1)])
		err = s.cluster.End(s.task(arg(0)), state, strings.Join(args[2:], " "))
	case "health":
		err = s.cluster.Healthy(s.task(arg(0)), arg(1) == "true")
	case "probe":
		id := s.instance(arg(0))
		p, ok := s.probes[id]
		if !ok {
			return fmt.Errorf("%s is not probed", arg(0))
		}
		s.s.Handle(s.now, scheduler.HealthResult{
			Instance: id, TaskID: p.Instance.TaskID, Alive: arg(1) == "true", Cause: strings.Join(args[2:], " "),
		})
	case "hold":
		s.cluster.Hold(true)
	case "release":
		s.cluster.Hold(false)
	case "lose":
		s.cluster.Lose(arg(0))
	case "return":
		s.cluster.Return(arg(0))
	case "report":
		state := mesos.TaskState(mesos.TaskState_value[arg(1)])
		s.cluster.Inject(&mesos.TaskStatus{
			TaskId: &mesos.TaskID{Value: new(s.task(arg(0)))}, State: &state, AgentId: &mesos.AgentID{Value: new("a1")},
		})
	case "subscribe":
		s.subscribe()
	case "disconnect":
		s.cluster.Disconnect()
	case "crash":
		s.crash = arg(0)
	case "process":
		s.cluster.Disconnect()
		s.start()
	case "wait":
		d, err := time.ParseDuration(arg(0))
		if err != nil {
			return err
		}
		s.advance(d)
	case "show":
		s.show()
	default:
		return fmt.Errorf("no command %q", verb)
	}
	return err
}

func (s *story) instance(name string) app.InstanceID {
	for id, n := range s.names {
		if n == name {
			return id
		}
	}
	s.t.Fatalf("no instance %q", name)
	return app.InstanceID{}
}

func (s *story) task(name string) string {
	instance, n, _ := strings.Cut(name, ".")
	incarnation, err := strconv.Atoi(n)
	if err != nil {
		s.t.Fatalf("no task %q", name)
	}
	return s.instance(instance).Task(incarnation).String()
}

func (s *story) name(id app.InstanceID) string {
	if s.names[id] == "" {
		s.count[id.App]++
		s.names[id] = fmt.Sprintf("%s#%d", id.App.Base(), s.count[id.App])
	}
	return s.names[id]
}

func (s *story) taskName(id string) string {
	t, err := app.ParseTaskID(id)
	if err != nil {
		return id
	}
	return fmt.Sprintf("%s.%d", s.name(t.Instance), t.Incarnation)
}

// note writes a decision down, and tells whether it is still carried out.
func (s *story) note(d scheduler.Decision) bool {
	say := func(format string, args ...any) {
		at := strings.TrimSuffix(s.now.Sub(begin).String(), "0s")
		if at == "" {
			at = "0"
		}
		fmt.Fprintf(&s.out, "%s ", at)
		fmt.Fprintf(&s.out, format+"\n", args...)
	}
	kind := strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", d), "scheduler."))
	if kind == s.crash {
		say("crash before %s", kind)
		s.crash = ""
		return false
	}
	switch d := d.(type) {
	case scheduler.Persist:
		var parts []string
		for _, w := range d.Writes {
			if w.Kind != scheduler.KindHistory { // what is over leads to nothing, and is written where a deployment is deleted
				parts = append(parts, s.write(w))
			}
		}
		say("persist %s", strings.Join(parts, ", "))
	case scheduler.Accept:
		var tasks []string
		for _, info := range d.Tasks {
			tasks = append(tasks, s.taskName(info.GetTaskId().GetValue()))
		}
		say("accept %s: launch %s, refuse the rest for %v", d.AgentID, strings.Join(tasks, " "), d.Refuse)
	case scheduler.Decline:
		say("decline %d for %v", len(d.OfferIDs), d.Refuse)
	case scheduler.Revive:
		say("revive %s", strings.Join(d.Roles, " "))
	case scheduler.Suppress:
		say("suppress %s", strings.Join(d.Roles, " "))
	case scheduler.Subscription:
		say("roles %s", strings.Join(d.Roles, " "))
	case scheduler.Kill:
		say("kill %s", s.taskName(d.TaskID))
	case scheduler.Acknowledge:
		say("acknowledge %s", s.taskName(d.TaskID))
	case scheduler.Reconcile:
		if len(d.Tasks) == 0 {
			say("reconcile all")
			break
		}
		var tasks []string
		for _, ref := range d.Tasks {
			tasks = append(tasks, s.taskName(ref.TaskID))
		}
		say("reconcile %s", strings.Join(tasks, " "))
	case scheduler.Probe:
		say("probe %s", s.taskName(d.Instance.TaskID))
	case scheduler.Unprobe:
		say("unprobe %s", s.name(d.Instance))
	case scheduler.Publish:
		switch p := d.Payload.(type) {
		case event.DeploymentInfo:
			say("event %s %s: %v", p.EventType(), p.Plan.ID, actions(p.CurrentStep.Actions))
		case event.DeploymentSuccess:
			say("event %s %s", p.EventType(), p.ID)
		case event.DeploymentFailed:
			say("event %s %s: %s", p.EventType(), p.ID, p.Reason)
		case event.DeploymentStepFailure:
			say("event %s %s: %v", p.EventType(), p.Plan.ID, actions(p.CurrentStep.Actions))
		case event.FailedHealthCheck, event.InstanceHealthChanged, event.UnhealthyInstanceKill, event.UnknownInstanceTerminated, event.AppTerminated:
			say("event %s", d.Payload.EventType())
		}
	}
	return true
}

func actions[A any](list []A) string {
	var texts []string
	for _, a := range list {
		texts = append(texts, fmt.Sprint(a))
	}
	return strings.Join(texts, " ")
}

func (s *story) write(w scheduler.Write) string {
	switch w.Kind {
	case scheduler.KindInstance:
		id, err := app.ParseInstanceID(w.Key)
		if err != nil {
			s.t.Fatal(err)
		}
		if w.Instance == nil {
			return "-" + s.name(id)
		}
		text := s.name(id) + "=" + string(w.Instance.Condition)
		if w.Instance.TaskID != "" {
			text = s.taskName(w.Instance.TaskID) + "=" + string(w.Instance.Condition)
		}
		if w.Instance.Goal != scheduler.GoalRunning {
			text += "/" + string(w.Instance.Goal)
		}
		return text
	case scheduler.KindDeployment:
		if w.Deployment == nil {
			return "-" + w.Key
		}
		return w.Key
	case scheduler.KindFailure:
		if w.Failure == nil {
			return "-failure"
		}
		return "failure"
	case scheduler.KindTree:
		return "tree"
	case scheduler.KindApp:
		return "-app"
	default:
		return "framework"
	}
}

func (s *story) show() {
	for a := range s.s.View().Root().All() {
		fmt.Fprintf(&s.out, "%s: %d wanted\n", a.ID, a.Instances)
	}
	seen := make(map[app.PathID]bool)
	for id := range s.names {
		seen[id.App] = true
	}
	for _, id := range slices.Sorted(maps.Keys(seen)) {
		for _, i := range s.s.View().Instances(id) {
			fmt.Fprintf(&s.out, "%s %s %s on %q", s.name(i.ID), i.Goal, i.Condition, i.Host)
			if healthy := s.s.View().Health(i).Healthy; healthy != nil {
				fmt.Fprintf(&s.out, ", healthy: %v", *healthy)
			}
			s.out.WriteByte('\n')
		}
	}
}

// diff lists the lines that differ, in a plain way.
func diff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	var out strings.Builder
	for i := range max(len(w), len(g)) {
		a, b := "", ""
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			fmt.Fprintf(&out, "line %d\n-%s\n+%s\n", i+1, a, b)
		}
	}
	return out.String()
}
