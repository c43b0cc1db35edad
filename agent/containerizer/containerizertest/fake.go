// Package containerizertest holds what tests need of containerizers: a suite that every one must pass, and a fake.
package containerizertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"starling/agent/containerizer"
)

// Behaviour is what a container of the fake, or of the suite, does.
type Behaviour struct {
	// Ends makes it end at once, with ExitCode. Otherwise it runs until it is ended.
	Ends     bool
	ExitCode int
	// IgnoresTerm keeps it running when it gets SIGTERM.
	IgnoresTerm bool
	// Missing makes the launch fail: there is no such program.
	Missing bool
}

// exitBuffer is how many exits may wait to be read from a Fake; one more makes it panic, since a test that does not
// read them is wrong.
const exitBuffer = 4096

// Fake is a containerizer without processes. It is ready for use after NewFake and Recover. What a real one does in the
// background, a test commands: Exit ends a container as if by itself, Lose ends one without a status. Not modelled:
// limits, users, outputs, programs that take time to start.
type Fake struct {
	containerizer.Without

	// Behave, if set, tells how a container behaves; otherwise it runs until it is ended. Set it before use.
	Behave func(containerizer.Spec) Behaviour
	// LaunchErr, if set, may make a launch fail. Set it before use.
	LaunchErr func(containerizer.Spec) error

	// OnExec, if set, is the process of each session, and returns its wait status; it returns soon once the client has left.
	// Otherwise a process writes what it reads. Set it before use.
	OnExec func(*FakeProcess) int

	exits chan containerizer.Exit
	host  *host

	mu        sync.Mutex
	recovered bool
	closed    bool
	// told are the ids whose exits this life has delivered.
	told map[string]bool
}

// host is what outlives an agent.
type host struct {
	mu         sync.Mutex
	nextPID    int
	containers map[string]*fakeContainer
	order      []string
}

type fakeContainer struct {
	spec      containerizer.Spec
	behaviour Behaviour
	known     containerizer.Container
	signals   []int
}

// NewFake returns a fake without containers.
func NewFake() *Fake {
	return newFake(&host{nextPID: 1000, containers: make(map[string]*fakeContainer)})
}

func newFake(h *host) *Fake {
	return &Fake{exits: make(chan containerizer.Exit, exitBuffer), host: h, told: make(map[string]bool)}
}

// Restart ends this life and returns the next one, which finds the same containers by Recover.
func (f *Fake) Restart() *Fake {
	_ = f.Close()
	next := newFake(f.host)
	next.Behave, next.LaunchErr, next.OnExec = f.Behave, f.LaunchErr, f.OnExec
	return next
}

// Close closes Exits; containers go on.
func (f *Fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed = true
		close(f.exits)
	}
	return nil
}

// Recover implements containerizer.Containerizer.
func (f *Fake) Recover(context.Context) ([]containerizer.Container, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.recovered {
		return nil, errors.New("containerizer was recovered before")
	}
	f.recovered = true
	f.host.mu.Lock()
	defer f.host.mu.Unlock()
	var found []containerizer.Container
	for _, id := range f.host.order {
		k := f.host.containers[id].known
		found = append(found, k)
		if k.Exit != nil {
			f.tellLocked(*k.Exit)
		}
	}
	return found, nil
}

// tellLocked delivers an exit once. Called with mu held.
func (f *Fake) tellLocked(e containerizer.Exit) {
	if f.told[e.ID] || f.closed || !f.recovered {
		return
	}
	f.told[e.ID] = true
	select {
	case f.exits <- e:
	default:
		panic(fmt.Sprintf("nobody reads the exits of the fake containerizer, %d are waiting", exitBuffer))
	}
}

// end ends a running container and tells it.
func (f *Fake) end(id string, exit containerizer.Exit) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.host.mu.Lock()
	defer f.host.mu.Unlock()
	c, ok := f.host.containers[id]
	if !ok {
		return fmt.Errorf("container %q: %w", id, containerizer.ErrUnknownContainer)
	}
	if c.known.Exit == nil {
		exit.ID, exit.At = id, time.Now()
		c.known.Exit = &exit
		f.tellLocked(exit)
	}
	return nil
}

// Exit ends a container with a wait status (a code is shifted left by eight bits, a signal is itself), as if by itself.
func (f *Fake) Exit(id string, status int) error {
	return f.end(id, containerizer.Exit{Known: true, Status: status})
}

// Lose ends a container in a way that nobody knows.
func (f *Fake) Lose(id string) error { return f.end(id, containerizer.Exit{}) }

// OOM ends a container as the memory limit does.
func (f *Fake) OOM(id string) error {
	return f.end(id, containerizer.Exit{Known: true, Status: int(syscall.SIGKILL), OOM: true})
}

