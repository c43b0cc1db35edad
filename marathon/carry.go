package marathon

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/marathon/event"
	"starling/marathon/scheduler"
	"starling/marathon/state"
	"starling/master/mesos"
	call "starling/master/mesos/scheduler"
)

// carryOut does what the core has decided, in order. What is to be stored is stored before anything else happens, however
// long that takes; the error is the end of ctx, errFenced where another one leads, or ErrNotStored where it can't ever be
// stored.
func (m *Marathon) carryOut(ctx context.Context, decisions []scheduler.Decision, prober *prober) error {
	m.mu.RLock()
	st, session, framework, holds := m.state, m.session, m.core.View().FrameworkID(), m.holds
	m.mu.RUnlock()
	for _, d := range decisions {
		switch d := d.(type) {
		case scheduler.Persist:
			if err := m.persist(ctx, st, d.Writes); err != nil {
				return err
			}
		case scheduler.Publish:
			begun := time.Now()
			m.publish(d.Payload)
			if _, status := d.Payload.(event.StatusUpdate); status {
				m.registry.Timer(timerPublish).Observe(time.Since(begun))
			}
		case scheduler.Probe:
			prober.start(d)
		case scheduler.Unprobe:
			prober.stop(d.Instance)
		default:
			if err := holds(); err != nil {
				return fmt.Errorf("%w: %w", errFenced, err)
			}
			m.count(d)
			m.logReservations(d)
			if session != nil {
				session.send(m.callOf(d, framework))
			}
		}
	}
	return nil
}

// logReservations tells of what is reserved on agents and of what is destroyed there: data comes and goes with that.
func (m *Marathon) logReservations(d scheduler.Decision) {
	accept, ok := d.(scheduler.Accept)
	if !ok {
		return
	}
	for _, op := range accept.Prepare {
		for _, v := range op.GetCreate().GetVolumes() {
			m.log.Info("volume is created", "volume", v.GetDisk().GetPersistence().GetId(), "agent_id", accept.AgentID)
		}
		for _, v := range op.GetDestroy().GetVolumes() {
			m.log.Info("volume is destroyed", "volume", v.GetDisk().GetPersistence().GetId(), "agent_id", accept.AgentID)
		}
	}
}

