package scheduler

import (
	"encoding/json"
	"time"

	"starling/marathon/app"
	"starling/marathon/event"
)

// health is what the checks of one task have shown. It is not stored: after a restart the counting begins anew.
type health struct {
	task string
	// checks has an entry for each health check of the app; those that the agent runs stay without results here.
	checks []CheckState
	// ready is set once a readiness check has succeeded; it stays so.
	ready     bool
	readiness map[string]Readiness
	probed    bool
	// killed is why the task is killed for its health.
	killed string
	// combined is the last health that was published.
	combined *bool
}

// CheckState is the course of one health check.
type CheckState struct {
	FirstSuccess        time.Time
	LastSuccess         time.Time
	LastFailure         time.Time
	LastFailureCause    string
	ConsecutiveFailures int
}

// take enters a result.
func (c *CheckState) take(now time.Time, alive bool, cause string) {
	if !alive {
		c.LastFailure, c.LastFailureCause = now, cause
		c.ConsecutiveFailures++
		return
	}
	if c.FirstSuccess.IsZero() {
		c.FirstSuccess = now
	}
	c.LastSuccess, c.ConsecutiveFailures = now, 0
	if !c.LastSuccess.After(c.LastFailure) {
		c.LastFailure = c.LastSuccess.Add(-time.Nanosecond) // within one tick of the clock, the last one counts
	}
}

// Reported tells whether the check has had any result that counts.
func (c CheckState) Reported() bool { return !c.LastSuccess.IsZero() || !c.LastFailure.IsZero() }

// Alive tells whether the newest result was a success.
func (c CheckState) Alive() bool { return c.LastSuccess.After(c.LastFailure) }

// Readiness is the newest result of a readiness check.
type Readiness struct {
	Name  string
	Ready bool
	// Response is nil unless the app wants it kept.
	Response *Response
}

// healthOf returns the record of an instance's present task, making it where there is none.
func (s *Scheduler) healthOf(i *Instance, def *app.App) *health {
	h := s.health[i.ID]
	if h == nil || h.task != i.TaskID {
		h = &health{task: i.TaskID, checks: make([]CheckState, len(def.HealthChecks))}
		s.health[i.ID] = h
	}
	return h
}

// healthChanged looks at an instance that changed: it starts the checks of one that has begun to run, and takes in what the
// agent's own check says.
func (s *Scheduler) healthChanged(now time.Time, was, i *Instance) {
	def := s.spec(i.ID.App).definition(i.Version)
	if def == nil || i.Condition != Running {
		return
	}
	s.probe(i, def)
	if i.AgentHealthy != nil && (was.AgentHealthy == nil || *was.AgentHealthy != *i.AgentHealthy) {
		h := s.healthOf(i, def)
		for n, check := range def.HealthChecks {
			if check.Protocol.ByAgent() {
				if !*i.AgentHealthy {
					s.publishFailedCheck(i, check)
				}
				s.count(now, i, h, n, *i.AgentHealthy, "")
				break
			}
		}
	}
	s.publishHealth(i, def)
}

// remember takes in what the agent's own check has said before this process: it is told again only when it changes.
func (s *Scheduler) remember(now time.Time, i *Instance, def *app.App) {
	if i.AgentHealthy == nil {
		return
	}
	for n, check := range def.HealthChecks {
		if check.Protocol.ByAgent() {
			h := s.healthOf(i, def)
			h.checks[n].take(now, *i.AgentHealthy, "")
			h.combined = s.combined(i, def)
			return
		}
	}
}

// probe starts the checks that are run from here, where there are any.
func (s *Scheduler) probe(i *Instance, def *app.App) {
	if i.Goal != GoalRunning || !probed(def) {
		return
	}
	h := s.healthOf(i, def)
	if !h.probed {
		h.probed = true
		s.out.act(Probe{Instance: i, App: def})
	}
}

func (s *Scheduler) unprobe(i *Instance) {
	if h := s.health[i.ID]; h != nil && h.probed {
		h.probed = false
		s.out.act(Unprobe{Instance: i.ID})
	}
}

// probed tells whether an app has checks that are run from here.
func probed(def *app.App) bool {
	for _, c := range def.HealthChecks {
		if !c.Protocol.ByAgent() {
			return true
		}
	}
	return len(def.ReadinessChecks) > 0
}

// healthResult counts what a check from here has shown.
func (s *Scheduler) healthResult(now time.Time, in HealthResult) {
	i := s.instances[in.Instance]
	if i == nil || i.TaskID != in.TaskID || i.Condition != Running {
		return
	}
	def := s.spec(i.ID.App).definition(i.Version)
	if def == nil || in.Index < 0 || in.Index >= len(def.HealthChecks) {
		return
	}
	h := s.healthOf(i, def)
	check := def.HealthChecks[in.Index]
	state := h.checks[in.Index]
	grace := i.StartedAt.Add(time.Duration(check.GracePeriodSeconds) * time.Second)
	if !in.Alive && state.FirstSuccess.IsZero() && now.Before(grace) {
		return
	}
	if !in.Alive {
		s.publishFailedCheck(i, check)
		if limit := check.MaxConsecutiveFailures; limit > 0 && state.ConsecutiveFailures >= limit && h.killed == "" {
			h.killed = in.Cause
			s.publish(event.UnhealthyInstanceKill{
				AppID: string(i.ID.App), TaskID: i.TaskID, InstanceID: i.ID.String(), Version: i.Version.String(),
				Reason: in.Cause, Host: i.Host, AgentID: i.AgentID,
			})
			s.kill(now, i)
		}
	}
	s.count(now, i, h, in.Index, in.Alive, in.Cause)
	s.publishHealth(i, def)
}

