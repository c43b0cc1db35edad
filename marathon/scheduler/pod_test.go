package scheduler_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"starling/marathon/app"
	"starling/marathon/event"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
	"starling/master/mesos"
	call "starling/master/mesos/scheduler"
)

// putPod creates or replaces a pod from its JSON.
func (m *sim) putPod(body string, force bool) string {
	m.t.Helper()
	draft, err := app.ParsePod([]byte(body))
	if err != nil {
		m.t.Fatal(err)
	}
	id, err := draft.ID()
	if err != nil {
		m.t.Fatal(err)
	}
	plan, err := m.change(func(root *app.Group) (*app.Group, error) {
		pod, err := draft.Create(id, root.Pod(id), root.RulesFor(id, app.DefaultSettings()))
		if err != nil {
			return nil, err
		}
		return root.WithApp(pod), nil
	}, app.Change{}, force)
	if err != nil {
		m.t.Fatal(err)
	}
	return plan
}

// podOf is a pod of two containers that share a volume; env makes a version of it.
func podOf(instances int, env string) string {
	return fmt.Sprintf(`{"id":"/edge/cam","environment":{"V":%q},"volumes":[{"name":"frames"}],"containers":[
		{"name":"grab","resources":{"cpus":0.2,"mem":64},"exec":{"command":{"shell":"grab"}},"volumeMounts":[{"name":"frames","mountPath":"frames"}]},
		{"name":"serve","resources":{"cpus":0.1,"mem":32},"exec":{"command":{"argv":["serve","-x"]}},
		 "endpoints":[{"name":"web","hostPort":0}],"healthCheck":{"http":{"endpoint":"web"}},"volumeMounts":[{"name":"frames","mountPath":"f","readOnly":true}]}],
		"scaling":{"instances":%d},"scheduling":{"unreachableStrategy":{"inactiveAfterSeconds":60,"expungeAfterSeconds":120}}}`, env, instances)
}

// podSim has agents and, if it is not empty, a pod whose containers all run and are healthy.
func podSim(t *testing.T, agents int, body string) *sim {
	m := newSim(t, 7)
	for n := range agents {
		m.cluster.Add(mastertest.Agent{
			ID: fmt.Sprintf("a%d", n), Host: fmt.Sprintf("host-a%d", n), CPUs: 4, Mem: 4096, Disk: 4096, FirstPort: 31000, LastPort: 31009,
		})
	}
	m.subscribe()
	m.pump()
	if body != "" {
		m.putPod(body, false)
		m.podsHealthy()
	}
	return m
}

// podsHealthy lets the health checks of all containers that have one succeed.
func (m *sim) podsHealthy() {
	m.t.Helper()
	m.pump()
	for _, task := range m.cluster.Tasks() {
		if task.Alive && task.Info.HealthCheck != nil {
			if err := m.cluster.Healthy(task.Info.GetTaskId().GetValue(), true); err != nil {
				m.t.Fatal(err)
			}
		}
	}
	m.pump()
}

// living are the names of the containers that live, by the id of their executor.
func (m *sim) living() map[string][]string {
	out := make(map[string][]string)
	for _, task := range m.cluster.Tasks() {
		if task.Alive {
			id, err := app.ParseTaskID(task.Info.GetTaskId().GetValue())
			if err != nil {
				m.t.Fatal(err)
			}
			out[id.GroupExecutorID()] = append(out[id.GroupExecutorID()], task.Info.GetName())
		}
	}
	return out
}

func (m *sim) cams() []*scheduler.Instance { return m.s.View().Instances("/edge/cam") }

func (m *sim) wantConditions(want ...scheduler.Condition) {
	m.t.Helper()
	var got []scheduler.Condition
	for _, i := range m.cams() {
		got = append(got, i.Condition)
	}
	if !slices.Equal(got, want) {
		m.t.Fatalf("instances are %v, want %v", got, want)
	}
}

func TestPodIsLaunchedAsAGroup(t *testing.T) {
	m := podSim(t, 1, podOf(2, "1"))
	m.wantConditions(scheduler.Running, scheduler.Running)
	living := m.living()
	if len(living) != 2 {
		t.Fatalf("groups that live: %v, want 2", living)
	}
	for _, i := range m.cams() {
		executor := "instance-edge_cam." + i.ID.UUID.String()
		names := living[executor]
		slices.Sort(names)
		if !slices.Equal(names, []string{"grab", "serve"}) {
			t.Errorf("executor %s runs %v, want grab and serve", executor, names)
		}
		if h := m.s.View().Health(i); h.Healthy == nil || !*h.Healthy || len(h.Checks) != 1 {
			t.Errorf("health of %s is %+v, want one check and healthy", i.ID, h)
		}
		if want := i.ID.String() + ".serve.1"; i.Containers[1].TaskID != want {
			t.Errorf("task of serve is %s, want %s", i.Containers[1].TaskID, want)
		}
		if len(i.Ports) != 1 || i.Ports[0] < 31000 {
			t.Errorf("ports are %v, want one", i.Ports)
		}
	}
	if n := len(m.s.View().Deployments()); n != 0 {
		t.Errorf("%d deployments run, want none: all is healthy", n)
	}
	m.putPod(podOf(1, "1"), false)
	m.pump()
	if living := m.living(); len(living) != 1 {
		t.Errorf("after scaling down live %v, want one group", living)
	}
	if _, err := m.remove("/edge/cam", false); err != nil {
		t.Fatal(err)
	}
	m.pump()
	if living := m.living(); len(living) != 0 || len(m.cams()) != 0 {
		t.Errorf("after the removal live %v, and there are %d instances", living, len(m.cams()))
	}
}

