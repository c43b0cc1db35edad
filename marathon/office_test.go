package marathon_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"starling/marathon"
	"starling/marathon/event"
	"starling/marathon/scheduler"
	"starling/marathon/state"
	"starling/master/election"
	"starling/master/election/electiontest"
	"starling/master/store"
)

// council are several Marathons over one store.
type council struct {
	*rig
	election electiontest.Fake
	members  []*member
	backups  string
}

type member struct {
	m         *marathon.Marathon
	contender *electiontest.FakeContender
	memory    *note
	ended     chan error
	mayEnd    error // what it may end with
}

func newCouncil(t *testing.T, n int) *council {
	c := &council{rig: newRig(t), backups: t.TempDir()}
	for range n {
		c.join(nil)
	}
	c.lead(0)
	return c
}

// join adds a member, and waits until it is ready.
func (c *council) join(memory *note) *member {
	c.t.Helper()
	i := len(c.members)
	cfg := marathon.DefaultConfig()
	cfg.Masters, cfg.Hostname, cfg.User = []string{c.server.Address()}, fmt.Sprint("h", i), "nobody"
	cfg.Backups = c.backups
	if memory != nil {
		cfg.Memory = memory
	}
	cfg.Store, cfg.Log = c.store, slog.New(slog.NewTextHandler(c.t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	cfg.MinBackoff, cfg.MaxBackoff = 5*time.Millisecond, 50*time.Millisecond
	cfg.Scheduler.ScaleInitialDelay = 50 * time.Millisecond
	one := &member{contender: c.election.Contender(), memory: memory, ended: make(chan error, 1)}
	cfg.Contender, cfg.Election = one.contender, one.contender
	cfg.Address = fmt.Sprintf("h%d:8080", i)
	cfg.Candidate = election.Candidate{ID: fmt.Sprint("id-", i), Hostname: cfg.Hostname, Address: "127.0.0.1", Port: 8080}
	m, err := marathon.New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	one.m = m
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		one.ended <- m.Run(ctx)
		close(one.ended)
	}()
	c.t.Cleanup(func() {
		cancel()
		if err := <-one.ended; err != nil && (one.mayEnd == nil || !errors.Is(err, one.mayEnd)) {
			c.t.Errorf("run ended with %v", err)
		}
	})
	c.members = append(c.members, one)
	c.eventually("it is ready", m.Ready)
	c.eventually("it stands", one.contender.Stands) // before the next does
	return one
}

// lead waits until a member leads, all say so, and it is the one that c asks.
func (c *council) lead(n int) {
	c.t.Helper()
	for i, member := range c.members {
		c.eventually(fmt.Sprintf("%d says that %d leads", i, n), func() bool {
			s := member.m.Standing()
			return s.Leads == (i == n) && s.Leader == fmt.Sprintf("h%d:8080", n)
		})
	}
	c.m = c.members[n].m
}

func TestNextLeaderGoesOnWhereTheLastOneStopped(t *testing.T) {
	c := newCouncil(t, 3)
	if _, err := c.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1,"instances":3}`); err != nil {
		t.Fatal(err)
	}
	c.settled("web", 3)
	tasks, framework := c.taskIDs(), c.cluster.FrameworkID()
	// A deployment that can't end: there is not so much of anything.
	result, err := c.put(`{"id":"/large","cmd":"sleep 1000","cpus":1000}`)
	if err != nil {
		t.Fatal(err)
	}
	sub := c.m.Events().Subscribe(0)
	last := c.m
	c.members[0].contender.Expire()
	c.lead(1)
	for {
		if _, err := sub.Next(t.Context()); err != nil {
			if !errors.Is(err, event.ErrClosed) {
				t.Errorf("the stream of the last leader ended with %v", err)
			}
			break
		}
	}
	if _, err := last.TreeVersions(); !errors.Is(err, marathon.ErrNotReady) {
		t.Errorf("the last leader still has the state: %v", err)
	}
	if err := c.m.Read(func(v scheduler.View, _ time.Time) {
		if v.Deployment(result.Plan.ID) == nil {
			t.Errorf("deployment %s is gone", result.Plan.ID)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.put(`{"id":"/web","instances":4}`); err != nil {
		t.Fatal(err)
	}
	c.eventually("the next leader scales", func() bool { return c.running("web") == 4 })
	for id := range strings.FieldsSeq(tasks) {
		if !strings.Contains(c.taskIDs(), id) {
			t.Errorf("task %s is gone", id)
		}
	}
	if now := c.cluster.FrameworkID(); now != framework {
		t.Errorf("the framework is %s now, was %s", now, framework)
	}
}

func TestAbdicationHandsOver(t *testing.T) {
	c := newCouncil(t, 2)
	if err := c.m.Abdicate(t.Context(), marathon.Handover{}); err != nil {
		t.Fatal(err)
	}
	c.lead(1)
	if err := c.members[0].m.Abdicate(t.Context(), marathon.Handover{}); !errors.Is(err, marathon.ErrNotReady) {
		t.Errorf("one that does not lead gives up, with %v", err)
	}
}

func TestTwoOfOneAddressAreToldApart(t *testing.T) {
	c := newCouncil(t, 1)
	cfg := c.m.Config()
	cfg.Candidate.ID = "another"
	contender := c.election.Contender()
	cfg.Contender, cfg.Election = contender, contender
	twin, err := marathon.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- twin.Run(ctx) }()
	c.eventually("it is told that its address is taken", func() bool { return twin.Standing().Clash })
	if twin.Ready() || twin.Leader() != "" {
		t.Errorf("it is ready, and knows %q to lead", twin.Leader())
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// abdicate hands over to the one other member.
func (c *council) abdicate(h marathon.Handover) {
	c.t.Helper()
	next := 0
	if c.m == c.members[0].m {
		next = 1
	}
	if err := c.m.Abdicate(c.t.Context(), h); err != nil {
		c.t.Fatal(err)
	}
	c.lead(next)
}

func TestBackupIsRestored(t *testing.T) {
	c := newCouncil(t, 2)
	if _, err := c.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1,"instances":2}`); err != nil {
		t.Fatal(err)
	}
	c.settled("web", 2)
	file := filepath.Join(c.backups, "state.tar")
	c.abdicate(marathon.Handover{Backup: "file://" + file})
	if _, err := c.put(`{"id":"/later","cmd":"sleep 1000","cpus":0.1}`); err != nil {
		t.Fatal(err)
	}
	c.settled("later", 1)
	tasks := c.taskIDs()
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}

	// One that is torn changes nothing.
	torn := file + ".torn"
	if err := os.WriteFile(torn, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{torn, file + ".none"} {
		c.abdicate(marathon.Handover{Restore: "file://" + bad})
		if keys := c.store.Keys("marathon/apps/later/"); len(keys) != 1 {
			t.Fatalf("after restoring %s there are %v", bad, keys)
		}
	}

	c.abdicate(marathon.Handover{Restore: "file://" + file})
	if keys := c.store.Keys("marathon/apps/later/"); len(keys) != 0 {
		t.Errorf("what was made after the backup is there: %v", keys)
	}
	for _, leader := range []bool{true, false} {
		c.eventually("it is subscribed again", func() bool { return c.running("web") == 2 })
		if err := c.m.Read(func(v scheduler.View, _ time.Time) {
			if !v.Doubt() {
				t.Error("there is no doubt")
			}
		}); err != nil {
			t.Fatal(err)
		}
		if got := c.taskIDs(); got != tasks {
			t.Errorf("tasks are %s, were %s", got, tasks)
		}
		if leader {
			c.abdicate(marathon.Handover{})
		}
	}
	// A backup that can't be made is not followed by what it was meant to be from before.
	if err := os.Mkdir(file+".dir", 0o700); err != nil {
		t.Fatal(err)
	}
	c.abdicate(marathon.Handover{Backup: "file://" + file + ".dir", Settle: true})
	if last := c.m.LastCarried(); last == nil || last.Error == "" {
		t.Fatalf("told of a backup in the place of a folder: %+v", last)
	}
	if keys := c.store.Keys(state.Restored); len(keys) != 1 {
		t.Error("it is settled though the backup failed")
	}

	c.abdicate(marathon.Handover{Settle: true})
	c.eventually("what is unknown goes once that is settled", func() bool { return c.running("later") == 0 })
	if c.running("web") != 2 {
		t.Errorf("%d tasks of the app that is known", c.running("web"))
	}
}

