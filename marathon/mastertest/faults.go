package mastertest

import "starling/master/mesos/scheduler"

// Rescind takes the outstanding offer of an agent back, as a master does that needs the resources for somebody else.
func (c *Cluster) Rescind(agentID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.agents[agentID]
	if a == nil || a.offer == nil || !c.connected {
		return
	}
	c.send(&scheduler.Event{Type: scheduler.Event_RESCIND.Enum(), Rescind: &scheduler.Event_Rescind{OfferId: a.offer.GetId()}})
	a.offer = nil
}

// AlwaysHealthy has the checks that agents make pass as soon as a task runs.
func (c *Cluster) AlwaysHealthy() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.well = true
}
