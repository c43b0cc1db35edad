package containerizertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"starling/agent/containerizer"
)

// Harness is how the suite uses a containerizer.
type Harness struct {
	// Open begins a life of the agent; Recover was not called. All lives of a harness see the same containers.
	Open func(t *testing.T) containerizer.Containerizer
	// Close ends a life; containers go on.
	Close func(t *testing.T, c containerizer.Containerizer)
	// Spec describes a container that behaves in a given way.
	Spec func(t *testing.T, id string, b Behaviour) containerizer.Spec
	// AtOnce is how many launches may be under way; zero is any number.
	AtOnce int
	// LateLook says that what ended at once may have no PID: the containerizer learns it from somebody else, afterwards.
	LateLook bool
	// Ready, if set, waits until a container that stays behaves as it should.
	Ready func(t *testing.T, id string)
}

// life is a containerizer that was recovered, and the exits it delivered.
type life struct {
	containerizer.Containerizer
	t     *testing.T
	found []containerizer.Container
	exits *Exits
}

func begin(t *testing.T, h Harness) *life {
	t.Helper()
	l := &life{Containerizer: h.Open(t), t: t}
	var err error
	if l.found, err = l.Recover(t.Context()); err != nil {
		t.Fatalf("recover: %v", err)
	}
	l.exits = Follow(t, l)
	return l
}

// end ends the life and returns once Exits is closed.
func (l *life) end(h Harness) {
	l.t.Helper()
	h.Close(l.t, l.Containerizer)
	select {
	case <-l.exits.Done:
	case <-time.After(time.Minute):
		l.t.Error("Exits is not closed with the containerizer")
	}
}

func (l *life) launch(h Harness, id string, b Behaviour) containerizer.Container {
	l.t.Helper()
	spec := h.Spec(l.t, id, b)
	spec.Note = []byte("\x00 note of " + id)
	k, err := l.Launch(l.t.Context(), spec)
	if err != nil {
		l.t.Fatalf("launch %q: %v", id, err)
	}
	if k.ID != id || k.PID <= 0 && !(h.LateLook && b.Ends) || k.Started.IsZero() {
		l.t.Errorf("launch %q: got %+v", id, k)
	}
	return k
}

func (l *life) find(id string) (containerizer.Container, bool) {
	for _, k := range l.found {
		if k.ID == id {
			return k, true
		}
	}
	return containerizer.Container{}, false
}

// Run runs the suite. Each test gets a harness of its own.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, h Harness)
	}{
		{"exits are true and delivered once", testExits},
		{"signals reach the container", testSignals},
		{"destroy ends what ignores signals", testDestroy},
		{"a missing program leaves nothing", testMissing},
		{"unknown and taken ids are told apart", testIDs},
		{"remove forgets the ended only", testRemove},
		{"the next life finds what runs and what ended", testRecover},
		{"many at once", testMany},
		{"usage counts what runs", testUsage},
		{"a cancelled launch leaves nothing", testCancelled},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) { tt.run(t, open(t)) })
	}
}

func testExits(t *testing.T, h Harness) {
	l := begin(t, h)
	defer l.end(h)
	for _, code := range []int{0, 1, 42, 255} {
		id := fmt.Sprintf("exit-%d", code)
		l.launch(h, id, Behaviour{Ends: true, ExitCode: code})
		if e := l.exits.Await(id, time.Minute); !e.Known || e.Status != code<<8 || e.OOM || e.At.IsZero() {
			t.Errorf("got %+v, want exit code %d", e, code)
		}
	}
}

