package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"starling/agent/containerizer"
	"starling/agent/fetcher"
	"starling/agent/inventory"
	"starling/agent/sandbox"
	"starling/gossip/record"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

// Mesh is what the agent needs of the mesh: to write the record of its own node, and to read who leads.
type Mesh interface {
	record.Reader
	// Set changes the own record and returns its version.
	Set(changes ...record.Assignment) uint64
	// Delta returns what changed in the own record since a version, in wire form.
	Delta(since uint64) []byte
}

// Reporter sends reports to a leader; *nodeapi.Client is one.
type Reporter interface {
	Report(ctx context.Context, addr string, report *nodeapi.Report) error
}

// Fetcher brings the URIs of commands into sandboxes; *fetcher.Fetcher is one.
type Fetcher interface {
	// Fetch returns when all is there, or at the first failure; it ends with ctx, at once.
	Fetch(ctx context.Context, req fetcher.Request) error
}

// Config of an agent. Start from DefaultConfig.
type Config struct {
	// ID is the Mesos agent id, which is also the name of the node in the mesh. It stays the same for a work directory.
	ID string
	// NewID makes the id of the agent that takes the place of this one should that be gone for good.
	NewID func() string
	// WorkDir is the absolute path of the folder that holds checkpoints ("meta") and sandboxes ("slaves").
	WorkDir string
	// Hostname, Address (an IP, text form) and Port are what is advertised.
	Hostname, Address string
	Port              int
	// Roles is what the node is told to be in the mesh. Default: "agent".
	Roles []string
	// Region and Zone are where the node is; empty where that does not matter.
	Region, Zone string
	// Version is that of this software.
	Version string

	// Resources is what the node has.
	Resources  resources.Resources
	Attributes []*mesos.Attribute

	// GPUs gives containers the GPUs of their resources; nil refuses tasks that ask for any.
	GPUs *inventory.Allotter

	Mesh          Mesh
	Reporter      Reporter
	Containerizer containerizer.Containerizer
	// Fetcher may be nil: then tasks with URIs are refused.
	Fetcher Fetcher

	// SwitchUser runs tasks as the user they name, which takes root. Default: true.
	SwitchUser bool
	// OnlyUser is the user of the agent where users were to be switched and it is not root: what names another one by its
	// command, and is not Docker's to run, is refused. The user of a framework does not count there. Empty refuses none.
	OnlyUser string
	// ExecutorEnvironment is added to the environment of every task.
	ExecutorEnvironment map[string]string
	// DefaultContainer is the container of tasks that name none; nil is no container.
	DefaultContainer *mesos.ContainerInfo
	// SandboxDirectory is where containers with a root file system of their own see their sandbox. Default:
	// /mnt/mesos/sandbox.
	SandboxDirectory string
	// EndTasksAtStop ends all tasks when the agent stops, instead of leaving them running; not where the cause is ErrGone: that is
	// of another agent in this process, and this one is going to be back. Default: false.
	EndTasksAtStop bool
	// StopTimeout bounds how long a stop may take. Default: 8 s.
	StopTimeout time.Duration

	// ShutdownGrace is the grace period of executors. Default: 5 s.
	ShutdownGrace time.Duration
	// ExecutorRegistrationTimeout is how long an executor of others may take to subscribe after its start. Default: 1 min.
	ExecutorRegistrationTimeout time.Duration
	// ExecutorReregistrationTimeout is how long it may take to subscribe again after a start of the agent. Default: 2 s; at most 15 s.
	ExecutorReregistrationTimeout time.Duration
	// RecoveryTimeout is how long an executor that lost its agent is told to wait for it. Default: 15 min.
	RecoveryTimeout time.Duration
	// LaunchTimeout bounds the start of one container. Default: 1 min.
	LaunchTimeout time.Duration
	// RetryFirst and RetryMax are the pace at which updates are sent again. Defaults: 10 s, 10 min.
	RetryFirst, RetryMax time.Duration
	// GCDelay is how long sandboxes of ended tasks are kept while there is space. Default: a week.
	GCDelay time.Duration
	// GCHeadroom is the part of the disk to be kept free. Default: 0.1.
	GCHeadroom float64
	// GCInterval is the time between two looks at what has to go. Default: 1 min.
	GCInterval time.Duration
	// LogMaxBytes is how large stdout and stderr of a container may become before what is in them is put aside, in bytes;
	// 0 is no limit. LogFiles is how many files are kept of each, the one that is written to included. Defaults: 10 MiB, 10.
	LogMaxBytes int64
	LogFiles    int
	// EnforceDiskQuota ends tasks that hold more on disk than they were given, which is looked at every DiskQuotaInterval.
	// Defaults: false, 15 s.
	EnforceDiskQuota  bool
	DiskQuotaInterval time.Duration
	// MaxCompletedExecutors is how many ended executors are remembered of a framework, for people. Default: 150.
	MaxCompletedExecutors int
	// LogFile is the agent's own log, to be shown as /slave/log; empty where there is none.
	LogFile string
	// DiskReserve is set aside so that exits can be noted on a full disk, in bytes. Default: 16 MiB; 0 means none.
	DiskReserve int64

	// Flags are what the operator set, for the flags endpoint and the state.
	Flags map[string]string
	// Problems found before the start, to be shown with the node's health.
	Problems []string

	Log *slog.Logger
	// Now is the wall clock, for times that are stored or shown. Default: time.Now.
	Now func() time.Time
}

