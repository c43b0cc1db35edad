package hosts

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// severed is a flock of agents with a master and Marathon, whose links are cut.
type severed struct {
	*Flock
	*Cluster
	watch *watch
}

func newSevered(t *testing.T, agents int) *severed {
	f, c := NewFlockWithTasks(t, agents)
	Agree(t, time.Minute, f.Agents...)
	return &severed{f, c, newWatch(t, c)}
}

func (s *severed) t() testing.TB { return s.Cluster.t }

// app starts an app of ten probes and returns its tasks.
func (s *severed) app(name string, more ...string) []Task {
	s.t().Helper()
	s.ProbeApp("/"+name, 10, more...)
	tasks := s.Running("/"+name, 10)
	s.exactly(name, 10) // they leave their marks a moment after they were told to run
	return tasks
}

func taskIDs(tasks []Task) []string {
	ids := make([]string, len(tasks))
	for i, t := range tasks {
		ids[i] = t.ID
	}
	return ids
}

// minority finds two agents that have tasks of every app, and returns these, too.
func (s *severed) minority(tasks map[string][]Task) (apart [2]*Agent, cut map[string][]string) {
	s.t().Helper()
	for i, a := range s.Agents {
		for _, b := range s.Agents[:i] {
			cut = map[string][]string{}
			for name, all := range tasks {
				for _, task := range all {
					if task.Host == a.Host.Addr || task.Host == b.Host.Addr {
						cut[name] = append(cut[name], task.ID)
					}
				}
			}
			if len(cut) == len(tasks) {
				return [2]*Agent{a, b}, cut
			}
		}
	}
	s.t().Fatalf("no two agents have tasks of all apps: %v", tasks)
	return
}

// exactly waits until an app has just as many processes and tasks as it ought to.
func (s *severed) exactly(app string, n int) {
	s.t().Helper()
	Eventually(s.t(), 2*time.Minute, fmt.Sprintf("there are exactly %d tasks of %s", n, app), func() error {
		a, err := s.App("/" + app)
		if err != nil {
			return err
		}
		if well, _ := s.watch.alive(app); well != n || len(a.Tasks) != n || a.TasksRunning != n {
			return fmt.Errorf("%d processes, %d tasks, %d running", well, len(a.Tasks), a.TasksRunning)
		}
		return nil
	})
}

// TestFaultsMinorityCutOff (N2): two of five agents are cut off. What ran there goes on, and is replaced at the majority no earlier than the
// app's unreachableStrategy says; once they are back there are exactly as many instances as there have to be.
func TestFaultsMinorityCutOff(t *testing.T) {
	inactive, slack := 8*time.Second, 4*time.Second // on a busy machine the loss is seen here late
	if *fullRows {
		inactive, slack = time.Minute, 2*time.Second
	} else {
		t.Parallel()
	}
	s := newSevered(t, 5)
	strategies := map[string]string{
		"soon":  `{"unreachableStrategy":{"inactiveAfterSeconds":0,"expungeAfterSeconds":0}}`,
		"late":  fmt.Sprintf(`{"unreachableStrategy":{"inactiveAfterSeconds":%d,"expungeAfterSeconds":600}}`, int(inactive.Seconds())),
		"never": `{"unreachableStrategy":"disabled"}`,
	}
	// No agent has more than four of an app, so that each app has some at either side of a cut that is well chosen, and the majority has
	// room for all.
	tasks := map[string][]Task{}
	for name, strategy := range strategies {
		tasks[name] = s.app(name, strategy, `{"constraints":[["hostname","MAX_PER","4"]]}`)
	}
	apart, cut := s.minority(tasks)
	began := time.Now()
	s.Partition(apart[0].Host, apart[1].Host)
	lost := map[string]time.Time{} // when the first task of an app was unreachable
	replaced := map[string]time.Time{}
	Eventually(t, 2*time.Minute+inactive, "the majority runs what is to be replaced", func() error {
		for name := range strategies {
			a, err := s.App("/" + name)
			if err != nil {
				return err
			}
			if lost[name].IsZero() && (a.TasksRunning < 10 || len(a.Tasks) != 10) {
				lost[name] = time.Now()
			}
			if replaced[name].IsZero() && len(s.watch.started(name)) > 10 {
				replaced[name] = time.Now()
			}
		}
		for _, name := range []string{"soon", "late"} {
			if n, want := len(s.watch.started(name)), 10+len(cut[name]); n < want {
				return fmt.Errorf("%d tasks of %s were started in all, want %d", n, name, want)
			}
		}
		return nil
	})
	for name := range strategies {
		if ended := s.watch.ends(cut[name]); len(ended) > 0 {
			t.Errorf("tasks %v of %s ended by the cut", ended, name)
		}
		if n := len(s.watch.started(name)); name == "never" && n != 10 || n > 10+len(cut[name]) {
			t.Errorf("%d tasks of %s were started in all", n, name)
		}
	}
	within(t, "from the cut: what may be replaced at once began to be", replaced["soon"].Sub(began), 18*time.Second)
	t.Logf("what is to be replaced %v after that began to be %v after the cut, %v after it was seen to be unreachable",
		inactive, replaced["late"].Sub(began).Round(10*time.Millisecond), replaced["late"].Sub(lost["late"]).Round(10*time.Millisecond))
	// The agents were unreachable from the moment on that was told, which is seen here a moment later at the most.
	if early := replaced["late"].Sub(lost["late"]); early < inactive-slack {
		t.Errorf("replaced %v after it was unreachable, want %v at least", early, inactive)
	}
	s.Mend()
	healed := time.Now()
	for name := range strategies {
		s.exactly(name, 10)
	}
	within(t, "from the heal: exactly the instances that have to be", time.Since(healed), 30*time.Second)
	for _, id := range cut["never"] {
		if len(s.watch.ends([]string{id})) > 0 {
			t.Errorf("task %s, which is never replaced, was ended by the heal", id)
		}
	}
}

