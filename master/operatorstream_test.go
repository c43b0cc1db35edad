package master_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"starling/gossip/record"
	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/scheduler"
)

// mirror is what a consumer makes of a stream: a copy of the state, from the snapshot on.
type mirror struct {
	t          *testing.T
	stream     *master.OperatorStream
	agents     map[string]bool
	frameworks map[string]*operator.Response_GetFrameworks_Framework
	tasks      map[string]mesos.TaskState
	seen       []operator.Event_Type
	beats      int
}

func mirrorOf(t *testing.T, m *master.Master) *mirror {
	t.Helper()
	s, err := m.SubscribeOperator(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	r := &mirror{
		t: t, stream: s, agents: make(map[string]bool), tasks: make(map[string]mesos.TaskState),
		frameworks: make(map[string]*operator.Response_GetFrameworks_Framework),
	}
	for _, a := range s.Snapshot.Agents {
		r.agents[a.Info.GetId().GetValue()] = true
	}
	for i := range s.Snapshot.Frameworks {
		f := &s.Snapshot.Frameworks[i]
		r.frameworks[f.Info.GetId().GetValue()] = f.Message()
	}
	maps.Copy(r.tasks, tasksIn(s.Snapshot))
	return r
}

func taskName(framework *mesos.FrameworkID, task *mesos.TaskID) string {
	return framework.GetValue() + " " + task.GetValue()
}

func tasksIn(v *master.View) map[string]mesos.TaskState {
	tasks := make(map[string]mesos.TaskState)
	for i := range v.Frameworks {
		for _, list := range []master.TaskList{v.Frameworks[i].Tasks, v.Frameworks[i].Unreachable} {
			for t := range list.All() {
				tasks[t.FrameworkID()+" "+t.ID()] = t.State
			}
		}
	}
	return tasks
}

func over(s mesos.TaskState) bool {
	switch s {
	case mesos.TaskState_TASK_STAGING, mesos.TaskState_TASK_STARTING, running, mesos.TaskState_TASK_KILLING, unreachable, lost:
		return false // a task may come back that is called lost to those who don't know unreachable ones
	}
	return true
}

// read takes up what is there, and returns the error that ends the stream; nil while it goes on.
func (r *mirror) read() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	for {
		e, err := r.stream.Next(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.Message.GetType() == operator.Event_HEARTBEAT {
			r.beats++
			continue
		}
		r.seen = append(r.seen, e.Message.GetType())
		r.apply(e.Message)
	}
}

func (r *mirror) apply(e *operator.Event) {
	r.t.Helper()
	wrong := func(what string) { r.t.Errorf("%s: %s", what, prototext.Format(e)) }
	switch e.GetType() {
	case operator.Event_AGENT_ADDED:
		id := e.GetAgentAdded().GetAgent().GetAgentInfo().GetId().GetValue()
		if r.agents[id] {
			wrong("agent added twice")
		}
		if !e.GetAgentAdded().GetAgent().GetActive() {
			wrong("agent added that is not active")
		}
		r.agents[id] = true
	case operator.Event_AGENT_REMOVED:
		id := e.GetAgentRemoved().GetAgentId().GetValue()
		if !r.agents[id] {
			wrong("unknown agent removed")
		}
		delete(r.agents, id)
	case operator.Event_FRAMEWORK_ADDED:
		f := e.GetFrameworkAdded().GetFramework()
		if r.frameworks[f.GetFrameworkInfo().GetId().GetValue()] != nil {
			wrong("framework added twice")
		}
		if len(f.GetOffers())+len(f.GetAllocatedResources())+len(f.GetOfferedResources()) > 0 {
			wrong("framework with lists that change too often")
		}
		r.frameworks[f.GetFrameworkInfo().GetId().GetValue()] = f
	case operator.Event_FRAMEWORK_UPDATED:
		f := e.GetFrameworkUpdated().GetFramework()
		if r.frameworks[f.GetFrameworkInfo().GetId().GetValue()] == nil {
			wrong("unknown framework updated")
		}
		r.frameworks[f.GetFrameworkInfo().GetId().GetValue()] = f
	case operator.Event_FRAMEWORK_REMOVED:
		id := e.GetFrameworkRemoved().GetFrameworkInfo().GetId().GetValue()
		if r.frameworks[id] == nil {
			wrong("unknown framework removed")
		}
		delete(r.frameworks, id)
	case operator.Event_TASK_ADDED:
		t := e.GetTaskAdded().GetTask()
		name := taskName(t.GetFrameworkId(), t.GetTaskId())
		if state, known := r.tasks[name]; known && !over(state) {
			wrong("task added twice")
		}
		if r.frameworks[t.GetFrameworkId().GetValue()] == nil {
			wrong("task of an unknown framework added")
		}
		r.tasks[name] = t.GetState()
	case operator.Event_TASK_UPDATED:
		u := e.GetTaskUpdated()
		name := taskName(u.GetFrameworkId(), u.GetStatus().GetTaskId())
		if _, known := r.tasks[name]; !known {
			wrong("unknown task updated")
		}
		r.tasks[name] = u.GetState()
	default:
		wrong("event of no known kind")
	}
}

// compare tells where the copy differs from the master's own view, once all is quiet.
func (r *mirror) compare(v *master.View) {
	r.t.Helper()
	agents := make(map[string]bool)
	for _, a := range v.Agents {
		agents[a.Info.GetId().GetValue()] = true
	}
	if !maps.Equal(agents, r.agents) {
		r.t.Errorf("agents: got %v, want %v", r.agents, agents)
	}
	var ids []string
	for i := range v.Frameworks {
		ids = append(ids, v.Frameworks[i].Info.GetId().GetValue())
	}
	if got := slices.Sorted(maps.Keys(r.frameworks)); !slices.Equal(got, ids) {
		r.t.Errorf("frameworks: got %v, want %v", got, ids)
	}
	tasks := tasksIn(v)
	for name, want := range tasks {
		if got, known := r.tasks[name]; !known || got != want {
			r.t.Errorf("task %s: got %s, want %s", name, got, want)
		}
	}
	for name, state := range r.tasks {
		if _, there := tasks[name]; !there && !over(state) {
			r.t.Errorf("task %s: got %s, and it is gone", name, state)
		}
	}
}

// The life of a task, as a consumer sees it: what is there comes in the snapshot, what happens comes as events, in order.
func TestOperatorStreamStory(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, func(cfg *master.Config) { cfg.UnreachableAfter = time.Second })
		early := mirrorOf(t, c.Master)
		if len(early.agents) != 1 {
			t.Fatalf("agents in the snapshot: got %v", early.agents)
		}
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil, aware))
		f.Launch(f.ExpectOffer(), 600, mastertest.Task("t", "cpus:1;mem:32"))
		f.ExpectUpdate("t", running)
		synctest.Wait()
		if err := early.read(); err != nil {
			t.Fatal(err)
		}
		want := []operator.Event_Type{operator.Event_FRAMEWORK_ADDED, operator.Event_TASK_ADDED, operator.Event_TASK_UPDATED}
		if !slices.Equal(early.seen, want) {
			t.Errorf("first events: got %v, want %v", early.seen, want)
		}
		if early.beats != 1 {
			t.Errorf("heartbeats: got %d, want one at once", early.beats)
		}
		late := mirrorOf(t, c.Master)
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
		time.Sleep(5 * time.Second)
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Alive)
		time.Sleep(5 * time.Second)
		stream := f.Stream
		again := mastertest.TrySubscribe(t, c.Master, f.Again())
		stream.Close()
		again.Expect(scheduler.Event_SUBSCRIBED)
		if err := c.Master.Teardown(t.Context(), f.ID); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for name, r := range map[string]*mirror{"early": early, "late": late} {
			if err := r.read(); err != nil {
				t.Fatal(err)
			}
			r.compare(view(t, c.Master))
			want := []operator.Event_Type{
				operator.Event_TASK_UPDATED, operator.Event_AGENT_REMOVED, operator.Event_AGENT_ADDED, operator.Event_TASK_UPDATED,
				operator.Event_FRAMEWORK_UPDATED, operator.Event_TASK_UPDATED, operator.Event_FRAMEWORK_REMOVED,
			}
			if got := r.seen[len(r.seen)-min(len(r.seen), len(want)):]; !slices.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", name, got, want)
			}
		}
	})
}

