package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"starling/agent/checkpoint"
	"starling/agent/ledger"
	"starling/agent/sandbox"
	"starling/agent/status"
	"starling/gossip/catalog"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

const (
	// appliedMax is how many operations are remembered so that one that comes again is not carried out again. A leader has
	// one under way at a time, so those that may still come again are few.
	appliedMax = 256
	// pendingMax is how many ends of operations may wait for acknowledgements, and pendingSize how large they may be together,
	// in bytes, with the operations: all of them are written at each change, and are in one answer to the leader.
	pendingMax  = 1024
	pendingSize = 1 << 20
	// messageMax is how long what is said of an operation may be, in bytes.
	messageMax = 1 << 10
	// recordMax bounds the resources in the node's record, in bytes: they are one value, and other nodes of the mesh take none of
	// more than 64 KiB (record.Limits).
	recordMax = 60 << 10
)

// operation is one that is under way. While it is, the books have a holder for what it takes.
type operation struct {
	id        status.UUID
	framework string
	info      *mesos.Offer_Operation
	change    resources.Conversion
	// made are new volumes, destroyed those that end, both as resources without allocation.
	made, destroyed []*mesos.Resource
	// done are told what came of it.
	done []func(*mesos.OperationStatus)
}

func (o *operation) String() string { return uuid.UUID(o.id).String() }

func (o *operation) holder() ledger.Holder { return ledger.Holder{Operation: o.String()} }

// apply carries out operations, and calls done with what came of each.
func (a *Agent) apply(call *nodeapi.Apply, done func([]*mesos.OperationStatus)) {
	out := make([]*mesos.OperationStatus, len(call.GetOperations()))
	var next func(i int)
	next = func(i int) {
		if i == len(out) {
			done(out)
			return
		}
		a.operate(call.GetFrameworkId().GetValue(), status.UUID(call.GetUuids()[i]), call.GetOperations()[i], func(st *mesos.OperationStatus) {
			out[i] = st
			next(i + 1)
		})
	}
	next(0)
}

// knows tells whether some operations were begun before.
func (a *Agent) knows(call *nodeapi.Apply) bool {
	for i, id := range call.GetUuids() {
		if a.made.running[status.UUID(id)] != nil || a.applied(status.UUID(id), call.GetOperations()[i]) != nil {
			return true
		}
	}
	return false
}

// operate begins one operation, or finds that it is under way or was carried out before.
func (a *Agent) operate(framework string, id status.UUID, info *mesos.Offer_Operation, done func(*mesos.OperationStatus)) {
	if o := a.made.running[id]; o != nil {
		o.done = append(o.done, done)
		return
	}
	if st := a.applied(id, info); st != nil {
		done(st)
		return
	}
	o := &operation{id: id, framework: framework, info: info, done: []func(*mesos.OperationStatus){done}}
	a.made.running[id] = o
	if state, err := a.judge(o); err != nil {
		a.refuseOperation(o, state, err)
		return
	}
	now := a.cfg.Now()
	a.control.run(func() {
		kept, err := a.makeVolumes(o, now)
		a.post(func() {
			for _, path := range kept {
				a.cfg.Log.Warn("something lay where a new volume was to be", "operation", o.String(), "path", path)
				a.problem("kept "+path, fmt.Sprintf("what lay where a new persistent volume was to be is kept in %s: remove it by hand", path))
			}
			if err != nil {
				a.ledger.Release(o.holder())
				a.refuseOperation(o, mesos.OperationState_OPERATION_FAILED, err)
				return
			}
			a.carryOut(o)
		})
	})
}

// applied tells what came of an operation that has ended; nil for one that is not known.
func (a *Agent) applied(id status.UUID, info *mesos.Offer_Operation) *mesos.OperationStatus {
	for _, op := range a.made.doc.GetPending() {
		if string(op.GetUuid().GetValue()) == string(id[:]) {
			return op.GetLatestStatus()
		}
	}
	for _, old := range a.made.doc.GetApplied() {
		if string(old.GetUuid()) == string(id[:]) {
			st := a.operationStatus(info, mesos.OperationState(old.GetState()), old.GetMessage())
			if info.Id != nil {
				// Its status was told and acknowledged: nobody has to make up another.
				st.Uuid = &mesos.UUID{Value: id[:]}
			}
			return st
		}
	}
	return nil
}

