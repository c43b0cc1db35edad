package master

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"time"

	"starling/gossip/record"
	"starling/master/allocator"
	"starling/master/election"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
	"starling/master/store"
	"starling/master/validation"
)

// MesosVersion is the version of Mesos whose interfaces are served: what tools that look at a version are told.
const MesosVersion = "1.11.0"

// Mesh is what a master needs of the mesh.
type Mesh interface {
	record.Reader
	// Set changes this master's own record.
	Set(changes ...record.Assignment) uint64
	// Apply merges a delta that an agent sent along with an answer or a report.
	Apply(wire []byte) error
}

// NodeClient calls agents; *nodeapi.Client is one.
type NodeClient interface {
	Call(ctx context.Context, addr string, call *nodeapi.Call) (*nodeapi.Reply, error)
}

// Config is what a master is made of. Start from DefaultConfig.
type Config struct {
	// ID is the Mesos master id, a UUID that stays the same over restarts: the ids of frameworks begin with it.
	ID string
	// Hostname and Address (an IP, text form) and Port are where others reach the HTTP API.
	Hostname string
	Address  string
	Port     int
	// Cluster is the name of the cluster, shown to tools; may be empty.
	Cluster string
	// Version is that of the software.
	Version string
	// Region and Zone are where this master stands; both may be empty.
	Region, Zone string
	// Flags is what /flags shows: names and values as text.
	Flags map[string]string

	Mesh      Mesh
	Contender election.Contender
	// Detector tells which of several masters leads; nil where this one leads alone.
	Detector election.Detector
	Store    store.Store
	Client   NodeClient
	Log      *slog.Logger
	// Now is the wall clock: for what is stored, shown or sent. nil means time.Now.
	Now func() time.Time
	// Rand is used by the loop alone. nil means a source seeded by chance.
	Rand *rand.Rand

	// Roles is the list of roles that frameworks may use besides "*"; empty allows all.
	Roles []string
	// Weights are the weights of roles, above 0, until an operator changes them; a role without one has 1.
	Weights map[string]float64
	// MinAllocatable are the least resources that are worth an offer; nil means cpus:0.01|mem:32.
	MinAllocatable []allocator.Quantities
	// ExcludedResources are the names of resources that don't count for fairness.
	ExcludedResources []string
	// RootSubmissions lets frameworks run as the user root.
	RootSubmissions bool
	// HideFrameworkMetrics leaves the numbers of each framework out of the metrics.
	HideFrameworkMetrics bool
	// FilterGPUResources keeps agents with GPUs from frameworks without the capability for them.
	FilterGPUResources bool

	// HeartbeatInterval is the time between heartbeats on event streams.
	HeartbeatInterval time.Duration
	// AllocationDelay is how long changes are gathered before an allocation.
	AllocationDelay time.Duration
	// OfferTimeout is how long a framework may sit on an offer; 0 means for ever.
	OfferTimeout time.Duration
	// UnreachableAfter is how long an agent must have been dead to the mesh before its tasks are given up as unreachable.
	// It leaves the mesh time to find out whether many others died with it, which would rather be a fault on this side:
	// of three agents killed at once, the last has been suspected 3 s after the first was declared dead.
	UnreachableAfter time.Duration
	// LeaveTimeout is the same for an agent that left in order, as one does that is being restarted.
	LeaveTimeout time.Duration
	// ReregisterTimeout is the least time that a framework which was connected to the last leader has to come back.
	ReregisterTimeout time.Duration
	// Settle is how long after its start a master does not trust that its copy of the mesh is complete.
	Settle time.Duration
	// CallTimeout is the deadline of one call to an agent.
	CallTimeout time.Duration
	// LaunchPatience is how long a launch is repeated to an agent that does not answer.
	LaunchPatience time.Duration
	// MaxStreamEvents and MaxStreamAge bound what waits for a framework that does not read: more events than that for longer
	// than a burst lasts (2 s), or one that waited for MaxStreamAge, and the stream is cut. MaxStreamBytes bounds them by their
	// size on the wire.
	MaxStreamEvents int
	MaxStreamAge    time.Duration
	MaxStreamBytes  int
	// MaxOperatorStreams is how many event streams operators may have open: a further one ends the oldest.
	MaxOperatorStreams int
	// MaxCompletedFrameworks, MaxCompletedTasks and MaxUnreachableTasks bound what is remembered of what is over; the
	// latter two are for each framework.
	MaxCompletedFrameworks int
	MaxCompletedTasks      int
	MaxUnreachableTasks    int
}

