package master_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"starling/gossip/record"
	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/maintenance"
)

// decider is a random story in which operators decide about agents and machines beside all else.
type decider struct {
	chaos
	next int // the number of the next agent
	gone []*mastertest.Agent
}

// decide does one of the things that operators do, whether it makes sense or not.
func (s *decider) decide() string {
	m, ctx := s.c.Master, s.t.Context()
	i := s.rng.IntN(len(s.agents))
	a := s.agents[i]
	machine := []*mesos.MachineID{s.machine(a)}
	var err error
	var what string
	switch s.rng.IntN(8) {
	case 0:
		what = "drain"
		longest := time.Duration(s.rng.IntN(10)) * time.Second
		err = m.DrainAgent(ctx, a.ID, &longest, false)
	case 1:
		what, err = "deactivate", m.DeactivateAgent(ctx, a.ID)
	case 2, 3:
		what, err = "reactivate", m.ReactivateAgent(ctx, a.ID)
	case 4:
		what = "window"
		w := &maintenance.Window{Unavailability: unavailable(int64(s.rng.IntN(5)))}
		for _, other := range s.agents {
			if s.rng.IntN(2) == 0 {
				w.MachineIds = append(w.MachineIds, s.machine(other))
			}
		}
		schedule := &maintenance.Schedule{}
		if len(w.MachineIds) > 0 {
			schedule.Windows = append(schedule.Windows, w)
		}
		err = m.UpdateMaintenance(ctx, schedule)
	case 5:
		what, err = "down", m.StartMaintenance(ctx, machine)
	case 6:
		what, err = "up", m.StopMaintenance(ctx, machine)
	case 7:
		if s.rng.IntN(3) > 0 {
			return "nothing"
		}
		what = "gone"
		if err = m.MarkAgentGone(ctx, a.ID); err == nil {
			s.gone = append(s.gone, a)
			s.agents[i] = s.add()
		}
	}
	if _, refused := errors.AsType[*master.Refusal](err); err != nil && !refused && !errors.Is(err, master.ErrNotLeading) {
		s.t.Errorf("%s: %v", what, err)
	}
	return fmt.Sprintf("%s of %s: %v", what, a.ID, err)
}

func (s *decider) machine(a *mastertest.Agent) *mesos.MachineID {
	for n := range s.next {
		if a.Addr() == fmt.Sprintf("10.0.1.%d:5051", n) {
			return machineID(fmt.Sprintf("10.0.1.%d", n))
		}
	}
	return nil
}

func (s *decider) add() *mastertest.Agent {
	a := s.c.AddAgent(s.next, "cpus:4;mem:4096;disk:1000;ports:[31000-31009]")
	s.next++
	return a
}

// recall takes back all that was decided.
func (s *decider) recall() {
	m, ctx := s.c.Master, context.Background()
	for _, a := range append(s.gone, s.agents...) {
		a.SetFault(nil)
		s.c.Mesh.SetLiveness(time.Now(), a.ID, record.Alive)
	}
	status, err := m.MaintenanceStatus(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(status.GetDownMachines()) > 0 {
		if err := m.StopMaintenance(ctx, status.GetDownMachines()); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := m.UpdateMaintenance(ctx, &maintenance.Schedule{}); err != nil {
		s.t.Fatal(err)
	}
	// Whatever drains comes to its end: frameworks that acknowledge nothing are torn down.
	view, err := m.View(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range view.Frameworks {
		s.teardown(f.Info.GetId().GetValue())
	}
	time.Sleep(time.Minute)
	for _, a := range s.agents {
		err := m.ReactivateAgent(ctx, a.ID)
		if refusal, ok := errors.AsType[*master.Refusal](err); err != nil && (!ok || refusal.Text != "Agent is not deactivated") {
			s.t.Errorf("agent %s is still held: %v", a.ID, err)
		}
	}
	synctest.Wait()
	if left, err := s.c.Store.List(ctx, "agents/"); err != nil || len(left) > 0 {
		s.t.Errorf("documents are left of agents that nothing was decided about: %v, %v", left, err)
	}
	for _, a := range s.gone {
		if _, told := a.Draining(); !told || len(a.Tasks()) > 0 {
			s.t.Errorf("agent %s is gone; told %v, runs %v", a.ID, told, a.Tasks())
		}
	}
}

// Whatever operators decide in whatever order, under whichever leader, the books add up after each step, no agent is offered
// that is not to be, and once all is taken back all is free.
func TestRandomDecisions(t *testing.T) {
	for seed := range *seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := &decider{chaos: chaos{t: t, rng: rand.New(rand.NewPCG(seed, 2))}}
				s.c = mastertest.Start(t, nil, func(cfg *master.Config) {
					cfg.OfferTimeout = time.Minute
					cfg.MaxStreamEvents = 100000
				})
				for range 3 {
					s.agents = append(s.agents, s.add())
				}
				s.c.Elect()
				synctest.Wait()
				for step := range 300 {
					what := ""
					if s.rng.IntN(4) == 0 {
						what = s.decide()
					} else {
						what = s.step()
					}
					synctest.Wait()
					if err := s.c.Master.CheckBooks(t.Context()); err != nil {
						t.Fatalf("step %d, %s: %v", step, what, err)
					}
				}
				s.recall()
				s.finish()
			})
		})
	}
}