// What was asked for and not done in time is not done by a leader who comes long after.
func TestOldHandoverIsForgotten(t *testing.T) {
	c := newCouncil(t, 2)
	file := filepath.Join(c.backups, "late.tar")
	old := fmt.Sprintf(`{"format":1,"asked":%q,"backup":"file://%s"}`, time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), file)
	if _, err := c.store.Write(t.Context(), store.Op{Key: "handover/next", Version: store.Any, Data: []byte(old)}); err != nil {
		t.Fatal(err)
	}
	c.abdicate(marathon.Handover{})
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the backup was made after all: %v", err)
	}
	if keys := c.store.Keys("handover/"); len(keys) != 0 {
		t.Errorf("%v is left", keys)
	}
}

// A link in the folder of the backups must not lead a backup elsewhere.
func TestBackupStaysInItsFolder(t *testing.T) {
	c := newCouncil(t, 2)
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(c.backups, "out")); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(c.backups, "b.tar.unfinished")); err != nil {
		t.Fatal(err)
	}
	c.abdicate(marathon.Handover{Backup: "file://" + c.backups + "/out/victim"})
	c.abdicate(marathon.Handover{Backup: "file://" + c.backups + "/b.tar"})
	if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
		t.Errorf("the file outside has %q, %v", got, err)
	}
	if info, err := os.Lstat(filepath.Join(c.backups, "b.tar")); err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup is %v, %v", info, err)
	}
}

