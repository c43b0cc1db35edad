package agent

import (
	"errors"
	"fmt"
	"time"

	"starling/agent/checkpoint"
	"starling/agent/containerizer"
	"starling/agent/executor"
	"starling/master/mesos"
)

// ErrGone is the end of Run of an agent that a leader has told that it is gone for good. Nothing of it runs any more, and the
// folder belongs to an agent with a new id by then: the caller begins anew.
var ErrGone = errors.New("this agent is gone for good")

// leaveGrace is the longest grace period of a task of an agent that is gone: it counts as ended already, and another one of it
// may be running.
const leaveGrace = 2 * time.Second

// shutdown ends everything that runs here, and tells nobody. An agent that is gone does not answer before that is on disk: from
// then on it will end everything and take a new id, however often it is started anew.
func (a *Agent) shutdown(gone bool, done func(error)) {
	switch {
	case !gone:
		a.forgetOperations(func(*mesos.Operation) bool { return true })
		a.dischargeAll(a.cfg.ShutdownGrace)
		done(nil)
	case a.leaving:
		done(nil)
	default:
		a.committer.Submit(checkpoint.PutGone(a.cfg.ID), func(err error) {
			a.post(func() {
				if err != nil {
					a.diskFails(err)
					done(fmt.Errorf("cannot remember to be gone: %w", err))
					return
				}
				if !a.leaving {
					a.leave()
				}
				done(nil)
			})
		})
	}
}

// leave ends everything, so that Run ends.
func (a *Agent) leave() {
	a.cfg.Log.Warn("this agent is gone for good: everything on it ends, and it takes another id", "agent_id", a.cfg.ID, "tasks", len(a.tasks))
	a.leaving = true
	a.changed.health = true
	a.forgetOperations(func(*mesos.Operation) bool { return true })
	a.dischargeAll(leaveGrace)
	a.endNestedIn("")
	for id := range a.orphans {
		a.endOrphan(id)
	}
}

// dischargeAll ends all tasks, with the grace period given at most: others may be running in their place.
func (a *Agent) dischargeAll(longest time.Duration) {
	for _, t := range a.tasks {
		a.discharge(t, func() executor.Step { return t.cmd.Drain(time.Now(), &longest, false) })
	}
	for _, r := range a.runIDs {
		a.dischargeRun(r, &longest)
	}
}

// discharge ends a task of which nobody is to be told any more.
func (a *Agent) discharge(t *task, end func() executor.Step) {
	t.forgotten = true
	a.streams.Remove(t.key)
	if t.cmd.Ended() {
		a.tidy(t)
		return
	}
	a.perform(t, end())
	a.save(t, nil)
}

// endOrphan ends a container that is no task of this agent, and must not become one of the next.
func (a *Agent) endOrphan(id string) {
	a.control.run(func() {
		ctx, cancel := a.workContext(controlTimeout)
		defer cancel()
		err := a.cfg.Containerizer.Destroy(ctx, id)
		a.post(func() {
			switch {
			case errors.Is(err, containerizer.ErrUnknownContainer):
				delete(a.orphans, id)
			case err != nil:
				a.cfg.Log.Warn("cannot destroy container", "container_id", id, "err", err)
				a.timers.at(time.Now().Add(retryDestroy), func() { a.endOrphan(id) })
			default:
				// Its exit comes through the channel.
			}
		})
	})
}

// left tells whether nothing is left of an agent that is gone.
func (a *Agent) left() bool {
	for _, n := range a.nested {
		if n.session == nil { // those end with what they are in
			return false
		}
	}
	return a.leaving && len(a.tasks) == 0 && len(a.runIDs) == 0 && len(a.orphans) == 0 && len(a.made.doc.GetPending()) == 0
}

// renew gives the folder to the agent that comes after this one. Nothing else writes there any more.
func (a *Agent) renew() error {
	id := a.cfg.NewID()
	if err := a.store.Renew(id); err != nil {
		return fmt.Errorf("cannot take another id: %w", err)
	}
	return fmt.Errorf("%w: %s becomes %s", ErrGone, a.cfg.ID, id)
}
