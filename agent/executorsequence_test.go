package agent

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"starling/agent/containerizer"
	"starling/master/mesos"
	protocol "starling/master/mesos/executor"
	"starling/master/nodeapi"
)

var (
	executorSequences = flag.Uint64("executor-sequences", 15, "how many random sequences with executors are played")
	executorSeed      = flag.Uint64("executor-seed", 1, "the seed of the first of them")
)

// actor is an executor of others: a process that outlives the agent, keeps to the rules, and counts what it is given.
type actor struct {
	id     string
	stream *ExecutorStream
	given  map[string]int
	// tasks are those of which no update was acknowledged, live those that run, updates what was not acknowledged.
	tasks   map[string]*mesos.TaskInfo
	live    map[string]bool
	updates []*mesos.TaskStatus
}

// drama is one random sequence.
type drama struct {
	t       *testing.T
	rng     *rand.Rand
	m       *machine
	w       *world
	actors  map[string]*actor
	given   map[string]int
	next    int
	all     []string // ids of all tasks
	grouped []string // those of default executors
	log     []string
}

func (d *drama) note(format string, args ...any) { d.log = append(d.log, fmt.Sprintf(format, args...)) }

// alive lists the executors of others whose process runs, by what their containers are.
func (d *drama) alive() []string {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	var out []string
	for _, c := range d.m.containers {
		if id := envOf(c.spec, "MESOS_EXECUTOR_ID"); c.exit == nil && c.spec.Parent == "" && id[0] == 'e' {
			out = append(out, c.spec.ID)
		}
	}
	slices.Sort(out)
	return out
}

// actorOf is the process of a container.
func (d *drama) actorOf(container string) *actor {
	if d.actors[container] == nil {
		d.m.mu.Lock()
		id := envOf(d.m.containers[container].spec, "MESOS_EXECUTOR_ID")
		d.m.mu.Unlock()
		d.actors[container] = &actor{id: id, given: d.given, tasks: map[string]*mesos.TaskInfo{}, live: map[string]bool{}}
	}
	return d.actors[container]
}

func (d *drama) subscribe(a *actor) {
	call := (&remote{w: d.w, id: a.id}).call(protocol.Call_SUBSCRIBE)
	call.Subscribe = &protocol.Call_Subscribe{}
	for _, info := range a.tasks {
		call.Subscribe.UnacknowledgedTasks = append(call.Subscribe.UnacknowledgedTasks, info)
	}
	for _, st := range a.updates {
		call.Subscribe.UnacknowledgedUpdates = append(call.Subscribe.UnacknowledgedUpdates, &protocol.Call_Update{Status: st})
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := d.w.agent.SubscribeExecutor(ctx, call)
	if err != nil {
		d.note("%s cannot subscribe: %v", a.id, err)
		return
	}
	a.stream = stream
}

// read handles what waits for an executor. It returns true when it is told to end.
func (a *actor) read(d *drama) (shutdown bool) {
	expired, cancel := context.WithCancel(context.Background())
	cancel()
	for a.stream != nil {
		e, err := a.stream.Next(expired)
		if err != nil {
			if a.stream.over() {
				a.stream = nil
			}
			return shutdown
		}
		infos := e.GetLaunchGroup().GetTaskGroup().GetTasks()
		if e.GetLaunch() != nil {
			infos = []*mesos.TaskInfo{e.GetLaunch().GetTask()}
		}
		for _, info := range infos {
			id := info.GetTaskId().GetValue()
			a.given[id]++
			a.tasks[id], a.live[id] = info, true
		}
		switch e.GetType() {
		case protocol.Event_KILL:
			if id := e.GetKill().GetTaskId().GetValue(); a.live[id] {
				a.tell(d, id, mesos.TaskState_TASK_KILLED)
			}
		case protocol.Event_ACKNOWLEDGED:
			delete(a.tasks, e.GetAcknowledged().GetTaskId().GetValue())
			a.updates = slices.DeleteFunc(a.updates, func(st *mesos.TaskStatus) bool {
				return string(st.GetUuid()) == string(e.GetAcknowledged().GetUuid())
			})
		case protocol.Event_SHUTDOWN:
			shutdown = true
		}
	}
	return shutdown
}

func (a *actor) tell(d *drama, id string, state mesos.TaskState) {
	if terminal(state) {
		delete(a.live, id)
	}
	st := newStatus(id, state)
	a.updates = append(a.updates, st)
	if err := (&remote{w: d.w, id: a.id}).send(st); err != nil {
		d.note("%s is not told: %v", id, err)
	}
}

// over tells whether nothing follows.
func (s *ExecutorStream) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cut != nil || s.ended && len(s.queue) == 0
}

