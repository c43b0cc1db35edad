package mastertest

import (
	"fmt"
	"slices"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

// operations is what a simulated agent knows of operations on reservations and volumes.
type operations struct {
	ended   map[string]*mesos.OperationStatus // by uuid
	pending []*mesos.Operation                // not acknowledged yet, oldest first
	sent    map[string]bool                   // uuids of those that were reported under this epoch
	effects map[string]int                    // how often each had an effect
}

func newOperations() operations {
	return operations{ended: make(map[string]*mesos.OperationStatus), sent: make(map[string]bool), effects: make(map[string]int)}
}

// Total returns what the agent has, reservations and volumes included.
func (a *Agent) Total() resources.Resources {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total
}

// Effects returns how many operations changed the agent's resources, and an error if one did so twice.
func (a *Agent) Effects() (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, n := range a.ops.effects {
		if n > 1 {
			return 0, fmt.Errorf("operation %x was carried out %d times", id, n)
		}
	}
	return len(a.ops.effects), nil
}

// Unacknowledged returns the ids of the operations whose ends wait for an acknowledgement, oldest first.
func (a *Agent) Unacknowledged() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, op := range a.ops.pending {
		out = append(out, op.GetInfo().GetId().GetValue())
	}
	return out
}

// apply carries out operations. The lock is held.
func (a *Agent) apply(call *nodeapi.Apply) []*mesos.OperationStatus {
	var out []*mesos.OperationStatus
	for i, op := range call.GetOperations() {
		id := string(call.GetUuids()[i])
		if a.ops.ended[id] == nil {
			a.ops.ended[id] = a.operate(id, call.GetFrameworkId(), op)
		}
		out = append(out, a.ops.ended[id])
	}
	a.publish()
	return out
}

func (a *Agent) operate(id string, framework *mesos.FrameworkID, op *mesos.Offer_Operation) *mesos.OperationStatus {
	st := &mesos.OperationStatus{
		OperationId: op.GetId(), State: mesos.OperationState_OPERATION_FINISHED.Enum(), AgentId: &mesos.AgentID{Value: proto.String(a.ID)},
	}
	c, err := resources.Convert(op)
	if err == nil && !a.free().Contains(c.Takes.Unallocated()) {
		err = fmt.Errorf("%v does not contain %v", a.free(), c.Takes)
	}
	if err == nil {
		a.ops.effects[id]++
		a.total = a.total.Sub(c.Takes.Unallocated()).Add(c.Gives.Unallocated())
		st.ConvertedResources = c.Gives.Proto()
	} else {
		st.State, st.Message = mesos.OperationState_OPERATION_DROPPED.Enum(), proto.String(err.Error())
	}
	if op.Id != nil && framework != nil {
		statusID := uuid.New()
		st.Uuid = &mesos.UUID{Value: statusID[:]}
		a.ops.pending = append(a.ops.pending, &mesos.Operation{
			FrameworkId: framework, AgentId: st.AgentId, Info: op, LatestStatus: st, Uuid: &mesos.UUID{Value: []byte(id)},
		})
	}
	return st
}

// unsent returns the operations that have not been reported under this epoch. The lock is held.
func (a *Agent) unsent() []*mesos.Operation {
	var out []*mesos.Operation
	for _, op := range a.ops.pending {
		if id := string(op.GetUuid().GetValue()); !a.ops.sent[id] {
			a.ops.sent[id] = true
			out = append(out, op)
		}
	}
	return out
}

func (a *Agent) acknowledgeOperation(ack *nodeapi.AcknowledgeOperation) {
	a.ops.pending = slices.DeleteFunc(slices.Clone(a.ops.pending), func(op *mesos.Operation) bool {
		return string(op.GetLatestStatus().GetUuid().GetValue()) == string(ack.GetUuid())
	})
}

func (a *Agent) forgetOperations(framework string) {
	a.ops.pending = slices.DeleteFunc(slices.Clone(a.ops.pending), func(op *mesos.Operation) bool {
		return op.GetFrameworkId().GetValue() == framework
	})
}

// Reserve is an operation that reserves resources such as "cpus:1;mem:32" for a role, by a principal (empty for none). An
// empty id asks for no feedback.
func Reserve(id, role, principal, res string) *mesos.Offer_Operation {
	return withID(id, &mesos.Offer_Operation{
		Type: mesos.Offer_Operation_RESERVE.Enum(), Reserve: &mesos.Offer_Operation_Reserve{Resources: Reserved(role, principal, res)},
	})
}

// Unreserve is the end of such a reservation.
func Unreserve(id, role, principal, res string) *mesos.Offer_Operation {
	return withID(id, &mesos.Offer_Operation{
		Type: mesos.Offer_Operation_UNRESERVE.Enum(), Unreserve: &mesos.Offer_Operation_Unreserve{Resources: Reserved(role, principal, res)},
	})
}

// Create is an operation that makes a volume.
func Create(id string, volumes ...*mesos.Resource) *mesos.Offer_Operation {
	return withID(id, &mesos.Offer_Operation{
		Type: mesos.Offer_Operation_CREATE.Enum(), Create: &mesos.Offer_Operation_Create{Volumes: clones(volumes)},
	})
}

// Destroy is an operation that ends a volume.
func Destroy(id string, volumes ...*mesos.Resource) *mesos.Offer_Operation {
	return withID(id, &mesos.Offer_Operation{
		Type: mesos.Offer_Operation_DESTROY.Enum(), Destroy: &mesos.Offer_Operation_Destroy{Volumes: clones(volumes)},
	})
}

func clones(rs []*mesos.Resource) []*mesos.Resource {
	out := make([]*mesos.Resource, len(rs))
	for i, r := range rs {
		out[i] = proto.CloneOf(r)
	}
	return out
}

func withID(id string, op *mesos.Offer_Operation) *mesos.Offer_Operation {
	if id != "" {
		op.Id = &mesos.OperationID{Value: proto.String(id)}
	}
	return op
}

// Reserved is resources such as "cpus:1;mem:32", dynamically reserved for a role, in the refined format.
func Reserved(role, principal, res string) []*mesos.Resource {
	parsed, err := resources.Parse(res, resources.AnyRole)
	if err != nil {
		panic(err) // a mistake in the test
	}
	out := parsed.Proto()
	for _, r := range out {
		one := &mesos.Resource_ReservationInfo{Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: proto.String(role)}
		if principal != "" {
			one.Principal = proto.String(principal)
		}
		r.Reservations = []*mesos.Resource_ReservationInfo{one}
	}
	return out
}

// Volume is a persistent volume of so many MiB that tasks see at "data", on a disk that was reserved as Reserved does.
func Volume(id, role, principal string, size int) *mesos.Resource {
	v := Reserved(role, principal, fmt.Sprintf("disk:%d", size))[0]
	v.Disk = &mesos.Resource_DiskInfo{
		Persistence: &mesos.Resource_DiskInfo_Persistence{Id: proto.String(id)},
		Volume:      &mesos.Volume{Mode: mesos.Volume_RW.Enum(), ContainerPath: proto.String("data")},
	}
	if principal != "" {
		v.Disk.Persistence.Principal = proto.String(principal)
	}
	return v
}

// Take makes the agent use resources such as "cpus:1" for itself, without a word, until the function returned is called.
func (a *Agent) Take(res string) (giveBack func()) {
	parsed, err := resources.Parse(res, resources.AnyRole)
	if err != nil {
		panic(err) // a mistake in the test
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used[taskKey{"", res}] = parsed
	a.publish()
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.used, taskKey{"", res})
		a.publish()
	}
}
