// Package containerizer is the seam between the agent and whatever isolates its tasks.
//
// The agent hands over a Spec and gets a container that outlives the agent process: what runs, and what ended while no
// agent was there to see it, comes back from Recover. An exit is told exactly once a life of the agent, and again in the
// next one unless it was forgotten by Remove.
package containerizer

import (
	"context"
	"errors"
	"io"
	"time"

	"starling/master/mesos"
)

var (
	// ErrUnknownContainer is returned for an id that the containerizer does not hold.
	ErrUnknownContainer = errors.New("unknown container")
	// ErrExists is returned by Launch for an id that is taken.
	ErrExists = errors.New("container exists")
	// ErrRunning is returned by Remove for a container that has not ended.
	ErrRunning = errors.New("container is running")
	// ErrUnsupported is returned where a containerizer lacks what was asked for; the error says what.
	ErrUnsupported = errors.New("not supported by this containerizer")
	// ErrType is returned for a container of a type that nobody here runs; the error says which.
	ErrType = errors.New("container type not supported")
	// ErrNoTerminal is returned by Attach for a container without a terminal.
	ErrNoTerminal = errors.New("container has no terminal")
	// ErrDegraded comes from Recover together with containers: see there.
	ErrDegraded = errors.New("containers cannot be started or ended properly")
)

// NoteMax is how long a note may be, in bytes.
const NoteMax = 1 << 10

// Unlimited is a limit that is none.
const Unlimited = -1

// Spec says what to run.
type Spec struct {
	// ID names the container; it is a valid path segment.
	ID string
	// Parent names the container or the group (see Groups) that this one is part of: it shares the parent's network and,
	// unless Container says otherwise, lives within the parent's limits. Empty for none.
	Parent string
	// Path is the program, looked up in the PATH of Env when it has no slash; Args is its argv, the zeroth included. They
	// hold where no image has a say.
	Path string
	Args []string
	// Command is what was asked for. A container with an image brings it together with the image's entry point, arguments,
	// environment and folder, as Mesos does. Nil where there is no image, or where the image alone decides.
	Command *mesos.CommandInfo
	// Container is what was asked for beside a process: image, volumes, network, namespaces, terminal. Nil for a plain one.
	// It is not modified.
	Container *mesos.ContainerInfo
	// Env is the whole environment, "NAME=value", but for what an image adds beneath it.
	Env []string
	// Dir is the sandbox on the node, which exists: the working directory, or, in a container with a root file system of its
	// own, what is mounted as its sandbox.
	Dir string
	// User is the name or number of the user to run as; empty is the agent's own, or the image's.
	User string
	// Stdout and Stderr are files, opened for appending and made where they lack.
	Stdout, Stderr string
	// Mounts are folders of the node to be seen in the container: persistent volumes. Plain processes find them by a link
	// that is in the sandbox already.
	Mounts []Mount
	// Devices are paths of devices of the node that the container may use, beside those that all have.
	Devices []string
	// Executor is set for an executor of a framework's own: in a network of its own too it has to reach the agent.
	Executor bool
	Limits   Limits
	// Note is kept with the container and comes back from Recover. It means nothing to the containerizer, which keeps it
	// apart from whatever the agent keeps. At most NoteMax bytes.
	Note []byte
}

// Mount is a folder of the node in a container.
type Mount struct {
	// Source is absolute, and has no links in it: in the sandbox of an executor they would be a task's, and are not followed.
	// Target is where the container sees it, relative to its sandbox or absolute.
	Source, Target string
	ReadOnly       bool
}

// Limits are what a container may use, enforced where that is possible. Zero is no limit.
type Limits struct {
	// CPUs is a share under contention. CPULimit is a cap, in CPUs; zero leaves that to the containerizer's settings,
	// Unlimited is none.
	CPUs, CPULimit float64
	// MemBytes is what was asked for; MemLimit the most that is allowed: zero means MemBytes, Unlimited no limit.
	MemBytes, MemLimit int64
}

// Container is what is known of a container.
type Container struct {
	ID string
	// PID is that of its first process, in the namespace of the agent.
	PID int
	// Started is when the process was started, by the wall clock.
	Started time.Time
	// Exit is nil while it runs.
	Exit *Exit
	// Networks are the container's own networks with its addresses; empty where it has those of the node.
	Networks []*mesos.NetworkInfo
	// Disk are folders of the node, beside the sandbox and volumes, that hold what the container writes.
	Disk []string
	// Data is what the engine tells of the container, to be passed on with the first status: `docker inspect` as JSON.
	Data []byte
	// Note is that of the Spec; it may be lost.
	Note []byte
}

