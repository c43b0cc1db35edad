package marathon_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/marathon"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
	"starling/marathon/state"
	"starling/master/store"
)

// note is a Memory, that of one machine.
type note struct {
	mu      sync.Mutex
	id      string
	failing error
}

func (n *note) Recall() (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.id, n.failing
}

func (n *note) Keep(id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.id = id
	return nil
}

// until waits for the end of Run.
func (r *rig) until() error {
	r.t.Helper()
	defer func() { r.stop(); r.stop = nil }()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(patience):
		r.t.Fatal("marathon goes on")
		return nil
	}
}

// An emptied store is no new one: nothing is begun anew over the tasks of before.
func TestEmptiedStoreIsToldFromANewOne(t *testing.T) {
	r := newRig(t)
	remembered := &note{}
	folder := t.TempDir()
	r.configure = func(c *marathon.Config) { c.Memory, c.Backups = remembered, folder }
	r.start()
	if _, err := r.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1,"instances":2}`); err != nil {
		t.Fatal(err)
	}
	r.settled("web", 2)
	tasks, framework := r.taskIDs(), r.cluster.FrameworkID()
	if remembered.id != framework {
		t.Errorf("%q is remembered of the framework %q", remembered.id, framework)
	}
	backup := "file://" + filepath.Join(folder, "state.tar")
	if err := r.m.Abdicate(t.Context(), marathon.Handover{Backup: backup}); err != nil {
		t.Fatal(err)
	}
	r.eventually("it is backed up", func() bool { c := r.m.LastCarried(); return c != nil && c.Backup == backup && c.Error == "" })
	r.eventually("leading again", func() bool { return r.running("web") == 2 && r.m.Ready() })
	r.kill()

	empty := func() { r.store = mastertest.NewStore() }
	expectEnd := func(lost string) error {
		t.Helper()
		r.configure = func(c *marathon.Config) { c.Memory, c.Backups, c.Lost = remembered, folder, lost }
		return r.startUnready()
	}
	empty()
	if err := expectEnd(marathon.LostStop); !errors.Is(err, marathon.ErrStateLost) || !strings.Contains(err.Error(), framework) {
		t.Errorf("over an empty store it ends with %v", err)
	}
	if err := expectEnd("file://" + filepath.Join(folder, "none.tar")); !errors.Is(err, marathon.ErrStateLost) {
		t.Errorf("without the backup it ends with %v", err)
	}
	if got := r.taskIDs(); got != tasks {
		t.Errorf("tasks are %s, were %s", got, tasks)
	}
	if keys := r.store.Keys(""); len(keys) != 0 {
		t.Errorf("something was stored: %v", keys)
	}

	r.configure = func(c *marathon.Config) { c.Memory, c.Backups, c.Lost = remembered, folder, backup }
	r.start()
	r.eventually("the app is there again with its tasks", func() bool { return len(r.instances("/web")) == 2 && r.running("web") == 2 })
	if got := r.taskIDs(); got != tasks || r.cluster.FrameworkID() != framework {
		t.Errorf("tasks are %s of %s, were %s of %s", got, r.cluster.FrameworkID(), tasks, framework)
	}
	if c := r.m.LastCarried(); c == nil || c.Restore != backup || c.Documents == 0 {
		t.Errorf("of the restore is told %+v", c)
	}
	r.kill()

	empty()
	r.cluster = mastertest.New(nil) // the one that there was knows one framework alone
	r.server = mastertest.NewServer(t, r.cluster)
	r.configure = func(c *marathon.Config) { c.Memory, c.Backups, c.Lost = remembered, folder, marathon.LostNew }
	r.start()
	r.eventually("another framework begins", func() bool { return len(r.store.Keys("marathon/framework")) == 1 })
	r.kill()
	if remembered.id == "" {
		t.Error("the new framework is not remembered")
	}

	remembered.failing = errors.New("cannot be read")
	cfg := r.m.Config()
	if _, err := marathon.New(cfg); !errors.Is(err, remembered.failing) {
		t.Errorf("without its memory it begins, with %v", err)
	}
}

// startUnready runs a Marathon that is not to get ready, until it ends.
func (r *rig) startUnready() error {
	r.t.Helper()
	m, stop, ended := r.launch()
	r.m, r.stop, r.ended = m, stop, ended
	return r.until()
}

// One that has never led knows the framework too, and stops like the others.
func TestThoseWhoNeverLedRemember(t *testing.T) {
	c := newCouncil(t, 1)
	if _, err := c.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1}`); err != nil {
		t.Fatal(err)
	}
	c.settled("web", 1)
	follower := c.join(&note{})
	c.eventually("it has learned the framework", func() bool {
		id, _ := follower.memory.Recall()
		return id == c.cluster.FrameworkID()
	})
	tasks := c.taskIDs()
	for _, key := range c.store.Keys("") {
		if _, err := c.store.Write(t.Context(), store.Op{Key: key, Version: store.Any, Delete: true}); err != nil {
			t.Fatal(err)
		}
	}
	c.members[0].contender.Expire()
	select {
	case err := <-follower.ended:
		if !errors.Is(err, marathon.ErrStateLost) {
			t.Errorf("it ends with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it goes on")
	}
	if got := c.taskIDs(); got != tasks {
		t.Errorf("tasks are %s, were %s", got, tasks)
	}
	c.members[0].mayEnd = marathon.ErrStateLost // the lease is its own again
}

