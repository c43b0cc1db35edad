package agent

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"starling/master/mesos"
	"starling/master/nodeapi"
)

// Whatever a record of the mesh claims, the leader that calls is the one that hears of tasks, under the epoch that was obeyed.
func TestFalseClaimInTheMesh(t *testing.T) {
	const untrue, real = "10.9.9.9:5050", "127.0.0.1:5050"
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		side := &leaderSide{epoch: 3, arrived: make(chan struct{}, 1), silent: map[string]bool{untrue: true}}
		w := m.start(side)
		claim := func(epoch uint64) {
			w.agent.post(func() { w.agent.heardOf(leader{epoch: epoch, addr: untrue}) })
			synctest.Wait()
		}
		// asked returns where the agent reports to, once something has happened.
		asked := func(happens func()) []string {
			side.mu.Lock()
			side.asked = nil
			side.mu.Unlock()
			happens()
			time.Sleep(2 * time.Second)
			side.mu.Lock()
			defer side.mu.Unlock()
			return slices.Clone(side.asked)
		}
		claim(1 << 60)
		w.mustCall(&nodeapi.Call{Call: &nodeapi.Call_Describe{Describe: &nodeapi.Describe{}}})
		if got := asked(func() {
			w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32")))
			w.waitState("t1", mesos.TaskState_TASK_RUNNING)
		}); !slices.Equal(got, []string{real}) {
			t.Errorf("after a call the agent reports to %v", got)
		}
		if got := asked(func() { claim(3) }); len(got) != 0 {
			t.Errorf("a claim of the same epoch had the agent report to %v", got)
		}
		// One of a higher epoch may be right, and is tried; when it does not answer, the leader that called is.
		if got := asked(func() { claim(1 << 61) }); !slices.Equal(got, []string{untrue, real}) {
			t.Errorf("a claim of a higher epoch had the agent report to %v", got)
		}
		w.end()
		for _, r := range side.reports {
			if r.GetEpoch() > 3 {
				t.Errorf("a report tells of epoch %d, which was never obeyed", r.GetEpoch())
			}
		}
	})
}

// S18a: who holds the key of the mesh and claims a huge epoch in it, and takes what agents tell and keeps it, is obeyed by nobody, and
// the leader that calls hears of all, a little later.
func TestLiarInTheMeshThatKeepsReports(t *testing.T) {
	const liar, real = "10.9.9.9:5050", "127.0.0.1:5050"
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		side := &leaderSide{epoch: 3, arrived: make(chan struct{}, 1), acknowledge: true, swallows: map[string]bool{liar: true}}
		w := m.start(side)
		w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32")))
		w.waitState("t1", mesos.TaskState_TASK_RUNNING)
		w.wait("told of the start", func() bool { return len(w.told("t1")) == 2 })
		synctest.Wait()
		w.agent.post(func() { w.agent.heardOf(leader{epoch: 1 << 61, addr: liar}) })
		synctest.Wait()
		m.exit("t1", 0)
		begun := time.Now()
		w.wait("told of the end", func() bool { return len(w.told("t1")) == 3 })
		if took := time.Since(begun); took > 15*time.Second {
			t.Errorf("the leader was told after %v", took)
		}
		// An order of the epoch that was obeyed is obeyed still.
		w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t2", "cpus:1;mem:32")))
		w.waitState("t2", mesos.TaskState_TASK_RUNNING)
		w.end()
		if !slices.Contains(side.asked, liar) || !slices.Contains(side.asked, real) {
			t.Errorf("it reported to %v", side.asked)
		}
	})
}

// I9: calls that wait for the disk are bounded.
func TestCallsOfANewEpochDoNotPileUp(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	w.wait("ready", w.agent.Ready)
	answers := make(chan answer, waitingMax+2)
	err := w.agent.do(t.Context(), func() {
		w.agent.epoch.writing = true // and the disk does not answer
		for range waitingMax + 1 {
			c := &nodeapi.Call{Epoch: 7, Leader: "127.0.0.1:5050", AgentId: testAgent, Call: &nodeapi.Call_Describe{Describe: &nodeapi.Describe{}}}
			w.agent.called(&call{Call: c, answer: answers})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := <-answers; r.err == nil || !strings.Contains(r.err.Error(), "wait for the disk") {
		t.Errorf("the call too many: got %+v", r)
	}
	if err := w.agent.do(t.Context(), func() { w.agent.epochWritten(7, nil) }); err != nil {
		t.Fatal(err)
	}
	for range waitingMax {
		if r := <-answers; r.err != nil {
			t.Fatal(r.err)
		}
	}
}
