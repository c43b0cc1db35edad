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
}

// actor is a framework in a random story.
type actor struct {
	*mastertest.Framework
	offers []*mesos.Offer
	tasks  []string
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
					s.agents = append(s.agents, s.c.AddAgent(n, "cpus:4;mem:4096;ports:[31000-31009]"))
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
	switch s.rng.IntN(16) {
	case 0:
		if len(s.actors) < 4 {
			info := mastertest.Info(fmt.Sprint("f", len(s.actors)), nil)
			info.FailoverTimeout = proto.Float64(float64(s.rng.IntN(100)))
			s.actors = append(s.actors, &actor{Framework: mastertest.Subscribe(s.t, s.c.Master, info), open: true})
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
	default:
		if x := s.actor(); x != nil {
			return s.act(x)
		}
	}
	return "nothing"
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
		f = mastertest.Subscribe(s.t, s.c.Master, mastertest.Info("anew", nil))
		x.tasks = nil
	}
	*x = actor{Framework: f, open: true, tasks: x.tasks}
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
	switch s.rng.IntN(8) {
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
	accept.Operations = []*mesos.Offer_Operation{{Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: launch}}
	call.Type, call.Accept = scheduler.Call_ACCEPT.Enum(), accept
}

// finish heals everything, tears all frameworks down, and finds all resources free.
func (s *chaos) finish() {
	for _, a := range s.agents {
		a.SetFault(nil)
		s.c.Mesh.SetLiveness(time.Now(), a.ID, record.Alive)
	}
	time.Sleep(2 * time.Minute) // repeated launches, questions and failovers come to their ends
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
		if err := s.c.Master.Teardown(s.t.Context(), f.Info.GetId().GetValue()); err != nil {
			s.t.Error(err)
		}
	}
	time.Sleep(time.Minute)
	for _, a := range s.agents {
		if got := a.Tasks(); len(got) != 0 {
			s.t.Errorf("agent %s still runs %v", a.ID, got)
		}
	}
	last := mastertest.Subscribe(s.t, s.c.Master, mastertest.Info("last", nil))
	var offered []*mesos.Resource
	for n := 0; n < len(s.agents); {
		offers := last.Expect(scheduler.Event_OFFERS).GetOffers().GetOffers()
		for _, o := range offers {
			offered = append(offered, o.GetResources()...)
		}
		n += len(offers)
	}
	if got, want := held(s.t, offered), "cpus:12;mem:12288"; got != want {
		s.t.Errorf("in the end %s are free, want %s", got, want)
	}
	if err := s.c.Master.CheckBooks(s.t.Context()); err != nil {
		s.t.Error(err)
	}
}
