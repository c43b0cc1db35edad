package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/proto"

	"starling/agent/checkpoint"
	"starling/agent/containerizer"
	"starling/agent/executor"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// Containers that people and programs launch over the API: nested ones, within the container of a task or an executor, and
// standalone ones. They belong to no framework, hold none of the node's resources in the books, and outlive the agent. A
// nested one ends with what it is nested in, and is forgotten then; else a container that has ended is kept until it is
// removed, for whoever waits for it.

var (
	// ErrContainerUnknown is returned for an id that names no container, or one that has ended and is not kept.
	ErrContainerUnknown = errors.New("container cannot be found")
	// ErrContainerExists is returned for an id that is taken.
	ErrContainerExists = errors.New("container exists already")
	// ErrContainerRunning is returned for the removal of a container that has not ended.
	ErrContainerRunning = errors.New("container has not ended")
	// ErrTooMany is returned where a bound is reached.
	ErrTooMany = errors.New("too many")
)

// ContainerError is a refusal of what a client asked of a container; its text is for the client.
type ContainerError struct{ Text string }

// Error returns the text.
func (e *ContainerError) Error() string { return e.Text }

func refusef(format string, args ...any) error { return &ContainerError{fmt.Sprintf(format, args...)} }

const (
	// nestedMax bounds the containers that were launched over the API, ended ones that are kept included.
	nestedMax = 256
	// containerIDMax is the longest id of a container, and of a whole chain of them: it becomes the name of files.
	containerIDMax = 242
)

// ContainerRequest is a container that is to be launched over the API.
type ContainerRequest struct {
	// ID has a parent for a nested container.
	ID        *mesos.ContainerID
	Command   *mesos.CommandInfo
	Container *mesos.ContainerInfo
	// Resources and Limits are what it may use; without any, a nested one is limited as what it is nested in is.
	Resources []*mesos.Resource
	Limits    map[string]*mesos.Value_Scalar
}

// nested is one container that was launched over the API.
type nested struct {
	sequence uint64
	id       *mesos.ContainerID
	// name is the id of the containerizer: the values of the chain, outermost first, joined by dots.
	name     string
	sandbox  string
	terminal bool
	// user is whom it runs as, and with it what is nested in it; empty for the agent's own or the image's.
	user string
	// session is set for one that is a process in its parent's container, and lives as long as somebody talks to it. Nothing of it
	// is on disk.
	session *Session

	pid     int
	started time.Time
	// exit is set once it has ended; released is closed once nothing needs its sandbox any more, and nil where that is so already.
	exit     *containerizer.Exit
	released chan struct{}
	// starting is set while a worker starts it; early is an exit that came before the result; ending while a worker destroys it;
	// orphaned once that which it was nested in has ended.
	starting, ending, orphaned bool
	early                      *containerizer.Exit
}

// chain is the name of a container for the containerizer, and what is wrong with an id.
func chain(id *mesos.ContainerID) (string, error) {
	var values []string
	for at := id; at != nil; at = at.GetParent() {
		value := at.GetValue()
		switch {
		case value == "":
			return "", refusef("'ContainerID.value' must be non-empty")
		case len(value) > containerIDMax:
			return "", refusef("'ContainerID.value' must not be longer than %d characters", containerIDMax)
		case strings.ContainsAny(value, `./\ `) || strings.ContainsFunc(value, unicode.IsControl) || strings.ToValidUTF8(value, "") != value:
			return "", refusef("'ContainerID.value' '%s' contains invalid characters", strings.ToValidUTF8(value, "\uFFFD"))
		}
		if values = append([]string{value}, values...); len(values) > 32 {
			return "", refusef("'ContainerID' is nested too deeply")
		}
	}
	name := strings.Join(values, ".")
	if len(name) > containerIDMax {
		return "", refusef("'ContainerID' with its parents must not be longer than %d characters", containerIDMax)
	}
	return name, nil
}

// ContainerIDOf is the id of a container by its name for the containerizer.
func ContainerIDOf(name string) *mesos.ContainerID {
	var id *mesos.ContainerID
	for value := range strings.SplitSeq(name, ".") {
		id = &mesos.ContainerID{Value: proto.String(value), Parent: id}
	}
	return id
}

// parentOf is the name of what a container is nested in; empty for none.
func parentOf(name string) string {
	at := strings.LastIndexByte(name, '.')
	return name[:max(0, at)]
}

// LaunchContainer starts a nested or standalone container and returns once its process runs. ErrContainerExists is for an id
// that is taken by a container that runs or is kept; a *ContainerError for what cannot be launched.
func (a *Agent) LaunchContainer(ctx context.Context, req ContainerRequest) error {
	name, err := chain(req.ID)
	if err != nil {
		return err
	}
	result := make(chan error, 1) // takes the one result
	launch := func() {
		if err := a.launchNested(name, req, func(err error) { result <- err }); err != nil {
			result <- err
		}
	}
	if err := a.do(ctx, launch); err != nil {
		return err
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.done:
		return ErrStopped
	}
}

