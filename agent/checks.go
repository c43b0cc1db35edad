package agent

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"starling/agent/check"
	"starling/agent/containerizer"
	"starling/agent/executor"
	"starling/agent/sandbox"
	"starling/master/mesos"
)

// checks is the checking of one task while it runs. The loop makes and ends it; results that come after that are dropped.
type checks struct {
	end context.CancelFunc
}

// checkChecks returns what is wrong with the checks of a task, in the words that Mesos has for it; empty for nothing.
func checkChecks(info *mesos.TaskInfo) string {
	var faults []string
	if h := info.GetHealthCheck(); h != nil {
		if _, err := check.Health(h); err != nil {
			faults = append(faults, "Task uses invalid health check: "+err.Error())
		}
	}
	if c := info.GetCheck(); c != nil {
		if _, err := check.General(c); err != nil {
			faults = append(faults, "Task uses invalid check: "+err.Error())
		}
	}
	return strings.Join(faults, "; ")
}

// startChecks begins to check a task that runs, if it asks for that.
func (a *Agent) startChecks(t *task) {
	if !t.cmd.Running() || t.checks != nil || t.info.GetHealthCheck() == nil && t.info.GetCheck() == nil {
		return
	}
	prober := a.prober(t)
	if a.cfg.SwitchUser {
		if name := executor.User(t.framework.info, t.info); name != "" {
			uid, gid, err := sandbox.Lookup(name)
			if err != nil {
				// The task was started as this user a moment ago. Its checks must not run as ours.
				a.cfg.Log.Warn("cannot check task as its user", "framework_id", t.key.Framework, "task_id", t.key.Task, "err", err)
				return
			}
			prober.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	ctx, end := context.WithCancel(a.work)
	t.checks = &checks{end: end}
	age := max(0, a.cfg.Now().Sub(t.started))
	if h := t.info.GetHealthCheck(); h != nil {
		if spec, err := check.Health(h); err == nil {
			judge := check.NewJudge(spec, time.Now().Add(-age), t.cmd.Health())
			a.check(ctx, t, spec, age, prober, func(r check.Result) { a.healthChecked(t, judge, r) })
		}
	}
	if c := t.info.GetCheck(); c != nil {
		if spec, err := check.General(c); err == nil {
			a.check(ctx, t, spec, age, prober, func(r check.Result) { a.perform(t, t.cmd.CheckResult(spec.Status(r))) })
		}
	}
}

// prober is what probes a task: in its network, and its commands in its container, with its limits and ended with it.
func (a *Agent) prober(t *task) *check.Prober {
	spec := a.specOf(t)
	p := &check.Prober{Env: spec.Env, Dir: t.sandbox, Plain: len(containerizer.Demands(spec.Container)) == 0 && len(t.networks) == 0}
	p.Exec = func(ctx context.Context, process containerizer.Process) (containerizer.Session, error) {
		return a.cfg.Containerizer.Exec(ctx, t.container, process)
	}
	if p.Plain {
		return p // in the node's network
	}
	if t.pid > 0 {
		p.Namespace = fmt.Sprintf("/proc/%d/ns/net", t.pid)
	}
	for _, network := range t.networks {
		for _, address := range network.GetIpAddresses() {
			if p.Address == "" {
				p.Address = address.GetIpAddress()
			}
		}
	}
	return p
}

// check runs one check; each result is taken on the loop, unless checking has ended by then.
func (a *Agent) check(ctx context.Context, t *task, spec check.Spec, age time.Duration, prober *check.Prober, take func(check.Result)) {
	mine := t.checks
	a.checking.Go(func() {
		check.Run(ctx, spec, age, prober.Probe, func(r check.Result) {
			a.post(func() {
				if t.checks == mine {
					take(r)
				}
			})
		})
	})
}

// healthChecked does what the result of a health check asks for.
func (a *Agent) healthChecked(t *task, judge *check.Judge, r check.Result) {
	now := time.Now()
	verdict := judge.Take(now, r.Healthy)
	if r.Err != nil {
		a.cfg.Log.Debug("health check failed", "framework_id", t.key.Framework, "task_id", t.key.Task, "err", r.Err)
	}
	if verdict.Tell {
		step := t.cmd.Checked(r.Healthy)
		if r.Err != nil && len(step.Statuses) > 0 {
			text := "Task is unhealthy: " + r.Err.Error()
			step.Statuses[0].Message = &text
		}
		a.perform(t, step)
	}
	if verdict.End {
		a.perform(t, t.cmd.Fail(now))
	}
}

// stopChecks ends the checking of a task.
func (a *Agent) stopChecks(t *task) {
	if t.checks != nil {
		t.checks.end()
		t.checks = nil
	}
}