func (d *drama) launch() {
	var tasks []*mesos.TaskInfo
	for range 1 + d.rng.IntN(3) {
		d.next++
		tasks = append(tasks, taskInfo(d.t, fmt.Sprintf("t%03d", d.next), "cpus:0.01;mem:1"))
		d.all = append(d.all, tasks[len(tasks)-1].GetTaskId().GetValue())
	}
	f := frameworkInfo(mesos.FrameworkInfo_Capability_PARTITION_AWARE)
	id := d.rng.IntN(3)
	var call *nodeapi.Call
	switch d.rng.IntN(3) {
	case 0:
		call = launchCall(f, of(executorInfo(d.t, fmt.Sprint("e", id), "cpus:0.01;mem:1"), tasks...)...)
	case 1:
		call = groupCall(f, executorInfo(d.t, fmt.Sprint("e", id), "cpus:0.01;mem:1"), tasks...)
	case 2:
		call = groupCall(f, defaultExecutor(d.t, fmt.Sprint("d", id)), tasks...)
		for _, info := range tasks {
			d.grouped = append(d.grouped, info.GetTaskId().GetValue())
		}
	}
	d.note("launch %s... on %d", tasks[0].GetTaskId().GetValue(), id)
	if d.rng.IntN(4) == 0 {
		// The agent dies with it: whether it was taken, only a repetition tells.
		done, dying := make(chan struct{}), d.w.agent
		call.AgentId, call.Leader, call.Epoch = testAgent, "127.0.0.1:5050", d.w.epoch
		go func() {
			defer close(done)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			_, _ = dying.Call(ctx, call)
		}()
		for range d.rng.IntN(40) { // so many turns of its loop later
			_ = dying.do(context.Background(), func() {})
		}
		d.crash()
		<-done
		d.w.mustCall(call)
		return
	}
	d.w.mustCall(call)
	if d.rng.IntN(4) == 0 {
		d.w.mustCall(call)
	}
}

func (d *drama) crash() {
	d.note("crash")
	d.w.kill()
	for _, a := range d.actors {
		a.stream = nil
	}
	d.w = d.start(d.w.leaderSide)
}

func (d *drama) start(side *leaderSide) *world {
	return d.m.start(side, func(c *Config) {
		c.ExecutorReregistrationTimeout, c.ExecutorRegistrationTimeout, c.ShutdownGrace = 15*time.Second, 15*time.Second, 20*time.Millisecond
	})
}