// Health updates are told even though the state stays; what repeats itself is not.
func TestOperatorStreamRepeats(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		f.Launch(f.ExpectOffer(), 600, mastertest.Task("t", "cpus:1;mem:32"))
		f.ExpectUpdate("t", running)
		synctest.Wait()
		r := mirrorOf(t, c.Master)
		for _, step := range []struct {
			reason mesos.TaskStatus_Reason
			told   bool
		}{
			{mesos.TaskStatus_REASON_TASK_HEALTH_CHECK_STATUS_UPDATED, true},
			{mesos.TaskStatus_REASON_TASK_CHECK_STATUS_UPDATED, true},
			{mesos.TaskStatus_REASON_RECONCILIATION, false},
		} {
			r.seen = nil
			if err := a.Update(t.Context(), f.ID, "t", running, func(s *mesos.TaskStatus) { s.Reason = step.reason.Enum() }); err != nil {
				t.Fatal(err)
			}
			f.ExpectUpdate("t", running)
			synctest.Wait()
			if err := r.read(); err != nil {
				t.Fatal(err)
			}
			if got := len(r.seen) == 1; got != step.told {
				t.Errorf("%s: got %v", step.reason, r.seen)
			}
		}
	})
}

// A state that only the agent's record tells, since the framework has not acknowledged an earlier one, is told all the
// same, a little later.
func TestOperatorStreamTellsRecords(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		f.Launch(f.ExpectOffer(), 600, mastertest.Task("t", "cpus:1;mem:32"))
		f.Expect(scheduler.Event_UPDATE) // and no acknowledgement
		r := mirrorOf(t, c.Master)
		if err := a.Finish(t.Context(), f.ID, "t", mesos.TaskState_TASK_FAILED); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if err := r.read(); err != nil {
			t.Fatal(err)
		}
		if got := r.tasks[f.ID+" t"]; got != mesos.TaskState_TASK_FAILED || len(r.seen) != 1 {
			t.Errorf("got %s after %v", got, r.seen)
		}
	})
}

