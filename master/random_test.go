package master_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/record"
	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
)

var seeds = flag.Uint64("seeds", 20, "how many random stories are told")

// chaos is one random story.
type chaos struct {
	t      *testing.T
	rng    *rand.Rand
	c      *mastertest.Cluster
	agents []*mastertest.Agent
	actors []*actor
	tasks  int
	named  int // operations and volumes
}

// actor is a framework in a random story.
type actor struct {
	*mastertest.Framework
	offers []*mesos.Offer
	tasks  []string
	role   string
	open   bool
}

// Whatever frameworks, agents and the network do, the books add up after each step, no task is started twice, and in the
// end all is free again.
func TestRandomStories(t *testing.T) {
	for seed := range *seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := &chaos{t: t, rng: rand.New(rand.NewPCG(seed, 1))}
				s.c = mastertest.Start(t, nil, func(cfg *master.Config) {
					cfg.OfferTimeout = time.Minute
					cfg.MaxStreamEvents = 100000
				})
				for n := range 3 {
					s.agents = append(s.agents, s.c.AddAgent(n, "cpus:4;mem:4096;disk:1000;ports:[31000-31009]"))
				}
				s.c.Elect()
				synctest.Wait()
				for step := range 200 {
					what := s.step()
					synctest.Wait()
					if err := s.c.Master.CheckBooks(t.Context()); err != nil {
						t.Fatalf("step %d, %s: %v", step, what, err)
					}
				}
				s.finish()
			})
		})
	}
}

func (s *chaos) step() string {
	a := s.agents[s.rng.IntN(len(s.agents))]
	switch s.rng.IntN(17) {
	case 0:
		if len(s.actors) < 4 {
			role := fmt.Sprint("r", len(s.actors)%2) // two of them share what one reserves
			info := mastertest.Info(fmt.Sprint("f", len(s.actors)), []string{role})
			info.FailoverTimeout = proto.Float64(float64(s.rng.IntN(100)))
			s.actors = append(s.actors, &actor{Framework: mastertest.Subscribe(s.t, s.c.Master, info), open: true, role: role})
		}
		return "subscribe"
	case 1:
		if x := s.actor(); x != nil {
			x.Stream.Close()
			x.open, x.offers = false, nil
		}
		return "leave"
	case 2:
		for _, x := range s.actors {
			if !x.open {
				s.resubscribe(x)
				break
			}
		}
		return "subscribe again"
	case 3:
		live := []record.Liveness{record.Alive, record.Alive, record.Suspect, record.Dead, record.Left}[s.rng.IntN(5)]
		s.c.Mesh.SetLiveness(time.Now(), a.ID, live)
		return "liveness"
	case 4:
		n, fault := s.rng.IntN(5), []mastertest.Fault{mastertest.Unreachable, mastertest.Silent, mastertest.Lost}[s.rng.IntN(3)]
		a.SetFault(func(*nodeapi.Call) mastertest.Fault {
			if n--; n >= 0 {
				return fault
			}
			return mastertest.None
		})
		return "fault"
	case 5:
		if s.rng.IntN(4) == 0 {
			if err := a.Restart(); err != nil {
				s.t.Fatal(err)
			}
		}
		return "restart"
	case 6:
		if s.rng.IntN(8) == 0 {
			s.c.Lose()
			synctest.Wait()
			s.c.Elect()
			for _, x := range s.actors {
				x.open, x.offers = false, nil
			}
		}
		return "election"
	case 7:
		time.Sleep(time.Duration(s.rng.IntN(20000)) * time.Millisecond)
		return "time"
	case 8:
		if x := s.actor(); x != nil && len(x.tasks) > 0 {
			for _, a := range s.agents {
				_ = a.Finish(s.t.Context(), x.ID, x.tasks[s.rng.IntN(len(x.tasks))], mesos.TaskState_TASK_FINISHED)
			}
		}
		return "finish"
	case 9:
		return s.operate()
	default:
		if x := s.actor(); x != nil {
			return s.act(x)
		}
	}
	return "nothing"
}

// operate changes the weight or the quota of a role.
func (s *chaos) operate() string {
	ctx, role := s.t.Context(), fmt.Sprint("r", s.rng.IntN(3))
	if s.rng.IntN(3) == 0 {
		weight := []*mesos.WeightInfo{{Role: proto.String(role), Weight: proto.Float64(float64(1 + s.rng.IntN(3)))}}
		if err := s.c.Master.UpdateWeights(ctx, weight); err != nil && !errors.Is(err, master.ErrNotLeading) {
			s.t.Error(err)
		}
		return "weight of " + role
	}
	config := role
	if s.rng.IntN(2) == 0 {
		config += fmt.Sprintf(" guarantees=cpus:%d;mem:%d", s.rng.IntN(5), s.rng.IntN(3000))
	}
	if s.rng.IntN(2) == 0 {
		config += fmt.Sprintf(" limits=cpus:%d", 5+s.rng.IntN(5))
	}
	if err := s.c.Master.UpdateQuota(ctx, quotas(s.t, config), true); err != nil && !errors.Is(err, master.ErrNotLeading) {
		s.t.Errorf("%s: %v", config, err)
	}
	return "quota " + config
}

