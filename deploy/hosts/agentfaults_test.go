package hosts

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"starling/agent/testenv"
	"starling/master/mesos"
	"starling/master/mesos/scheduler"
)

// The rows of the fault matrix that are about an agent, its supervisor and its tasks, one after the other on one agent.
func TestFaultsOfAgents(t *testing.T) {
	tasks, pauses, trials, random, crowd := 20, []time.Duration{0, 2 * time.Second}, 10, 8, 60
	if *fullRows {
		tasks, pauses, trials, random, crowd = 100, []time.Duration{0, 2 * time.Second, 30 * time.Second}, 200, 100, 1000
	} else {
		t.Parallel()
	}
	c := newCrew(t, Separate(t, 1))
	for _, part := range []struct {
		name string
		run  func(*crew)
	}{
		{"agent killed", func(c *crew) { c.agentKilled(tasks, pauses) }},
		{"agent killed at random moments", func(c *crew) { c.killedAtRandom(2*tasks, random) }},
		{"agent killed while it launches", func(c *crew) { c.killedInLaunches(trials) }},
		{"agent restarted ten times", func(c *crew) { c.restarts(tasks) }},
		{"supervisor killed", func(c *crew) { c.supervisorKilled(tasks) }},
		{"supervisor hangs", (*crew).supervisorHangs},
		{"who goes first when memory runs out", (*crew).scores},
		{"task over its memory", (*crew).tooMuchMemory},
		{"no more processes", (*crew).noMoreProcesses},
		{"checkpoints damaged", (*crew).checkpointsDamaged},
		{"task that does not want to end", (*crew).stubborn},
		{"many kills, the first hangs", func(c *crew) { c.manyKills(crowd) }},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(c.in(t)) }) {
			break // what is left would fail the others too
		}
	}
}

// P1: an agent that is killed harms no task, is itself again within five seconds, and tells what ended meanwhile, once and as it was.
func (c *crew) agentKilled(tasks int, pauses []time.Duration) {
	ids := names("stays", tasks)
	c.hire("", little, ids...)
	before := c.lives(ids...)
	id, _, err := c.shown()
	if err != nil {
		c.t.Fatal(err)
	}
	for i, pause := range pauses {
		ends := fmt.Sprint("ends-", i)
		c.hire("", little, ends)
		c.r.Agents[0].Kill()
		c.end(ends, 40+i)
		time.Sleep(pause) // the fault lasts
		began := time.Now()
		c.r.Agents[0].run()
		Eventually(c.t, time.Minute, "the agent shows its tasks", func() error {
			again, shown, err := c.shown()
			if err != nil {
				return err
			}
			if again != id {
				c.t.Fatalf("agent %s is %s now", id, again)
			}
			for _, id := range ids {
				if !shown[id] {
					return fmt.Errorf("%s does not run", id)
				}
			}
			return nil
		})
		within(c.t, fmt.Sprintf("%d tasks are shown by an agent that was away for %v", tasks, pause), time.Since(began), 5*time.Second)
		c.unharmed(before)
		last := c.reported(ends, 30*time.Second, mesos.TaskState_TASK_FAILED)
		if want := fmt.Sprintf("Command exited with status %d", 40+i); last.GetMessage() != want {
			c.t.Errorf("%s: told %q, want %q", ends, last.GetMessage(), want)
		}
		c.once(ends, "TASK_FAILED")
	}
	c.dismiss(ids...)
}

// once fails the test if a task was not told once to be in its last state: the same update again is no second one.
func (c *crew) once(id, state string) {
	c.t.Helper()
	states, _ := c.told(id)
	n := 0
	for _, s := range states {
		if s == state {
			n++
		}
	}
	if n != 1 || states[len(states)-1] != state {
		c.t.Errorf("%s was told to be %v, want %s once and last", id, states, state)
	}
}

// Killed again and again while tasks end: no task is harmed, no update lost, none doubled.
func (c *crew) killedAtRandom(tasks, kills int) {
	ids := names("random", tasks)
	c.hire("", little, ids...)
	before := c.lives(ids...)
	seed := rand.Uint64()
	c.t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	ended := 0
	for n := range kills {
		for ; ended < tasks/2*(n+1)/kills; ended++ {
			c.end(ids[ended], ended%200)
			delete(before, ids[ended])
		}
		time.Sleep(time.Duration(dice.IntN(400)) * time.Millisecond) // the moment is the fault
		c.r.Agents[0].Kill()
		c.r.Agents[0].run()
	}
	c.r.Agents[0].Healthy(c.r.agentHealth[0])
	c.unharmed(before)
	for i := range ended {
		want := "TASK_FAILED"
		if i%200 == 0 {
			want = "TASK_FINISHED"
		}
		last := c.reported(ids[i], time.Minute, mesos.TaskState(mesos.TaskState_value[want]))
		if text := fmt.Sprintf("Command exited with status %d", i%200); last.GetMessage() != text {
			c.t.Errorf("%s: told %q, want %q", ids[i], last.GetMessage(), text)
		}
		c.once(ids[i], want)
	}
	c.unharmed(before)
	c.t.Logf("%d tasks, %d of them ended under way, %d kills of the agent", tasks, ended, kills)
	c.dismiss(ids[ended:]...)
}

