package hosts

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A record of hundreds of tasks, many times what a datagram holds, is the same everywhere, and so is what DNS makes of it; also
// for a node that comes late.
func TestManyTasksAreSeenByAll(t *testing.T) {
	t.Parallel()
	const tasks = 300
	f, c := NewFlockWithTasks(t, 5)
	Agree(t, 20*time.Second, f.Agents...)
	late, early := f.Agents[4], f.Agents[:4]
	late.Kill()
	owner := f.Agents[1]
	def := fmt.Sprintf(`{"id":"/many","cmd":"exec sleep 100000","cpus":0.01,"mem":32,"instances":%d,%s`, tasks, strings.TrimPrefix(onlyOn(owner), "{"))
	if _, _, err := c.request("POST", c.Marathon+"/v2/apps", def); err != nil {
		t.Fatal(err)
	}
	c.Running("/many", tasks)
	t.Logf("all views equal %v after the last of %d tasks was seen running", sameRecords(t, owner, early, tasks), tasks)
	late.Restart()
	t.Logf("a late one has it all in %v", sameRecords(t, owner, f.Agents, tasks))
	if _, _, err := c.request("PUT", c.Marathon+"/v2/apps/many", `{"instances":20}`); err != nil {
		t.Fatal(err)
	}
	c.Running("/many", 20)
	t.Logf("and when most are gone, in %v", sameRecords(t, owner, f.Agents, 20))
}

// sameRecords waits until all agents hold the same record of the owner, with so many tasks, and their DNS servers the same names.
func sameRecords(t *testing.T, owner *Agent, agents []*Agent, tasks int) time.Duration {
	t.Helper()
	began := time.Now()
	// Each of hundreds of starts is some hundred bytes, which the owner tells at 15 KiB a second.
	eventually(t, 40*time.Second, viewPace, "all views are equal", func() error {
		want, err := owner.Record(owner)
		if err != nil {
			return err
		}
		names, err := owner.Names()
		if err != nil {
			return err
		}
		if n := strings.Count(names, `"_many._tcp.marathon.mesos."`); n != 1 {
			return fmt.Errorf("DNS of %s has %d entries for the app", owner.name, n)
		}
		for _, a := range agents {
			view, err := a.Members()
			if err != nil {
				return err
			}
			if n := view[owner.ID].Tasks; n != tasks {
				return fmt.Errorf("%s sees %d tasks, want %d", a.name, n, tasks)
			}
			got, err := a.Record(owner)
			if err != nil {
				return err
			}
			if got != want {
				return fmt.Errorf("the record of %s is not the same on %s: %d and %d bytes", owner.name, a.name, len(want), len(got))
			}
			if got, err := a.Names(); err != nil || got != names {
				return fmt.Errorf("DNS of %s has %d bytes of names, that of %s %d (%v)", a.name, len(got), owner.name, len(names), err)
			}
		}
		return nil
	})
	return time.Since(began)
}

// An agent whose memory of the mesh was wiped, or goes back to an earlier day, is soon seen by all as it is now, and no task that
// was deleted in between comes back into DNS.
func TestLostMeshStateIsOutbid(t *testing.T) {
	t.Parallel()
	for _, restored := range []bool{true, false} {
		name := "wiped"
		if restored {
			name = "restored from a backup"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, c := NewFlockWithTasks(t, 4)
			Agree(t, 20*time.Second, f.Agents...)
			odd := f.Agents[2]
			c.ProbeApp("/gone", 2, onlyOn(odd))
			c.ProbeApp("/stays", 2, onlyOn(odd), notReplaced)
			c.Running("/gone", 2)
			Eventually(t, 10*time.Second, "every DNS server names the app", func() error {
				for _, a := range f.Agents {
					if names, err := a.Names(); err != nil || !strings.Contains(names, `"gone.marathon.mesos."`) {
						return fmt.Errorf("that of %s does not, %w", a.name, err)
					}
				}
				return nil
			})
			stays := c.Answers(c.Running("/stays", 2))
			backup := filepath.Join(t.TempDir(), "mesh")
			odd.Kill() // a copy that is made while it writes there may miss a file
			if err := os.CopyFS(backup, os.DirFS(filepath.Join(odd.Dir, "mesh"))); err != nil {
				t.Fatal(err)
			}
			for life := range 2 { // that the backup knows nothing of
				if life > 0 {
					odd.Kill()
				}
				odd.Restart()
				Agree(t, 20*time.Second, f.Agents...)
			}
			if _, _, err := c.request("DELETE", c.Marathon+"/v2/apps/gone", ""); err != nil {
				t.Fatal(err)
			}
			Eventually(t, 30*time.Second, "the deleted app is in no DNS server", func() error {
				if status, _, _ := c.request("GET", c.Marathon+"/v2/apps/gone", ""); status != http.StatusNotFound {
					return fmt.Errorf("Marathon answers %d", status)
				}
				return named(f.Agents, "gone")
			})
			before, err := f.Agents[0].Members()
			if err != nil {
				t.Fatal(err)
			}
			odd.Kill()
			if err := os.RemoveAll(filepath.Join(odd.Dir, "mesh")); err != nil {
				t.Fatal(err)
			}
			if restored {
				if err := os.CopyFS(filepath.Join(odd.Dir, "mesh"), os.DirFS(backup)); err != nil {
					t.Fatal(err)
				}
			}
			others := without(f.Agents, odd)
			During(t, others, func(*Agent, map[string]Member) error { return named(others, "gone") }, func() {
				odd.Restart()
				within(t, "its new record won everywhere", Agree(t, healWithin, f.Agents...), 10*time.Second)
				Eventually(t, 20*time.Second, "its DNS server tells names again", func() error {
					_, err := odd.Names()
					return err
				})
				<-time.After(5 * time.Second)
			})
			if err := named(f.Agents, "gone"); err != nil {
				t.Error(err)
			}
			after, err := f.Agents[0].Members()
			if err != nil {
				t.Fatal(err)
			}
			if before[odd.ID].Generation >= after[odd.ID].Generation {
				t.Errorf("its generation is %d, was %d: the old record shadows the new one", after[odd.ID].Generation, before[odd.ID].Generation)
			}
			c.unharmed("/stays", stays)
			c.EndpointsAt("stays", odd.Host.Addr, 2)
		})
	}
}

// named tells which of the agents' DNS servers names an app that should be gone.
func named(agents []*Agent, app string) error {
	for _, a := range agents {
		names, err := a.Names()
		if err != nil {
			return err
		}
		if strings.Contains(names, `"`+app+`.marathon.mesos."`) {
			return fmt.Errorf("DNS of %s still names /%s", a.name, app)
		}
	}
	return nil
}