// DefaultConfig returns a configuration with all defaults, which lacks what only the caller knows.
func DefaultConfig() Config {
	return Config{
		Roles: []string{"agent"}, SwitchUser: true, SandboxDirectory: "/mnt/mesos/sandbox",
		StopTimeout: 8 * time.Second, ShutdownGrace: 5 * time.Second, LaunchTimeout: time.Minute,
		ExecutorRegistrationTimeout: time.Minute, ExecutorReregistrationTimeout: 2 * time.Second, RecoveryTimeout: 15 * time.Minute,
		RetryFirst: 10 * time.Second, RetryMax: 10 * time.Minute,
		GCDelay: 7 * 24 * time.Hour, GCHeadroom: 0.1, GCInterval: time.Minute,
		LogMaxBytes: 10 << 20, LogFiles: 10, DiskQuotaInterval: 15 * time.Second, MaxCompletedExecutors: 150,
		DiskReserve: 16 << 20,
		Now:         time.Now,
	}
}

// Validate returns all faults, joined.
func (c *Config) Validate() error {
	var faults []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	need(sandbox.Safe(c.ID), "agent id %q is no path segment", c.ID)
	need(c.NewID != nil, "what makes a new id is missing")
	need(filepath.IsAbs(c.WorkDir), "work directory %q is not an absolute path", c.WorkDir)
	need(c.Hostname != "", "hostname is missing")
	need(net.ParseIP(c.Address) != nil, "address %q is not an IP address", c.Address)
	need(c.Port > 0 && c.Port < 1<<16, "port %d is not between 1 and 65535", c.Port)
	need(c.Mesh != nil, "mesh is missing")
	need(c.Reporter != nil, "reporter is missing")
	need(c.Containerizer != nil, "containerizer is missing")
	need(c.Log != nil, "log is missing")
	need(c.Now != nil, "clock is missing")
	for _, d := range []struct {
		name string
		d    time.Duration
	}{
		{"stop timeout", c.StopTimeout},
		{"shutdown grace", c.ShutdownGrace},
		{"launch timeout", c.LaunchTimeout},
		{"executor registration timeout", c.ExecutorRegistrationTimeout},
		{"executor reregistration timeout", c.ExecutorReregistrationTimeout},
		{"recovery timeout", c.RecoveryTimeout},
		{"first retry", c.RetryFirst},
		{"longest retry", c.RetryMax},
		{"gc delay", c.GCDelay},
		{"gc interval", c.GCInterval},
		{"disk quota interval", c.DiskQuotaInterval},
	} {
		need(d.d > 0, "%s %v is not positive", d.name, d.d)
	}
	need(c.ExecutorReregistrationTimeout <= 15*time.Second, "executor reregistration timeout %v is longer than 15s", c.ExecutorReregistrationTimeout)
	need(c.GCHeadroom >= 0 && c.GCHeadroom < 1, "gc headroom %v is not between 0 and 1", c.GCHeadroom)
	need(c.LogMaxBytes >= 0, "largest output file %d is negative", c.LogMaxBytes)
	need(c.LogFiles >= 1, "number of output files %d is less than 1", c.LogFiles)
	need(c.MaxCompletedExecutors >= 0, "number of ended executors %d is negative", c.MaxCompletedExecutors)
	need(c.DiskReserve >= 0, "disk reserve %d is negative", c.DiskReserve)
	return errors.Join(faults...)
}
