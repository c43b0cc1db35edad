package hosts

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"starling/master/mesos/scheduler"
)

// resume is how long a deployment may take once another Marathon leads.
const resume = 30 * time.Second

// work is a deployment: prepared, asked for, and what there is in the end. least and most are of /web, all the time.
type work struct {
	name        string
	prepare, do func(v *victims)
	least, most int
	want        map[string]int
}

// works follow each other: each begins where the last has ended.
func works() []work {
	var deployment string
	nothing := func(*victims) {}
	web := func(n int) map[string]int { return map[string]int{"/web": n} }
	group := map[string]int{"/g/db": 2, "/g/api": 2, "/g/ui": 1}
	return []work{
		{"start", nothing, func(v *victims) { v.put("one", 2, "") }, 0, 2, web(2)},
		{"scale up", nothing, func(v *victims) { v.put("one", 4, "") }, 2, 4, web(4)},
		{"rolling upgrade", nothing, func(v *victims) { v.put("two", 4, "") }, 4, 6, web(4)},
		{"restart", nothing, func(v *victims) {
			before := v.version("/web")
			v.ask("POST", "/v2/apps/web/restart", "", func() bool { return v.version("/web") != before })
		}, 4, 6, web(4)},
		{"scale down", nothing, func(v *victims) { v.put("two", 2, "") }, 2, 4, web(2)},
		{"rollback", func(v *victims) { deployment = v.stuck(2) }, func(v *victims) {
			v.ask("DELETE", "/v2/deployments/"+deployment, "", func() bool { return v.env("/web") == "two x 2" })
		}, 2, 3, web(2)},
		{"force", func(v *victims) { v.stuck(2) }, func(v *victims) { v.put("three", 2, "?force=true") }, 2, 3, web(2)},
		{"stop", nothing, func(v *victims) { v.ask("DELETE", "/v2/apps/web", "", v.missing("/v2/apps/web")) }, 0, 4, web(0)},
		{"group", nothing, func(v *victims) { v.group("one") }, 0, 0, group},
		{"group upgrade", nothing, func(v *victims) { v.group("two") }, 0, 0, group},
		{"group stop", nothing, func(v *victims) { v.ask("DELETE", "/v2/groups/g?force=true", "", v.missing("/v2/groups/g")) }, 0, 0, map[string]int{"/g/db": 0, "/g/api": 0, "/g/ui": 0}},
	}
}

// settled waits until all is as a work wants it, and nothing else is.
func (v *victims) settled(w work) {
	v.t.Helper()
	Eventually(v.t, 2*time.Minute, w.name+" is done", func() error {
		if ids := v.deployments(); len(ids) > 0 {
			return fmt.Errorf("deployments %v run", ids)
		}
		for id, n := range w.want {
			well, ill := v.watch.alive(strings.ReplaceAll(id[1:], "/", "_"))
			if well != n || ill != 0 {
				return fmt.Errorf("%s has %d processes and %d ill ones, want %d", id, well, ill, n)
			}
			if n == 0 {
				continue
			}
			a, err := v.App(id)
			if err != nil || a.TasksRunning != n || len(a.Tasks) != n {
				return fmt.Errorf("%s is %+v, %w", id, a, err)
			}
		}
		return nil
	})
	if twice, _ := v.gate.Twice(); len(twice) > 0 {
		v.t.Errorf("launched twice: %v", twice)
	}
}

// TestFaultsMarathonKilledInDeployments (P7): the leading Marathon is killed at a call to the master in the middle of a deployment,
// before the call gets there or after, for each kind of deployment and at each call. The next one, which is the same one where it is
// alone, brings the deployment to its end: no task is lost or started twice, and the bounds of upgrades hold all the time.
func TestFaultsMarathonKilledInDeployments(t *testing.T) {
	for _, rig := range rigs() {
		t.Run(rig.name, func(t *testing.T) {
			if *fullRows {
				killInDeployments(rig.make(t), rig.kills, works())
				return
			}
			t.Parallel()
			all := works()
			killInDeployments(rig.make(t), 4, append(all[:3:3], all[7]))
		})
	}
}