// One more stream than there may be ends the oldest, a reader that sleeps is cut off, and the others go on; all end with
// the term.
func TestOperatorStreamEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, func(cfg *master.Config) { cfg.MaxOperatorStreams, cfg.MaxStreamEvents = 2, 4 })
		first, second := mirrorOf(t, c.Master), mirrorOf(t, c.Master)
		third := mirrorOf(t, c.Master)
		if err := first.read(); !errors.Is(err, io.EOF) {
			t.Errorf("the oldest of three: got %v, want the end", err)
		}
		for i := range 6 {
			mastertest.Subscribe(t, c.Master, mastertest.Info(fmt.Sprint("f", i), nil))
			time.Sleep(time.Second)
			if err := third.read(); err != nil {
				t.Fatal(err)
			}
		}
		if err := second.read(); !errors.Is(err, master.ErrSlowReader) {
			t.Errorf("a reader that sleeps: got %v", err)
		}
		if len(third.frameworks) != 6 {
			t.Errorf("one that reads: got %d frameworks", len(third.frameworks))
		}
		metrics, err := c.Master.Metrics(t.Context())
		if err != nil || metrics["master/operator_event_stream_subscribers"] != 1 {
			t.Errorf("streams: got %v, %v", metrics["master/operator_event_stream_subscribers"], err)
		}
		c.Lose()
		synctest.Wait()
		if err := third.read(); !errors.Is(err, io.EOF) {
			t.Errorf("after the term: got %v, want the end", err)
		}
		if _, err := c.Master.SubscribeOperator(t.Context()); !errors.Is(err, master.ErrNotLeading) {
			t.Errorf("a new one after the term: got %v", err)
		}
	})
}

// Whatever happens, and whenever one begins to listen: snapshot and events together are the state.
func TestOperatorStreamLaw(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { bubble(t, func(t *testing.T) { operatorStreamLaw(t, seed) }) })
	}
}