// P8: a crash anywhere between intent, start and record starts no task twice and loses none.
func (c *crew) killedInLaunches(trials int) {
	ids := names("trial", trials)
	for _, id := range ids {
		c.offer("", little, id)
		time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond) // the moment is the fault
		c.r.Agents[0].Kill()
		c.r.Agents[0].run()
		c.r.Agents[0].Healthy(c.r.agentHealth[0])
	}
	runs, none, brief := 0, 0, 0
	for _, id := range ids {
		var reconciled time.Time
		Eventually(c.t, time.Minute, "something is told of "+id, func() error {
			_, last := c.told(id)
			switch last.GetState() {
			case mesos.TaskState_TASK_RUNNING:
				if err := c.begun(id); err != nil {
					return err
				}
				runs++
				c.lives(id)
				c.dismiss(id)
				return nil
			case mesos.TaskState_TASK_DROPPED, mesos.TaskState_TASK_LOST, mesos.TaskState_TASK_GONE, mesos.TaskState_TASK_FAILED:
				// The order may have reached the supervisor just before the agent died: then what it started is ended, since
				// nobody is told that it runs.
				data, _ := os.ReadFile(filepath.Join(c.marks, id+".starts"))
				switch lines := strings.Fields(string(data)); len(lines) {
				case 0:
					none++
				case 1:
					if pid, _ := strconv.Atoi(lines[0]); !gone(pid) {
						return fmt.Errorf("process %d runs and is told to be %v", pid, last)
					}
					brief++
				default:
					c.t.Errorf("%s was started as %v", id, lines)
				}
				return nil
			}
			// As a framework does of which the agent has never heard.
			if time.Since(reconciled) > time.Second {
				reconciled = time.Now()
				c.call(&scheduler.Call{Type: scheduler.Call_RECONCILE.Enum(), Reconcile: &scheduler.Call_Reconcile{
					Tasks: []*scheduler.Call_Reconcile_Task{{TaskId: &mesos.TaskID{Value: &id}, AgentId: c.agent()}},
				}})
			}
			return fmt.Errorf("the last is %v", last)
		})
	}
	c.t.Logf("of %d launches %d came to run, %d to nothing, and %d were ended at once; none twice", trials, runs, none, brief)
}

// P10: ten restarts in a row, by kill -9 and by SIGTERM in turns, harm no task and leave nothing more behind than one does.
func (c *crew) restarts(tasks int) {
	ids := names("storm", tasks)
	c.hire("", little, ids...)
	before := c.lives(ids...)
	agent := c.r.Agents[0]
	var took []time.Duration
	restart := func(gently bool) {
		if gently {
			agent.Terminate()
		} else {
			agent.Kill()
		}
		began := time.Now()
		agent.run()
		agent.Healthy(c.r.agentHealth[0])
		took = append(took, time.Since(began))
	}
	restart(false)
	c.hire("", little, "storm-first") // by then it is at rest
	first := c.holds()
	for i := range 10 {
		restart(i%2 == 1)
	}
	slices.Sort(took)
	bar := 1500 * time.Millisecond
	within(c.t, "half of eleven starts were ready", took[len(took)/2], bar)
	if slowest := took[len(took)-1]; *fullRows {
		within(c.t, "the slowest was", slowest, bar)
	} else {
		c.t.Logf("the slowest was after %v", slowest) // it may have met a moment of the tests beside
	}
	c.hire("", little, "storm-last")
	c.dismiss("storm-last")
	c.unharmed(before)
	Eventually(c.t, 20*time.Second, "nothing more is held than after the first restart", func() error {
		now := c.holds()
		for what, n := range now {
			if n > first[what]+first[what]/5+3 {
				return fmt.Errorf("%s: %d, were %d", what, n, first[what])
			}
		}
		return nil
	})
	c.t.Logf("held after the first restart %v, after ten more %v", first, c.holds())
	c.dismiss(append(ids, "storm-first")...)
}

