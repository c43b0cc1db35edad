package master_test

import (
	"fmt"
	"maps"
	"slices"
	"testing/synctest"

	"google.golang.org/protobuf/proto"

	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/scheduler"
	"starling/master/validation"
)

// act makes a call of any type, sensible or not.
func (p *player) act() string {
	switch n := p.s.rng.IntN(100); {
	case n < 35 && len(p.offers) > 0, n < 3:
		return p.accept()
	case n < 45:
		return p.decline()
	case n < 60:
		return p.acknowledge()
	case n < 68:
		return p.kill()
	case n < 76:
		return p.reviveOrSuppress()
	case n < 84:
		return p.reconcile()
	case n < 88:
		return p.updateFramework()
	case n < 90:
		return p.end()
	case n < 92:
		return p.foreignStream()
	case n < 95 && len(p.opAcks) > 0:
		p.do(ackOperation(p.opAcks[0]))
		p.opAcks = p.opAcks[1:]
		return p.ID + " acknowledges an operation"
	default:
		return p.idle()
	}
}

// do makes a call that has to be taken.
func (p *player) do(call *scheduler.Call) {
	p.s.t.Helper()
	if err := p.TryCall(call); err != nil {
		p.s.t.Errorf("%s of %s: %v", call.GetType(), p.ID, err)
	}
}

// offerID picks an offer that it holds, held, or that is another's, or none's.
func (p *player) offerID() string {
	if id := one(p.s, slices.Sorted(maps.Keys(p.offers))); id != "" && !p.s.chance(8) {
		return id
	}
	all := slices.Sorted(maps.Keys(p.s.offered))
	return one(p.s, append(all[max(0, len(all)-20):], append(p.stale[max(0, len(p.stale)-5):], "nothing")...))
}

// anyAgent picks an agent, or the id of none.
func (p *player) anyAgent() *mesos.AgentID {
	id := "nowhere"
	if a := one(p.s, p.s.agents); !p.s.chance(6) {
		id = a.ID
	}
	return &mesos.AgentID{Value: &id}
}

// anyTask picks a task of its own, or of another, or of nobody, and expects to hear of it.
func (p *player) anyTask() string {
	ids := slices.Sorted(maps.Keys(p.tasks))
	if len(ids) == 0 || p.s.chance(6) {
		ids = []string{"nothing"}
		for _, other := range p.s.players {
			ids = append(ids, slices.Sorted(maps.Keys(other.tasks))...)
		}
	}
	id := one(p.s, ids)
	p.asked[id] = true
	return id
}

// accept names one offer or several, valid or not, and launches what fits or not; then it knows which of them are gone.
func (p *player) accept() string {
	accept := &scheduler.Call_Accept{}
	if !p.s.chance(3) {
		accept.Filters = p.filters()
	}
	named := make(map[string]bool)
	agent := &mesos.AgentID{Value: proto.String("nowhere")}
	for range max(1, p.s.rng.IntN(12)-8) {
		id := p.offerID()
		accept.OfferIds = append(accept.OfferIds, &mesos.OfferID{Value: proto.String(id)})
		named[id] = true
		if o := p.offers[id]; o != nil {
			agent = o.GetAgentId()
		}
	}
	if p.s.chance(40) {
		accept.OfferIds, named = nil, nil
	}
	if p.s.chance(10) {
		agent = p.anyAgent()
	}
	accept.Operations = p.reservations(named)
	for range 1 + p.s.rng.IntN(3) {
		accept.Operations = append(accept.Operations, p.operation(agent))
	}
	for id := range named {
		if p.offers[id] != nil { // used, or given back because another was not valid
			delete(p.offers, id)
			p.stale = append(p.stale, id)
		}
	}
	p.do(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: accept})
	return fmt.Sprintf("%s accepts %d offers with %d operations", p.ID, len(accept.OfferIds), len(accept.Operations))
}

func (p *player) filters() *mesos.Filters {
	seconds := []float64{0, 0, 0, 0.1, 1, 5}
	if p.s.chance(20) {
		seconds = []float64{-1, 60, 1e9}
	}
	return &mesos.Filters{RefuseSeconds: proto.Float64(one(p.s, seconds))}
}