func operatorStreamLaw(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	c, first := leading(t, func(cfg *master.Config) { cfg.UnreachableAfter = time.Second })
	agents := []*mastertest.Agent{first}
	for n := 2; n <= 3; n++ {
		agents = append(agents, c.AddAgent(n, "cpus:8;mem:8192"))
	}
	var frameworks []*mastertest.Framework
	var mirrors []*mirror
	serial := 0
	for range 60 {
		switch rng.IntN(9) {
		case 0:
			if len(mirrors) < 5 {
				mirrors = append(mirrors, mirrorOf(t, c.Master))
			}
		case 1:
			if len(frameworks) < 4 {
				info := mastertest.Info(fmt.Sprint("f", serial), nil)
				info.FailoverTimeout = proto.Float64(1000)
				frameworks = append(frameworks, mastertest.Subscribe(t, c.Master, info))
			}
		case 2:
			a := agents[rng.IntN(len(agents))]
			c.Mesh.SetLiveness(time.Now(), a.ID, []record.Liveness{record.Dead, record.Alive, record.Alive, record.Left}[rng.IntN(4)])
		case 3:
			if err := agents[rng.IntN(len(agents))].Restart(); err != nil {
				t.Fatal(err)
			}
		case 4:
			if len(frameworks) > 0 {
				i := rng.IntN(len(frameworks))
				if rng.IntN(3) > 0 {
					old := frameworks[i]
					frameworks[i] = mastertest.Subscribe(t, c.Master, old.Again())
					old.Stream.Close()
				} else {
					if err := c.Master.Teardown(t.Context(), frameworks[i].ID); err != nil {
						t.Fatal(err)
					}
					frameworks = slices.Delete(frameworks, i, i+1)
				}
			}
		case 5:
			a := agents[rng.IntN(len(agents))]
			if len(frameworks) > 0 && len(a.Tasks()) > 0 {
				f := frameworks[rng.IntN(len(frameworks))]
				ids := a.Tasks()
				_ = a.Finish(t.Context(), f.ID, ids[rng.IntN(len(ids))], mesos.TaskState_TASK_FAILED) // not its own: nothing happens
			}
		default:
			time.Sleep(time.Duration(rng.IntN(2000)) * time.Millisecond)
		}
		synctest.Wait()
		for _, f := range frameworks {
			for {
				e, err := f.Next(time.Millisecond)
				if err != nil {
					break
				}
				switch e.GetType() {
				case scheduler.Event_OFFERS:
					for _, offer := range e.GetOffers().GetOffers() {
						serial++
						call := &scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
							OfferIds: []*mesos.OfferID{offer.GetId()}, Filters: &mesos.Filters{RefuseSeconds: proto.Float64(3)},
							Operations: []*mesos.Offer_Operation{{
								Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: &mesos.Offer_Operation_Launch{TaskInfos: []*mesos.TaskInfo{onAgent(
									mastertest.Task(fmt.Sprint("t", serial), "cpus:0.1;mem:32"), offer.GetAgentId())}},
							}},
						}}
						_ = f.TryCall(call)
					}
				case scheduler.Event_UPDATE:
					if rng.IntN(4) > 0 {
						f.Acknowledge(e.GetUpdate().GetStatus())
					}
				}
			}
		}
		for _, r := range mirrors {
			if err := r.read(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, a := range agents {
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Alive)
	}
	time.Sleep(10 * time.Second)
	synctest.Wait()
	v := view(t, c.Master)
	for _, r := range mirrors {
		if err := r.read(); err != nil {
			t.Fatal(err)
		}
		r.compare(v)
	}
}

func onAgent(t *mesos.TaskInfo, agent *mesos.AgentID) *mesos.TaskInfo {
	t.AgentId = agent
	return t
}

func view(t *testing.T, m *master.Master) *master.View {
	t.Helper()
	v, err := m.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// All streams share one encoding.
func TestOperatorEventEncodedOnce(t *testing.T) {
	e := &master.OperatorEvent{Message: &operator.Event{Type: operator.Event_HEARTBEAT.Enum()}}
	for _, cd := range []codec.Codec{codec.JSON, codec.Protobuf} {
		first, err := e.Encode(cd)
		if err != nil {
			t.Fatal(err)
		}
		second, err := e.Encode(cd)
		if err != nil || &first[0] != &second[0] {
			t.Errorf("%s: encoded twice, %v", cd.ContentType(), err)
		}
	}
	if b, _ := e.Encode(codec.JSON); string(b) != `{"type":"HEARTBEAT"}` {
		t.Errorf("got %s", b)
	}
}
