package scheduler_test

import (
	"fmt"
	"testing"
	"time"

	"starling/marathon/app"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
	"starling/master/mesos"
)

const daemonID = app.PathID("/d")

// ranks is a chaos with a daemon app in it.
type ranks struct {
	*chaos
	home     map[app.InstanceID]string   // the agent that an instance was launched on
	former   map[app.InstanceID]struct{} // those that were there when the app was removed
	launches int
	homes    map[string]bool
}

// TestDaemonsInAStorm lets anything happen to a daemon app among others, and holds the scheduler to what must always be true of it:
//
//   - a launch never makes a second one on a node, also when the first can't be reached; but for one that was given up since the
//     app was removed, which ends when its node is back;
//   - no instance is ever launched on another node than its first;
//   - once everything is whole again there is one, of the present definition, on every node with room for it, or none.
func TestDaemonsInAStorm(t *testing.T) {
	runs := uint64(60)
	if testing.Short() {
		runs = 15
	}
	launches, homes := 0, 0
	for seed := range runs {
		t.Run(fmt.Sprintf("seed=%d", seed+1), func(t *testing.T) {
			r := &ranks{chaos: newChaos(t, seed+1), home: make(map[app.InstanceID]string), former: make(map[app.InstanceID]struct{}), homes: make(map[string]bool)}
			r.observe = r.watchDaemon
			r.subscribe()
			r.mustPut(fmt.Sprintf(`{"id":%q,"cmd":"run","cpus":0.1,"mem":16%s}`, daemonID, everywhere))
			for range 80 {
				r.disturbDaemon()
				r.turn()
			}
			r.heal()
			for range 60 { // an upgrade waits up to a minute for each node
				r.probeAll(true)
				r.advance(10 * time.Second)
			}
			r.check()
			r.checkDaemon()
			launches, homes = launches+r.launches, homes+len(r.homes)
		})
	}
	if launches < 10*int(runs) || homes < 3*int(runs) {
		t.Errorf("%d launches on %d nodes: little was tried", launches, homes)
	}
	t.Logf("%d launches", launches)
}

// living counts the tasks of the daemon app on an agent, whether it can be reached or not.
func (r *ranks) living(agent string) int {
	n := 0
	for _, task := range r.cluster.Tasks() {
		if task.Info.GetName() == daemonID.HostName() && task.Info.GetAgentId().GetValue() == agent && !over(task) {
			n++
		}
	}
	return n
}

// lives tells whether an instance has a task on its agent.
func (r *ranks) lives(instance app.InstanceID) bool {
	for _, task := range r.cluster.Tasks() {
		if id, err := app.ParseTaskID(task.Info.GetTaskId().GetValue()); err == nil && id.Instance == instance && !over(task) {
			return true
		}
	}
	return false
}

func over(task mastertest.Task) bool {
	switch task.State {
	case mesos.TaskState_TASK_STAGING, mesos.TaskState_TASK_STARTING, mesos.TaskState_TASK_RUNNING, mesos.TaskState_TASK_KILLING:
		return false
	}
	return true
}

func (r *ranks) watchDaemon(d scheduler.Decision) bool {
	if !r.watch(d) {
		return false
	}
	if r.s.View().Root().App(daemonID) == nil {
		for id := range r.home {
			r.former[id] = struct{}{}
		}
	}
	accept, ok := d.(scheduler.Accept)
	if !ok {
		return true
	}
	n := r.living(accept.AgentID)
	for id := range r.former {
		if r.home[id] == accept.AgentID && r.s.View().Instance(id) == nil && r.lives(id) {
			n--
		}
	}
	for _, info := range accept.Tasks {
		if info.GetName() != daemonID.HostName() {
			continue
		}
		r.launches++
		r.homes[accept.AgentID] = true
		if n++; n > 1 {
			r.t.Errorf("%v: a launch makes %d on %s\n%s", r.now.Sub(begin), n, accept.AgentID, r.picture(daemonID))
		}
		id, err := app.ParseTaskID(info.GetTaskId().GetValue())
		if err != nil {
			r.t.Fatal(err)
		}
		if home, known := r.home[id.Instance]; known && home != accept.AgentID {
			r.t.Errorf("%v: %s is launched on %s, and was on %s", r.now.Sub(begin), id, accept.AgentID, home)
		}
		r.home[id.Instance] = accept.AgentID
	}
	return true
}

