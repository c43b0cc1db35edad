package agent

import (
	"context"
	"fmt"
	"time"

	"starling/agent/checkpoint"
	"starling/agent/status"
	"starling/master/mesos"
	"starling/master/nodeapi"
)

// epochs is what the agent knows of epochs. An order is obeyed only once its epoch is on disk: otherwise a crash could
// make the agent obey an older leader again.
type epochs struct {
	// obeyed is the highest that was accepted, durable the highest on disk.
	obeyed, durable uint64
	writing         bool
	// waiting are the calls of epochs that are not on disk yet, in order.
	waiting []*call
}

// call is one call of a leader under way.
type call struct {
	*nodeapi.Call
	// before is the version of the record when the call came, less where the answer has to tell more: the leader takes its copy
	// of the record for new once it is answered, and the answer that told of what was done before may have been lost.
	before uint64
	// answer takes one result; it has room for it.
	answer chan answer
}

type answer struct {
	reply *nodeapi.Reply
	err   error
}

// Call carries out a call of the leader and returns what to answer. The errors are those of package nodeapi; repeating a
// call does no harm. Before recovery is through it waits.
func (a *Agent) Call(ctx context.Context, c *nodeapi.Call) (*nodeapi.Reply, error) {
	p := &call{Call: c, answer: make(chan answer, 1)}
	select {
	case a.inbox <- func() { a.called(p) }:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-a.done:
		return nil, ErrStopped
	}
	select {
	case r := <-p.answer:
		return r.reply, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-a.done:
		return nil, ErrStopped
	}
}

// called judges a call by its epoch.
func (a *Agent) called(c *call) {
	a.counters.Calls++
	c.before = a.version()
	if c.GetAgentId() != a.cfg.ID {
		a.refuse(c, fmt.Errorf("%w: %q, this is %q", nodeapi.ErrWrongAgent, c.GetAgentId(), a.cfg.ID))
		return
	}
	if c.GetEpoch() < a.epoch.obeyed {
		a.counters.StaleCalls++
		a.refuse(c, &nodeapi.StaleEpochError{Known: a.epoch.obeyed})
		return
	}
	if c.GetEpoch() > a.epoch.obeyed {
		a.cfg.Log.Info("obeying a new leader", "epoch", c.GetEpoch(), "addr", c.GetLeader())
		a.epoch.obeyed = c.GetEpoch()
	}
	a.heardOf(leader{epoch: c.GetEpoch(), addr: c.GetLeader(), called: true})
	if c.GetEpoch() <= a.epoch.durable {
		a.obey(c)
		return
	}
	if len(a.epoch.waiting) >= waitingMax {
		a.refuse(c, fmt.Errorf("cannot remember epoch %d soon: %d calls wait for the disk", c.GetEpoch(), waitingMax))
		return
	}
	a.epoch.waiting = append(a.epoch.waiting, c)
	a.writeEpoch()
}

// waitingMax bounds the calls that wait for an epoch to be on disk; whoever called tries again.
const waitingMax = 1024

func (a *Agent) writeEpoch() {
	if a.epoch.writing {
		return
	}
	a.epoch.writing = true
	epoch := a.epoch.obeyed
	a.committer.Submit(checkpoint.PutEpoch(epoch), func(err error) { a.post(func() { a.epochWritten(epoch, err) }) })
}

func (a *Agent) epochWritten(epoch uint64, err error) {
	a.epoch.writing = false
	waiting := a.epoch.waiting
	a.epoch.waiting = nil
	if err != nil {
		a.diskFails(err)
		for _, c := range waiting {
			a.refuse(c, fmt.Errorf("cannot remember epoch %d: %w", epoch, err))
		}
		return
	}
	a.epoch.durable = max(a.epoch.durable, epoch)
	for _, c := range waiting {
		switch {
		case c.GetEpoch() < a.epoch.obeyed:
			a.counters.StaleCalls++
			a.refuse(c, &nodeapi.StaleEpochError{Known: a.epoch.obeyed})
		case c.GetEpoch() <= a.epoch.durable:
			a.obey(c)
		default:
			a.epoch.waiting = append(a.epoch.waiting, c)
		}
	}
	if len(a.epoch.waiting) > 0 {
		a.writeEpoch()
	}
}