// persist stores documents, trying again until it is done, unless the store has refused them for good: then the core is ahead
// of what is stored, and the term has to end.
func (m *Marathon) persist(ctx context.Context, st *state.State, writes []scheduler.Write) error {
	begun := time.Now()
	m.writing.Store(&begun)
	defer m.writing.Store(nil)
	transaction, err := st.Prepare(writes)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	pause := newPause(m.cfg)
	for {
		attempt, cancel := context.WithTimeout(ctx, m.cfg.StoreTimeout)
		err := st.Commit(attempt, transaction)
		cancel()
		switch {
		case err == nil:
			m.memory.noteWrites(writes)
			m.registry.Timer(timerWrite).Observe(time.Since(begun))
			if dropped, scan := transaction.Collected(); dropped > 0 { // old versions go with the write that makes them old
				m.registry.Counter(counterGC).Add(1)
				m.registry.Timer(timerScan).Observe(scan)
				m.registry.Timer(timerCompaction).Observe(time.Since(begun))
			}
			return nil
		case errors.Is(err, state.ErrUnfit):
			m.storeFailures.Add(1)
			return fmt.Errorf("%w: %w", ErrNotStored, err)
		case errors.Is(err, errFenced):
			return err
		case ctx.Err() != nil:
			return errors.Join(context.Cause(ctx), err)
		}
		m.storeFailures.Add(1)
		m.log.Error("cannot write the state; everything waits for it", "err", err)
		if !pause.wait(ctx) {
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// publish tells the world. An event that can't be encoded is a mistake of ours, and no reason to stop.
func (m *Marathon) publish(p event.Payload) {
	frame, err := event.Encode(m.cfg.Now(), p)
	if err != nil {
		m.log.Error("event can't be told", "err", err)
		return
	}
	m.events.Publish(frame)
	switch p := p.(type) {
	case event.DeploymentSuccess:
		m.log.Info("deployment done", "deployment_id", p.ID)
	case event.DeploymentFailed:
		m.log.Info("deployment cancelled", "deployment_id", p.ID)
		m.dismissed.Add(1)
	case event.ReplacementBrake:
		if p.Engaged {
			m.log.Error("most nodes seem dead: nothing unreachable is replaced until that changes", "lost", p.Lost, "agents", p.Agents)
		} else {
			m.log.Info("unreachable instances are replaced again", "lost", p.Lost, "agents", p.Agents)
		}
	case event.UnhealthyInstanceKill:
		m.log.Info("unhealthy task is killed", "app_id", p.AppID, "task_id", p.TaskID, "reason", p.Reason)
	}
}

// callOf makes the call to the master that a decision stands for.
func (m *Marathon) callOf(d scheduler.Decision, framework string) *call.Call {
	c := &call.Call{FrameworkId: &mesos.FrameworkID{Value: proto.String(framework)}}
	taskID := func(id string) *mesos.TaskID { return &mesos.TaskID{Value: proto.String(id)} }
	agentID := func(id string) *mesos.AgentID {
		if id == "" {
			return nil
		}
		return &mesos.AgentID{Value: proto.String(id)}
	}
	switch d := d.(type) {
	case scheduler.Accept:
		c.Type = call.Call_ACCEPT.Enum()
		c.Accept = &call.Call_Accept{
			OfferIds: []*mesos.OfferID{{Value: proto.String(d.OfferID)}}, Operations: d.Operations(),
			Filters: &mesos.Filters{RefuseSeconds: proto.Float64(d.Refuse.Seconds())},
		}
	case scheduler.Decline:
		c.Type = call.Call_DECLINE.Enum()
		c.Decline = &call.Call_Decline{Filters: &mesos.Filters{RefuseSeconds: proto.Float64(d.Refuse.Seconds())}}
		for _, id := range d.OfferIDs {
			c.Decline.OfferIds = append(c.Decline.OfferIds, &mesos.OfferID{Value: proto.String(id)})
		}
	case scheduler.Revive:
		c.Type, c.Revive = call.Call_REVIVE.Enum(), &call.Call_Revive{Roles: d.Roles}
	case scheduler.Suppress:
		c.Type, c.Suppress = call.Call_SUPPRESS.Enum(), &call.Call_Suppress{Roles: d.Roles}
	case scheduler.Subscription:
		c.Type = call.Call_UPDATE_FRAMEWORK.Enum()
		c.UpdateFramework = &call.Call_UpdateFramework{FrameworkInfo: m.frameworkInfo(framework, d.Roles)}
	case scheduler.Kill:
		c.Type, c.Kill = call.Call_KILL.Enum(), &call.Call_Kill{TaskId: taskID(d.TaskID), AgentId: agentID(d.AgentID)}
	case scheduler.Acknowledge:
		c.Type = call.Call_ACKNOWLEDGE.Enum()
		c.Acknowledge = &call.Call_Acknowledge{TaskId: taskID(d.TaskID), AgentId: &mesos.AgentID{Value: proto.String(d.AgentID)}, Uuid: d.UUID}
	case scheduler.Reconcile:
		c.Type, c.Reconcile = call.Call_RECONCILE.Enum(), &call.Call_Reconcile{}
		for _, task := range d.Tasks {
			c.Reconcile.Tasks = append(c.Reconcile.Tasks, &call.Call_Reconcile_Task{TaskId: taskID(task.TaskID), AgentId: agentID(task.AgentID)})
		}
	}
	return c
}

// frameworkInfo is how this framework presents itself.
func (m *Marathon) frameworkInfo(id string, roles []string) *mesos.FrameworkInfo {
	c := m.cfg
	webUI := c.WebUIURL
	if webUI == "" {
		webUI = c.URL()
	}
	info := &mesos.FrameworkInfo{
		User: proto.String(c.User), Name: proto.String(c.FrameworkName), Hostname: proto.String(c.Hostname),
		FailoverTimeout: proto.Float64(math.Max(0, c.FailoverTimeout.Seconds())), Checkpoint: proto.Bool(c.Checkpoint),
		Roles: roles, WebuiUrl: proto.String(webUI),
	}
	if id != "" {
		info.Id = &mesos.FrameworkID{Value: proto.String(id)}
	}
	if c.Principal != "" {
		info.Principal = proto.String(c.Principal)
	}
	capabilities := []mesos.FrameworkInfo_Capability_Type{
		mesos.FrameworkInfo_Capability_PARTITION_AWARE, mesos.FrameworkInfo_Capability_REGION_AWARE,
		mesos.FrameworkInfo_Capability_MULTI_ROLE,
	}
	if c.TaskKilling {
		capabilities = append(capabilities, mesos.FrameworkInfo_Capability_TASK_KILLING_STATE)
	}
	if c.GPUs {
		capabilities = append(capabilities, mesos.FrameworkInfo_Capability_GPU_RESOURCES)
	}
	for _, capability := range capabilities {
		info.Capabilities = append(info.Capabilities, &mesos.FrameworkInfo_Capability{Type: capability.Enum()})
	}
	return info
}
