package containerizertest

import (
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/agent/containerizer"
)

// WaitFor waits until something holds, and fails the test when that takes too long.
func WaitFor(t testing.TB, within time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain for %s", within, what)
		}
	}
}

// Exits are those that one life of a containerizer has delivered.
type Exits struct {
	t   testing.TB
	mu  sync.Mutex
	got map[string][]containerizer.Exit
	// Done is closed once the containerizer delivers no more.
	Done chan struct{}
}

// Follow gathers the exits of a containerizer until it is closed.
func Follow(t testing.TB, c interface {
	Exits() <-chan containerizer.Exit
},
) *Exits {
	x := &Exits{t: t, got: map[string][]containerizer.Exit{}, Done: make(chan struct{})}
	go func() { // it ends with the containerizer
		defer close(x.Done)
		for e := range c.Exits() {
			x.mu.Lock()
			x.got[e.ID] = append(x.got[e.ID], e)
			x.mu.Unlock()
		}
	}()
	return x
}

// Told returns the one exit of a container, if it was delivered.
func (x *Exits) Told(id string) (containerizer.Exit, bool) {
	x.t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.got[id]) > 1 {
		x.t.Errorf("exit of %q was delivered %d times", id, len(x.got[id]))
	}
	if len(x.got[id]) == 0 {
		return containerizer.Exit{}, false
	}
	return x.got[id][0], true
}

// Await waits for the exit of a container.
func (x *Exits) Await(id string, within time.Duration) (e containerizer.Exit) {
	x.t.Helper()
	WaitFor(x.t, within, "the exit of "+id, func() (ok bool) {
		e, ok = x.Told(id)
		return ok
	})
	return e
}

// Counts returns how often the exit of each container was delivered.
func (x *Exits) Counts() map[string]int {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := map[string]int{}
	for id, all := range x.got {
		out[id] = len(all)
	}
	return out
}

// Log passes on what is logged, and keeps it. A test may read it while others write.
type Log struct {
	to  io.Writer
	mu  sync.Mutex
	all strings.Builder
}

// NewLog returns a log that shows what it keeps in the output of the test.
func NewLog(t testing.TB) *Log { return &Log{to: t.Output()} }

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.Write(p)
	return l.to.Write(p)
}

// String returns all that was logged.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}