// actor picks one with an open stream.
func (s *chaos) actor() *actor {
	if len(s.actors) == 0 {
		return nil
	}
	if x := s.actors[s.rng.IntN(len(s.actors))]; x.open {
		return x
	}
	return nil
}

func (s *chaos) resubscribe(x *actor) {
	f := mastertest.TrySubscribe(s.t, s.c.Master, x.Again())
	event, err := f.Next(time.Second)
	if err != nil {
		s.t.Fatal(err)
	}
	if event.GetType() == scheduler.Event_ERROR { // its time was over
		f = mastertest.Subscribe(s.t, s.c.Master, mastertest.Info("anew", []string{x.role}))
		x.tasks = nil
	}
	*x = actor{Framework: f, open: true, tasks: x.tasks, role: x.role}
}

// act has a framework read its events and do something.
func (s *chaos) act(x *actor) string {
	for {
		event, err := x.Next(time.Millisecond)
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				x.open = false
				return "stream ended"
			}
			break
		}
		switch event.GetType() {
		case scheduler.Event_OFFERS:
			x.offers = append(x.offers, event.GetOffers().GetOffers()...)
		case scheduler.Event_UPDATE_OPERATION_STATUS:
			if status := event.GetUpdateOperationStatus().GetStatus(); status.GetUuid() != nil && s.rng.IntN(10) > 0 {
				if x.TryCall(ackOperation(status)) != nil {
					x.open = false
					return "acknowledge refused"
				}
			}
		case scheduler.Event_UPDATE:
			if s.rng.IntN(10) > 0 {
				if x.TryCall(ack(event.GetUpdate().GetStatus())) != nil {
					x.open = false
					return "acknowledge refused"
				}
			}
		}
	}
	call, what := &scheduler.Call{}, "nothing"
	switch s.rng.IntN(9) {
	case 0:
		call.Type, what = scheduler.Call_REVIVE.Enum(), "revive"
	case 1:
		call.Type, what = scheduler.Call_SUPPRESS.Enum(), "suppress"
	case 2:
		if len(x.tasks) > 0 {
			what = "kill"
			call.Type = scheduler.Call_KILL.Enum()
			call.Kill = &scheduler.Call_Kill{TaskId: &mesos.TaskID{Value: proto.String(x.tasks[s.rng.IntN(len(x.tasks))])}}
		}
	case 3:
		what = "reconcile operations"
		call.Type, call.ReconcileOperations = scheduler.Call_RECONCILE_OPERATIONS.Enum(), &scheduler.Call_ReconcileOperations{}
	case 4:
		what = "reconcile"
		call.Type, call.Reconcile = scheduler.Call_RECONCILE.Enum(), &scheduler.Call_Reconcile{}
	default:
		if len(x.offers) > 0 {
			what = "accept"
			s.accept(x, call)
		}
	}
	if call.Type != nil && x.TryCall(call) != nil {
		x.open = false
	}
	return what
}

func ack(status *mesos.TaskStatus) *scheduler.Call {
	if len(status.GetUuid()) == 0 {
		return &scheduler.Call{Type: scheduler.Call_REQUEST.Enum(), Request: &scheduler.Call_Request{}}
	}
	return &scheduler.Call{Type: scheduler.Call_ACKNOWLEDGE.Enum(), Acknowledge: &scheduler.Call_Acknowledge{
		AgentId: status.GetAgentId(), TaskId: status.GetTaskId(), Uuid: status.GetUuid(),
	}}
}

// accept fills in an ACCEPT of one or more offers, good or bad, with tasks that fit or not.
func (s *chaos) accept(x *actor, call *scheduler.Call) {
	n := 1 + s.rng.IntN(min(2, len(x.offers)))
	used := x.offers[:n]
	x.offers = x.offers[n:]
	accept := &scheduler.Call_Accept{Filters: &mesos.Filters{RefuseSeconds: proto.Float64(float64(s.rng.IntN(10)))}}
	for _, o := range used {
		accept.OfferIds = append(accept.OfferIds, o.GetId())
	}
	launch := &mesos.Offer_Operation_Launch{}
	for range s.rng.IntN(4) {
		s.tasks++
		task := mastertest.Task(fmt.Sprint("t", s.tasks), fmt.Sprintf("cpus:%d;mem:%d", 1+s.rng.IntN(3), 32+s.rng.IntN(2000)))
		task.AgentId = used[0].GetAgentId()
		launch.TaskInfos = append(launch.TaskInfos, task)
		x.tasks = append(x.tasks, task.GetTaskId().GetValue())
	}
	op := &mesos.Offer_Operation{Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: launch}
	accept.Operations = append(s.operations(x, used, launch), op)
	call.Type, call.Accept = scheduler.Call_ACCEPT.Enum(), accept
}