// judge looks whether an operation can be carried out, and takes what it needs if so.
func (a *Agent) judge(o *operation) (mesos.OperationState, error) {
	invalid, dropped := mesos.OperationState_OPERATION_ERROR, mesos.OperationState_OPERATION_DROPPED
	switch {
	case a.leaving:
		return dropped, errors.New("Agent is gone")
	case a.draining != nil && o.framework != "":
		return dropped, errors.New("Agent is draining")
	}
	if o.info.Id != nil && a.pendingFull(o) {
		return dropped, errors.New("too many operations wait for acknowledgements on this agent")
	}
	change, err := resources.Convert(o.info)
	if err != nil {
		return invalid, fmt.Errorf("Invalid %s Operation: %w", o.info.GetType(), err)
	}
	o.change = change
	if err := a.judgeVolumes(o); err != nil {
		return invalid, err
	}
	size, err := recordSize(a.ledger.Total().Sub(change.Takes.Unallocated()).Add(change.Gives.Unallocated()))
	switch {
	case err != nil:
		return invalid, errors.New("Invalid resources: they contain text that is not UTF-8")
	case size > recordMax:
		return dropped, fmt.Errorf("the reservations of this agent would be larger than %d bytes", recordMax)
	}
	if err := a.ledger.Take(o.holder(), change.Takes); err != nil {
		return dropped, fmt.Errorf("Operation does not fit on this agent: %w", err)
	}
	return 0, nil
}

// pendingFull tells whether the end of one more operation cannot be kept until it is acknowledged.
func (a *Agent) pendingFull(o *operation) bool {
	size := proto.Size(o.info)
	for _, op := range a.made.doc.GetPending() {
		size += proto.Size(op)
	}
	return len(a.made.doc.GetPending()) >= pendingMax || size > pendingSize
}

// recordSize is how large resources are in the node's record, where each is told up to twice.
func recordSize(total resources.Resources) (int, error) {
	data, err := proto.Marshal(&catalog.Resources{Total: nodeapi.ResourcesToCatalog(total)})
	return 2 * len(data), err
}

// judgeVolumes finds the volumes that an operation makes and ends. One that only changes its size is neither.
func (a *Agent) judgeVolumes(o *operation) error {
	gone, come := o.change.Takes.Unallocated().Volumes().Proto(), o.change.Gives.Unallocated().Volumes().Proto()
	taken := map[string]bool{}
	for _, r := range slices.Concat(a.ledger.Total().Volumes().Proto(), a.made.unfit.Volumes().Proto()) {
		taken[a.folder(r)] = true
	}
	for _, other := range a.made.running {
		for _, r := range other.made {
			taken[a.folder(r)] = true
		}
	}
	before := map[string]bool{}
	for _, r := range gone {
		before[a.folder(r)] = true
		if !slices.ContainsFunc(come, func(c *mesos.Resource) bool { return a.folder(c) == a.folder(r) }) {
			o.destroyed = append(o.destroyed, r)
		}
	}
	for _, r := range come {
		switch name := a.folder(r); {
		case before[name]:
		case taken[name]:
			return fmt.Errorf("Persistence ID '%s' is not unique", r.GetDisk().GetPersistence().GetId())
		default:
			taken[name] = true
			o.made = append(o.made, r)
		}
	}
	return nil
}

// makeVolumes makes the folders of new volumes. It runs on a worker.
func (a *Agent) makeVolumes(o *operation, now time.Time) (kept []string, err error) {
	for _, r := range o.made {
		v, _, err := a.volume(r)
		if err != nil {
			return kept, err
		}
		moved, err := v.Make(now)
		if moved != "" {
			kept = append(kept, moved)
		}
		if err != nil {
			return kept, err
		}
	}
	return kept, nil
}

// carryOut writes what an operation does, and then does it.
func (a *Agent) carryOut(o *operation) {
	st := a.operationStatus(o.info, mesos.OperationState_OPERATION_FINISHED, "")
	st.ConvertedResources = o.change.Gives.Proto()
	pending := a.pend(o, st)
	a.edit(func(doc *checkpoint.Resources) {
		doc.Made = changeMade(doc.Made, o.change)
		// A folder that could not be taken out of the way then is a new volume's now, or was kept for it.
		doc.Destroyed = append(a.elsewhere(doc.Destroyed, o.made), o.destroyed...)
		note(doc, o, st, pending)
	}, func(err error) {
		if err != nil {
			a.ledger.Release(o.holder())
			a.conclude(o, a.operationStatus(o.info, mesos.OperationState_OPERATION_FAILED, fmt.Sprintf("cannot checkpoint the operation: %v", err)), nil)
			return
		}
		if len(o.destroyed) == 0 {
			a.finishOperation(o, st, pending)
			return
		}
		a.control.run(func() {
			err := a.discardVolumes(o)
			a.post(func() {
				if err != nil {
					a.destroyFailed(err)
				}
				a.finishOperation(o, st, pending)
			})
			if err == nil {
				a.removeVolumes(o)
			}
		})
	})
}

// finishOperation enters into the books what is on disk.
func (a *Agent) finishOperation(o *operation, st *mesos.OperationStatus, pending *mesos.Operation) {
	a.ledger.Release(o.holder())
	a.ledger.Convert(o.change.Takes, o.change.Gives)
	a.changed.resources = true
	a.cfg.Log.Info("operation carried out", "operation", o.String(), "kind", o.info.GetType().String(), "framework_id", o.framework,
		"takes", o.change.Takes.String(), "gives", o.change.Gives.String())
	a.conclude(o, st, pending)
}