// Every one has a folder of its own for backups, as a rule below its work folder: a file of the one that is asked means that of the same
// name with the one that makes it.
func TestBackupsHaveOneNameInAllFolders(t *testing.T) {
	c := newCouncil(t, 1)
	first := c.backups
	c.backups = t.TempDir()
	c.join(nil)
	c.abdicate(marathon.Handover{Backup: "file://" + first + "/b.tar"})
	file := filepath.Join(c.backups, "b.tar")
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	if last := c.m.LastCarried(); last == nil || last.Backup != "file://"+file || last.Error != "" {
		t.Errorf("told of the backup: %+v", last)
	}
	c.abdicate(marathon.Handover{Backup: "by-name.tar"})
	c.abdicate(marathon.Handover{Restore: "b.tar"})
	if last := c.m.LastCarried(); last == nil || last.Restore != "file://"+file || last.Error != "" {
		t.Errorf("told of the restore: %+v", last)
	}
	if _, err := os.Stat(filepath.Join(first, "by-name.tar")); err != nil {
		t.Error(err)
	}
}

func TestHandoverThatIsImpossibleIsRefused(t *testing.T) {
	c := newCouncil(t, 1)
	for _, uri := range []string{
		"s3://bucket/x", "/tmp/x", "file://elsewhere/x", "file:///", "file:///a/../b", "file:x", "%", "file:///etc/passwd", "../x", "a/../x", "x?y", ".", "//h/x", "file://" + c.backups, "file://" + filepath.Dir(c.backups) + "/x",
	} {
		for _, h := range []marathon.Handover{{Backup: uri}, {Restore: uri}} {
			if err := c.m.Abdicate(t.Context(), h); !errors.Is(err, marathon.ErrHandover) {
				t.Errorf("%+v gives %v", h, err)
			}
		}
	}
}