// holds counts what agent and supervisor hold.
func (c *crew) holds() map[string]int {
	c.t.Helper()
	held := map[string]int{}
	for name, pid := range map[string]int{"agent": c.r.Agents[0].PID(), "supervisor": c.supervisor()} {
		files, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		held["files of the "+name], held["threads of the "+name] = len(files), len(threads)
	}
	for _, dir := range []string{"meta", "supervisor"} {
		_ = filepath.WalkDir(filepath.Join(c.r.AgentDirs[0], dir), func(string, fs.DirEntry, error) error {
			held["files in "+dir]++
			return nil
		})
	}
	return held
}

// P3a: a supervisor that is killed harms no task, and another one has them within three seconds.
func (c *crew) supervisorKilled(tasks int) {
	ids := names("adopted", tasks)
	c.hire("", little, ids...)
	before := c.lives(ids...)
	began := time.Now()
	killProcess(c.t, c.supervisor())
	c.hire("", little, "after-supervisor")
	within(c.t, fmt.Sprintf("another supervisor has %d tasks and starts one more", tasks), time.Since(began), 3*time.Second)
	c.unharmed(before)
	c.end(ids[0], 23)
	last := c.reported(ids[0], 30*time.Second, mesos.TaskState_TASK_FAILED)
	if text := last.GetMessage(); text != "Command exited with status 23" && !strings.Contains(text, "could not be learned") {
		c.t.Errorf("told %q", text)
	}
	delete(before, ids[0])
	c.unharmed(before)
	c.dismiss(append(ids[1:], "after-supervisor")...)
}

// P3b: a supervisor that hangs is told of within five seconds; tasks go on, and can be ended.
func (c *crew) supervisorHangs() {
	c.hire("", little, "goes-on", "is-ended")
	before := c.lives("goes-on")
	pid := c.supervisor()
	signal := func(s syscall.Signal) {
		c.t.Helper()
		if err := syscall.Kill(pid, s); err != nil {
			c.t.Fatal(err)
		}
	}
	began := time.Now()
	signal(syscall.SIGSTOP)
	defer syscall.Kill(pid, syscall.SIGCONT)
	answers := func(want string) func() error {
		return func() error {
			_, body, err := Request("GET", c.url("/metrics/snapshot"), "")
			if err == nil && !strings.Contains(body, `"slave/containerizer_answers":`+want) {
				err = errors.New("it does not say so")
			}
			return err
		}
	}
	Eventually(c.t, 30*time.Second, "the agent is degraded", answers("0.0"))
	within(c.t, "an agent whose supervisor hangs says so", time.Since(began), 5*time.Second)
	began = time.Now()
	c.kill("is-ended", 0)
	c.reported("is-ended", 30*time.Second, mesos.TaskState_TASK_KILLED)
	within(c.t, "a task is ended around a supervisor that hangs", time.Since(began), 10*time.Second)
	c.unharmed(before)
	signal(syscall.SIGCONT)
	Eventually(c.t, 30*time.Second, "the agent is well again", answers("1.0"))
	c.hire("", little, "after-hang")
	c.unharmed(before)
	c.dismiss("goes-on", "after-hang")
}

// P11, P3b: tasks go first, then the agent, then the supervisor.
func (c *crew) scores() {
	testenv.NeedRoot(c.t, "to protect a process")
	c.hire("", little, "victim")
	score := func(pid int) int {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
		if err != nil {
			c.t.Fatal(err)
		}
		n, _ := strconv.Atoi(strings.TrimSpace(string(data)))
		return n
	}
	task, agent, supervisor := score(c.lives("victim")["victim"].pid), score(c.r.Agents[0].PID()), score(c.supervisor())
	c.t.Logf("scores: task %d, agent %d, supervisor %d", task, agent, supervisor)
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", c.r.MasterProcess.PID()), []byte("-1"), 0); err != nil {
		c.dismiss("victim")
		c.t.Skipf("this kernel lets nobody protect a process, root neither: %v", err)
	}
	if !(task > agent && agent > supervisor) {
		c.t.Errorf("task %d, agent %d, supervisor %d: want them in this order, highest first", task, agent, supervisor)
	}
	c.dismiss("victim")
}

