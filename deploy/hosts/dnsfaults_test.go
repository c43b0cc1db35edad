package hosts

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// names asks an agent's own DNS server, from its host, and tells why the answer is not the one wanted.
func (k *asker) names(name string, want ...string) error {
	t := dnsmessage.TypeA
	if strings.HasPrefix(name, "_") {
		t = dnsmessage.TypeSRV
	}
	got, err := k.ask(name, t)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if got.RCode != dnsmessage.RCodeSuccess && got.RCode != dnsmessage.RCodeNameError {
		return fmt.Errorf("%s: %v", name, got.RCode)
	}
	if t == dnsmessage.TypeSRV {
		for i, target := range got.answers {
			got.answers[i] = strings.Fields(target)[1]
		}
	}
	if err := same(got.answers, want); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// portsOf are those of tasks.
func portsOf(tasks []Task) []string {
	var all []string
	for _, task := range tasks {
		for _, port := range task.Ports {
			all = append(all, fmt.Sprint(port))
		}
	}
	return all
}

// With all masters, Marathon and ZooKeeper dead every node answers for what ran: at once, and as long as that lasts. What agents find
// out by themselves is in the answers as soon as ever: a task that dies, one that falls ill and gets well, a node that dies and comes back.
func TestDNSWithoutMasters(t *testing.T) {
	r := size(t, row{hosts: 4, lasts: 5 * time.Second}, row{hosts: 12, lasts: time.Hour})
	m := NewMasters(t, 3, r.hosts, 8*time.Second) // not to be lost to a busy machine
	m.ZooKeeper.Start()
	for range 3 {
		m.StartMaster()
	}
	for range r.hosts {
		m.StartAgent()
	}
	m.StartMarathon()
	for _, a := range m.Agents {
		a.Ready()
	}
	Agree(t, time.Minute, m.Agents...)
	hospital := t.TempDir()
	// With the number of groups every agent gets two, also one that is offered late because its supervisor was slow to start.
	m.ProbeApp("/plain", 2*r.hosts, fmt.Sprintf(`{"constraints":[["hostname","GROUP_BY","%d"]]}`, r.hosts))
	m.ProbeApp("/checked", 2, fmt.Sprintf(`{"healthChecks":[{"protocol":"COMMAND","delaySeconds":0,"command":{"value":"test ! -e %s/$MESOS_TASK_ID"},
		"intervalSeconds":1,"timeoutSeconds":5,"gracePeriodSeconds":0,"maxConsecutiveFailures":0}]}`, hospital))
	plain, checked := m.Running("/plain", 2*r.hosts), m.Running("/checked", 2)
	leader := m.Leader(leads)
	ask := map[*Agent]*asker{}
	for _, a := range m.Agents {
		ask[a] = a.Host.asker(a.Host.at(53))
	}
	const plainName, checkedName = "_plain._tcp.marathon.mesos.", "_checked._tcp.marathon.mesos."
	// right tells why an agent does not answer as it should.
	right := func(a *Agent) error {
		for _, of := range []struct {
			name string
			want []string
		}{
			{plainName, portsOf(plain)},
			{checkedName, portsOf(checked)},
			{"plain.marathon.mesos.", hostsOf(plain)},
			{"leader.mesos.", []string{leader.Host.Addr}}, // aged is better than none
		} {
			if err := ask[a].names(of.name, of.want...); err != nil {
				return fmt.Errorf("%s: %w", a.name, err)
			}
		}
		return nil
	}
	// all waits until all agents answer right.
	all := func(what string, bar time.Duration, agents ...*Agent) {
		t.Helper()
		began := time.Now()
		Eventually(t, 3*bar+10*time.Second, "all answer: "+what, func() error {
			for _, a := range agents {
				if err := right(a); err != nil {
					return err
				}
			}
			return nil
		})
		within(t, "all answer: "+what, time.Since(began), bar)
	}
	all("what runs", 5*time.Second, m.Agents...)

	m.MarathonProcess.Kill()
	for _, master := range m.Masters {
		master.Kill()
	}
	m.ZooKeeper.Kill()
	pace := max(50*time.Millisecond, r.lasts/3600)
	for deadline := time.Now().Add(r.lasts); time.Now().Before(deadline); <-time.After(pace) {
		for _, a := range m.Agents {
			if err := right(a); err != nil {
				t.Fatalf("without masters: %v", err)
			}
		}
	}
	Eventually(t, time.Minute, "the masters are held for dead", func() error {
		for _, a := range m.Agents {
			view, err := a.Members()
			if err != nil {
				return err
			}
			for _, member := range view {
				if member.AgentID == "" && member.State != "dead" {
					return fmt.Errorf("%s holds %s for %s", a.name, member.Name, member.State)
				}
			}
		}
		return nil
	})
	all("what ran, when the masters are held for dead", time.Second, m.Agents...)

	victim := plain[0]
	plain = plain[1:]
	killProcess(t, m.pidsOf(victim.ID)[victim.ID])
	all("that a task died", 2*time.Second, m.Agents...)

	sick := filepath.Join(hospital, checked[0].ID)
	well := checked
	if err := os.WriteFile(sick, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	checked = checked[1:]
	all("that a task fell ill", 4*time.Second, m.Agents...)
	if err := os.Remove(sick); err != nil {
		t.Fatal(err)
	}
	checked = well
	all("that it is well again", 4*time.Second, m.Agents...)

	// A node that dies takes its names along as soon as it is suspected.
	lost := m.Agents[r.hosts-1]
	others := without(m.Agents, lost)
	onIt := func(task Task) bool { return task.Host == lost.Host.Addr }
	plainBefore, checkedBefore := plain, checked
	plain, checked = slices.DeleteFunc(slices.Clone(plain), onIt), slices.DeleteFunc(slices.Clone(checked), onIt)
	if len(plain) == len(plainBefore) {
		t.Fatalf("no task is on %s", lost.name)
	}
	suspected, gone := map[*Agent]time.Time{}, map[*Agent]time.Time{}
	lost.Kill()
	died := time.Now()
	Eventually(t, 60*time.Second, "the names of a dead node are gone", func() error {
		for _, a := range others {
			if _, ok := suspected[a]; !ok && sees([]*Agent{a}, lost.ID, "suspect", "dead") == nil {
				suspected[a] = time.Now()
			}
			if _, ok := gone[a]; !ok && right(a) == nil {
				gone[a] = time.Now()
			}
		}
		if len(gone) < len(others) || len(suspected) < len(others) {
			return fmt.Errorf("it is suspected by %d, gone from %d of %d", len(suspected), len(gone), len(others))
		}
		return nil
	})
	for _, a := range others {
		t.Logf("%s: a dead node was suspected after %v, its names were gone after %v", a.name,
			suspected[a].Sub(died).Round(10*time.Millisecond), gone[a].Sub(died).Round(10*time.Millisecond))
		within(t, "names gone after the suspicion", max(0, gone[a].Sub(suspected[a])), time.Second)
	}
	plain, checked = plainBefore, checkedBefore
	lost.Restart()
	all("what runs on a node that came back", 15*time.Second, m.Agents...)
}