// DefaultConfig returns a Config with all durations and bounds set, and nothing else.
func DefaultConfig() Config {
	return Config{
		RootSubmissions:        true,
		FilterGPUResources:     true,
		HeartbeatInterval:      15 * time.Second,
		AllocationDelay:        3 * time.Millisecond,
		UnreachableAfter:       4 * time.Second,
		LeaveTimeout:           75 * time.Second,
		ReregisterTimeout:      10 * time.Minute,
		Settle:                 10 * time.Second,
		CallTimeout:            5 * time.Second,
		LaunchPatience:         30 * time.Second,
		MaxStreamEvents:        1024,
		MaxStreamAge:           30 * time.Second,
		MaxStreamBytes:         8 << 20,
		MaxOperatorStreams:     1000,
		MaxCompletedFrameworks: 50,
		MaxCompletedTasks:      1000,
		MaxUnreachableTasks:    1000,
	}
}

// Validate returns all faults, joined.
func (c *Config) Validate() error {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New(what))
		}
	}
	need(c.ID != "", "a master needs an id")
	need(c.Hostname != "", "a master needs a hostname")
	need(net.ParseIP(c.Address) != nil, fmt.Sprintf("address %q is not an IP address", c.Address))
	need(c.Port > 0 && c.Port < 1<<16, fmt.Sprintf("port %d is out of range", c.Port))
	need(c.Mesh != nil, "a master needs a mesh")
	need(c.Contender != nil, "a master needs a contender")
	need(c.Store != nil, "a master needs a store")
	need(c.Client != nil, "a master needs a client for the node protocol")
	need(c.Log != nil, "a master needs a logger")
	for _, role := range c.Roles {
		if err := resources.CheckRole(role); err != nil {
			errs = append(errs, fmt.Errorf("roles: %w", err))
		}
	}
	for role, weight := range c.Weights {
		if err := resources.CheckRole(role); err != nil {
			errs = append(errs, fmt.Errorf("weights: %w", err))
		}
		need(c.whitelisted(role), fmt.Sprintf("weights: role %q is not among the roles that may be used", role))
		need(validation.Weight(weight) == nil, fmt.Sprintf("weight %v of role %q is not above 0", weight, role))
	}
	for name, d := range map[string]time.Duration{
		"heartbeat interval": c.HeartbeatInterval, "allocation delay": c.AllocationDelay,
		"call timeout": c.CallTimeout, "launch patience": c.LaunchPatience, "stream age": c.MaxStreamAge,
	} {
		need(d > 0, fmt.Sprintf("%s %v is not above 0", name, d))
	}
	for name, d := range map[string]time.Duration{
		"offer timeout": c.OfferTimeout, "unreachable time": c.UnreachableAfter, "leave timeout": c.LeaveTimeout,
		"re-register timeout": c.ReregisterTimeout, "settle time": c.Settle,
	} {
		need(d >= 0, fmt.Sprintf("%s %v is negative", name, d))
	}
	need(c.MaxStreamEvents > 0 && c.MaxStreamBytes > 0, "the bounds of event streams must be above 0")
	need(c.MaxOperatorStreams > 0, "the bound on event streams of operators must be above 0")
	need(c.MaxCompletedFrameworks >= 0 && c.MaxCompletedTasks >= 0 && c.MaxUnreachableTasks >= 0, "the bounds of histories must not be negative")
	return errors.Join(errs...)
}

// hostport is the advertised address of the HTTP API.
func (c *Config) hostport() string {
	return net.JoinHostPort(c.Address, strconv.Itoa(c.Port))
}