func killInDeployments(v *victims, kills int, all []work) {
	t := v.t
	calls := make([]int, len(all)) // of each work, when nobody is killed
	points := make(map[scheduler.Call_Type]int)
	var took []time.Duration
	struck := 0
	for round := 0; struck < kills && round < 100; round++ {
		for n, w := range all {
			w.prepare(v)
			v.watch.bounds(w.least, w.most)
			begun := v.gate.Calls()
			// In the first round of the long form nobody is killed, so that it is known how many calls there are.
			at := round
			if calls[n] > 0 {
				at = 1 + (round-1)%calls[n]
			} else if !*fullRows {
				at = 2 + round
			}
			taken := false // kept by the gate, whose next order is a barrier
			done := v.gate.Order(Strike{
				At:       func(i int, _ *scheduler.Call) bool { taken = i == at; return taken },
				Answered: (round+n)%2 == 0, Do: v.kill,
			})
			finished := make(chan struct{})
			go func() { defer close(finished); w.do(v) }()
			var led time.Time
			recover := func(kind scheduler.Call_Type) {
				v.back()
				led = time.Now()
				points[kind]++
				struck++
			}
			select {
			case kind := <-done:
				recover(kind)
				<-finished
			case <-finished:
			}
			// What was asked for is stored by now; the kill may come yet.
			v.orSettled(w, done, recover)
			// From here on nobody would start again who is killed.
			v.gate.Order(Strike{At: func(int, *scheduler.Call) bool { return false }})
			if taken && led.IsZero() {
				recover(<-done)
			}
			v.settled(w)
			v.watch.bounds(0, 0)
			if led.IsZero() {
				calls[n] = v.gate.Calls() - begun
			} else {
				took = append(took, time.Since(led))
			}
			if t.Failed() {
				t.Fatalf("in %s, round %d, killed at call %d: %v", w.name, round, at, !led.IsZero())
			}
		}
	}
	slices.Sort(took)
	_, launched := v.gate.Twice()
	t.Logf("killed at %d points %v; %d tasks launched, none twice; %d samples", struck, points, launched, v.watch.count())
	if len(took) == 0 {
		t.Fatal("nobody was killed")
	}
	within(t, fmt.Sprintf("worst of %d (median %v): deployment done", len(took), took[len(took)/2].Round(10*time.Millisecond)), took[len(took)-1], resume)
}

// orSettled waits until a work is done or the leader was killed in it.
func (v *victims) orSettled(w work, done <-chan scheduler.Call_Type, recover func(scheduler.Call_Type)) {
	v.t.Helper()
	Eventually(v.t, 2*time.Minute, w.name+" is done, or the leader dead", func() error {
		select {
		case kind := <-done:
			recover(kind)
			return nil
		default:
		}
		_, body, err := v.request("GET", v.Marathon+"/v2/deployments", "")
		if err == nil && strings.TrimSpace(body) != "[]" {
			err = fmt.Errorf("it is under way: %s", body)
		}
		return err
	})
}