// disturbDaemon has at most one thing happen to the daemon app.
func (r *ranks) disturbDaemon() {
	if r.crashed {
		return
	}
	there := r.s.View().Root().App(daemonID) != nil
	force := r.rng.IntN(2) == 0
	switch n := r.rng.IntN(30); {
	case n < 4:
		check := ""
		if r.rng.IntN(3) == 0 {
			check = `,"healthChecks":[{"protocol":"HTTP","gracePeriodSeconds":1,"maxConsecutiveFailures":2}]`
		}
		r.allow(r.put(fmt.Sprintf(`{"id":%q,"cmd":"run %d","cpus":0.1,"mem":16,"backoffSeconds":1,"maxLaunchDelaySeconds":4%s%s}`,
			daemonID, r.rng.IntN(3), check, everywhere), force))
	case n < 6 && there: // it is switched off, or on again
		r.allow(r.put(fmt.Sprintf(`{"id":%q,"instances":%d}`, daemonID, r.rng.IntN(2)), force))
	case n < 8 && there:
		r.allow(r.restart(daemonID, force))
	case n < 9:
		r.allow(r.remove(daemonID, force))
	case n < 12:
		for _, task := range r.cluster.Tasks() {
			if task.Info.GetName() == daemonID.HostName() && r.rng.IntN(3) == 0 {
				// A task that is on its way out already can't end once more.
				_ = r.cluster.End(task.Info.GetTaskId().GetValue(), mesos.TaskState_TASK_FAILED, "")
			}
		}
	case n < 14:
		if instances := r.s.View().Instances(daemonID); len(instances) > 0 {
			now, kill := r.now, scheduler.KillRequest{Instances: []app.InstanceID{instances[r.rng.IntN(len(instances))].ID}}
			r.tell(func(s *scheduler.Scheduler) { s.KillTasks(now, kill) })
		}
	}
	r.pump()
}

// checkDaemon looks at what there is in the end.
func (r *ranks) checkDaemon() {
	want := false
	if a := r.s.View().Root().App(daemonID); a != nil {
		want = a.Instances > 0
		for _, i := range r.s.View().Instances(daemonID) {
			if i.Version < a.VersionInfo.LastConfigChangeAt {
				r.t.Errorf("%s is of %s in the end, and the definition of %s", i.ID, i.Version, a.VersionInfo.LastConfigChangeAt)
			}
		}
	}
	total := 0
	n := r.living("big")
	if total += n; (n == 1) != want || n > 1 {
		r.t.Errorf("there are %d on the node with room for all, and it is wanted: %v\n%s", n, want, r.picture(daemonID))
	}
	for a := range 6 {
		agent := fmt.Sprintf("a%d", a)
		n := r.living(agent)
		if total += n; n > 1 || n == 1 && !want {
			r.t.Errorf("there are %d on %s, and it is wanted: %v\n%s", n, agent, want, r.picture(daemonID))
		}
		used := 0
		for _, task := range r.cluster.Tasks() {
			if task.Info.GetAgentId().GetValue() == agent {
				used++
			}
		}
		if want && n == 0 && used < 7 && r.homes[agent] { // 4 cpus and more take 7 of the others, and it; not all agents exist
			r.t.Errorf("there is none on %s, which has room\n%s", agent, r.picture(daemonID))
		}
	}
	if got := len(r.s.View().Instances(daemonID)); got != total {
		r.t.Errorf("there are %d instances of %d tasks\n%s", got, total, r.picture(daemonID))
	}
}
