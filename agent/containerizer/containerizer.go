// Package containerizer is the seam between the agent and whatever isolates its tasks.
//
// The agent hands over a Spec and gets a container that outlives the agent process: what runs, and what ended while no
// agent was there to see it, comes back from Recover. An exit is told exactly once a life of the agent, and again in the
// next one unless it was forgotten by Remove.
package containerizer

import (
	"context"
	"errors"
	"time"
)

var (
	// ErrUnknownContainer is returned for an id that the containerizer does not hold.
	ErrUnknownContainer = errors.New("unknown container")
	// ErrExists is returned by Launch for an id that is taken.
	ErrExists = errors.New("container exists")
	// ErrRunning is returned by Remove for a container that has not ended.
	ErrRunning = errors.New("container is running")
	// ErrDegraded comes from Recover together with containers: see there.
	ErrDegraded = errors.New("containers cannot be started or ended properly")
)

// NoteMax is how long a note may be, in bytes.
const NoteMax = 1 << 10

// Spec says what to run.
type Spec struct {
	// ID names the container; it is a valid path segment.
	ID string
	// Path is the program, looked up in the PATH of Env when it has no slash; Args is its argv, the zeroth included.
	Path string
	Args []string
	// Env is the whole environment, "NAME=value".
	Env []string
	// Dir is the working directory: the sandbox, which exists.
	Dir string
	// User is the name or number of the user to run as; empty is the agent's own.
	User string
	// Stdout and Stderr are files, opened for appending and made where they lack.
	Stdout, Stderr string
	// CPUs and MemBytes are the limits to enforce where that is possible; 0 means none.
	CPUs     float64
	MemBytes int64
	// Note is kept with the container and comes back from Recover. It means nothing to the containerizer, which keeps it
	// apart from whatever the agent keeps. At most NoteMax bytes.
	Note []byte
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
	// OOM is set when the memory limit ended it.
	OOM bool
	At  time.Time
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
}