// What was launched after a backup is listed, killed by nobody for some time, and can be adopted or dismissed.
func TestRestoreKillsNothingAndOrphansAreAdopted(t *testing.T) {
	c := newCouncil(t, 2)
	if _, err := c.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1,"instances":2}`); err != nil {
		t.Fatal(err)
	}
	c.settled("web", 2)
	// At the time of the backup an upgrade is under way that would end the tasks of today.
	if _, err := c.put(`{"id":"/stuck","cmd":"sleep 1000","cpus":1000}`); err != nil {
		t.Fatal(err)
	}
	backup := "file://" + filepath.Join(c.backups, "old.tar")
	c.abdicate(marathon.Handover{Backup: backup})
	if _, err := c.put(`{"id":"/web","instances":4}`); err != nil {
		t.Fatal(err)
	}
	if _, err := c.put(`{"id":"/later","cmd":"sleep 1000","cpus":0.1}`); err != nil {
		t.Fatal(err)
	}
	c.eventually("all run", func() bool { return c.running("web") == 4 && c.running("later") == 1 })
	tasks := c.taskIDs()

	c.abdicate(marathon.Handover{Restore: backup})
	orphans := func() []scheduler.Orphan {
		var out []scheduler.Orphan
		if err := c.m.Read(func(v scheduler.View, _ time.Time) { out = v.Orphans() }); err != nil {
			return nil
		}
		return out
	}
	c.eventually("all that is unknown is listed", func() bool { return len(orphans()) == 3 })
	last := c.m.LastCarried()
	if last == nil || len(last.Dropped) != 1 || last.Replaced == "" {
		t.Fatalf("of the restore is told %+v", last)
	}
	if _, err := os.Stat(strings.TrimPrefix(last.Replaced, "file://")); err != nil {
		t.Errorf("what was replaced is not kept: %v", err)
	}
	if got := c.deployments(); got != 0 {
		t.Errorf("%d deployments of the backup go on", got)
	}
	result, err := c.m.AdoptOrphans(t.Context(), nil)
	if err != nil || len(result.Adopted) != 2 || len(result.Refused) != 1 {
		t.Fatalf("%v: adopted %v, refused %v", err, result.Adopted, result.Refused)
	}
	for id, why := range result.Refused {
		if !strings.HasPrefix(id, "later.") || !strings.Contains(why, "there is no app /later") {
			t.Errorf("%s is refused since %s", id, why)
		}
	}
	if n := len(c.instances("/web")); n != 4 {
		t.Errorf("the app has %d instances", n)
	}
	if err := c.m.Read(func(v scheduler.View, _ time.Time) {
		for _, i := range v.Instances("/web") {
			if i.Host != "127.0.0.1" || len(i.Ports) != 1 || i.Condition != scheduler.Running {
				t.Errorf("an instance is %+v", i)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	// The next leader knows them, and still kills none.
	c.abdicate(marathon.Handover{})
	c.eventually("the other is an orphan still", func() bool { return len(orphans()) == 1 })
	if got := c.taskIDs(); got != tasks {
		t.Errorf("tasks are %s, were %s", got, tasks)
	}
	if unknown, err := c.m.DismissOrphans(t.Context(), []string{"no-such", orphans()[0].TaskID}); err != nil || len(unknown) != 1 {
		t.Errorf("dismissed: %v, %v", unknown, err)
	}
	c.eventually("it is gone", func() bool { return c.running("later") == 0 && len(orphans()) == 0 })
	c.abdicate(marathon.Handover{Settle: true})
	c.eventually("what is more than wanted goes once that is settled", func() bool { return c.running("web") == 2 })
}

func TestBackupOfAnotherFrameworkIsRefused(t *testing.T) {
	c := newCouncil(t, 2)
	c.eventually("there is a framework", func() bool { return c.cluster.FrameworkID() != "" && len(c.store.Keys("marathon/framework")) == 1 })
	backup := "file://" + filepath.Join(c.backups, "other.tar")
	c.abdicate(marathon.Handover{Backup: backup})
	mine := `{"id":"another"}`
	if _, err := c.store.Write(t.Context(), store.Op{Key: "marathon/framework", Version: store.Any, Data: []byte(mine)}); err != nil {
		t.Fatal(err)
	}
	c.abdicate(marathon.Handover{Restore: backup})
	if last := c.m.LastCarried(); last == nil || !strings.Contains(last.Error, "anotherFramework=true") {
		t.Errorf("of the restore is told %+v", last)
	}
	if id, err := state.FrameworkID(t.Context(), c.store); err != nil || id != "another" {
		t.Errorf("the framework is %q, %v", id, err)
	}
	c.abdicate(marathon.Handover{Restore: backup, AnotherFramework: true})
	if last := c.m.LastCarried(); last == nil || last.Error != "" {
		t.Errorf("of the restore is told %+v", last)
	}
}

// A history above what can be restored at once is left out of a backup; a state above that is not backed up as if it could be.
func TestBackupsCanBeRestored(t *testing.T) {
	c := newCouncil(t, 2)
	if _, err := c.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1,"instances":0}`); err != nil {
		t.Fatal(err)
	}
	label := strings.Repeat("x", 900<<10)
	for range 3 {
		if _, err := c.put(`{"id":"/large","cmd":"sleep 1","cpus":0.1,"instances":0,"labels":{"l":"` + label + `"}}`); err != nil {
			t.Fatal(err)
		}
	}
	keys := c.store.Keys("marathon/apps/large/")
	d, err := c.store.Get(t.Context(), keys[0])
	if err != nil {
		t.Fatal(err)
	}
	for n := range 60 { // older versions, as large
		version := strings.Replace("marathon/apps/large/0000000000NN00", "NN", string(rune('0'+n/10))+string(rune('0'+n%10)), 1)
		if _, err := c.store.Write(t.Context(), store.Op{Key: version, Version: store.Any, Data: d.Data}); err != nil {
			t.Fatal(err)
		}
	}
	backup := "file://" + filepath.Join(c.backups, "large.tar")
	c.abdicate(marathon.Handover{Backup: backup})
	last := c.m.LastCarried()
	if last == nil || last.Error != "" || last.LeftOut < 60 {
		t.Fatalf("of the backup is told %+v", last)
	}
	c.abdicate(marathon.Handover{Restore: backup})
	if last = c.m.LastCarried(); last == nil || last.Error != "" || last.Documents == 0 {
		t.Fatalf("of the restore is told %+v", last)
	}
	if err := c.m.Read(func(v scheduler.View, _ time.Time) {
		if v.Root().Len() != 2 {
			t.Errorf("there are %d apps", v.Root().Len())
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// One that remembers nothing takes an emptied store for a new one, whatever is to be done about a loss; from then on it remembers.
func TestOneThatRemembersNothingCannotTell(t *testing.T) {
	r := newRig(t)
	remembered := &note{}
	folder := t.TempDir()
	r.configure = func(c *marathon.Config) {
		c.Memory, c.Backups, c.Lost = remembered, folder, "file://"+filepath.Join(folder, "none.tar")
	}
	r.start()
	r.eventually("it is a framework, and remembers that", func() bool {
		id, _ := remembered.Recall()
		return id != "" && id == r.cluster.FrameworkID()
	})
	r.kill()
	r.store = mastertest.NewStore()
	if err := r.startUnready(); !errors.Is(err, marathon.ErrStateLost) {
		t.Errorf("over a store that was emptied since, it ends with %v", err)
	}
}