func (p *player) operation(agent *mesos.AgentID) *mesos.Offer_Operation {
	var op *mesos.Offer_Operation
	switch p.s.rng.IntN(5) {
	case 0:
		executor := p.executor()
		executor.Type, executor.Command = mesos.ExecutorInfo_DEFAULT.Enum(), nil
		group := &mesos.Offer_Operation_LaunchGroup{Executor: executor, TaskGroup: &mesos.TaskGroupInfo{}}
		for range 1 + p.s.rng.IntN(3) {
			group.TaskGroup.Tasks = append(group.TaskGroup.Tasks, p.task(agent))
		}
		op = &mesos.Offer_Operation{Type: mesos.Offer_Operation_LAUNCH_GROUP.Enum(), LaunchGroup: group}
	default:
		launch := &mesos.Offer_Operation_Launch{}
		for range p.s.rng.IntN(4) {
			task := p.task(agent)
			if p.s.chance(4) {
				task.Command, task.Executor = nil, p.executor()
			}
			launch.TaskInfos = append(launch.TaskInfos, task)
		}
		op = &mesos.Offer_Operation{Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: launch}
	}
	if p.s.chance(20) {
		op.Id = &mesos.OperationID{Value: proto.String("o")}
	}
	return op
}

// reservations are operations on reservations and volumes, now and then, on an agent that bears it.
func (p *player) reservations(offers map[string]bool) (ops []*mesos.Offer_Operation) {
	for _, id := range slices.Sorted(maps.Keys(offers)) {
		o := p.offers[id]
		if o == nil || !p.s.chance(3) || !slices.ContainsFunc(p.s.agents, func(a *mastertest.Agent) bool { return a.ID == o.GetAgentId().GetValue() && p.s.yielding(a) }) {
			continue
		}
		role := o.GetAllocationInfo().GetRole()
		if role == "" {
			role = p.info.GetRole()
		}
		p.s.tasks++
		name := fmt.Sprint("v", p.s.tasks)
		switch p.s.rng.IntN(3) {
		case 0:
			ops = append(ops, mastertest.Reserve(one(p.s, []string{"", name}), role, "", "cpus:1;mem:64"))
		case 1:
			ops = append(ops, mastertest.Reserve("", role, "", "disk:100"), mastertest.Create(name, mastertest.Volume(name, role, "", 100)))
		default:
			for _, r := range o.GetResources() {
				switch {
				case r.GetDisk().GetPersistence() != nil:
					ops = append(ops, mastertest.Destroy(name, r))
				case r.GetReservation() != nil || len(r.GetReservations()) > 0:
					one := &mesos.Offer_Operation_Unreserve{Resources: []*mesos.Resource{r}}
					ops = append(ops, &mesos.Offer_Operation{Type: mesos.Offer_Operation_UNRESERVE.Enum(), Unreserve: one})
				}
			}
		}
	}
	return ops
}

func (p *player) executor() *mesos.ExecutorInfo {
	e := &mesos.ExecutorInfo{
		ExecutorId: &mesos.ExecutorID{Value: proto.String(fmt.Sprint("e", p.s.rng.IntN(3)))}, Command: &mesos.CommandInfo{Value: proto.String("e")},
	}
	if p.s.chance(2) {
		e.Resources = mastertest.Task("", "cpus:0.1;mem:32;disk:1").GetResources()
	}
	return e
}

// task makes a task with a new id, or now and then with one that was used.
func (p *player) task(agent *mesos.AgentID) *mesos.TaskInfo {
	p.s.tasks++
	id := fmt.Sprint("t", p.s.tasks)
	res := fmt.Sprintf("cpus:%.1f;mem:%d", 0.1+p.s.rng.Float64(), 32+p.s.rng.IntN(500))
	if p.s.chance(4) {
		port := 31000 + p.s.rng.IntN(12)
		res += fmt.Sprintf(";ports:[%d-%d]", port, port+p.s.rng.IntN(2))
	}
	task := mastertest.Task(id, res)
	task.AgentId = agent
	p.tasks[id] = agent.GetValue()
	switch {
	case p.s.chance(30):
		task.Resources = nil
	case p.s.chance(10):
		used := one(p.s, slices.Sorted(maps.Keys(p.tasks)))
		if p.tasks[used] == agent.GetValue() && p.live[used] && !p.over[used] && !p.ended[used] {
			// It runs: this is a duplicate, which is refused.
			task.TaskId = &mesos.TaskID{Value: proto.String(used)}
		}
	}
	return task
}