func TestPodWaitsForTheHealthOfEveryContainer(t *testing.T) {
	m := podSim(t, 1, "")
	m.putPod(podOf(1, "1"), false)
	m.pump()
	m.wantConditions(scheduler.Running)
	if n := len(m.s.View().Deployments()); n != 1 {
		t.Fatalf("%d deployments run, want one: nothing was heard of the health of serve", n)
	}
	m.podsHealthy()
	if n := len(m.s.View().Deployments()); n != 0 {
		t.Errorf("%d deployments run, want none", n)
	}
}

func TestOneContainerThatFailsTakesTheInstanceWithIt(t *testing.T) {
	m := podSim(t, 1, podOf(1, "1"))
	before := m.cams()[0]
	var told []string
	m.observe = func(d scheduler.Decision) bool {
		if p, ok := d.(scheduler.Publish); ok {
			if changed, ok := p.Payload.(event.InstanceChanged); ok {
				told = append(told, changed.Condition)
			}
		}
		return true
	}
	if err := m.cluster.End(before.Containers[0].TaskID, mesos.TaskState_TASK_FAILED, "Command exited with status 3"); err != nil {
		t.Fatal(err)
	}
	m.pump()
	m.wantConditions(scheduler.Scheduled)
	if want := []string{"Killing", "Failed", "Scheduled"}; !slices.Equal(told, want) {
		t.Errorf("told of conditions %v, want %v", told, want)
	}
	if living := m.living(); len(living) != 0 {
		t.Errorf("%v live, want none", living)
	}
	f := m.s.View().Failure("/edge/cam")
	if f == nil || f.TaskID != before.Containers[0].TaskID || f.Message != "Command exited with status 3" || f.StartedAt.IsZero() {
		t.Errorf("the failure is %+v, want that of grab", f)
	}
	m.advance(2 * time.Second)
	m.podsHealthy()
	m.wantConditions(scheduler.Running)
	after := m.cams()[0]
	if after.ID != before.ID || after.Incarnation != 2 {
		t.Errorf("it is %s, launch %d; want the same instance, launched twice", after.ID, after.Incarnation)
	}
	if !slices.Contains(keys(m.living()), "instance-edge_cam."+after.ID.UUID.String()+".2") {
		t.Errorf("executors %v, want one of its own for the second launch", keys(m.living()))
	}
}

func keys[V any](in map[string]V) []string {
	var out []string
	for k := range in {
		out = append(out, k)
	}
	return out
}

func TestPodGoesOnWhenAContainerIsDone(t *testing.T) {
	m := podSim(t, 1, podOf(1, "1"))
	i := m.cams()[0]
	end := func(n int) {
		t.Helper()
		if err := m.cluster.End(i.Containers[n].TaskID, mesos.TaskState_TASK_FINISHED, ""); err != nil {
			t.Fatal(err)
		}
		m.pump()
	}
	end(0)
	m.wantConditions(scheduler.Running)
	if living := m.living(); len(living) != 1 {
		t.Fatalf("%v live, want serve alone", living)
	}
	if got := m.cams()[0].Tasks(); !slices.Equal(got, []string{i.Containers[1].TaskID}) {
		t.Errorf("tasks that are not over: %v, want serve alone", got)
	}
	end(1)
	m.wantConditions(scheduler.Scheduled)
	m.advance(2 * time.Second)
	m.wantConditions(scheduler.Running)
}

func TestPodIsReplacedWithinItsBounds(t *testing.T) {
	m := podSim(t, 3, podOf(3, "1"))
	least, most := 3, 3
	m.observe = func(scheduler.Decision) bool {
		running, all := 0, 0
		for _, names := range m.living() {
			all++
			if len(names) == 2 {
				running++
			}
		}
		least, most = min(least, running), max(most, all)
		return true
	}
	m.putPod(strings.Replace(podOf(3, "2"), `"scheduling":{`, `"scheduling":{"upgrade":{"minimumHealthCapacity":0.66,"maximumOverCapacity":0.34},`, 1), false)
	for range 20 {
		m.podsHealthy()
		m.advance(5 * time.Second)
	}
	if n := len(m.s.View().Deployments()); n != 0 {
		t.Fatalf("%d deployments run still", n)
	}
	if least < 2 || most > 4 {
		t.Errorf("there were %d to %d groups, want 2 to 4", least, most)
	}
	for _, i := range m.cams() {
		if i.Version != m.s.View().Root().Pod("/edge/cam").Version {
			t.Errorf("%s has version %s", i.ID, i.Version)
		}
	}
}

