package mastertest

import (
	"maps"
	"slices"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// roles are those of the framework.
func (c *Cluster) roles() []string {
	if c.info != nil && len(c.info.GetRoles()) > 0 {
		return c.info.GetRoles()
	}
	return []string{"*"}
}

// named are the roles that a call names, or all.
func (c *Cluster) named(roles []string) []string {
	if len(roles) > 0 {
		return roles
	}
	return c.roles()
}

// next is the role that is offered what is free on an agent: one that something is reserved for first.
func (c *Cluster) next(a *agent) (string, bool) {
	found, free := "", a.freeMade()
	for _, role := range c.roles() {
		if c.suppressed[role] || a.refused[role].After(c.now()) {
			continue
		}
		if !free.Empty() && !free.ReservedFor(role).Empty() {
			return role, true
		}
		if found == "" {
			found = role
		}
	}
	return found, found != ""
}

// freeMade is what is reserved on an agent and not used by a task.
func (a *agent) freeMade() resources.Resources {
	free := a.made
	if free.Empty() {
		return free
	}
	for _, r := range a.used() {
		free = free.Sub(madeOf(r))
	}
	return free
}

// madeOf is what a task or an executor uses of what is reserved.
func madeOf(info holder) resources.Resources {
	if !slices.ContainsFunc(info.GetResources(), func(r *mesos.Resource) bool { return r.Reservation != nil }) {
		return resources.Resources{}
	}
	all, err := resources.FromProto(info.GetResources())
	if err != nil {
		return resources.Resources{}
	}
	return all.Unallocated().Made()
}

// operate carries out an operation on reservations and volumes, if what it takes is there; nothing is said otherwise, as by a
// master that was not asked to.
func (c *Cluster) operate(a *agent, op *mesos.Offer_Operation) {
	change, err := resources.Convert(op)
	if err != nil {
		return // a launch, or nonsense
	}
	takes, gives := change.Takes.Unallocated(), change.Gives.Unallocated()
	if c.dropped > 0 {
		c.dropped--
		return
	}
	if op.GetType() == mesos.Offer_Operation_RESERVE {
		free, err := resources.FromProto(c.newOffer(a, "").GetResources())
		if err != nil || !free.Unallocated().Contains(takes) {
			return
		}
	} else if !a.freeMade().Contains(takes) {
		return
	}
	a.made = a.made.Sub(takes.Made()).Add(gives.Made())
	for _, v := range change.Gives.Volumes().Proto() {
		c.volumes[v.GetDisk().GetPersistence().GetId()] = a.ID
	}
	for _, v := range change.Takes.Volumes().Proto() {
		delete(c.volumes, v.GetDisk().GetPersistence().GetId())
	}
}

// DropOperations has the next n operations on reservations and volumes be lost.
func (c *Cluster) DropOperations(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropped = n
}

// Reserve reserves resources on an agent as somebody else would; they are in the form that frameworks are offered.
func (c *Cluster) Reserve(agentID string, rs []*mesos.Resource) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	made, err := resources.FromProto(rs)
	if err != nil {
		return err
	}
	a := c.agents[agentID]
	a.made = a.made.Add(made.Unallocated())
	for _, v := range made.Volumes().Proto() {
		c.volumes[v.GetDisk().GetPersistence().GetId()] = agentID
	}
	return nil
}

// Volumes are the persistence ids of the volumes that there are, with their agents.
func (c *Cluster) Volumes() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.volumes)
}

// Made is what is reserved on an agent, as text; nothing is "{}".
func (c *Cluster) Made(agentID string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.agents[agentID].made.String()
}