// TestFaultsMarathonKilledIdle (P6): the leading Marathon is killed while nothing happens. Writes are taken again within ten seconds, the
// framework is the same one, no task notices and none is started.
func TestFaultsMarathonKilledIdle(t *testing.T) {
	for _, rig := range rigs() {
		t.Run(rig.name, func(t *testing.T) {
			kills := 20
			if !*fullRows {
				t.Parallel()
				kills = 2
			}
			v := rig.make(t)
			v.put("one", 4, "")
			v.settled(work{name: "start", want: map[string]int{"/web": 4}})
			before, framework := v.pids(), v.framework()
			var took []time.Duration
			for n := range kills {
				var info struct{ Leader string }
				v.get("/v2/leader", &info)
				from, _, _ := strings.Cut(info.Leader, ":")
				begun := time.Now()
				v.kill(from)
				written := make(chan struct{})
				go func() { defer close(written); v.back() }()
				Eventually(t, time.Minute, "a write is taken", func() error {
					var err error
					for _, base := range v.bases {
						if _, _, err = v.request("PUT", base+"/v2/apps/written", fmt.Sprintf(`{"cmd":"x","instances":0,"labels":{"n":"%d"}}`, n)); err == nil {
							break
						}
					}
					return err
				})
				took = append(took, time.Since(begun))
				<-written
				if got := v.framework(); got != framework {
					t.Fatalf("the framework is %s now, was %s", got, framework)
				}
			}
			v.settled(work{name: "nothing", want: map[string]int{"/web": 4}})
			if after := v.pids(); !maps.Equal(after, before) {
				t.Errorf("tasks %v, before they were %v", after, before)
			}
			slices.Sort(took)
			within(t, fmt.Sprintf("worst of %d (median %v): a write was taken", kills, took[kills/2].Round(10*time.Millisecond)), took[kills-1], writes)
		})
	}
}

// TestFaultsCrashAroundALaunch (P8): Marathon is killed at one of four moments of a launch: the change is being stored; the launch is
// stored and does not get to the master; it gets there and its answer is lost; the task was reported to run and that is not acknowledged.
// No task is lost, none is started twice, and what is launched again has a new id.
func TestFaultsCrashAroundALaunch(t *testing.T) {
	trials := 200
	if !*fullRows {
		t.Parallel()
		trials = 4
	}
	v := newAlone(t)
	of := func(kind scheduler.Call_Type) func(int, *scheduler.Call) bool {
		return func(_ int, c *scheduler.Call) bool { return c.GetType() == kind }
	}
	moments := []struct {
		name string
		at   func(int, *scheduler.Call) bool
		late bool
	}{
		{"while it is being stored", nil, false},
		{"stored, not sent", of(scheduler.Call_ACCEPT), false},
		{"sent, not recorded", of(scheduler.Call_ACCEPT), true},
		{"recorded, not acknowledged", of(scheduler.Call_ACKNOWLEDGE), false},
	}
	instances := 0
	struck := map[string]int{}
	rng := rand.New(rand.NewPCG(8, 8))
	for n := range trials {
		moment := moments[n%len(moments)]
		instances++
		v.watch.bounds(instances-1, instances)
		finished := make(chan struct{})
		var done <-chan scheduler.Call_Type
		if moment.at != nil {
			done = v.gate.Order(Strike{At: moment.at, Answered: moment.late, Do: v.kill})
		}
		ask := func() {
			defer close(finished)
			v.ask("PUT", "/v2/apps/web", text(v.definition("/web", "one", instances, `{"healthChecks":[]}`)), func() bool { return v.env("/web") == fmt.Sprintf("one x %d", instances) })
		}
		go ask()
		if moment.at == nil {
			<-time.After(time.Duration(rng.Int64N(int64(40 * time.Millisecond)))) // the moment of a crash is nobody's choice
			v.kill("")
		} else {
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Fatalf("trial %d: no call to be killed at, %s", n, moment.name)
			}
		}
		struck[moment.name]++
		v.back()
		<-finished
		w := work{name: moment.name, want: map[string]int{"/web": instances}}
		v.settled(w)
		if t.Failed() {
			t.Fatalf("in trial %d: killed %s", n, moment.name)
		}
		if instances == 20 {
			v.watch.bounds(0, 0)
			v.put("one", 0, "?force=true")
			v.settled(work{name: "clear", want: map[string]int{"/web": 0}})
			instances = 0
		}
	}
	_, launched := v.gate.Twice()
	t.Logf("%d trials %v: %d launches, none twice, none lost", trials, struck, launched)
}