// obey carries out a call.
func (a *Agent) obey(c *call) {
	switch k := c.GetCall().(type) {
	case *nodeapi.Call_Launch:
		// Answered once the intents are on disk.
		a.launch(k.Launch, func(known bool) {
			if known {
				c.before = 0
			}
			a.reply(c, &nodeapi.Reply{})
		})
		return
	case *nodeapi.Call_Kill:
		a.kill(keyOf(k.Kill), k.Kill.GetKillPolicy())
	case *nodeapi.Call_Acknowledge:
		a.acknowledge(keyOf(k.Acknowledge), status.UUID(k.Acknowledge.GetUuid()))
	case *nodeapi.Call_ShutdownExecutor:
		// A command executor's id is its task's. Without one of that id the executor is gone, which is what was asked for.
		key := status.Key{Framework: k.ShutdownExecutor.GetFrameworkId().GetValue(), Task: k.ShutdownExecutor.GetExecutorId().GetValue()}
		if r := a.runs[runKey{key.Framework, key.Task}]; r != nil {
			a.shutdownRun(r, nil)
		} else if t := a.tasks[key]; t != nil && t.run == nil {
			a.perform(t, t.cmd.Kill(time.Now(), nil))
		}
	case *nodeapi.Call_ShutdownFramework:
		a.shutdownFramework(k.ShutdownFramework.GetFrameworkId().GetValue())
	case *nodeapi.Call_Message:
		a.executorMessage(k.Message)
	case *nodeapi.Call_Describe:
		// The leader will take what its copy of the record lacks for what there is not.
		switch s := a.cfg.Mesh.Snapshot(a.cfg.ID); {
		case k.Describe.GetGeneration() == 0: // it does not say
		case s == nil || s.Generation() != k.Describe.GetGeneration():
			c.before = 0
		default:
			c.before = min(c.before, k.Describe.GetVersion())
		}
		a.reply(c, &nodeapi.Reply{Description: a.describe(k.Describe)})
		return
	case *nodeapi.Call_Drain:
		a.beginDrain(k.Drain, a.answered(c))
		return
	case *nodeapi.Call_Reactivate:
		a.endDrain(a.answered(c))
		return
	case *nodeapi.Call_Shutdown:
		a.shutdown(k.Shutdown.GetGone(), a.answered(c))
		return
	case *nodeapi.Call_Apply:
		// Answered once they are on disk.
		if a.knows(k.Apply) {
			c.before = 0
		}
		a.apply(k.Apply, func(done []*mesos.OperationStatus) { a.reply(c, &nodeapi.Reply{Operations: done}) })
		return
	case *nodeapi.Call_AcknowledgeOperation:
		a.acknowledgeOperation(k.AcknowledgeOperation)
	default:
		a.refuse(c, fmt.Errorf("%w: unknown kind of call", nodeapi.ErrMalformed))
		return
	}
	a.reply(c, &nodeapi.Reply{})
}

// reply answers a call at the end of this turn, when what it changed is published and so goes along.
func (a *Agent) reply(c *call, r *nodeapi.Reply) {
	a.answers = append(a.answers, func() {
		r.Delta = a.cfg.Mesh.Delta(c.before)
		c.answer <- answer{reply: r}
	})
}

// answered returns what answers a call once its outcome is known.
func (a *Agent) answered(c *call) func(error) {
	return func(err error) {
		if err != nil {
			a.refuse(c, err)
			return
		}
		a.reply(c, &nodeapi.Reply{})
	}
}

func (a *Agent) refuse(c *call, err error) {
	a.answers = append(a.answers, func() { c.answer <- answer{err: err} })
}

// version is that of the node's record now.
func (a *Agent) version() uint64 {
	if s := a.cfg.Mesh.Snapshot(a.cfg.ID); s != nil {
		return s.Version()
	}
	return 0
}