func testSignals(t *testing.T, h Harness) {
	l := begin(t, h)
	defer l.end(h)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGKILL} {
		id := fmt.Sprintf("signal-%d", sig)
		l.launch(h, id, Behaviour{})
		if h.Ready != nil {
			h.Ready(t, id)
		}
		if err := l.Signal(t.Context(), id, int(sig)); err != nil {
			t.Errorf("signal %v: %v", sig, err)
		}
		if e := l.exits.Await(id, time.Minute); !e.Known || syscall.WaitStatus(e.Status).Signal() != sig {
			t.Errorf("got %+v, want signal %v", e, sig)
		}
		if err := l.Signal(t.Context(), id, int(sig)); err != nil {
			t.Errorf("signal to an ended container: got %v, want none", err)
		}
	}
}

func testDestroy(t *testing.T, h Harness) {
	l := begin(t, h)
	defer l.end(h)
	l.launch(h, "stubborn", Behaviour{IgnoresTerm: true})
	if h.Ready != nil {
		h.Ready(t, "stubborn")
	}
	if err := l.Signal(t.Context(), "stubborn", int(syscall.SIGTERM)); err != nil {
		t.Error(err)
	}
	if e, ok := l.exits.Told("stubborn"); ok {
		t.Errorf("it ended by SIGTERM: %+v", e)
	}
	for range 2 {
		if err := l.Destroy(t.Context(), "stubborn"); err != nil {
			t.Fatalf("destroy: %v", err)
		}
	}
	if e := l.exits.Await("stubborn", time.Minute); !e.Known || syscall.WaitStatus(e.Status).Signal() != syscall.SIGKILL {
		t.Errorf("got %+v, want SIGKILL", e)
	}
}

func testMissing(t *testing.T, h Harness) {
	l := begin(t, h)
	spec := h.Spec(t, "missing", Behaviour{Missing: true})
	_, err := l.Launch(t.Context(), spec)
	want := fmt.Sprintf("cannot run %q: no such file or directory", spec.Path)
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	l.launch(h, "missing", Behaviour{Ends: true}) // the id is free
	l.exits.Await("missing", time.Minute)
	if err := l.Remove(t.Context(), "missing"); err != nil {
		t.Error(err)
	}
	l.end(h)
	next := begin(t, h)
	defer next.end(h)
	if len(next.found) != 0 {
		t.Errorf("the next life finds %+v", next.found)
	}
}

func testIDs(t *testing.T, h Harness) {
	l := begin(t, h)
	defer l.end(h)
	ctx := t.Context()
	for name, err := range map[string]error{
		"signal":  l.Signal(ctx, "nobody", 15),
		"destroy": l.Destroy(ctx, "nobody"),
		"usage":   func() error { _, err := l.Usage(ctx, "nobody"); return err }(),
	} {
		if !errors.Is(err, containerizer.ErrUnknownContainer) {
			t.Errorf("%s of an unknown container: got %v, want ErrUnknownContainer", name, err)
		}
	}
	if err := l.Remove(ctx, "nobody"); err != nil {
		t.Errorf("remove of an unknown container: got %v, want none", err)
	}
	k := l.launch(h, "taken", Behaviour{})
	if _, err := l.Launch(ctx, h.Spec(t, "taken", Behaviour{})); !errors.Is(err, containerizer.ErrExists) {
		t.Errorf("second launch: got %v, want ErrExists", err)
	}
	if err := l.Destroy(ctx, "taken"); err != nil {
		t.Error(err)
	}
	l.exits.Await("taken", time.Minute)
	if _, err := l.Launch(ctx, h.Spec(t, "taken", Behaviour{})); !errors.Is(err, containerizer.ErrExists) {
		t.Errorf("launch with the id of an ended container (process %d): got %v, want ErrExists", k.PID, err)
	}
}