// operations are some on reservations and volumes, good or bad; a task of the launch may want what they make.
func (s *chaos) operations(x *actor, used []*mesos.Offer, launch *mesos.Offer_Operation_Launch) []*mesos.Offer_Operation {
	var ops []*mesos.Offer_Operation
	for range s.rng.IntN(3) {
		s.named++
		id := ""
		if s.rng.IntN(2) == 0 {
			id = fmt.Sprint("op", s.named)
		}
		switch s.rng.IntN(6) {
		case 0:
			ops = append(ops, mastertest.Reserve(id, x.role, "", fmt.Sprintf("cpus:%d;mem:%d", 1+s.rng.IntN(3), 32+s.rng.IntN(1000))))
		case 1:
			ops = append(ops, mastertest.Reserve(id, x.role, "", "ports:[31000-31002]"), mastertest.Reserve("", x.role, "", "disk:100"))
		case 2, 3: // whatever of the offers is reserved, or a volume
			for _, r := range used[0].GetResources() {
				switch {
				case r.GetDisk().GetPersistence() != nil:
					ops = append(ops, mastertest.Destroy(id, r))
				case r.GetReservation() != nil:
					one := &mesos.Offer_Operation_Unreserve{Resources: []*mesos.Resource{r}}
					ops = append(ops, &mesos.Offer_Operation{Type: mesos.Offer_Operation_UNRESERVE.Enum(), Unreserve: one})
				}
			}
		default:
			volume := mastertest.Volume(fmt.Sprint("v", s.named), x.role, "", 100)
			ops = append(ops, mastertest.Reserve("", x.role, "", "disk:100"), mastertest.Create(id, volume))
			if len(launch.TaskInfos) > 0 && s.rng.IntN(2) == 0 {
				task := launch.TaskInfos[0]
				task.Resources = append(task.Resources, proto.CloneOf(volume))
			}
		}
	}
	return ops
}

func ackOperation(status *mesos.OperationStatus) *scheduler.Call {
	return &scheduler.Call{
		Type: scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS.Enum(),
		AcknowledgeOperationStatus: &scheduler.Call_AcknowledgeOperationStatus{
			AgentId: status.GetAgentId(), Uuid: status.GetUuid().GetValue(), OperationId: status.GetOperationId(),
		},
	}
}

// finish heals everything, tears all frameworks down, and finds all resources free.
func (s *chaos) finish() {
	for _, a := range s.agents {
		a.SetFault(nil)
		s.c.Mesh.SetLiveness(time.Now(), a.ID, record.Alive)
	}
	time.Sleep(2 * time.Minute) // repeated launches, questions and failovers come to their ends
	updateQuota(s.t, s.c.Master, "r0", "r1", "r2")
	view, err := s.c.Master.View(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range view.Frameworks {
		for n := range s.tasks {
			starts := 0
			for _, a := range s.agents {
				starts += a.Starts(f.Info.GetId().GetValue(), fmt.Sprint("t", n))
			}
			if starts > 1 {
				s.t.Errorf("task t%d of %s was started %d times", n, f.Info.GetId().GetValue(), starts)
			}
		}
		s.teardown(f.Info.GetId().GetValue())
	}
	time.Sleep(time.Minute)
	for _, a := range s.agents {
		if got := a.Tasks(); len(got) != 0 {
			s.t.Errorf("agent %s still runs %v", a.ID, got)
		}
	}
	for _, a := range s.agents {
		if got, want := a.Total().Base(), parse(s.t, "cpus:4;mem:4096;disk:1000;ports:[31000-31009]"); !got.Equal(want) {
			s.t.Errorf("operations made %v of the %v of agent %s", got, want, a.ID)
		}
		if _, err := a.Effects(); err != nil {
			s.t.Error(err)
		}
		if left := a.Unacknowledged(); len(left) > 0 {
			s.t.Errorf("agent %s still waits for acknowledgements of %v", a.ID, left)
		}
	}
	info := mastertest.Info("last", []string{"r0", "r1"}, multiRole)
	everything := &mesos.OfferFilters{MinAllocatableResources: &mesos.OfferFilters_MinAllocatableResources{}}
	info.OfferFilters = map[string]*mesos.OfferFilters{"r0": everything, "r1": everything}
	last := mastertest.Subscribe(s.t, s.c.Master, info)
	var offered []*mesos.Resource
	for {
		event, err := last.Next(10 * time.Second)
		if err != nil {
			break
		}
		for _, o := range event.GetOffers().GetOffers() {
			offered = append(offered, o.GetResources()...)
		}
	}
	if got, want := held(s.t, offered), "cpus:12;disk:3000;mem:12288"; got != want {
		s.t.Errorf("in the end %s are free, want %s", got, want)
	}
	if err := s.c.Master.CheckBooks(s.t.Context()); err != nil {
		s.t.Error(err)
	}
}

// teardown removes a framework, unless its failover timeout ends at the same moment.
func (s *chaos) teardown(id string) {
	err := s.c.Master.Teardown(s.t.Context(), id)
	if refusal, ok := errors.AsType[*master.Refusal](err); err != nil && (!ok || refusal.Text != "No framework found with specified ID") {
		s.t.Error(err)
	}
}
