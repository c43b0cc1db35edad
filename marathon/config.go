package marathon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"path/filepath"
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
	// Distances finds out how far nodes are from each other, for apps that want to be near to something; nil is never.
	Distances Distances
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
	// Backups is the folder, absolute, in which backups of the state are written and found; without it there are none. It is made
	// where it lacks.
	Backups string
	// Memory keeps the framework id outside of the store; nil means for as long as the process lives. Lost says what is done
	// where the store has lost the state: LostStop, LostNew, or the file:// URI of a backup in Backups that is restored then.
	Memory Memory
	Lost   string
	// Contender, where there are several over one store, decides which of them leads, and Election tells that to the others;
	// Candidate is this one, whose Hostname and Port make the Address, and whose ID no other one has. Without a contender
	// this Marathon is alone.
	Contender election.Contender
	Election  election.Detector
	Candidate election.Candidate
	// ZK is where the state is, as a URL without credentials, shown by /v2/info; empty where it is on this machine.
	ZK string
	// ZKSession is how long a session there outlives its last sign of life, shown by /v2/info; 0 where there is none.
	ZKSession time.Duration
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
	// MaxChanges bounds the changes of definitions that wait to be made; what comes beyond it is refused (500).
	MaxChanges int
	// HealthChecks bounds the health checks of Marathon's own that run at the same time. Those that have waited for an answer
	// for long are counted apart, up to sixteen times as many.
	HealthChecks int
	// EventQueue is how many events wait for a slow listener before it is cut off.
	EventQueue int
	// StoreTimeout bounds one attempt to read or write the store.
	StoreTimeout time.Duration
	// PrepareTimeout bounds one attempt to load the state, with what the last leader left to be done before (180 s).
	PrepareTimeout time.Duration
	// StorePatience is after what time a write that does not get done makes Marathon unready: requests are refused then, and
	// do not wait (15 s).
	StorePatience time.Duration
	// MinBackoff and MaxBackoff bound the pauses between attempts, at the store and at the master.
	MinBackoff, MaxBackoff time.Duration

	// Scheme is how Address is spoken to, "http" or "https"; empty means http. HTTPSPort is the port for HTTPS, 0 for none.
	Scheme    string
	HTTPSPort int
	// Callbacks say whether events are posted to URLs.
	Callbacks Callbacks
	// MetricsPrefix stands before the names of all metrics, with a dot behind it; it may be empty.
	MetricsPrefix string
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
		MaxChanges:      500,
		HealthChecks:    256,
		EventQueue:      1024,
		StoreTimeout:    10 * time.Second,
		PrepareTimeout:  180 * time.Second,
		StorePatience:   15 * time.Second,
		MinBackoff:      100 * time.Millisecond,
		MaxBackoff:      5 * time.Second,
		MetricsPrefix:   "marathon",
		Callbacks:       Callbacks{Timeout: 10 * time.Second},
	}
}

// URL is where others reach the HTTP API.
func (c *Config) URL() string {
	if c.Scheme == "" {
		return "http://" + c.Address
	}
	return c.Scheme + "://" + c.Address
}

// Features lists what is switched on, by the names of Marathon's flag for it.
func (c *Config) Features() []string {
	features := []string{}
	for _, f := range []struct {
		name string
		on   bool
	}{
		{"task_killing", c.TaskKilling}, {"gpu_resources", c.GPUs}, {"secrets", c.App.Secrets}, {"external_volumes", c.App.ExternalVolumes},
	} {
		if f.on {
			features = append(features, f.name)
		}
	}
	return features
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
	need(c.Backups == "" || filepath.IsAbs(c.Backups), "the folder of backups must be named by an absolute path")
	if c.Contender != nil {
		need(c.Election != nil, "marathon among others needs to know who leads")
		need(c.Candidate.ID != "" && identity(&c.Candidate) == c.Address, "marathon among others needs to be a candidate with its address")
	}
	need(c.Log != nil, "marathon needs a log")
	need(c.FrameworkName != "", "marathon needs a framework name")
	need(c.User != "", "marathon needs a user to run tasks as")
	need(c.Role != "", "marathon needs a role")
	need(c.FailoverTimeout >= 0, "failover timeout must not be negative")
	need(c.MaxChanges > 0, "at least one change must be allowed to wait")
	need(c.HealthChecks > 0, "at least one health check must be allowed to run")
	need(c.StoreTimeout > 0, "store timeout must be above 0")
	need(c.PrepareTimeout > 0, "the time to load the state must be above 0")
	if c.Lost != LostStop && c.Lost != LostNew {
		if _, err := fileOf(c.Backups, c.Lost); err != nil {
			errs = append(errs, fmt.Errorf("cannot restore the state should it be lost: %w", err))
		}
	}
	need(c.StorePatience > 0, "store patience must be above 0")
	need(!c.Callbacks.On || c.Callbacks.Timeout > 0, "the timeout of callbacks must be above 0")
	for _, u := range c.Callbacks.URLs {
		if err := CheckCallback(u); err != nil {
			errs = append(errs, err)
		}
	}
	need(len(c.Callbacks.URLs) <= mostCallbacks, "there are too many callbacks")
	if err := state.CheckCallbacks(c.Callbacks.URLs); err != nil {
		errs = append(errs, err)
	}
	need(c.MinBackoff > 0 && c.MaxBackoff >= c.MinBackoff, "backoff must be above 0, and its maximum not below its minimum")
	need(c.App.ServicePortMin > 0 && c.App.ServicePortMax >= c.App.ServicePortMin && c.App.ServicePortMax < 1<<16,
		"the range of service ports must lie between 1 and 65535")
	return errors.Join(errs...)
}