func (o *operation) discarded(i int) string { return fmt.Sprintf("%s.%d", o, i) }

// discardVolumes takes destroyed volumes out of the way. It runs on a worker.
func (a *Agent) discardVolumes(o *operation) error {
	var faults []error
	for i, r := range o.destroyed {
		v, _, err := a.volume(r)
		if err == nil {
			err = v.Discard(o.discarded(i))
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// removeVolumes removes what discardVolumes took out of the way, which may take a while. It runs on a worker.
func (a *Agent) removeVolumes(o *operation) {
	for i, r := range o.destroyed {
		v, _, err := a.volume(r)
		if err == nil {
			err = sandbox.RemoveDiscarded(v.Root, o.discarded(i))
		}
		if err != nil {
			a.post(func() { a.destroyFailed(err) })
			return
		}
	}
	a.post(func() { a.forgetDestroyed(o.destroyed) })
}

// refuseOperation ends an operation that changes nothing.
func (a *Agent) refuseOperation(o *operation, state mesos.OperationState, why error) {
	a.cfg.Log.Warn("operation refused", "operation", o.String(), "kind", o.info.GetType().String(), "framework_id", o.framework, "reason", why)
	st := a.operationStatus(o.info, state, why.Error())
	if a.pendingFull(o) {
		a.conclude(o, st, nil)
		return
	}
	pending := a.pend(o, st)
	a.edit(func(doc *checkpoint.Resources) { note(doc, o, st, pending) }, func(err error) {
		if err != nil {
			st.Uuid = nil
			a.conclude(o, st, nil)
			return
		}
		a.conclude(o, st, pending)
	})
}

// operationStatus is what is told of an operation.
func (a *Agent) operationStatus(info *mesos.Offer_Operation, state mesos.OperationState, message string) *mesos.OperationStatus {
	st := &mesos.OperationStatus{OperationId: info.GetId(), State: state.Enum(), AgentId: &mesos.AgentID{Value: &a.cfg.ID}}
	if message != "" {
		// It names resources, which may be long, and is kept.
		st.Message = proto.String(strings.ToValidUTF8(message[:min(len(message), messageMax)], "\uFFFD"))
	}
	return st
}

// pend makes what is kept of an operation until its status is acknowledged; nil where nobody wants to hear of it.
func (a *Agent) pend(o *operation, st *mesos.OperationStatus) *mesos.Operation {
	if o.info.Id == nil || o.framework == "" {
		return nil
	}
	id := uuid.New()
	st.Uuid = &mesos.UUID{Value: id[:]}
	return &mesos.Operation{
		FrameworkId: &mesos.FrameworkID{Value: &o.framework}, AgentId: st.AgentId, Info: o.info, LatestStatus: st,
		Statuses: []*mesos.OperationStatus{st}, Uuid: &mesos.UUID{Value: o.id[:]},
	}
}

// note enters an operation into the document.
func note(doc *checkpoint.Resources, o *operation, st *mesos.OperationStatus, pending *mesos.Operation) {
	if pending != nil {
		doc.Pending = append(doc.Pending, pending)
	}
	doc.Applied = append(doc.Applied, &checkpoint.Applied{Uuid: o.id[:], State: int32(st.GetState()), Message: st.GetMessage()})
	if over := len(doc.Applied) - appliedMax; over > 0 {
		doc.Applied = doc.Applied[over:]
	}
}

// conclude tells what came of an operation: to the leader that waits, and to the framework where it wants to hear of it.
func (a *Agent) conclude(o *operation, st *mesos.OperationStatus, pending *mesos.Operation) {
	delete(a.made.running, o.id)
	a.counters.operation(st.GetState())
	if pending != nil {
		a.await(time.Now(), pending)
	}
	for _, done := range o.done {
		done(st)
	}
}

// acknowledgeOperation takes the word that a framework has seen the status of an operation.
func (a *Agent) acknowledgeOperation(ack *nodeapi.AcknowledgeOperation) {
	framework, id := ack.GetFrameworkId().GetValue(), ack.GetUuid()
	a.forgetOperations(func(op *mesos.Operation) bool {
		return op.GetFrameworkId().GetValue() == framework && string(op.GetLatestStatus().GetUuid().GetValue()) == string(id)
	})
}

// forgetOperations ends the statuses of operations that match: nobody is to be told of them any more.
func (a *Agent) forgetOperations(match func(*mesos.Operation) bool) {
	found := false
	for _, op := range a.made.doc.GetPending() {
		if match(op) {
			found = true
			a.made.updates.Remove(status.Key{Framework: op.GetFrameworkId().GetValue(), Task: string(op.GetUuid().GetValue())})
		}
	}
	if !found {
		return
	}
	a.edit(func(doc *checkpoint.Resources) { doc.Pending = slices.DeleteFunc(doc.Pending, match) }, func(error) {})
}
