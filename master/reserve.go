package master

import (
	"context"
	"errors"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/validation"
)

// Operate has an agent carry out an operation on reservations and volumes on an operator's behalf; principal is that of the
// operator, empty for none. What is offered of the resources is rescinded. A nil error means that the operation is on its
// way: what comes of it is seen in the agent's resources. Otherwise it is ErrNotLeading, ErrRecovering or a Refusal, of kind
// Conflict where the resources are in use.
func (m *Master) Operate(ctx context.Context, agent string, op *mesos.Offer_Operation, principal string) error {
	op = proto.CloneOf(op)
	op.Id = nil // operators get no feedback
	var err error
	if e := m.do(ctx, func() { err = m.operateFor(agent, op, principal) }); e != nil {
		return e
	}
	return err
}

func (m *Master) operateFor(agent string, op *mesos.Offer_Operation, principal string) error {
	if m.term == nil {
		return m.notLeading()
	}
	a := m.agents[agent]
	switch {
	case a == nil, a.node == nil, !a.unreachable.IsZero():
		return refuse(Invalid, "No agent found with specified ID")
	case !a.alive():
		return refuse(Conflict, "Agent %s is not connected", agent)
	}
	free, offered := m.alloc.Available(a.id), m.alloc.Offered(a.id)
	change, err := validation.Operation(op, validation.OperationContext{
		Principal: principal, Pool: free.Add(offered), Volumes: m.volumes(a), Used: m.inUse(a),
	})
	if err == nil || errors.As(err, new(*validation.Unavailable)) {
		// RESERVE has a text of its own for it, the others would only say that no such thing is there.
		if c, e := resources.Convert(op); e == nil && slices.ContainsFunc(c.Takes.Add(c.Gives).Allocations(), isRole) {
			return refuse(Invalid, "Invalid %s Operation: an operator's resources must not be allocated to a role", op.GetType())
		}
	}
	if unavailable, ok := errors.AsType[*validation.Unavailable](err); ok {
		return refuse(Conflict, "%s", unavailable)
	}
	if err != nil {
		return refuse(Invalid, "%s", err)
	}
	if op.GetType() == mesos.Offer_Operation_RESERVE {
		for _, role := range change.Gives.ReservedRoles() {
			if !m.cfg.whitelisted(role) {
				return refuse(Invalid, "Invalid RESERVE Operation: Role '%s' is not present in the master's --roles", role)
			}
		}
	}
	if err := m.rescindFor(a, change.Takes); err != nil {
		return err
	}
	m.sendOperation(a, &operation{agent: a.id, info: op, change: change, held: m.setAsideMade(a, change.Takes)})
	return nil
}

func isRole(allocation string) bool { return allocation != "" }

// rescindFor rescinds offers of an agent that have a part in need, the oldest first, until need is free.
func (m *Master) rescindFor(a *agent, need resources.Resources) error {
	for _, o := range slices.SortedFunc(maps.Values(a.offers), compareOffers) {
		lack := need.Sub(m.alloc.Available(a.id))
		if lack.Empty() {
			break
		}
		if !lack.Common(o.resources.Unallocated()).Empty() {
			m.rescind(o)
		}
	}
	if free := m.alloc.Available(a.id); !free.Contains(need) {
		return refuse(Conflict, "Offers could not be rescinded: %s does not contain %s", free, need)
	}
	return nil
}
