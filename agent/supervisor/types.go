package supervisor

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// The names in a task's environment that tell which container it belongs to, and of which supervisor. They come after
// the environment of the [Spec] and replace what it says under the same names.
const (
	MarkContainer  = "STARLING_CONTAINER_ID"
	MarkSupervisor = "STARLING_SUPERVISOR"
)

// MaxNote is the longest note in bytes.
const MaxNote = 1 << 10

// maxLaunch is the longest time that a launcher may be given.
const maxLaunch = 5 * time.Minute

// maxID is the longest id in bytes; the name of a record's file is two bytes longer and must fit in 255.
const maxID = 250

// Spec says what to start. Strings are passed on byte by byte and cannot hold a zero byte.
type Spec struct {
	// ID names the container: a path segment of at most 250 bytes.
	ID string
	// Path is the program: absolute, or relative to Dir. Args is its argv, the zeroth included.
	Path string
	Args []string
	// Env is the whole environment, "NAME=value".
	Env []string
	// Dir is the working directory, absolute; it exists.
	Dir string
	// Stdout and Stderr are absolute paths of files, opened for appending and made where they lack. Empty means
	// /dev/null. No part of them may be a symbolic link: some of the folders may belong to the task's user.
	Stdout, Stderr string
	// Credential is the user to become; nil means the supervisor's own.
	Credential *Credential
	// Cgroups are folders of cgroups, made by the client, that the first process is born in. They hold nobody else.
	// The memory limit's verdict is read from them, and all processes in them are killed with the container.
	Cgroups []string
	// LaunchWithin, if it is not zero, says that the program is a launcher, and how long it may take: see [Launcher]. It runs
	// as the supervisor's own user and outside of Cgroups; Credential then only owns the outputs that are made.
	LaunchWithin time.Duration
	// Note is kept with the container and means nothing here; MaxNote bytes are allowed.
	Note []byte
}

// Credential is a user in numbers.
type Credential struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
}

// Config says how to find a supervisor, and how to start one.
type Config struct {
	// Dir is its folder; it is made if it lacks.
	Dir string
	// Command is the argv that runs Main, without flags of Main: {"/usr/bin/starling", "supervisor"}. The program must
	// be named by an absolute path.
	Command []string
	// IdleExit is how long a supervisor that was started stays without containers and clients; 0 is for ever.
	IdleExit time.Duration
	// Cgroups are folders of cgroups for a supervisor that is started to move into. It removes them when it ends, and
	// the folders above them, if they are empty then.
	Cgroups []string
	// Env is added to the environment of a supervisor that is started. No task sees it.
	Env []string
}

// Container is what the supervisor knows of a container. PID and Ticks together name its first process for the time
// that the machine is up.
type Container struct {
	ID  string `json:"id"`
	PID int    `json:"pid,omitempty"`
	// Ticks is the start time of the process in clock ticks since boot: field 22 of /proc/<pid>/stat.
	Ticks uint64 `json:"ticks,omitempty"`
	// Started is the wall clock at the start.
	Started time.Time `json:"started,omitzero"`
	Cgroups []string  `json:"cgroups,omitempty"`
	// Note is that of the Spec.
	Note []byte `json:"note,omitempty"`
	// Exit is nil while the first process runs.
	Exit *Exit `json:"exit,omitempty"`
}

// Exit tells how a first process ended.
type Exit struct {
	// Known is false when nobody could tell; then Status means nothing, and in particular not success.
	Known bool `json:"known"`
	// Status is the wait status as wait(2) tells it.
	Status int `json:"status"`
	// OOM is set when the OOM killer ended a process of the container: see OOMKilled.
	OOM bool `json:"oom,omitempty"`
	// At is when the supervisor learned of it, by the wall clock.
	At time.Time `json:"at"`
}

var (
	// ErrUnknown is returned for an id that the supervisor does not hold.
	ErrUnknown = errors.New("unknown container")
	// ErrRunning is returned where an ended container is needed, and by Stop while any container runs.
	ErrRunning = errors.New("container is running")
	// ErrInvalid is returned for a request that can't be obeyed as it stands.
	ErrInvalid = errors.New("invalid request")
	// ErrCannotRun is returned when the program could not be started; nothing is left behind.
	ErrCannotRun = errors.New("cannot run")
	// ErrTimeout is returned when processes were still there at the end of the time given.
	ErrTimeout = errors.New("timed out")
	// ErrGone is returned by OpenHandle when the process is no more, or its number belongs to another one.
	ErrGone = errors.New("no such process")
	// ErrDisconnected is returned when the connection ended before the answer came: what was asked for may have
	// happened or not.
	ErrDisconnected = errors.New("supervisor disconnected")
)

// Error is a refusal of the supervisor. errors.Is tells which of the sentinels above it is.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

// Is reports whether the code of e stands for target.
func (e *Error) Is(target error) bool {
	sentinel, ok := sentinels[e.Code]
	return ok && sentinel == target
}

// sentinels maps the codes on the wire to what callers test for.
var sentinels = map[string]error{
	"unknown":    ErrUnknown,
	"running":    ErrRunning,
	"invalid":    ErrInvalid,
	"cannot_run": ErrCannotRun,
	"timeout":    ErrTimeout,
}

func refuse(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// validateID refuses what can't be the name of a file.
func validateID(id string) *Error {
	switch {
	case id == "":
		return refuse("invalid", "container id is empty")
	case len(id) > maxID:
		return refuse("invalid", "container id has %d bytes, %d are allowed", len(id), maxID)
	case id == "." || id == "..", strings.ContainsAny(id, "/\x00"):
		return refuse("invalid", "container id %q is not a path segment", id)
	}
	return nil
}

// validate tells all that is wrong with the spec at once.
func (s *Spec) validate() *Error {
	var faults []string
	if err := validateID(s.ID); err != nil {
		faults = append(faults, err.Message)
	}
	if s.Path == "" {
		faults = append(faults, "no program given")
	}
	if len(s.Args) == 0 {
		faults = append(faults, "args are empty, the name of the program included")
	}
	for _, p := range []struct{ what, path string }{{"working directory", s.Dir}, {"stdout", s.Stdout}, {"stderr", s.Stderr}} {
		if p.path == "" && p.what != "working directory" {
			continue
		}
		if !strings.HasPrefix(p.path, "/") {
			faults = append(faults, fmt.Sprintf("%s %q is not an absolute path", p.what, p.path))
		}
	}
	for _, dir := range s.Cgroups {
		if !strings.HasPrefix(dir, "/") {
			faults = append(faults, fmt.Sprintf("cgroup %q is not an absolute path", dir))
		}
	}
	if s.LaunchWithin < 0 || s.LaunchWithin > maxLaunch {
		faults = append(faults, fmt.Sprintf("a launcher may take %v, not %v", maxLaunch, s.LaunchWithin))
	}
	if len(s.Note) > MaxNote {
		faults = append(faults, fmt.Sprintf("note has %d bytes, %d are allowed", len(s.Note), MaxNote))
	}
	for _, list := range [][]string{s.Args, s.Env, s.Cgroups, {s.Path, s.Dir, s.Stdout, s.Stderr}} {
		for _, v := range list {
			if strings.IndexByte(v, 0) >= 0 {
				faults = append(faults, fmt.Sprintf("zero byte in %.40q", v))
			}
		}
	}
	if len(faults) > 0 {
		return refuse("invalid", "%s", strings.Join(faults, "; "))
	}
	return nil
}