// launchNested enters a container and has it started; done is told the outcome unless there is an error at once.
func (a *Agent) launchNested(name string, req ContainerRequest, done func(error)) error {
	parent, err := a.admitNested(name)
	if err != nil {
		return err
	}
	if err := executor.Check(&mesos.TaskInfo{Command: req.Command, Container: req.Container}); err != nil {
		return refusef("%s", err)
	}
	if len(req.Command.GetUris()) > 0 {
		return refusef("containers that are launched over the API fetch no URIs")
	}
	if err := a.runsAs(req.Command, req.Container); err != nil {
		return refusef("%s", err)
	}
	// A session asks nobody: its part of the containerizer may be well, whatever another one lacks.
	if err := a.usable(req.Container); err != nil {
		return refusef("%s", err)
	}
	spec, err := a.nestedSpec(name, req, parent)
	if err != nil {
		return err
	}
	a.nestedSequence++
	n := &nested{
		sequence: a.nestedSequence, id: proto.CloneOf(req.ID), name: name, starting: true,
		terminal: req.Container.GetTtyInfo() != nil, user: spec.User,
	}
	if parent.name != "" {
		n.sandbox = a.layout.Nested(parent.sandbox, req.ID.GetValue())
	} else {
		n.sandbox = a.layout.Standalone(name)
	}
	spec.Dir, spec.Stdout, spec.Stderr = n.sandbox, n.sandbox+"/stdout", n.sandbox+"/stderr"
	spec.Env = nestedEnv(a.cfg.ExecutorEnvironment, req.Command, n.sandbox)
	a.nested[name] = n
	a.committer.Submit(checkpoint.PutNewNested(a.nestedRecord(n)), func(err error) {
		a.post(func() {
			if err != nil {
				a.diskFails(err)
				delete(a.nested, name)
				done(refusef("cannot checkpoint the container: %v", err))
				return
			}
			a.diskWorks()
			a.startNested(n, parent, spec, done)
		})
	})
	return nil
}

// admitNested looks whether a container may be entered under a name, and returns what it is nested in.
func (a *Agent) admitNested(name string) (host, error) {
	var parent host
	switch outer := parentOf(name); {
	case a.leaving || a.stopping:
		return host{}, refusef("the agent is about to end")
	case a.nested[name] != nil || a.containers[name] != nil || a.runIDs[name] != nil:
		return host{}, ErrContainerExists
	case len(a.nested) >= nestedMax:
		return host{}, fmt.Errorf("%w containers were launched over the API: %d, those that have ended and are not removed included", ErrTooMany, nestedMax)
	case outer != "":
		found, ok := a.find(outer)
		if !ok || !found.running {
			return host{}, refusef("the parent container '%s' is not running", outer)
		}
		parent = found
	}
	return parent, nil
}

// nestedSpec is the container without what depends on its sandbox.
func (a *Agent) nestedSpec(name string, req ContainerRequest, parent host) (containerizer.Spec, error) {
	res, err := resources.FromProto(req.Resources)
	if err != nil {
		return containerizer.Spec{}, refusef("the resources are invalid: %v", err)
	}
	spec := containerizer.Spec{ID: name, Parent: parent.name, Command: req.Command, Container: req.Container}
	spec.Path, spec.Args = commandLine(req.Command)
	if a.cfg.SwitchUser {
		if spec.User = req.Command.GetUser(); spec.User == "" {
			spec.User = parent.user
		}
	}
	spec.Limits.CPUs, spec.Limits.MemBytes = res.Scalar("cpus").Float(), int64(res.Scalar("mem").Float()*(1<<20))
	if res.Empty() && len(req.Limits) == 0 {
		spec.Limits = a.limitsAround(parent.name)
	}
	if l, ok := req.Limits["cpus"]; ok {
		spec.Limits.CPULimit = l.GetValue()
	}
	if l, ok := req.Limits["mem"]; ok {
		spec.Limits.MemLimit = int64(l.GetValue() * (1 << 20))
	}
	return spec, nil
}

// limitsAround are the limits of the task or executor that a container is, or is nested in; none for others.
func (a *Agent) limitsAround(name string) containerizer.Limits {
	for ; name != ""; name = parentOf(name) {
		if t := a.containers[name]; t != nil {
			return a.specOf(t).Limits
		}
		if r := a.runIDs[name]; r != nil {
			return a.limitsOf(r)
		}
	}
	return containerizer.Limits{}
}

// commandLine is what a command runs where no image has a say.
func commandLine(c *mesos.CommandInfo) (path string, args []string) {
	if c.GetShell() {
		return "/bin/sh", []string{"sh", "-c", c.GetValue()}
	}
	if len(c.GetArguments()) == 0 {
		return c.GetValue(), []string{c.GetValue()}
	}
	return c.GetValue(), c.GetArguments()
}

