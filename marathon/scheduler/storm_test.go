package scheduler_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/marathon/app"
	"starling/marathon/scheduler"
	"starling/master/mesos"
	call "starling/master/mesos/scheduler"
)

// variant is what else may be in a definition: checks, a dependency, a constraint.
func (c *chaos) variant(id app.PathID) string {
	switch c.rng.IntN(8) {
	case 0:
		return `,"healthChecks":[{"protocol":"HTTP","gracePeriodSeconds":1,"maxConsecutiveFailures":2}]`
	case 1:
		if id != ids[0] {
			return `,"dependencies":["` + string(ids[0]) + `"]`
		}
	case 2:
		return `,"killSelection":"OLDEST_FIRST"`
	case 3:
		return `,"constraints":[["hostname","GROUP_BY"]]`
	}
	return ""
}

// fault does one of the things that go wrong between a scheduler and the world, n is from 0 to 34.
func (c *chaos) fault(n int, id app.PathID, agent string) {
	switch {
	case n < 5:
		c.cluster.Rescind(agent)
	case n < 8: // a launch stays unanswered for a while
		c.cluster.Hold(c.rng.IntN(2) == 0)
	case n < 14:
		c.probeAll(c.rng.IntN(3) > 0)
	case n < 18: // the master speaks of a task as it was
		if tasks := c.cluster.Tasks(); len(tasks) > 0 {
			task := tasks[c.rng.IntN(len(tasks))]
			c.handleInput(scheduler.Status{Status: &mesos.TaskStatus{
				TaskId: task.Info.GetTaskId(), AgentId: task.Info.GetAgentId(), Source: mesos.TaskStatus_SOURCE_MASTER.Enum(),
				Reason: mesos.TaskStatus_REASON_RECONCILIATION.Enum(), Timestamp: proto.Float64(1),
				State: []mesos.TaskState{mesos.TaskState_TASK_STAGING, mesos.TaskState_TASK_STARTING}[c.rng.IntN(2)].Enum(),
			}})
		}
	case n < 22: // a deployment is undone
		if running := c.s.View().Deployments(); len(running) > 0 {
			d := running[c.rng.IntN(len(running))]
			_, err := c.change(func(root *app.Group) (*app.Group, error) { return d.Plan.Revert(root), nil }, app.Change{}, true)
			if _, invalid := errors.AsType[*app.Invalid](err); err != nil && !invalid {
				c.t.Fatal(err)
			}
		}
	case n < 24:
		c.tell(func(s *scheduler.Scheduler) { s.ResetDelay(id) })
	case n < 26:
		now := c.now
		c.tell(func(s *scheduler.Scheduler) { s.LiftBrake(now) })
	case n < 29: // the store fails: nothing of the round is written, and another leader begins with what is there
		c.store.Fail(nil)
		c.crashIn = 0
	default: // everything that was said arrives twice
		c.cluster.Resend()
		c.cluster.Resend()
	}
}

// nextLeader starts a scheduler elsewhere, where the clock shows another time.
func (c *chaos) nextLeader() {
	c.cluster.Disconnect()
	c.now = c.now.Add(time.Duration(c.rng.IntN(20)) * time.Second)
	switch c.rng.IntN(6) {
	case 0:
		c.now = c.now.Add(time.Hour)
	case 1:
		c.now = c.now.Add(-time.Hour)
	}
	c.start()
	c.subscribe()
	c.pump()
}

// mangle is a bad way from the master: updates are lost, come twice, or in another order.
func (c *chaos) mangle(events []*call.Event) []*call.Event {
	var out []*call.Event
	for _, e := range events {
		n := c.rng.IntN(40)
		switch {
		case e.GetType() != call.Event_UPDATE:
			out = append(out, e)
		case n == 0 && len(e.GetUpdate().GetStatus().GetUuid()) > 0: // the agent will send it again; what the master says itself is not lost
		case n == 1:
			out = append(out, e, e)
		case n == 2 && len(out) > 0 && out[len(out)-1].GetType() == call.Event_UPDATE:
			out = slices.Insert(out, len(out)-1, e)
		default:
			out = append(out, e)
		}
	}
	return out
}

// cutOff ends sessions with calls that arrive, and with such that don't.
func (c *chaos) cutOff() (arrives, ends bool) {
	ends = c.rng.IntN(60) == 0
	return !ends || c.rng.IntN(2) == 0, ends
}

// probeAll reports a result of each check that is being made.
func (c *chaos) probeAll(alive bool) {
	var ids []app.InstanceID
	for id := range c.probes {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b app.InstanceID) int { return slices.Compare([]byte(a.String()), []byte(b.String())) })
	for _, id := range ids {
		c.handleInput(scheduler.HealthResult{Instance: id, TaskID: c.probes[id].Instance.TaskID, Alive: alive, Cause: "ill"})
	}
}

// picture describes what there is of an app, for whoever reads of a law that was broken.
func (c *chaos) picture(id app.PathID) string {
	var b strings.Builder
	if a := c.s.View().Root().App(id); a != nil {
		fmt.Fprintf(&b, "%s: %d wanted, version %s, configuration %s, upgrade %+v\n", id, a.Instances, a.Version, a.VersionInfo.LastConfigChangeAt, a.UpgradeStrategy)
	}
	if d := c.s.View().Deployment(c.s.View().DeploymentOf(id)); d != nil {
		fmt.Fprintf(&b, "deployment %s: step %d of %v\n", d.Plan.ID, d.Step, d.Plan.Steps)
	}
	for _, i := range c.s.View().Instances(id) {
		fmt.Fprintf(&b, "instance %s %d: %s, %s since %v, version %s on %q\n", i.ID, i.Incarnation, i.Goal, i.Condition, i.Since.Sub(begin), i.Version, i.AgentID)
	}
	for _, t := range c.cluster.Tasks() {
		if t.Info.GetName() == id.HostName() {
			fmt.Fprintf(&b, "task %s: %s, alive %v, %d updates, on %s\n", t.Info.GetTaskId().GetValue(), t.State, t.Alive, t.Pending, t.Info.GetAgentId().GetValue())
		}
	}
	return b.String()
}