// P12: a task over its memory limit ends alone, and its framework is told the reason, the limit and the peak within two seconds.
func (c *crew) tooMuchMemory() {
	c.hire("", little, "modest")
	before := c.lives("modest")
	limited, _ := filepath.Glob("/sys/fs/cgroup/memory/**/memory.limit_in_bytes")
	if text, _ := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); len(limited) == 0 && !strings.Contains(string(text), "memory") {
		if _, err := os.Stat("/sys/fs/cgroup/memory/memory.limit_in_bytes"); err != nil {
			testenv.Lacks(c.t, "no memory cgroup: %v", err)
		}
	}
	at := filepath.Join(c.marks, "greedy.full")
	c.offer("head -c 20m /dev/zero > /dev/null; touch "+at+"; exec tail /dev/zero", "cpus:0.1;mem:32", "greedy")
	Eventually(c.t, 30*time.Second, "it begins to take memory", func() error { _, err := os.Stat(at); return err })
	began := time.Now()
	last := c.reported("greedy", 30*time.Second, mesos.TaskState_TASK_FAILED)
	within(c.t, "the end of a task over its memory is told", time.Since(began), 2*time.Second)
	used := last.GetLimitation().GetResources()
	if last.GetReason() != mesos.TaskStatus_REASON_CONTAINER_LIMITATION_MEMORY || !strings.Contains(last.GetMessage(), "Requested: 64MB Maximum Used: ") ||
		len(used) != 1 || used[0].GetScalar().GetValue() < 60 {
		c.t.Errorf("told %v", last)
	}
	c.t.Logf("told: %s", last.GetMessage())
	c.unharmed(before)
	c.dismiss("modest")
}

// P14: where no process can be had any more, a launch is refused with that reason, or the supervisor ends and another one takes
// its place; the others notice nothing either way.
func (c *crew) noMoreProcesses() {
	const pids = "/sys/fs/cgroup/pids"
	testenv.NeedRoot(c.t, "to limit processes")
	if _, err := os.Stat(filepath.Join(pids, "cgroup.procs")); err != nil {
		c.t.Skip("this machine has no hierarchy of cgroups for pids alone")
	}
	c.hire("", little, "has-one")
	before := c.lives("has-one")
	supervisor := c.supervisor()
	own, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", supervisor))
	if err != nil {
		c.t.Fatal(err)
	}
	home := pids
	for line := range strings.Lines(string(own)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && f[1] == "pids" {
			home = filepath.Join(pids, f[2])
		}
	}
	dir := filepath.Join(pids, fmt.Sprintf("starling-test-%d", os.Getpid()))
	write := func(file, text string) {
		c.t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	defer os.Remove(dir)
	write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(supervisor))
	write(filepath.Join(dir, "pids.max"), "1")
	c.offer("", little, "one-more")
	last := c.reported("one-more", 30*time.Second, mesos.TaskState_TASK_FAILED, mesos.TaskState_TASK_RUNNING)
	c.t.Logf("told: %s", last.GetMessage())
	write(filepath.Join(dir, "pids.max"), "max")
	staff := []string{"has-one", "after-all"}
	if last.GetState() == mesos.TaskState_TASK_RUNNING {
		staff = append(staff, "one-more")
	}
	// Where a program of Go needs a thread and can't have one, it ends: if so did the supervisor, the next one is not bound.
	if c.supervisor() == supervisor {
		if last.GetReason() != mesos.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED || !strings.Contains(last.GetMessage(), "temporarily unavailable") {
			c.t.Errorf("told %v", last)
		}
		write(filepath.Join(home, "cgroup.procs"), strconv.Itoa(supervisor))
	} else {
		c.t.Log("there is another supervisor")
	}
	c.unharmed(before)
	c.hire("", little, "after-all")
	c.dismiss(staff...)
}