// nestedEnv is the environment of a container that was launched over the API.
func nestedEnv(everybodys map[string]string, c *mesos.CommandInfo, sandbox string) []string {
	env := []string{"PATH=" + executor.DefaultPath, "MESOS_SANDBOX=" + sandbox, "MESOS_DIRECTORY=" + sandbox}
	for name, value := range everybodys {
		env = append(env, name+"="+value)
	}
	for _, v := range c.GetEnvironment().GetVariables() {
		env = append(env, v.GetName()+"="+v.GetValue())
	}
	return env
}

// startNested has a worker make the sandbox and start the container.
func (a *Agent) startNested(n *nested, parent host, spec containerizer.Spec, done func(error)) {
	a.collector.Keep(n.name)
	launches, limit := &a.launches, a.cfg.LaunchTimeout
	if slowContainer(spec.Container) {
		launches = &a.slowLaunches
	}
	if containerizer.OwnRoot(spec.Container) {
		limit = imageTimeout
	}
	launches.run(func() {
		ctx, cancel := a.workContext(limit)
		defer cancel()
		var err error
		if parent.name != "" {
			_, err = a.layout.CreateNested(parent.sandbox, n.id.GetValue(), spec.User)
		} else {
			_, err = a.layout.CreateStandalone(n.name, spec.User)
		}
		var c containerizer.Container
		if err == nil {
			c, err = a.cfg.Containerizer.Launch(ctx, spec)
		}
		running := false
		if err != nil && ctx.Err() != nil {
			undo, cancel := a.workContext(controlTimeout)
			defer cancel()
			fault := a.cfg.Containerizer.Destroy(undo, n.name) // its exit, should it have run, finds nobody
			running = fault != nil && !errors.Is(fault, containerizer.ErrUnknownContainer)
		}
		a.post(func() {
			if running {
				// It may run. It is forgotten once it does not.
				n.orphaned = true
			}
			a.startedNested(n, c, err, done)
		})
	})
}

func (a *Agent) startedNested(n *nested, c containerizer.Container, err error, done func(error)) {
	n.starting = false
	if err != nil {
		a.counters.LaunchErrors++
		if n.orphaned && n.early == nil {
			a.destroyNested(n)
		} else {
			a.forgetNested(n)
		}
		done(refusef("failed to launch container: %v", err))
		return
	}
	n.pid, n.started = c.PID, c.Started
	if n.started.IsZero() {
		n.started = a.cfg.Now()
	}
	a.bound(n.name, n.sandbox)
	a.saveNested(n)
	done(nil)
	switch {
	case n.early != nil:
		a.endedNested(n, *n.early)
	case n.orphaned:
		a.destroyNested(n)
	}
}

// KillContainer sends a signal to a container of any kind. ErrContainerUnknown is for one that does not run.
func (a *Agent) KillContainer(ctx context.Context, id *mesos.ContainerID, signal int) error {
	name, err := chain(id)
	if err != nil {
		return err
	}
	if signal < 1 || signal > 64 {
		return refusef("%d is no signal", signal)
	}
	var session *Session
	found := false
	if err := a.do(ctx, func() {
		h, ok := a.find(name)
		found = ok && h.running
		if n := a.nested[name]; n != nil {
			session = n.session
		}
	}); err != nil {
		return err
	}
	switch {
	case !found:
		return ErrContainerUnknown
	case session != nil:
		// Its process has no name of its own: to end it is all that can be done.
		return session.Close()
	}
	err = a.cfg.Containerizer.Signal(ctx, name, signal)
	if errors.Is(err, containerizer.ErrUnknownContainer) {
		return ErrContainerUnknown
	}
	return err
}

// RemoveContainer forgets a container that has ended, and removes its sandbox. One that is unknown is no error.
func (a *Agent) RemoveContainer(ctx context.Context, id *mesos.ContainerID) error {
	name, err := chain(id)
	if err != nil {
		return err
	}
	var refused error
	var released chan struct{}
	dir := ""
	if err := a.do(ctx, func() {
		n := a.nested[name]
		switch {
		case n != nil && n.exit == nil:
			refused = ErrContainerRunning
		case n != nil:
			a.forgetNested(n)
			if n.session == nil {
				dir, released = n.sandbox, n.released
			}
		case a.containers[name] != nil:
			refused = refusef("container '%s' is a task's", name)
		}
	}); err != nil || refused != nil {
		return errors.Join(err, refused)
	}
	if dir == "" {
		return nil
	}
	if released != nil { // who waited for its end was told of it first
		select {
		case <-released:
		case <-a.done:
			return ErrStopped
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return a.collector.Forget(dir)
}