// Exit tells how a container ended.
type Exit struct {
	ID string
	// Known is false when the status could not be learned; the fields below then mean nothing but At.
	Known bool
	// Status is the raw wait status of the first process.
	Status int
	// OOM is set when the memory limit ended it. MemLimit and MemPeak are that limit and the most that was used, in bytes,
	// where these are known.
	OOM               bool
	MemLimit, MemPeak int64
	// Message says what else there is to be said of the end, in words for people; usually empty.
	Message string
	At      time.Time
}

// Usage is what a container uses now.
type Usage struct {
	// CPUUser and CPUSystem are totals since the start.
	CPUUser, CPUSystem time.Duration
	// MemBytes is the resident memory of all of its processes.
	MemBytes  int64
	Processes int
}

// Containerizer runs containers. All methods may be called from any goroutine and are idempotent where they can be.
type Containerizer interface {
	Groups
	Sessions
	// Recover finds the containers of an earlier life of the agent, the ended ones that were not removed included: those
	// come back with their Exit, and that comes through Exits as well. It is called once, before anything else. It does
	// not wait for something that hangs: an error that is ErrDegraded comes with the containers as they were last known,
	// of which some may have ended and some may lack their PID. All methods may be used then; launches fail until the
	// trouble is over, and what ended meanwhile comes through Exits after that.
	Recover(ctx context.Context) ([]Container, error)
	// Launch starts a container and returns once its process runs. An error means that nothing is left behind.
	Launch(ctx context.Context, spec Spec) (Container, error)
	// Signal sends a signal to all processes of the container's first process group; ended containers ignore it.
	Signal(ctx context.Context, id string, signal int) error
	// Destroy ends all processes of the container, those included that left its process group as far as the means at hand
	// can find them, and returns once the exit is known or ctx ends.
	Destroy(ctx context.Context, id string) error
	// Exits delivers every exit, those of recovered containers too, each once. The agent alone reads it; it closes with
	// the containerizer. The exit of a container that is being launched is not delivered before the process runs, but
	// may be before Launch has returned.
	Exits() <-chan Exit
	// Remove forgets an ended container and all that was kept of it. A container that is not held is no error.
	Remove(ctx context.Context, id string) error
	Usage(ctx context.Context, id string) (Usage, error)
	// Resize gives a running container, or a group, other limits.
	Resize(ctx context.Context, id string, limits Limits) error
}

// Group is what the containers of one executor have in common: a network, limits over all of them. No process belongs to
// it alone; it is there from OpenGroup to CloseGroup, whatever its containers do, and outlives the agent.
type Group struct {
	// ID names the group; ids of groups and of containers are of one kind.
	ID string
	// Container is what the executor asks for; its network counts. Nil for the node's own.
	Container *mesos.ContainerInfo
	// Dir is the executor's sandbox on the node.
	Dir    string
	Limits Limits
}

// Groups makes and ends groups. A containerizer that has none returns ErrUnsupported.
type Groups interface {
	// OpenGroup makes a group and returns its networks, as in Container. A group that is there already is left as it is.
	OpenGroup(ctx context.Context, group Group) ([]*mesos.NetworkInfo, error)
	// CloseGroup ends all containers of a group and gives back what it holds; their exits come through Exits. A group that
	// is not there is no error.
	CloseGroup(ctx context.Context, id string) error
	// ListGroups returns the ids of the groups that are there, those of an earlier life of the agent too.
	ListGroups(ctx context.Context) ([]string, error)
}

// Process is one that is started in a container beside the first.
type Process struct {
	// Path and Args as in Spec; Args may be empty where Path says it all.
	Path string
	Args []string
	// Env is added to the environment of the container, and wins.
	Env []string
	// User is as in Spec; empty is the container's own.
	User string
	// Terminal gives it a terminal, of Columns and Rows if these are set.
	Terminal      bool
	Columns, Rows uint16
}

// Session is a process that somebody talks to. It ends when it is closed.
type Session interface {
	// Input takes what the process reads; closing it is the end of its input. It is nil where there is nothing to write to.
	Input() io.WriteCloser
	// Output and ErrOutput are what the process writes, until it ends; with a terminal all of it is Output, and ErrOutput
	// is nil.
	Output() io.Reader
	ErrOutput() io.Reader
	// Resize tells the terminal its size; without one it does nothing.
	Resize(columns, rows uint16) error
	// Wait returns the exit of the process, once it has ended and its outputs are read or closed.
	Wait(ctx context.Context) (Exit, error)
	// Close ends the process, if it was started for this session, and all that the session holds.
	Close() error
}

// Sessions runs processes in containers, and attaches to terminals. A containerizer that can't returns ErrUnsupported.
type Sessions interface {
	// Exec starts a process in a running container: in its namespaces, its root file system, its limits and as its user. It
	// does not outlive the agent.
	Exec(ctx context.Context, id string, process Process) (Session, error)
	// Attach connects to the terminal of a container whose ContainerInfo asked for one; without a terminal it is
	// ErrNoTerminal. Closing the session leaves the container alone.
	Attach(ctx context.Context, id string) (Session, error)
}
