package marathon

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"starling/marathon/app"
	"starling/marathon/scheduler"
	"starling/marathon/state"
	"starling/master/election"
	"starling/master/store"
)

// APIVersion is the version of Marathon whose API is served; tools compare it.
const APIVersion = "1.11.24"

// Config is what a Marathon is made of. Start from DefaultConfig.
type Config struct {
	// Masters are the addresses, host:port, where masters may be. Resolve, if set, is asked for them instead. Detector, if set,
	// tells of the leading one alone: it is followed when it changes, also while the old one still answers.
	Masters  []string
	Resolve  func(ctx context.Context) ([]string, error)
	Detector election.Detector
	// Hostname is the name that the framework tells the master.
	Hostname string
	// Address is the host:port where others reach the HTTP API. It is how this Marathon is known as a leader.
	Address string
	// HTTPPort is the port of the HTTP API, shown by /v2/info.
	HTTPPort int
	// WebUIURL is told to the master; empty means http://Address.
	WebUIURL string
	// MasterFlag is what the user gave as --master, shown by /v2/info without credentials.
	MasterFlag string
	// MesosUI is the link to the master's UI, shown by /v2/info; empty means that of the master of the session.
	MesosUI string
	// Version is that of the software.
	Version string

	// Store keeps the state. It is not closed.
	Store store.Store
	// Log is needed.
	Log *slog.Logger
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	// Rand is used by the loop alone; nil means a source seeded by chance.
	Rand *rand.Rand
	// Transport makes the connections to masters; nil means plain HTTP/1.1.
	Transport http.RoundTripper

	// FrameworkName, User, Role and Principal are what the framework registers with. Principal may be empty.
	FrameworkName string
	User          string
	Role          string
	Principal     string
	// FailoverTimeout is how long tasks are kept by the master when Marathon is gone.
	FailoverTimeout time.Duration
	// Checkpoint makes tasks survive a restart of their agent.
	Checkpoint bool
	// TaskKilling asks for TASK_KILLING, GPUs for offers of agents that have some.
	TaskKilling, GPUs bool

	// Scheduler are the settings of the core, App those that definitions depend on. Their Role is set from Role.
	Scheduler scheduler.Config
	App       app.Settings
	// KeepVersions is how many versions of the tree, and of each app, are kept.
	KeepVersions int
	// HealthChecks bounds the health checks of Marathon's own that run at the same time.
	HealthChecks int
	// EventQueue is how many events wait for a slow listener before it is cut off.
	EventQueue int
	// StoreTimeout bounds one attempt to read or write the store.
	StoreTimeout time.Duration
	// StorePatience is after what time a write that does not get done makes Marathon unready: requests are refused then, and
	// do not wait (15 s).
	StorePatience time.Duration
	// MinBackoff and MaxBackoff bound the pauses between attempts, at the store and at the master.
	MinBackoff, MaxBackoff time.Duration
}

// DefaultConfig returns a Config with everything set that has a default.
func DefaultConfig() Config {
	return Config{
		FrameworkName:   "marathon",
		Role:            "*",
		FailoverTimeout: 604800 * time.Second,
		Checkpoint:      true,
		App:             app.DefaultSettings(),
		KeepVersions:    state.DefaultVersions,
		HealthChecks:    256,
		EventQueue:      1024,
		StoreTimeout:    10 * time.Second,
		StorePatience:   15 * time.Second,
		MinBackoff:      100 * time.Millisecond,
		MaxBackoff:      5 * time.Second,
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
	need(len(c.Masters) > 0 || c.Resolve != nil || c.Detector != nil, "marathon needs a master")
	need(c.Hostname != "", "marathon needs a hostname")
	need(c.Address != "", "marathon needs the address of its HTTP API")
	need(c.Store != nil, "marathon needs a store")
	need(c.Log != nil, "marathon needs a log")
	need(c.FrameworkName != "", "marathon needs a framework name")
	need(c.User != "", "marathon needs a user to run tasks as")
	need(c.Role != "", "marathon needs a role")
	need(c.FailoverTimeout >= 0, "failover timeout must not be negative")
	need(c.HealthChecks > 0, "at least one health check must be allowed to run")
	need(c.StoreTimeout > 0, "store timeout must be above 0")
	need(c.StorePatience > 0, "store patience must be above 0")
	need(c.MinBackoff > 0 && c.MaxBackoff >= c.MinBackoff, "backoff must be above 0, and its maximum not below its minimum")
	need(c.App.ServicePortMin > 0 && c.App.ServicePortMax >= c.App.ServicePortMin && c.App.ServicePortMax < 1<<16,
		"the range of service ports must lie between 1 and 65535")
	return errors.Join(errs...)
}
