package scheduler

import (
	"time"

	"starling/marathon/app"
	"starling/marathon/event"
	"starling/master/mesos"
)

// maxMessage is how much of a status message is kept, in bytes.
const maxMessage = 10000

// status takes in a status update. It is acknowledged in any case, after whatever it changed is stored.
func (s *Scheduler) status(now time.Time, status *mesos.TaskStatus) {
	taskID := status.GetTaskId().GetValue()
	delete(s.asked, taskID)
	s.sawAgent(now, status)
	if len(status.GetUuid()) > 0 {
		defer s.out.act(Acknowledge{TaskID: taskID, AgentID: status.GetAgentId().GetValue(), UUID: status.GetUuid()})
	}
	id, err := app.ParseTaskID(taskID)
	if err != nil {
		return // Not an id that any Marathon makes: somebody else uses this framework id. In doubt, leave it alone.
	}
	i := s.instances[id.Instance]
	if i == nil || !i.Has(taskID) {
		s.unknownTask(now, id, status)
		return
	}
	s.knownTask(now, i, status)
}

// unknownTask deals with a task that no instance has: one that was given up and came back, or an earlier launch. It is
// killed, unless what was stored could not all be read, or is older than the task: then it may well be one of ours.
func (s *Scheduler) unknownTask(now time.Time, id app.TaskID, status *mesos.TaskStatus) {
	condition := conditionOf(status)
	if condition.Terminal() || condition.unreachable() {
		s.dropOrphan(status.GetTaskId().GetValue(), id.Instance)
		delete(s.dismissed, status.GetTaskId().GetValue())
		s.publish(event.UnknownInstanceTerminated{
			InstanceID: id.Instance.String(), AppID: string(id.Instance.App), Condition: string(condition),
		})
		return
	}
	_, dismissed := s.dismissed[status.GetTaskId().GetValue()]
	switch sp := s.specs[id.Instance.App]; {
	case condition == Killing:
		return
	case !dismissed && (s.doubt || sp != nil && sp.quarantined || s.isLaterTask(id)):
		s.orphanOf(now, id, status)
		return
	}
	s.out.act(Kill{TaskID: status.GetTaskId().GetValue(), AgentID: status.GetAgentId().GetValue()})
}

func (s *Scheduler) knownTask(now time.Time, i *Instance, status *mesos.TaskStatus) {
	if i.Condition.Terminal() {
		return // it has ended, and only its place is kept
	}
	next := *i
	if agent := status.GetAgentId().GetValue(); agent != "" {
		next.AgentID = agent
	}
	condition, changed := next.take(now, status)
	if condition == Unreachable && i.Condition == UnreachableInactive {
		condition = UnreachableInactive
	}
	if condition != i.Condition {
		next.Condition, next.Since = condition, now
		changed = true
	}
	if !changed {
		return
	}
	s.publishStatus(&next, status)
	sp := s.spec(i.ID.App)
	def := sp.definition(i.Version)
	switch {
	case condition.Terminal():
		s.ended(now, sp, i, &next, status)
	case condition == Unreachable && i.Condition != Unreachable:
		next.UnreachableSince = now
		if t := status.GetUnreachableTime(); t.GetNanoseconds() > 0 {
			next.UnreachableSince = time.Unix(0, t.GetNanoseconds()).UTC()
		}
		s.put(&next)
		s.unprobe(&next)
		s.timers.set(timer{at: now, kind: timerUnreachable, instance: next.ID}) // when all losses of this round are known
	default:
		if !condition.unreachable() {
			next.UnreachableSince = time.Time{}
		}
		if condition == Running && i.Condition != Running && next.StartedAt.IsZero() {
			next.StartedAt = now
			s.returnToken()
		}
		s.put(&next)
		if condition != i.Condition && condition != Killing && !condition.unreachable() && def != nil {
			sp.backoff.progress(now)
		}
		s.healthChanged(now, i, &next)
		if i.Condition.unreachable() && next.Goal != GoalRunning {
			s.kill(now, &next)
		}
		s.containerChanged(now, i, &next, status)
	}
}

// applyStatus copies what a status says beyond the state, and tells whether anything of it is new.
func applyStatus(next *Instance, status *mesos.TaskStatus) bool {
	changed := false
	if status.Healthy != nil && (next.AgentHealthy == nil || *next.AgentHealthy != status.GetHealthy()) {
		healthy := status.GetHealthy()
		next.AgentHealthy, changed = &healthy, true
	}
	if addresses := addressesOf(status); len(addresses) > 0 && !equalAddresses(addresses, next.Addresses) {
		next.Addresses, changed = addresses, true
	}
	if check := checkOf(status); check != nil {
		next.Check, changed = check, true
	}
	next.Draining = next.Draining || drains(status)
	return changed
}

// drains tells that a status follows from the draining of its agent.
func drains(status *mesos.TaskStatus) bool {
	return status.Reason != nil && status.GetReason() == mesos.TaskStatus_REASON_AGENT_DRAINING
}

func addressesOf(status *mesos.TaskStatus) []Address {
	var addresses []Address
	for _, network := range status.GetContainerStatus().GetNetworkInfos() {
		addresses = append(addresses, addressesIn(network)...)
	}
	return addresses
}

