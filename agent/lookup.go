package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"starling/agent/containerizer"
	"starling/agent/executor"
	"starling/master/mesos"
)

// host is a container of any kind, as far as others depend on it. The zero value stands for the node itself.
type host struct {
	// name is the id of the containerizer.
	name    string
	sandbox string
	// user is whom it runs as; empty for the agent's own or the image's.
	user    string
	running bool
}

// find looks a container up by the values of its id, outermost first, joined by dots.
func (a *Agent) find(name string) (host, bool) {
	if t := a.containers[name]; t != nil {
		return host{
			name: name, sandbox: t.sandbox, user: executor.User(t.framework.info, t.info), running: !terminal(t.state) && t.pid > 0,
		}, true
	}
	if r := a.runIDs[name]; r != nil {
		return host{
			name: name, sandbox: r.sandbox, user: executor.User(r.framework.info, executor.StandIn(r.info)),
			running: r.builtin && r.phase == runActive || r.pid > 0 && r.phase < runEnded,
		}, true
	}
	if n := a.nested[name]; n != nil {
		return host{name: name, sandbox: n.sandbox, user: n.user, running: n.exit == nil && !n.starting}, true
	}
	return host{}, false
}

// ContainerRef is a container that was looked up.
type ContainerRef struct {
	// Name is the id of the containerizer.
	Name string
	// Directory is its sandbox, an absolute path.
	Directory string
	// Running is false for one that has ended and is kept.
	Running bool
	// Session is set for one that lives as long as somebody talks to it.
	Session bool
}

// Container looks a container of any kind up; ErrContainerUnknown is for an id that names none.
func (a *Agent) Container(ctx context.Context, id *mesos.ContainerID) (ContainerRef, error) {
	name, err := chain(id)
	if err != nil {
		return ContainerRef{}, err
	}
	var found host
	ok, session := false, false
	if err := a.do(ctx, func() {
		found, ok = a.find(name)
		session = a.nested[name] != nil && a.nested[name].session != nil
	}); err != nil {
		return ContainerRef{}, err
	}
	if !ok {
		return ContainerRef{}, ErrContainerUnknown
	}
	return ContainerRef{Name: name, Directory: found.sandbox, Running: found.running, Session: session}, nil
}

const (
	// waitersMax bounds who waits for the end of one container, allWaitersMax who waits at all.
	waitersMax    = 64
	allWaitersMax = 1024
)

// AwaitContainer returns a channel that delivers how a container of any kind ends, at once for one that has ended and is kept.
// The caller calls the function once it does not wait any more. ErrContainerUnknown is for an id that names none.
func (a *Agent) AwaitContainer(ctx context.Context, id *mesos.ContainerID) (<-chan containerizer.Exit, func(), error) {
	name, err := chain(id)
	if err != nil {
		return nil, nil, err
	}
	end := make(chan containerizer.Exit, 1) // takes the one exit
	var refused error
	if err := a.do(ctx, func() {
		n := a.nested[name]
		switch h, ok := a.find(name); {
		case n != nil && n.exit != nil:
			end <- *n.exit
		case !ok || !h.running && (n == nil || !n.starting):
			refused = ErrContainerUnknown
		case len(a.waiting[name]) >= waitersMax || a.waiters >= allWaitersMax:
			refused = fmt.Errorf("%w wait for the end of containers", ErrTooMany)
		default:
			a.waiting[name] = append(a.waiting[name], end)
			a.waiters++
		}
	}); err != nil || refused != nil {
		if refused != nil {
			err = refused
		}
		return nil, nil, err
	}
	return end, func() { a.post(func() { a.unawait(name, end) }) }, nil
}

func (a *Agent) unawait(name string, end chan containerizer.Exit) {
	if at := slices.Index(a.waiting[name], end); at >= 0 {
		a.waiting[name] = slices.Delete(a.waiting[name], at, at+1)
		a.waiters--
	}
	if len(a.waiting[name]) == 0 {
		delete(a.waiting, name)
	}
}

// tellEnd tells those who wait for the end of a container.
func (a *Agent) tellEnd(name string, exit containerizer.Exit) {
	for _, end := range a.waiting[name] {
		end <- exit
		a.waiters--
	}
	delete(a.waiting, name)
}

// NestedContainer is a container that was launched over the API, as State shows it.
type NestedContainer struct {
	ID *mesos.ContainerID
	// Name is the id of the containerizer.
	Name      string
	Directory string
	PID       int
	Started   time.Time
	// Running is set while its process runs, Session for one that lives as long as somebody talks to it.
	Running, Session bool
}

// Standalone tells whether it is nested in nothing.
func (n NestedContainer) Standalone() bool { return n.ID.GetParent() == nil }

// nestedContainers lists the containers that were launched over the API, in order of names.
func (a *Agent) nestedContainers() []NestedContainer {
	out := make([]NestedContainer, 0, len(a.nested))
	for _, n := range a.nested {
		out = append(out, NestedContainer{
			ID: n.id, Name: n.name, Directory: n.sandbox, PID: n.pid, Started: n.started, Running: n.exit == nil && !n.starting,
			Session: n.session != nil,
		})
	}
	slices.SortFunc(out, func(a, b NestedContainer) int { return strings.Compare(a.Name, b.Name) })
	return out
}
