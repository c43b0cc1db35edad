package agent

import (
	"strings"
	"time"

	"starling/agent/checkpoint"
	"starling/agent/containerizer"
)

// saveNested writes what is known of a container.
func (a *Agent) saveNested(n *nested) {
	a.committer.Submit(checkpoint.PutNested(a.nestedRecord(n)), func(err error) {
		a.post(func() {
			if err != nil {
				a.diskFails(err)
				a.cfg.Log.Error("cannot write checkpoint", "container_id", n.name, "err", err)
				a.timers.at(time.Now().Add(retrySave), func() {
					if a.nested[n.name] == n {
						a.saveNested(n)
					}
				})
				return
			}
			a.diskWorks()
			if n.exit != nil {
				a.control.run(func() { a.removeOrphan(n.name) })
			}
		})
	})
}

func (a *Agent) nestedRecord(n *nested) *checkpoint.Nested {
	r := &checkpoint.Nested{
		Sequence: n.sequence, ContainerId: n.id, Sandbox: n.sandbox, Pid: int64(n.pid), Terminal: n.terminal, User: n.user,
	}
	if !n.started.IsZero() {
		r.Started = n.started.UnixNano()
	}
	if e := n.exit; e != nil {
		r.Exit = &checkpoint.NestedExit{Known: e.Known, Status: int32(e.Status), Oom: e.OOM, Message: strings.ToValidUTF8(e.Message, "\uFFFD"), At: e.At.UnixNano()}
	}
	return r
}

// restoreNested makes the containers of an earlier life from what was on disk.
func (a *Agent) restoreNested(records []*checkpoint.Nested) {
	for _, r := range records {
		a.nestedSequence = max(a.nestedSequence, r.GetSequence())
		name, err := chain(r.GetContainerId())
		if err != nil || a.nested[name] != nil {
			a.committer.Submit(checkpoint.EndNested(r.GetSequence()), nil)
			continue
		}
		n := &nested{
			sequence: r.GetSequence(), id: r.GetContainerId(), name: name, sandbox: r.GetSandbox(), terminal: r.GetTerminal(), user: r.GetUser(),
			pid: int(r.GetPid()),
		}
		if r.GetStarted() != 0 {
			n.started = time.Unix(0, r.GetStarted())
		}
		if e := r.GetExit(); e != nil {
			n.exit = &containerizer.Exit{
				ID: name, Known: e.GetKnown(), Status: int(e.GetStatus()), OOM: e.GetOom(), Message: e.GetMessage(), At: time.Unix(0, e.GetAt()),
			}
		}
		a.nested[name] = n
	}
}

// recoverNested brings the containers that were launched over the API together with those that were found, which it takes out
// of the map; tasks and executors have been before.
func (a *Agent) recoverNested(found map[string]containerizer.Container) {
	for _, n := range a.nested {
		c, there := found[n.name]
		delete(found, n.name)
		switch {
		case n.exit != nil:
			if there {
				a.control.run(func() { a.removeOrphan(n.name) })
			}
		case !there && n.pid == 0:
			// Nothing was started, and nobody waits for it any more.
			a.forgetNested(n)
			continue
		case !there:
			a.endedNested(n, containerizer.Exit{ID: n.name, At: a.cfg.Now()})
		case c.Exit != nil:
			a.endedNested(n, *c.Exit)
		default:
			a.collector.Keep(n.name)
			a.bound(n.name, n.sandbox)
			n.pid, n.started = c.PID, c.Started
		}
	}
	for _, n := range a.nested {
		if outer := parentOf(n.name); outer != "" {
			if h, ok := a.find(outer); !ok || !h.running {
				a.endNested(outer)
			}
		}
	}
}