func TestPodOnALostAgent(t *testing.T) {
	m := podSim(t, 2, podOf(1, "1"))
	lost := m.cams()[0]
	m.cluster.Lose(lost.AgentID)
	m.pump()
	m.wantConditions(scheduler.Unreachable)
	m.advance(61 * time.Second)
	m.podsHealthy()
	m.wantConditions(scheduler.UnreachableInactive, scheduler.Running)
	m.advance(60 * time.Second)
	m.wantConditions(scheduler.Running)
	m.cluster.Return(lost.AgentID)
	m.pump()
	if living := m.living(); len(living) != 1 {
		t.Errorf("%v live after the agent is back, want the new group alone", living)
	}
}

func TestPodOnAnAgentThatComesBack(t *testing.T) {
	m := podSim(t, 1, podOf(1, "1"))
	m.cluster.Lose("a0")
	m.pump()
	m.wantConditions(scheduler.Unreachable)
	m.cluster.Return("a0")
	m.pump()
	m.wantConditions(scheduler.Running)
	if living := m.living(); len(living) != 1 {
		t.Errorf("%v live, want the group that there was", living)
	}
}

func TestPodSurvivesAProcess(t *testing.T) {
	m := podSim(t, 1, podOf(2, "1"))
	before := m.living()
	m.start()
	m.subscribe()
	m.advance(30 * time.Second)
	m.wantConditions(scheduler.Running, scheduler.Running)
	if after := m.living(); len(after) != 2 || len(before) != 2 {
		t.Errorf("%v live, want %v", after, before)
	}
	if ids := m.cluster.Duplicates(); len(ids) > 0 {
		t.Errorf("launched twice: %v", ids)
	}
}

func TestPodWhoseLaunchGotLost(t *testing.T) {
	m := podSim(t, 1, "")
	m.observe = func(d scheduler.Decision) bool { _, accept := d.(scheduler.Accept); return !accept }
	m.putPod(podOf(1, "1"), false)
	m.pump()
	if !m.crashed {
		t.Fatal("nothing was launched")
	}
	m.observe = nil
	m.start()
	m.subscribe()
	m.advance(30 * time.Second)
	m.podsHealthy()
	m.wantConditions(scheduler.Running)
	if i := m.cams()[0]; i.Incarnation != 2 {
		t.Errorf("launched %d times, want twice", i.Incarnation)
	}
	if f := m.s.View().Failure("/edge/cam"); f != nil {
		t.Errorf("a failure was noted: %+v", f)
	}
}

func TestKillingAPodKillsEveryTask(t *testing.T) {
	m := podSim(t, 1, podOf(1, "1"))
	var killed []string
	m.observe = func(d scheduler.Decision) bool {
		if k, ok := d.(scheduler.Kill); ok {
			killed = append(killed, k.TaskID)
		}
		return true
	}
	i := m.cams()[0]
	m.s.KillTasks(m.now, scheduler.KillRequest{Instances: []app.InstanceID{i.ID}})
	m.advance(time.Minute)
	want := []string{i.Containers[0].TaskID, i.Containers[1].TaskID}
	if !slices.Equal(killed, want) {
		t.Errorf("killed %v, want %v", killed, want)
	}
	m.wantConditions(scheduler.Running)
}

// TestPodOnAnAgentThatIsSilent has an agent come back of which nothing is told but another task: the containers that are not
// over are asked for, whichever they are.
func TestPodOnAnAgentThatIsSilent(t *testing.T) {
	m := podSim(t, 1, podOf(1, "1"))
	m.mustPut(`{"id":"/other","cmd":"x"}`)
	m.pump()
	if err := m.cluster.End(m.cams()[0].Containers[0].TaskID, mesos.TaskState_TASK_FINISHED, ""); err != nil {
		t.Fatal(err)
	}
	m.pump()
	m.cluster.Lose("a0")
	m.pump()
	m.wantConditions(scheduler.Unreachable)
	m.tamper = func(events []*call.Event) []*call.Event {
		return slices.DeleteFunc(events, func(e *call.Event) bool {
			s := e.GetUpdate().GetStatus()
			return s.GetReason() == mesos.TaskStatus_REASON_AGENT_REREGISTERED && strings.HasPrefix(s.GetTaskId().GetValue(), "edge_cam")
		})
	}
	m.cluster.Return("a0")
	m.advance(10 * time.Second)
	m.wantConditions(scheduler.Running)
}