// publishFailedCheck tells of a failure that counts.
func (s *Scheduler) publishFailedCheck(i *Instance, check app.HealthCheck) {
	s.publish(event.FailedHealthCheck{
		AppID: string(i.ID.App), TaskID: i.ID.String(), InstanceID: i.ID.String(), HealthCheck: checkJSON(check),
	})
}

// count adds one result to a check.
func (s *Scheduler) count(now time.Time, i *Instance, h *health, n int, alive bool, cause string) {
	state := &h.checks[n]
	was, reported := state.Alive(), state.Reported()
	state.take(now, alive, cause)
	if alive != was || !reported {
		s.publish(event.HealthStatusChanged{
			AppID: string(i.ID.App), InstanceID: i.ID.String(), TaskID: i.TaskID, Version: i.Version.String(), Alive: alive,
		})
		s.touch(i.ID.App)
	}
}

// combined is the health of an instance as a whole: nil while some check has no result yet.
func (s *Scheduler) combined(i *Instance, def *app.App) *bool {
	if def != nil && def.Pod != nil && i.Condition == Running {
		return i.AgentHealthy
	}
	yes, no := true, false
	if i.Condition != Running || def == nil || len(def.HealthChecks) == 0 {
		return nil
	}
	h := s.health[i.ID]
	if h == nil || h.task != i.TaskID {
		return nil
	}
	agentSeen := false
	unknown := false
	for n, check := range def.HealthChecks {
		if check.Protocol.ByAgent() {
			if agentSeen {
				continue // of several checks by the agent only the first is used
			}
			agentSeen = true
		}
		switch {
		case !h.checks[n].Reported():
			unknown = true
		case !h.checks[n].Alive():
			return &no
		}
	}
	if unknown {
		return nil
	}
	return &yes
}

func (s *Scheduler) publishHealth(i *Instance, def *app.App) {
	if len(def.HealthChecks) == 0 && (def.Pod == nil || !def.Pod.HealthChecked()) {
		return
	}
	h := s.healthOf(i, def)
	now := s.combined(i, def)
	if (now == nil) == (h.combined == nil) && (now == nil || *now == *h.combined) {
		return
	}
	h.combined = now
	s.publish(event.InstanceHealthChanged{
		InstanceID: i.ID.String(), AppID: string(i.ID.App), Healthy: now, Version: i.Version.String(),
	})
	s.touch(i.ID.App)
}

// healthy tells whether an instance runs and, if its app has health checks, is healthy.
func (s *Scheduler) healthy(i *Instance) bool {
	if i.Condition != Running {
		return false
	}
	def := s.spec(i.ID.App).definition(i.Version)
	if def != nil && def.Pod != nil {
		return i.podHealthy(def.Pod)
	}
	if def == nil || len(def.HealthChecks) == 0 {
		return true
	}
	combined := s.combined(i, def)
	return combined != nil && *combined
}

// arrived tells whether an instance is where a deployment wants it: healthy, and ready if the app can say so.
func (s *Scheduler) arrived(i *Instance) bool {
	if !s.healthy(i) {
		return false
	}
	def := s.spec(i.ID.App).definition(i.Version)
	if def == nil || len(def.ReadinessChecks) == 0 {
		return true
	}
	h := s.health[i.ID]
	return h != nil && h.task == i.TaskID && h.ready
}

// readinessResult takes in an answer to a readiness check.
func (s *Scheduler) readinessResult(in ReadinessResult) {
	i := s.instances[in.Instance]
	if i == nil || i.TaskID != in.TaskID || i.Condition != Running {
		return
	}
	def := s.spec(i.ID.App).definition(i.Version)
	if def == nil || len(def.ReadinessChecks) == 0 {
		return
	}
	h := s.healthOf(i, def)
	if h.readiness == nil {
		h.readiness = make(map[string]Readiness, 1)
	}
	result := Readiness{Name: in.Name, Ready: in.Ready}
	if def.ReadinessChecks[0].PreserveLastResponse {
		response := in.Response
		result.Response = &response
	}
	h.readiness[in.Name] = result
	if in.Ready && !h.ready {
		h.ready = true
		s.touch(i.ID.App)
	}
}

func checkJSON(check app.HealthCheck) json.RawMessage {
	data, err := json.Marshal(check)
	if err != nil {
		return json.RawMessage("{}") // a check holds nothing that can't be written
	}
	return data
}
