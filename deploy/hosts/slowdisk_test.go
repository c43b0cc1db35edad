package hosts

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"starling/master/election"
	"starling/master/election/zkelection"
	"starling/master/store"
	"starling/master/store/zkstore"
	"starling/master/zookeeper"
	"starling/master/zookeeper/zktest"
)

// slowSync has a program wait before it syncs a file, while the file that SLOW_SYNC names is there.
const slowSync = `
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static void slow(void) {
	const char *file = getenv("SLOW_SYNC");
	struct timespec left = {5, 0};
	if (file && access(file, F_OK) == 0)
		while (nanosleep(&left, &left) != 0 && errno == EINTR);
}
int fsync(int fd) { slow(); return syscall(SYS_fsync, fd); }
int fdatasync(int fd) { slow(); return syscall(SYS_fdatasync, fd); }
`

// reign is a contender for the lead in ZooKeeper, with the sessions that masters have by default, and the terms that it has had.
type reign struct {
	store  store.Store
	mu     sync.Mutex
	epochs []uint64
	ends   int
}

func newReign(t *testing.T, e *zktest.Ensemble) *reign {
	t.Helper()
	u, err := zookeeper.Parse(e.URL("/mesos"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	client, err := zookeeper.New(zookeeper.Config{URL: u, SessionTimeout: 10 * time.Second, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	r := &reign{store: zkstore.New(client)}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := client.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	group.Go(func() {
		c := zkelection.New(zkelection.Config{Client: client, Store: r.store, Log: log})
		err := c.Run(ctx, election.Candidate{ID: "m", Hostname: "m", Address: "127.0.0.1", Port: 5050, Version: "1"},
			func(ctx context.Context, term election.Term) error {
				r.mu.Lock()
				r.epochs = append(r.epochs, term.Epoch)
				r.mu.Unlock()
				<-ctx.Done()
				r.mu.Lock()
				r.ends++
				r.mu.Unlock()
				return nil
			})
		if err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		group.Wait()
	})
	Eventually(t, leads, "the contender leads", func() error {
		if epochs, ends := r.terms(); len(epochs) != 1 || ends != 0 {
			return fmt.Errorf("terms %v, %d ended", epochs, ends)
		}
		return nil
	})
	return r
}

func (r *reign) terms() ([]uint64, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.epochs), r.ends
}

// write writes documents, one after the other, until a moment, and returns how long each took.
func (r *reign) write(t *testing.T, pause time.Duration, until time.Time) []time.Duration {
	t.Helper()
	var took []time.Duration
	for n := 0; time.Now().Before(until); n++ {
		begun := time.Now()
		key := fmt.Sprintf("weights/%d", n)
		for {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			_, err := r.store.Write(ctx, store.Op{Key: key, Version: store.Any, Data: []byte("{}")})
			cancel()
			if err == nil {
				break
			}
			t.Logf("write %d after %v: %v", n, time.Since(begun).Round(time.Millisecond), err)
		}
		took = append(took, time.Since(begun))
		<-time.After(pause)
	}
	return took
}

// Z4: servers of ZooKeeper whose disks take five seconds for what they have to keep, and servers that stand still for as long in
// turns, cost no leader its session of the usual length.
func TestFaultsSlowDisksOfZooKeeper(t *testing.T) {
	if !*fullRows {
		t.Skip("takes minutes: -faults")
	}
	bar := 6 * time.Second
	check := func(t *testing.T, r *reign, took []time.Duration) {
		t.Helper()
		slices.Sort(took)
		t.Logf("%d writes: median %v, worst %v, bar %v", len(took), took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), bar)
		if epochs, ends := r.terms(); len(epochs) != 1 || ends != 0 {
			t.Errorf("terms %v, of which %d ended; want one that goes on", epochs, ends)
		}
		if worst := took[len(took)-1]; worst > bar {
			t.Errorf("a write took %v, want %v", worst, bar)
		}
	}
	t.Run("disks", func(t *testing.T) {
		dir := t.TempDir()
		lib, source, slow := filepath.Join(dir, "slow.so"), filepath.Join(dir, "slow.c"), filepath.Join(dir, "slow")
		if err := os.WriteFile(source, []byte(slowSync), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("cc", "-shared", "-fPIC", "-o", lib, source).CombinedOutput(); err != nil {
			t.Fatalf("cc: %v\n%s", err, out)
		}
		e := zktest.Start(t, zktest.Options{Servers: 3, Sync: true, Tick: 2 * time.Second, Prefix: func(int) []string {
			return []string{"env", "LD_PRELOAD=" + lib, "SLOW_SYNC=" + slow}
		}})
		r := newReign(t, e)
		if err := os.WriteFile(slow, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		check(t, r, r.write(t, 0, time.Now().Add(90*time.Second)))
		if err := os.Remove(slow); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("servers", func(t *testing.T) {
		e := zktest.Start(t, zktest.Options{Servers: 3, Tick: 2 * time.Second})
		r := newReign(t, e)
		done := make(chan []time.Duration)
		until := time.Now().Add(90 * time.Second)
		go func() { done <- r.write(t, 100*time.Millisecond, until) }()
		for i := 0; time.Now().Before(until); i++ {
			server := e.Servers[i%len(e.Servers)]
			server.Pause()
			<-time.After(5 * time.Second)
			server.Resume()
			<-time.After(2 * time.Second)
		}
		check(t, r, <-done)
	})
}