// D5: checkpoints that are torn, empty, zeroed or flipped cost no task, and the agent is there again within five seconds.
func (c *crew) checkpointsDamaged() {
	damages := map[string]func([]byte) []byte{
		"torn":    func(b []byte) []byte { return b[:len(b)/2] },
		"empty":   func([]byte) []byte { return nil },
		"zeroed":  func(b []byte) []byte { return make([]byte, len(b)) },
		"flipped": func(b []byte) []byte { b[len(b)/2] ^= 0x40; return b },
	}
	meta := filepath.Join(c.r.AgentDirs[0], "meta")
	for _, kind := range []string{"torn", "empty", "zeroed", "flipped"} {
		ids := names("damage-"+kind, 4)
		c.hire("", little, ids...)
		before := c.lives(ids...)
		id, _, err := c.shown()
		if err != nil {
			c.t.Fatal(err)
		}
		c.r.Agents[0].Kill()
		files, _ := filepath.Glob(filepath.Join(meta, "tasks", "*"))
		slices.Sort(files)
		damaged := []string{filepath.Join(meta, "identity"), filepath.Join(meta, "epoch")}
		for i, f := range files {
			if i%2 == 0 {
				damaged = append(damaged, f)
			}
		}
		for _, f := range damaged {
			data, err := os.ReadFile(f)
			if errors.Is(err, os.ErrNotExist) {
				continue // its copy serves since it was damaged before
			}
			if err != nil {
				c.t.Fatal(err)
			}
			if err := os.WriteFile(f, damages[kind](data), 0o600); err != nil {
				c.t.Fatal(err)
			}
		}
		began := time.Now()
		c.r.Agents[0].run()
		Eventually(c.t, time.Minute, "the agent shows its tasks", func() error {
			again, shown, err := c.shown()
			if err == nil && again != id {
				c.t.Fatalf("agent %s is %s now", id, again)
			}
			for _, id := range ids {
				if err == nil && !shown[id] {
					err = fmt.Errorf("%s does not run", id)
				}
			}
			return err
		})
		within(c.t, fmt.Sprintf("the agent is back with %d files %s", len(damaged), kind), time.Since(began), 5*time.Second)
		c.unharmed(before)
		if kept, _ := filepath.Glob(filepath.Join(meta, "quarantine", "*")); len(kept) == 0 {
			c.t.Errorf("nothing %s is in quarantine", kind)
		}
		c.dismiss(ids...)
	}
}

// K6: what ignores SIGTERM and has forked away twice is dead when the grace period is over, half a second later at most.
func (c *crew) stubborn() {
	at := filepath.Join(c.marks, "away")
	c.hire(fmt.Sprintf(`trap "" TERM; (setsid sh -c 'trap "" TERM; (trap "" TERM; echo $$ > %s; exec sleep 100000) & exec sleep 100001' &) ; while true; do sleep 1; done`, at),
		little, "stubborn")
	var all []int
	Eventually(c.t, 30*time.Second, "it has forked", func() error {
		if _, err := os.Stat(at); err != nil {
			return err
		}
		// Two that are away, its shell, and what that waits for: between two of these there is none.
		if _, all = processesOf(c.r.AgentDirs[0]); len(all) < 4 {
			return fmt.Errorf("it runs as %v", all)
		}
		return nil
	})
	const grace = 2 * time.Second
	began := time.Now()
	c.kill("stubborn", grace)
	var took time.Duration
	eventually(c.t, 30*time.Second, 5*time.Millisecond, "all are dead", func() error {
		for _, pid := range all {
			if !gone(pid) {
				return fmt.Errorf("%d is not", pid)
			}
		}
		took = time.Since(began)
		return nil
	})
	c.reported("stubborn", 10*time.Second, mesos.TaskState_TASK_KILLED)
	if took < grace {
		c.t.Errorf("it was ended after %v, want %v at least", took, grace)
	}
	bar := 2 * time.Second // beside other tests
	if *fullRows {
		bar = 500 * time.Millisecond
	}
	within(c.t, fmt.Sprintf("%d processes that ignore SIGTERM are dead beyond their %v", len(all), grace), took-grace, bar)
}

// W9: of many kills the first hangs, and the others are done within 30 seconds.
func (c *crew) manyKills(crowd int) {
	const freezer = "/sys/fs/cgroup/freezer"
	testenv.NeedRoot(c.t, "to freeze a process")
	if _, err := os.Stat(filepath.Join(freezer, "cgroup.procs")); err != nil {
		c.t.Skip("this machine has no freezer of the first version of cgroups, which keeps a process from dying")
	}
	ids := names("crowd", crowd)
	for chunk := range slices.Chunk(ids, 100) {
		c.hire("exec sleep 100000", little, chunk...) // a thousand that look for their end would be the fault
	}
	first := c.lives(ids[0])[ids[0]]
	dir := filepath.Join(freezer, fmt.Sprintf("starling-test-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	defer os.Remove(dir)
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(first.pid)), 0o644); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("FROZEN"), 0o644); err != nil {
		c.t.Fatal(err)
	}
	thaw := func() { _ = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0o644) }
	defer thaw()
	began := time.Now()
	for _, id := range ids {
		c.kill(id, 0)
	}
	for _, id := range ids[1:] {
		c.reported(id, time.Minute, mesos.TaskState_TASK_KILLED)
	}
	within(c.t, fmt.Sprintf("%d of %d kills, of which the first hangs, are done", crowd-1, crowd), time.Since(began), 30*time.Second)
	if startTime(first.pid) != first.began {
		c.t.Error("the first did not hang")
	}
	thaw()
	c.reported(ids[0], time.Minute, mesos.TaskState_TASK_KILLED)
}