func testRemove(t *testing.T, h Harness) {
	l := begin(t, h)
	defer l.end(h)
	ctx := t.Context()
	l.launch(h, "r", Behaviour{})
	if err := l.Remove(ctx, "r"); !errors.Is(err, containerizer.ErrRunning) {
		t.Errorf("remove while it runs: got %v, want ErrRunning", err)
	}
	if err := l.Destroy(ctx, "r"); err != nil {
		t.Error(err)
	}
	l.exits.Await("r", time.Minute)
	for range 2 {
		if err := l.Remove(ctx, "r"); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if err := l.Signal(ctx, "r", 15); !errors.Is(err, containerizer.ErrUnknownContainer) {
		t.Errorf("signal after remove: got %v, want ErrUnknownContainer", err)
	}
}

func testRecover(t *testing.T, h Harness) {
	first := begin(t, h)
	runs := first.launch(h, "runs", Behaviour{})
	first.launch(h, "ended", Behaviour{Ends: true, ExitCode: 3})
	first.launch(h, "removed", Behaviour{Ends: true})
	before := first.exits.Await("ended", time.Minute)
	first.exits.Await("removed", time.Minute)
	if err := first.Remove(t.Context(), "removed"); err != nil {
		t.Error(err)
	}
	if _, err := first.Recover(t.Context()); err == nil {
		t.Error("a second Recover is allowed")
	}
	first.end(h)

	next := begin(t, h)
	defer next.end(h)
	if k, ok := next.find("runs"); !ok || k.PID != runs.PID || k.Exit != nil || !k.Started.Equal(runs.Started) || string(k.Note) != "\x00 note of runs" {
		t.Errorf("got %+v, want %+v and its note", k, runs)
	}
	if k, ok := next.find("ended"); !ok || k.Exit == nil || k.Exit.Status != before.Status || !k.Exit.At.Equal(before.At) {
		t.Errorf("got %+v, want the exit %+v", k, before)
	}
	if _, ok := next.find("removed"); ok {
		t.Error("a removed container is found")
	}
	if e := next.exits.Await("ended", time.Minute); e.Status != 3<<8 || !e.Known {
		t.Errorf("the next life is told %+v, want exit code 3", e)
	}
	if err := next.Signal(t.Context(), "runs", int(syscall.SIGTERM)); err != nil {
		t.Error(err)
	}
	if e := next.exits.Await("runs", time.Minute); !e.Known || e.Status != int(syscall.SIGTERM) {
		t.Errorf("got %+v, want SIGTERM", e)
	}
}

func testMany(t *testing.T, h Harness) {
	l := begin(t, h)
	defer l.end(h)
	const count = 50
	var wg sync.WaitGroup
	slots := make(chan struct{}, cmp.Or(h.AtOnce, count))
	for i := range count {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if _, err := l.Launch(t.Context(), h.Spec(t, fmt.Sprintf("m-%d", i), Behaviour{Ends: true, ExitCode: i})); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range count {
		id := fmt.Sprintf("m-%d", i)
		if e := l.exits.Await(id, time.Minute); e.Status != i<<8 {
			t.Errorf("%s: got %+v", id, e)
		}
		if err := l.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

func testUsage(t *testing.T, h Harness) {
	l := begin(t, h)
	defer l.end(h)
	l.launch(h, "u", Behaviour{})
	var u containerizer.Usage
	for deadline := time.Now().Add(time.Minute); u.Processes == 0 || u.MemBytes == 0; time.Sleep(time.Millisecond) {
		var err error
		if u, err = l.Usage(t.Context(), "u"); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("usage of a running container is %+v", u)
		}
	}
	if err := l.Destroy(t.Context(), "u"); err != nil {
		t.Error(err)
	}
	l.exits.Await("u", time.Minute)
	if u, err := l.Usage(t.Context(), "u"); err != nil || u != (containerizer.Usage{}) {
		t.Errorf("usage of an ended container: got %+v, %v", u, err)
	}
}

func testCancelled(t *testing.T, h Harness) {
	l := begin(t, h)
	defer l.end(h)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Launch(ctx, h.Spec(t, "c", Behaviour{})); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if err := l.Signal(t.Context(), "c", 15); !errors.Is(err, containerizer.ErrUnknownContainer) {
		t.Errorf("got %v, want ErrUnknownContainer", err)
	}
}