// Who holds the lease is right, whoever else subscribes as the framework; but not for ever.
func TestLeaderTakesItsFrameworkBack(t *testing.T) {
	c := newCouncil(t, 1)
	if _, err := c.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1}`); err != nil {
		t.Fatal(err)
	}
	c.settled("web", 1)
	// Some may look like a connection that broke, which is no reason to count.
	c.members[0].mayEnd = marathon.ErrSuperseded
	var err error
	back, over := 0, false
	for range 20 {
		before := c.cluster.Sessions()
		c.intrude()
		c.eventually("it subscribes again, or gives up", func() bool {
			select {
			case err = <-c.members[0].ended:
				over = true
				return true
			default:
			}
			return c.cluster.Sessions() >= before+2 && c.connected()
		})
		if over {
			break
		}
		back++
	}
	if !over || back < 3 || !errors.Is(err, marathon.ErrSuperseded) {
		t.Errorf("it has taken the framework back %d times, and ended %v with %v", back, over, err)
	}
}

// Those who don't lead have launched nothing.
func TestFollowersCountNothing(t *testing.T) {
	c := newCouncil(t, 2)
	if _, err := c.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1}`); err != nil {
		t.Fatal(err)
	}
	c.settled("web", 1)
	launched := func(m *marathon.Marathon, name string) float64 {
		for _, one := range m.Metrics() {
			if one.Name == "marathon."+name {
				return one.Value
			}
		}
		t.Errorf("there is no %s", name)
		return -1
	}
	last := c.m
	for _, name := range []string{"tasks.launched.counter", "mesos.offer-operations.launch.counter", "deployments.counter"} {
		if n := launched(last, name); n != 1 {
			t.Errorf("%s of the leader is %v", name, n)
		}
	}
	c.abdicate(marathon.Handover{})
	c.eventually("the former leader shows none", func() bool {
		return launched(last, "tasks.launched.counter") == 0 && launched(last, "deployments.counter") == 0
	})
	for _, name := range []string{
		"mesos.offer-operations.launch-group.counter", "mesos.offer-operations.reserve.counter",
		"mesos.task.oom.memory-limit-unfulfillable.counter", "persistence.gc.runs.counter",
	} {
		launched(last, name)
	}
}

// A store that can't be read for a moment says nothing about a backup: it is made when the store is back.
func TestBackupWaitsForTheStore(t *testing.T) {
	c := newCouncil(t, 2)
	failing := true
	c.store.FailLists(func(prefix string) error {
		if failing && prefix == "marathon/" {
			failing = false
			return errors.New("connection lost")
		}
		return nil
	})
	backup := "file://" + filepath.Join(c.backups, "state.tar")
	c.abdicate(marathon.Handover{Backup: backup})
	if last := c.m.LastCarried(); failing || last == nil || last.Error != "" {
		t.Errorf("of the backup is told %+v", last)
	}
}

func TestCallbacksThatDontFitAreRefused(t *testing.T) {
	r := newRig(t)
	r.configure = func(c *marathon.Config) { c.Callbacks.On = true }
	r.start()
	long := "http://127.0.0.1:1/" + strings.Repeat("x", 1990)
	n := 0
	for ; n < 600; n++ {
		if _, err := r.m.Subscribe(t.Context(), fmt.Sprint(long, n), "client"); err != nil {
			if !errors.Is(err, marathon.ErrCallback) {
				t.Errorf("refused with %v", err)
			}
			break
		}
	}
	if n < 400 || n >= 500 {
		t.Errorf("%d callbacks fit", n)
	}
	if _, err := r.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1}`); err != nil {
		t.Errorf("another change: %v", err)
	}
}

// Whoever waits for a write when the term ends is told so.
func TestEndOfTheTermIsTold(t *testing.T) {
	c := newCouncil(t, 2)
	broken := c.breakStore("marathon/apps/web/")
	told := make(chan error, 1)
	go func() {
		_, err := c.put(`{"id":"/web","cmd":"sleep 1000","cpus":0.1}`)
		told <- err
	}()
	select {
	case <-broken: // it waits for the store
	case <-time.After(patience):
		t.Fatal("nothing is written")
	}
	c.members[0].contender.Expire()
	if err := <-told; !errors.Is(err, marathon.ErrTermEnded) {
		t.Errorf("told %v", err)
	}
	c.store.Fail(nil)
	c.lead(1)
}
