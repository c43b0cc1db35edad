package hosts

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// ZooKeeper is emptied under three Marathons: they end by name, and no task notices. The backup of an earlier time is restored,
// and what is newer than that is left alone, listed, and adopted.
func TestMarathonsOverAnEmptiedZooKeeper(t *testing.T) {
	t.Parallel()
	m := NewMarathons(t, 2, officeSession())
	m.ProbeApp("/probe", 4)
	m.Running("/probe", 4)
	framework := m.framework()
	backup := filepath.Join(m.Backups, "state.tar")
	if _, body, err := m.request("DELETE", m.Marathon+"/v2/leader?backup=file://"+backup, ""); err != nil {
		t.Fatal(err, body)
	}
	Eventually(t, time.Minute, "the state is backed up", func() error {
		_, err := os.Stat(backup)
		return err
	})
	Eventually(t, time.Minute, "another app is made", func() error {
		_, _, err := m.request("PUT", m.Marathon+"/v2/apps/other", `{"cmd":"sleep 1000","cpus":0.05,"mem":32,"instances":0}`)
		return err
	})
	m.ProbeApp("/later", 2)
	m.Running("/later", 2)
	var before map[string]int
	Eventually(t, time.Minute, "all probes have left their marks", func() error {
		if before = m.pids(); len(before) != 6 {
			return fmt.Errorf("they are %v", before)
		}
		return nil
	})

	m.ZooKeeper.Kill()
	m.ZooKeeper.Wipe()
	m.ZooKeeper.Start()
	for _, one := range m.All {
		select {
		case <-one.done:
			if code := one.cmd.ProcessState.ExitCode(); code != 108 {
				t.Errorf("%s ended with code %d, want 108:\n%s", one.name, code, one.out)
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("%s goes on over an empty store", one.name)
		}
	}
	m.same(before)

	first := m.All[0]
	plain := first.args
	first.args = append(append([]string{}, plain...), "--lost-state="+backup)
	first.run()
	first.Healthy(first.URL + "/health")
	first.args = plain
	for _, one := range m.All[1:] {
		one.run()
		one.Healthy(one.URL + "/health")
	}
	m.Running("/probe", 4)
	var orphans struct {
		Orphans []struct{ ID, AppID string }
	}
	Eventually(t, time.Minute, "what is newer than the backup is listed", func() error {
		_, body, err := m.request("GET", m.Marathon+"/v2/orphans", "")
		if err == nil {
			err = json.Unmarshal([]byte(body), &orphans)
		}
		if err == nil && len(orphans.Orphans) != 2 {
			err = errors.New(body)
		}
		return err
	})
	m.same(before)
	if now := m.framework(); now != framework {
		t.Errorf("the framework is %s now, was %s", now, framework)
	}

	m.ProbeApp("/later", 0)
	m.Running("/later", 0)
	if _, body, err := m.request("POST", m.Marathon+"/v2/orphans/adopt", `{"all":true}`); err != nil {
		t.Fatal(err, body)
	}
	if _, body, err := m.request("PUT", m.Marathon+"/v2/apps/later", `{"instances":2}`); err != nil {
		t.Fatal(err, body)
	}
	tasks := m.Running("/later", 2)
	for _, task := range tasks {
		if _, ok := before[task.ID]; !ok || task.Host == "" || len(task.Ports) != 1 {
			t.Errorf("a task of the app is %+v", task)
		}
	}
	m.same(before)
}

// same checks that the tasks are those of before, with their processes, and that none was started since.
func (m *Marathons) same(before map[string]int) {
	m.t.Helper()
	m.alive(before)
	if now := m.pids(); fmt.Sprint(now) != fmt.Sprint(before) {
		m.t.Errorf("tasks and their processes are %v, were %v", now, before)
	}
}