// TestFaultsMastersWithOneOfFive (N3): the master and Marathon keep one agent of five. Nothing is replaced and nothing killed, however long
// that lasts, and an alarm says so; within ten seconds of the heal all agents are used again.
func TestFaultsMastersWithOneOfFive(t *testing.T) {
	r := size(t, row{5, 22 * time.Second}, row{5, 3 * time.Minute})
	s := newSevered(t, r.hosts)
	tasks := taskIDs(s.app("soon", `{"unreachableStrategy":{"inactiveAfterSeconds":0,"expungeAfterSeconds":0}}`))
	master := s.Hosts[5]
	var hosts []*Host
	for _, a := range s.Agents[1:] {
		hosts = append(hosts, a.Host)
	}
	began := time.Now()
	for _, h := range hosts {
		h.Cut(master)
		h.Cut(s.Hosts[0])
	}
	// Something that takes all agents waits for them.
	s.ProbeApp("/all", 5, `{"constraints":[["hostname","UNIQUE"]]}`)
	var alarm time.Time
	// On a busy machine the alarm may come later than the short row lasts.
	for time.Since(began) < r.lasts || alarm.IsZero() && time.Since(began) < time.Minute {
		if now := s.watch.started("soon"); len(now) != 10 {
			t.Fatalf("after %v: %d tasks were started in all, want 10", time.Since(began), len(now))
		}
		if ended := s.watch.ends(tasks); len(ended) > 0 {
			t.Fatalf("after %v: tasks %v were ended", time.Since(began), ended)
		}
		if alarm.IsZero() && strings.Contains(s.MasterProcess.out.String(), "none is given up until that changes") {
			alarm = time.Now()
		}
		<-time.After(100 * time.Millisecond)
	}
	if alarm.IsZero() {
		t.Errorf("no alarm in %v", time.Since(began))
	} else {
		t.Logf("the alarm came %v after the cut; nothing was done in %v", alarm.Sub(began).Round(100*time.Millisecond), time.Since(began).Round(100*time.Millisecond))
	}
	s.Mend()
	healed := time.Now()
	s.exactly("all", 5)
	within(t, "from the heal: all agents are used", time.Since(healed), 10*time.Second)
	s.exactly("soon", 10)
	if ended := s.watch.ends(tasks); len(ended) > 0 {
		t.Errorf("tasks %v were ended", ended)
	}
}

// TestFaultsFlappingLinkMovesNothing (N9): the link of one agent of five is up for five seconds and down for five, again and again. Each of its
// tasks is replaced once at the most, and in the end there are exactly the instances that have to be.
func TestFaultsFlappingLinkMovesNothing(t *testing.T) {
	r := size(t, row{5, 20 * time.Second}, row{5, 5 * time.Minute})
	s := newSevered(t, r.hosts)
	tasks := s.app("soon", `{"unreachableStrategy":{"inactiveAfterSeconds":0,"expungeAfterSeconds":0}}`)
	odd := s.Agents[1]
	there := 0
	for _, task := range tasks {
		if task.Host == odd.Host.Addr {
			there++
		}
	}
	for end := time.Now().Add(r.lasts); time.Now().Before(end); {
		odd.Host.Unplug()
		<-time.After(5 * time.Second)
		odd.Host.Plug()
		<-time.After(5 * time.Second)
	}
	moved := len(s.watch.started("soon")) - 10
	t.Logf("%d tasks at the agent, %d rescheduled in %v", there, moved, r.lasts)
	if moved > there {
		t.Errorf("%d tasks were rescheduled %d times, want once each at the most", there, moved)
	}
	healed := time.Now()
	s.exactly("soon", 10)
	within(t, "from the heal: exactly the instances that have to be", time.Since(healed), 30*time.Second)
	if moved := len(s.watch.started("soon")) - 10; moved > there {
		t.Errorf("%d tasks were rescheduled %d times in all", there, moved)
	}
}