// Launched returns the spec that a container was launched with.
func (f *Fake) Launched(id string) (containerizer.Spec, bool) {
	f.host.mu.Lock()
	defer f.host.mu.Unlock()
	c, ok := f.host.containers[id]
	if !ok {
		return containerizer.Spec{}, false
	}
	return c.spec, true
}

// Running lists the ids of the containers that run, in the order of their launch.
func (f *Fake) Running() []string {
	f.host.mu.Lock()
	defer f.host.mu.Unlock()
	var ids []string
	for _, id := range f.host.order {
		if f.host.containers[id].known.Exit == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// Signals lists the signals that a container got, SIGKILL by Destroy included.
func (f *Fake) Signals(id string) []int {
	f.host.mu.Lock()
	defer f.host.mu.Unlock()
	if c, ok := f.host.containers[id]; ok {
		return slices.Clone(c.signals)
	}
	return nil
}

// Launch implements containerizer.Containerizer.
func (f *Fake) Launch(ctx context.Context, spec containerizer.Spec) (containerizer.Container, error) {
	if err := ctx.Err(); err != nil {
		return containerizer.Container{}, err
	}
	if f.LaunchErr != nil {
		if err := f.LaunchErr(spec); err != nil {
			return containerizer.Container{}, err
		}
	}
	var b Behaviour
	if f.Behave != nil {
		b = f.Behave(spec)
	}
	f.host.mu.Lock()
	if _, taken := f.host.containers[spec.ID]; taken {
		f.host.mu.Unlock()
		return containerizer.Container{}, fmt.Errorf("container %q: %w", spec.ID, containerizer.ErrExists)
	}
	if b.Missing {
		f.host.mu.Unlock()
		return containerizer.Container{}, fmt.Errorf("cannot run %q: no such file or directory", spec.Path)
	}
	f.host.nextPID++
	k := containerizer.Container{ID: spec.ID, PID: f.host.nextPID, Started: time.Now(), Note: slices.Clone(spec.Note)}
	f.host.containers[spec.ID] = &fakeContainer{spec: spec, behaviour: b, known: k}
	f.host.order = append(f.host.order, spec.ID)
	f.host.mu.Unlock()
	if b.Ends {
		if err := f.Exit(spec.ID, b.ExitCode<<8); err != nil {
			return containerizer.Container{}, err
		}
	}
	return k, nil
}

// Signal implements containerizer.Containerizer. SIGKILL ends a container, and so do the signals that end a program
// without handlers, SIGTERM unless it is ignored.
func (f *Fake) Signal(_ context.Context, id string, signal int) error {
	f.host.mu.Lock()
	c, ok := f.host.containers[id]
	if !ok {
		f.host.mu.Unlock()
		return fmt.Errorf("container %q: %w", id, containerizer.ErrUnknownContainer)
	}
	ends := false
	if c.known.Exit == nil {
		c.signals = append(c.signals, signal)
		switch syscall.Signal(signal) {
		case syscall.SIGTERM:
			ends = !c.behaviour.IgnoresTerm
		case syscall.SIGKILL, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT:
			ends = true
		}
	}
	f.host.mu.Unlock()
	if ends {
		return f.Exit(id, signal)
	}
	return nil
}

// Destroy implements containerizer.Containerizer.
func (f *Fake) Destroy(ctx context.Context, id string) error {
	return f.Signal(ctx, id, int(syscall.SIGKILL))
}

// Exits implements containerizer.Containerizer.
func (f *Fake) Exits() <-chan containerizer.Exit { return f.exits }

// Remove implements containerizer.Containerizer.
func (f *Fake) Remove(_ context.Context, id string) error {
	f.host.mu.Lock()
	defer f.host.mu.Unlock()
	c, ok := f.host.containers[id]
	if !ok {
		return nil
	}
	if c.known.Exit == nil {
		return fmt.Errorf("container %q: %w", id, containerizer.ErrRunning)
	}
	delete(f.host.containers, id)
	f.host.order = slices.DeleteFunc(f.host.order, func(o string) bool { return o == id })
	return nil
}

// Usage implements containerizer.Containerizer: one process of 1 MiB that used a second while it runs.
func (f *Fake) Usage(_ context.Context, id string) (containerizer.Usage, error) {
	f.host.mu.Lock()
	defer f.host.mu.Unlock()
	c, ok := f.host.containers[id]
	if !ok {
		return containerizer.Usage{}, fmt.Errorf("container %q: %w", id, containerizer.ErrUnknownContainer)
	}
	if c.known.Exit != nil {
		return containerizer.Usage{}, nil
	}
	return containerizer.Usage{CPUUser: time.Second, MemBytes: 1 << 20, Processes: 1}, nil
}