func addressesIn(network *mesos.NetworkInfo) []Address {
	var addresses []Address
	for _, a := range network.GetIpAddresses() {
		if a.GetIpAddress() == "" {
			continue
		}
		protocol := "IPv4"
		if a.GetProtocol() == mesos.NetworkInfo_IPv6 {
			protocol = "IPv6"
		}
		addresses = append(addresses, Address{IP: a.GetIpAddress(), Protocol: protocol})
	}
	return addresses
}

func equalAddresses(a, b []Address) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func checkOf(status *mesos.TaskStatus) *CheckResult {
	check := status.GetCheckStatus()
	if check == nil {
		return nil
	}
	var result CheckResult
	switch {
	case check.GetHttp() != nil && check.GetHttp().StatusCode != nil:
		code := int(check.GetHttp().GetStatusCode())
		result.HTTPStatus = &code
	case check.GetTcp() != nil && check.GetTcp().Succeeded != nil:
		open := check.GetTcp().GetSucceeded()
		result.TCPOpen = &open
	case check.GetCommand() != nil && check.GetCommand().ExitCode != nil:
		code := int(check.GetCommand().GetExitCode())
		result.ExitCode = &code
	default:
		return nil
	}
	return &result
}

// ended takes note of the end of a task: the instance waits for another launch, or is forgotten.
func (s *Scheduler) ended(now time.Time, sp *spec, was, next *Instance, status *mesos.TaskStatus) {
	if was.StartedAt.IsZero() {
		s.returnToken()
	}
	def := sp.definition(was.Version)
	drained := was.Draining || next.Draining
	if !neverLaunched(was, status) {
		s.recordFailure(now, was, status)
		switch next.Condition {
		case Failed, Errored, Dropped, Gone, Finished:
			if def != nil && next.Goal == GoalRunning && !drained && !platformFault(status) {
				sp.backoff.fail(now, was.StagedAt, def)
			}
		}
	}
	if drained {
		sp.backoff.reset()
	}
	if status.GetState() == mesos.TaskState_TASK_GONE_BY_OPERATOR {
		next.Reservation = nil // it went with the agent
	}
	if next.Goal != GoalStopped || next.Reservation == nil {
		s.publishChange(next)
	}
	s.release(now, next)
}

// neverLaunched tells of a task that was stored, and that nobody has ever heard of when asked: the launch did not get
// through. That is no failure of the app.
func neverLaunched(was *Instance, status *mesos.TaskStatus) bool {
	return !was.heard() && status.Reason != nil && status.GetReason() == mesos.TaskStatus_REASON_RECONCILIATION
}

// release ends what there is of a task that is over, or was given up: the instance is launched again, or kept, or forgotten.
func (s *Scheduler) release(now time.Time, i *Instance) {
	s.dropTask(i)
	if i.Goal == GoalStopped && i.Reservation != nil {
		s.put(i)
		return
	}
	sp := s.spec(i.ID.App)
	if i.Goal != GoalRunning || sp.isDaemon() {
		sp.daemon.changed = now
		s.forget(i)
		return
	}
	fresh := i.withoutTask()
	fresh.Condition, fresh.Since = Scheduled, now
	s.put(fresh)
}

// recordFailure keeps the newest bad end of an app's tasks.
func (s *Scheduler) recordFailure(now time.Time, i *Instance, status *mesos.TaskStatus) {
	message := status.GetMessage()
	switch conditionOf(status) {
	case Failed, Errored, Gone, Dropped, Unknown:
	case Killed:
		h := s.health[i.ID]
		if h == nil || h.killed == "" {
			return
		}
		message = "Task was killed since health check failed. Reason: " + h.killed
	default:
		return
	}
	if sp := s.specs[i.ID.App]; sp == nil || sp.def == nil {
		return
	}
	f := &Failure{
		App: i.ID.App, Host: i.Host, Message: cut(message), State: status.GetState().String(), TaskID: status.GetTaskId().GetValue(),
		Timestamp: app.At(now), Version: i.Version, AgentID: i.AgentID,
	}
	if len(i.Containers) > 0 {
		f.StartedAt = app.At(i.StartedAt)
	}
	s.failures[i.ID.App] = f
	s.out.write(Write{Kind: KindFailure, Key: string(i.ID.App), Failure: f})
}

func (s *Scheduler) publishStatus(i *Instance, status *mesos.TaskStatus) {
	p := event.StatusUpdate{
		AgentID: i.AgentID, TaskID: status.GetTaskId().GetValue(), TaskStatus: status.GetState().String(), Message: cut(status.GetMessage()),
		AppID: string(i.ID.App), Host: i.Host, IPAddresses: []event.IPAddress{}, Ports: i.Ports, Version: i.Version.String(),
	}
	if p.Ports == nil {
		p.Ports = []int{}
	}
	for _, a := range i.Addresses {
		p.IPAddresses = append(p.IPAddresses, event.IPAddress{IPAddress: a.IP, Protocol: a.Protocol})
	}
	s.publish(p)
}

// cut shortens a message without breaking a character.
func cut(message string) string { return cutTo(message, maxMessage) }

func cutTo(message string, most int) string {
	if len(message) <= most {
		return message
	}
	end := most
	for end > 0 && message[end]&0xc0 == 0x80 {
		end--
	}
	return message[:end]
}
