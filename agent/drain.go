package agent

import (
	"fmt"
	"time"

	"starling/agent/checkpoint"
	"starling/master/nodeapi"
)

// beginDrain takes no tasks from now on and ends those that there are. done is called once that is on disk: an agent that is
// started anew goes on with it. Before, it holds for this life.
func (a *Agent) beginDrain(d *nodeapi.Drain, done func(error)) {
	started := a.cfg.Now().UnixNano()
	if a.draining != nil {
		started = a.draining.GetStarted()
	} else {
		a.cfg.Log.Info("draining", "tasks", len(a.tasks))
	}
	a.draining = &checkpoint.Drain{MaxGracePeriod: d.MaxGracePeriod, MarkGone: d.GetMarkGone(), Started: started}
	a.changed.health = true
	a.drainTasks()
	a.saveDrain(done)
}

// drainTasks ends all tasks for the drain; those that end already are left to it.
func (a *Agent) drainTasks() {
	var longest *time.Duration
	if a.draining.MaxGracePeriod != nil {
		longest = new(time.Duration(a.draining.GetMaxGracePeriod()))
	}
	for _, t := range a.tasks {
		a.perform(t, t.cmd.Drain(time.Now(), longest, a.draining.GetMarkGone()))
	}
}

// endDrain takes tasks again. done is called once that is on disk.
func (a *Agent) endDrain(done func(error)) {
	if a.draining != nil {
		a.cfg.Log.Info("draining no longer")
	}
	a.draining = nil
	a.changed.health = true
	a.saveDrain(done)
}

func (a *Agent) saveDrain(done func(error)) {
	a.committer.Submit(checkpoint.PutDrain(a.draining), func(err error) {
		a.post(func() {
			if err != nil {
				a.diskFails(err)
				err = fmt.Errorf("cannot remember the drain: %w", err)
			} else {
				a.diskWorks()
			}
			done(err)
		})
	})
}
