package master_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"starling/gossip/record"
	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
)

func mute(*nodeapi.Call) mastertest.Fault { return mastertest.Unreachable }

// site is a leader with n agents, and a framework that wants no offers.
func site(t *testing.T, n int) (*mastertest.Cluster, []*mastertest.Agent, *mastertest.Framework) {
	t.Helper()
	c, first := leading(t, nil)
	agents := []*mastertest.Agent{first}
	for i := 2; i <= n; i++ {
		agents = append(agents, c.AddAgent(i, "cpus:1;mem:64"))
	}
	f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
	f.Call(&scheduler.Call{Type: scheduler.Call_SUPPRESS.Enum()})
	synctest.Wait()
	return c, agents, f
}

// failures counts the agents that are given up within a time.
func failures(f *mastertest.Framework, within time.Duration) int {
	end := time.Now().Add(within)
	for n := 0; ; {
		event, err := f.Next(time.Until(end))
		if err != nil {
			return n
		}
		if event.GetType() == scheduler.Event_FAILURE {
			n++
		}
	}
}

// Three of five agents are killed at once, and the mesh finds out about the first only: none is given up, neither then nor
// when it knows of all. Once one is back, the others are.
func TestDeathsUnknownToMesh(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, agents, f := site(t, 5)
		for _, a := range agents[:3] {
			a.SetFault(mute)
		}
		c.Mesh.SetLiveness(time.Now(), agents[0].ID, record.Dead)
		if got := failures(f, time.Minute); got != 0 {
			t.Fatalf("%d agents given up while three do not answer", got)
		}
		c.Mesh.SetLiveness(time.Now(), agents[1].ID, record.Suspect)
		c.Mesh.SetLiveness(time.Now(), agents[2].ID, record.Suspect)
		c.Mesh.SetLiveness(time.Now(), agents[1].ID, record.Dead)
		c.Mesh.SetLiveness(time.Now(), agents[2].ID, record.Dead)
		if got := failures(f, time.Hour); got != 0 {
			t.Errorf("%d agents given up while three are dead", got)
		}
		agents[0].SetFault(nil)
		c.Mesh.SetLiveness(time.Now(), agents[0].ID, record.Alive)
		if got := failures(f, time.Minute); got != 2 {
			t.Errorf("%d agents given up in the end, want 2", got)
		}
	})
}

// What is silent for a while only costs that while.
func TestSilenceEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, agents, f := site(t, 5)
		for _, a := range agents[1:3] {
			a.SetFault(mute)
		}
		c.Mesh.SetLiveness(time.Now(), agents[0].ID, record.Dead)
		if got := failures(f, time.Minute); got != 0 {
			t.Fatalf("%d agents given up while three do not answer", got)
		}
		agents[1].SetFault(nil)
		if got := failures(f, 3*time.Second); got != 1 {
			t.Errorf("%d agents given up within 3s, want 1", got)
		}
	})
}

// A death that is one of few is believed soon, whether the others answer or one is silent.
func TestFewDeathsBelieved(t *testing.T) {
	patience := master.DefaultConfig().UnreachableAfter
	for name, test := range map[string]struct{ agents, silent int }{
		"one of five": {5, 0}, "one of five, one silent": {5, 1}, "one of three, which is no site": {3, 2}, "one of 300, 100 silent": {300, 100},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, agents, f := site(t, test.agents)
				for _, a := range agents[1 : 1+test.silent] {
					a.SetFault(mute)
				}
				c.Mesh.SetLiveness(time.Now(), agents[0].ID, record.Dead)
				if got := failures(f, patience-time.Millisecond); got != 0 {
					t.Errorf("%d agents given up early", got)
				}
				if got := failures(f, 2*time.Second); got != 1 {
					t.Errorf("%d agents given up, want 1", got)
				}
				asked := 0
				for _, a := range agents[1:] {
					for _, call := range a.Calls() {
						if len(call.GetDescribe().GetFrameworkIds()) > 0 {
							asked++
						}
					}
				}
				if asked > 100 {
					t.Errorf("%d agents were asked", asked)
				}
			})
		})
	}
}

// An agent that returns while the others are asked is not given up, and dies anew with all of its time.
func TestReturnDuringProbe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, agents, f := site(t, 5)
		release := make(chan struct{})
		agents[1].SetFault(func(*nodeapi.Call) mastertest.Fault {
			<-release
			return mastertest.None
		})
		c.Mesh.SetLiveness(time.Now(), agents[0].ID, record.Dead)
		time.Sleep(master.DefaultConfig().UnreachableAfter + time.Millisecond)
		c.Mesh.SetLiveness(time.Now(), agents[0].ID, record.Alive)
		synctest.Wait()
		c.Mesh.SetLiveness(time.Now(), agents[0].ID, record.Dead)
		synctest.Wait()
		close(release)
		if got := failures(f, 3*time.Second); got != 0 {
			t.Errorf("%d agents given up too early", got)
		}
		if got := failures(f, 3*time.Second); got != 1 {
			t.Errorf("%d agents given up, want 1", got)
		}
	})
}

// Many agents are judged by a sample.
func TestProbeSample(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, agents, f := site(t, 300)
		for _, a := range agents[100:] {
			a.SetFault(mute)
		}
		c.Mesh.SetLiveness(time.Now(), agents[0].ID, record.Dead)
		if got := failures(f, time.Minute); got != 0 {
			t.Errorf("%d agents given up while 200 of 300 do not answer", got)
		}
		if err := c.Master.CheckBooks(t.Context()); err != nil {
			t.Error(fmt.Errorf("books: %w", err))
		}
	})
}
