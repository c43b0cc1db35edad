package docker

import (
	"context"
	"errors"
	"io"
	"time"

	"starling/agent/containerizer"
)

// What callers branch on in errors of an engine.
var (
	errNotFound = errors.New("not found")
	errConflict = errors.New("conflict")
	// errAway is for an engine that cannot be reached or does not answer in time: nobody knows what became of the call.
	errAway = errors.New("engine is away")
)

// engine is what this package needs of the Docker Engine API. Each method has a deadline of its own, but for streams, which
// last until ctx ends.
type engine interface {
	Ping(ctx context.Context) error
	// HasImage tells whether the engine holds an image.
	HasImage(ctx context.Context, ref string) (bool, error)
	// Pull brings an image, and calls progress for each word about it. It has no deadline.
	Pull(ctx context.Context, ref string, login Login, progress func()) error
	// Volume tells what a volume is made of, by its driver.
	Volume(ctx context.Context, name string) (driver string, options map[string]string, err error)
	// Create makes a container and returns the engine's id of it.
	Create(ctx context.Context, p *plan) (string, error)
	Start(ctx context.Context, id string) error
	Inspect(ctx context.Context, id string) (inspection, error)
	// List returns all containers that carry a label, those included that do not run.
	List(ctx context.Context, label string) ([]listed, error)
	// Events calls each for signals to, ends and removals of containers that carry a label, and returns when the stream ends.
	Events(ctx context.Context, label string, each func(event)) error
	Kill(ctx context.Context, id, signal string) error
	// Stop sends the stop signal, and SIGKILL after a grace period.
	Stop(ctx context.Context, id string, grace time.Duration) error
	// Remove removes a container with its anonymous volumes; with force it is killed if it runs.
	Remove(ctx context.Context, id string, force bool) error
	Update(ctx context.Context, id string, l limits) error
	Stats(ctx context.Context, id string) (containerizer.Usage, error)
	// Logs streams what a container wrote from a time on, each message with its time, until the container has ended.
	Logs(ctx context.Context, id string, since time.Time) (io.ReadCloser, error)
	// Attach connects to the terminal of a container.
	Attach(ctx context.Context, id string) (stream, error)
	Resize(ctx context.Context, id string, columns, rows uint16) error
	ExecCreate(ctx context.Context, id string, p containerizer.Process) (string, error)
	ExecStart(ctx context.Context, exec string, terminal bool) (stream, error)
	ExecInspect(ctx context.Context, exec string) (execution, error)
	ExecResize(ctx context.Context, exec string, columns, rows uint16) error
	Close() error
}

// Login is what a registry asks for.
type Login struct {
	Username, Password, IdentityToken, RegistryToken, Server string
}

// inspection is what the engine knows of a container.
type inspection struct {
	ID, Name string
	Labels   map[string]string
	Status   string // created, running, paused, restarting, removing, exited, dead
	Running  bool
	OOM      bool
	PID      int
	ExitCode int
	Error    string
	Started  time.Time
	Finished time.Time
	TTY      bool
	Memory   int64 // the limit, 0 for none
	Swap     int64 // memory and swap together
	Network  string
	Networks []attached
	Raw      []byte // as the engine wrote it
}

// attached is an address of a container in a network.
type attached struct {
	Network    string
	IPv4, IPv6 string
}

// ended tells whether the container ran and does not any more.
func (i *inspection) ended() bool {
	return !i.Running && i.Status != "created" && !i.Started.IsZero() && i.Status != "restarting"
}

// listed is a container in a list.
type listed struct {
	ID, Name string
	Labels   map[string]string
	Status   string
}

// event is something that happened to a container.
type event struct {
	ID     string
	Action string
	// ExitCode is that of "die", Signal that of "kill"; -1 where there is none.
	ExitCode, Signal int
}

// limits are what Update sets.
type limits struct {
	Shares, Quota             int64
	Memory, Reservation, Swap int64 // Swap is memory and swap together
}

// stream is a connection to a process: what is read is its output, in frames unless it has a terminal.
type stream interface {
	io.Reader
	io.Writer
	CloseWrite() error
	Close() error
}

// execution is the state of a process that was started by ExecCreate.
type execution struct {
	Running  bool
	ExitCode int
	PID      int
}

// plan is a container to be created: what the flags of `docker run` say.
type plan struct {
	Name, Image              string
	Entrypoint, Command, Env []string
	Labels                   map[string]string
	Hostname, Domainname     string
	User, Workdir            string
	StopSignal, MAC          string
	StopTimeout              *int
	TTY                      bool
	NoHealthcheck            bool

	Binds        []string
	sandbox      []string // binds of paths in the sandbox, which become part of Binds when those are judged
	Volumes      []string // anonymous ones: paths in the container
	Mounts       []namedVolume
	VolumeDriver string
	VolumesFrom  []string
	Tmpfs        map[string]string
	ReadOnly     bool
	StorageOpt   map[string]string

	Network            string
	Aliases, Links     []string
	IPv4, IPv6         string
	Ports              []port
	Exposed            []string // like 80/tcp
	PublishAll         bool
	DNS, DNSSearch     []string
	DNSOptions, Hosts  []string
	Privileged         bool
	CapAdd, CapDrop    []string
	SecurityOpt        []string
	Groups             []string
	Devices            []device
	DeviceRules        []string
	IPC, PID           string
	UTS, Userns        string
	CgroupNS           string
	CgroupParent       string
	Runtime            string
	Init               *bool
	LogDriver          string
	LogOptions         map[string]string
	Sysctls            map[string]string
	Annotations        map[string]string
	Ulimits            []ulimit
	ShmSize            int64
	OOMScore           int
	OOMKillDisable     *bool
	Shares, Quota      int64
	Period, NanoCPUs   int64
	CPUs, Mems         string // cpusets
	Memory, MemoryPlus int64  // MemoryPlus is memory and swap together
	Reservation        int64
	Swappiness         *int64
	Pids               *int64
	BlkioWeight        uint16
}

type port struct {
	IP, Host  string
	Container string // like 80/tcp
}

type device struct{ Host, Container, Permissions string }

type ulimit struct {
	Name       string
	Soft, Hard int64
}

// namedVolume is a volume that the engine keeps.
type namedVolume struct {
	Name, Target, Driver string
	Options              map[string]string
	ReadOnly             bool
}