// act lets an executor do something.
func (d *drama) act(a *actor) {
	if a.read(d) {
		d.end(a)
		return
	}
	if a.stream == nil {
		d.subscribe(a)
		return
	}
	ids := make([]string, 0, len(a.live))
	for id := range a.live {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	if len(ids) == 0 {
		return
	}
	id := ids[d.rng.IntN(len(ids))]
	states := []mesos.TaskState{
		mesos.TaskState_TASK_STARTING, mesos.TaskState_TASK_RUNNING, mesos.TaskState_TASK_RUNNING, mesos.TaskState_TASK_FINISHED, mesos.TaskState_TASK_FAILED,
	}
	a.tell(d, id, states[d.rng.IntN(len(states))])
}

// end ends the process of an executor.
func (d *drama) end(a *actor) {
	for id, other := range d.actors {
		if other == a {
			d.m.mu.Lock()
			d.m.end(id, d.rng.IntN(2)*9)
			d.m.mu.Unlock()
			delete(d.actors, id)
		}
	}
}

func (d *drama) step() {
	alive := d.alive()
	switch n := d.rng.IntN(20); {
	case n < 4:
		d.launch()
	case n < 6:
		d.crash()
	case n < 7 && len(alive) > 0:
		a := d.actorOf(alive[d.rng.IntN(len(alive))])
		d.note("%s ends", a.id)
		d.end(a)
	case n < 8 && len(alive) > 0:
		if a := d.actorOf(alive[d.rng.IntN(len(alive))]); a.stream != nil {
			d.note("%s leaves", a.id)
			a.stream.Close()
			a.stream = nil
		}
	case n < 10 && len(d.all) > 0:
		id := d.all[d.rng.IntN(len(d.all))]
		d.note("kill %s", id)
		d.w.mustCall(killCall(id))
	case n < 12 && len(d.grouped) > 0:
		id := d.grouped[d.rng.IntN(len(d.grouped))]
		if p := d.w.published(id); p != nil {
			d.note("%s ends", id)
			d.m.mu.Lock()
			d.m.end(p.GetContainerId(), d.rng.IntN(2)<<8)
			d.m.mu.Unlock()
		}
	case len(alive) > 0:
		d.act(d.actorOf(alive[d.rng.IntN(len(alive))]))
	}
}

// told returns what was told of a task; what is said of a repeated launch, without a uuid, is not of the task.
func (d *drama) told(id string) []string {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	var out []string
	seen := map[string]bool{}
	for _, u := range d.w.updates {
		uuid := string(u.GetStatus().GetUuid())
		if u.GetStatus().GetTaskId().GetValue() == id && uuid != "" && !seen[uuid] {
			seen[uuid] = true
			out = append(out, u.GetStatus().GetState().String())
		}
	}
	return out
}

// settle ends everything, and waits until nothing is left.
func (d *drama) settle() {
	deadline := time.Now().Add(patience)
	for {
		for _, id := range d.all {
			if d.w.published(id) != nil {
				d.w.mustCall(killCall(id))
			}
		}
		for _, id := range d.alive() {
			a := d.actorOf(id)
			if a.read(d) {
				d.end(a)
			} else if a.stream == nil {
				d.subscribe(a)
			} else if len(a.live) == 0 && len(a.updates) == 0 {
				d.end(a)
			}
		}
		d.m.mu.Lock()
		left := len(d.m.containers) + len(d.m.groups)
		d.m.mu.Unlock()
		files, _ := filepath.Glob(filepath.Join(d.m.dir, "meta", "[et]*s", "*"))
		if left == 0 && len(files) == 0 && d.w.free().Equal(testResources(d.t, "cpus:4;mem:4096;disk:10240;ports:[31000-32000]")) {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("left: %d containers and groups, files %v, free %s\n%v", left, files, d.w.free(), d.log)
		}
		time.Sleep(time.Millisecond) // of asking
	}
}

// TestRandomExecutors holds P3 and P8: whatever dies at whatever moment, no task is given twice, and each is told to have
// ended, once.
func TestRandomExecutors(t *testing.T) {
	for seed := *executorSeed; seed < *executorSeed+*executorSequences; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.groups = map[string]containerizer.Group{}
			d := &drama{t: t, rng: rand.New(rand.NewPCG(seed, 0)), m: m, actors: map[string]*actor{}, given: map[string]int{}}
			d.w = d.start(nil)
			for range 60 {
				d.step()
			}
			d.settle()
			for _, id := range d.all {
				if d.given[id] > 1 {
					t.Errorf("%s was given to an executor %d times", id, d.given[id])
				}
				told := d.told(id)
				ends := 0
				for i, state := range told {
					if terminal(mesos.TaskState(mesos.TaskState_value[state])) {
						ends++
						if i != len(told)-1 {
							t.Errorf("%s was told %v", id, told)
						}
					}
				}
				if ends != 1 {
					t.Errorf("%s was told %d ends: %v", id, ends, told)
				}
			}
			d.w.end()
			if t.Failed() {
				t.Log(d.log)
			}
		})
	}
}