func (p *player) decline() string {
	decline := &scheduler.Call_Decline{}
	if !p.s.chance(3) {
		decline.Filters = p.filters()
	}
	for range 1 + p.s.rng.IntN(3) {
		id := p.offerID()
		decline.OfferIds = append(decline.OfferIds, &mesos.OfferID{Value: proto.String(id)})
		if p.offers[id] != nil {
			delete(p.offers, id)
			p.stale = append(p.stale, id)
		}
	}
	p.do(&scheduler.Call{Type: scheduler.Call_DECLINE.Enum(), Decline: decline})
	return fmt.Sprintf("%s declines %d offers", p.ID, len(decline.OfferIds))
}

// acknowledge acknowledges the oldest update, or a later one, or one twice, or in the name of another task or agent.
func (p *player) acknowledge() string {
	if len(p.acks) == 0 {
		return "nothing"
	}
	ack, what := p.acks[0], "in order"
	switch p.s.rng.IntN(8) {
	case 0:
		ack, what = one(p.s, p.acks), "one that need not be the oldest"
	case 1:
		ack, what = proto.CloneOf(ack), "with another uuid"
		ack.Uuid = []byte("0123456789abcdef")
	case 2:
		ack, what = proto.CloneOf(ack), "for another agent"
		ack.AgentId = p.anyAgent()
	case 3:
		ack, what = proto.CloneOf(ack), "for another task"
		ack.TaskId = &mesos.TaskID{Value: proto.String(p.anyTask())}
	case 4:
		what = "for the first time"
	default:
		p.acks = p.acks[1:]
	}
	p.do(&scheduler.Call{Type: scheduler.Call_ACKNOWLEDGE.Enum(), Acknowledge: ack})
	return fmt.Sprint(p.ID, " acknowledges ", ack.GetTaskId().GetValue(), " ", what)
}

func (p *player) kill() string {
	kill := &scheduler.Call_Kill{TaskId: &mesos.TaskID{Value: proto.String(p.anyTask())}}
	if p.s.chance(2) {
		kill.AgentId = p.anyAgent()
	}
	p.ended[kill.GetTaskId().GetValue()] = true
	p.do(&scheduler.Call{Type: scheduler.Call_KILL.Enum(), Kill: kill})
	return fmt.Sprint(p.ID, " kills ", kill.GetTaskId().GetValue(), " on ", kill.GetAgentId().GetValue())
}

func (p *player) reviveOrSuppress() string {
	var roles []string
	if !p.s.chance(3) {
		roles = []string{p.s.role()}
	}
	if p.s.chance(5) {
		p.do(&scheduler.Call{Type: scheduler.Call_SUPPRESS.Enum(), Suppress: &scheduler.Call_Suppress{Roles: roles}})
		return fmt.Sprint(p.ID, " suppresses ", roles)
	}
	p.do(&scheduler.Call{Type: scheduler.Call_REVIVE.Enum(), Revive: &scheduler.Call_Revive{Roles: roles}})
	return fmt.Sprint(p.ID, " revives ", roles)
}

func (p *player) reconcile() string {
	if p.s.chance(4) {
		op := &scheduler.Call_ReconcileOperations_Operation{OperationId: &mesos.OperationID{Value: proto.String("o")}, AgentId: p.anyAgent()}
		p.do(&scheduler.Call{
			Type:                scheduler.Call_RECONCILE_OPERATIONS.Enum(),
			ReconcileOperations: &scheduler.Call_ReconcileOperations{Operations: []*scheduler.Call_ReconcileOperations_Operation{op}},
		})
		return p.ID + " reconciles operations"
	}
	r := &scheduler.Call_Reconcile{}
	for range p.s.rng.IntN(4) {
		asked := &scheduler.Call_Reconcile_Task{TaskId: &mesos.TaskID{Value: proto.String(p.anyTask())}}
		if p.s.chance(2) {
			asked.AgentId = p.anyAgent()
		}
		r.Tasks = append(r.Tasks, asked)
	}
	p.do(&scheduler.Call{Type: scheduler.Call_RECONCILE.Enum(), Reconcile: r})
	return fmt.Sprint(p.ID, " reconciles ", len(r.Tasks), " tasks")
}

// updateFramework changes roles; offers for those that it drops are rescinded before the call is answered.
func (p *player) updateFramework() string {
	info := p.Again()
	if validation.Has(info, multiRole) {
		info.Roles = p.s.roles()
	} else {
		info.Role = proto.String(p.s.role())
	}
	var suppressed []string
	if p.s.chance(4) {
		suppressed = validation.Roles(info)[:1]
	}
	if p.s.chance(6) {
		info.User = proto.String("another")
		p.refused(p.TryCall(updateCall(info, suppressed)), "Updating 'FrameworkInfo.user' is unsupported")
		return p.ID + " wants another user"
	}
	p.do(updateCall(info, suppressed))
	p.s.read() // what was offered before
	p.info = info
	p.SetInfo(info)
	return fmt.Sprint(p.ID, " changes its roles to ", validation.Roles(info))
}

func updateCall(info *mesos.FrameworkInfo, suppressed []string) *scheduler.Call {
	return &scheduler.Call{Type: scheduler.Call_UPDATE_FRAMEWORK.Enum(), UpdateFramework: &scheduler.Call_UpdateFramework{
		FrameworkInfo: info, SuppressedRoles: suppressed,
	}}
}

// end is the end of a framework, by itself or by an operator. Its id is over then.
func (p *player) end() string {
	if !p.s.chance(3) {
		return "nothing"
	}
	if p.s.chance(2) {
		p.s.must(p.s.c.Master.Teardown(p.s.t.Context(), p.ID))
	} else {
		p.do(&scheduler.Call{Type: scheduler.Call_TEARDOWN.Enum()})
	}
	synctest.Wait()
	p.removed = true
	p.s.read()
	if p.open {
		p.s.t.Errorf("the stream of %s goes on after its end", p.ID)
	}
	return "tear down " + p.ID
}

// foreignStream calls in the name of another, or with the id of another stream.
func (p *player) foreignStream() string {
	other := one(p.s, p.s.players)
	call := &scheduler.Call{Type: scheduler.Call_REVIVE.Enum(), FrameworkId: &mesos.FrameworkID{Value: proto.String(other.ID)}}
	err := p.Master.Call(p.s.t.Context(), call, p.Stream.ID(), "")
	switch {
	case other == p:
		p.s.must(err)
	case other.subscribed:
		p.refused(err, "didn't match the stream ID currently associated with framework ID "+other.ID)
	case err == nil:
		p.s.t.Errorf("%s revives %s, which is not subscribed", p.ID, other.ID)
	}
	return p.ID + " calls for " + other.ID
}

// idle are the calls that change nothing for anybody.
func (p *player) idle() string {
	executor := &mesos.ExecutorID{Value: proto.String(fmt.Sprint("e", p.s.rng.IntN(4)))}
	offers := []*mesos.OfferID{{Value: proto.String(one(p.s, append(slices.Sorted(maps.Keys(p.inverse)), p.offerID())))}}
	call := one(p.s, []*scheduler.Call{
		{Type: scheduler.Call_REQUEST.Enum(), Request: &scheduler.Call_Request{}},
		{Type: scheduler.Call_MESSAGE.Enum(), Message: &scheduler.Call_Message{AgentId: p.anyAgent(), ExecutorId: executor, Data: []byte{0}}},
		{Type: scheduler.Call_SHUTDOWN.Enum(), Shutdown: &scheduler.Call_Shutdown{AgentId: p.anyAgent(), ExecutorId: executor}},
		{Type: scheduler.Call_ACCEPT_INVERSE_OFFERS.Enum(), AcceptInverseOffers: &scheduler.Call_AcceptInverseOffers{InverseOfferIds: offers}},
		{Type: scheduler.Call_DECLINE_INVERSE_OFFERS.Enum(), DeclineInverseOffers: &scheduler.Call_DeclineInverseOffers{InverseOfferIds: offers}},
		{
			Type: scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS.Enum(), AcknowledgeOperationStatus: &scheduler.Call_AcknowledgeOperationStatus{
				AgentId: p.anyAgent(), OperationId: &mesos.OperationID{Value: proto.String("o")}, Uuid: []byte("0123456789abcdef"),
			},
		},
	})
	p.do(call)
	return p.ID + " calls " + call.GetType().String()
}
