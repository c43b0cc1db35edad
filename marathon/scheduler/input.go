package scheduler

import (
	"time"

	"starling/marathon/app"
	"starling/marathon/deployment"
	"starling/marathon/task"
	"starling/master/mesos"
)

// Input is something that has happened. The scheduler keeps the messages in it, which nobody may change afterwards.
type Input interface{ input() }

// Subscribed begins a session with a master.
type Subscribed struct {
	FrameworkID string
	// Master is the host name of the master, Region the region that it is in, if any.
	Master string
	Region string
	// Roles are those that the session was asked for with; they may have changed meanwhile.
	Roles []string
}

// Disconnected ends the session; offers are void.
type Disconnected struct{}

// Offers are offers of the present session.
type Offers struct{ Offers []*mesos.Offer }

// Rescinded takes an offer back.
type Rescinded struct{ OfferID string }

// Status is a status update of a task.
type Status struct{ Status *mesos.TaskStatus }

// HealthResult is what one check from here has shown. Index is that of the check in the app's health checks.
type HealthResult struct {
	Instance app.InstanceID
	TaskID   string
	Index    int
	Alive    bool
	// Cause says why not.
	Cause string
}

// ReadinessResult is what a readiness check has shown.
type ReadinessResult struct {
	Instance app.InstanceID
	TaskID   string
	Name     string
	Ready    bool
	// Response is what was answered.
	Response Response
}

// Response is the answer to a readiness check.
type Response struct {
	Status      int
	ContentType string
	Body        string
}

// Message is one from an executor.
type Message struct {
	AgentID    string
	ExecutorID string
	Data       []byte
}

// Distances is how far nodes are from each other, as somebody found at a moment; see Between.
type Distances struct{ Between Between }

func (Subscribed) input()      {}
func (Disconnected) input()    {}
func (Offers) input()          {}
func (Rescinded) input()       {}
func (Status) input()          {}
func (HealthResult) input()    {}
func (ReadinessResult) input() {}
func (Message) input()         {}
func (Distances) input()       {}

// Config are the settings of a scheduler. The zero value of a field is its default.
type Config struct {
	// Role is the role that the framework always has ("*").
	Role string
	// MaxInstancesPerOffer is how many tasks are launched on one offer at most (100; the original has 5, which makes
	// launching a matter of many rounds).
	MaxInstancesPerOffer int
	// LaunchTokens is how many launches may be under way before the first of them runs (100); LaunchTokenRefresh is after
	// what time all are given back (30 s).
	LaunchTokens       int
	LaunchTokenRefresh time.Duration
	// MaxWaiting bounds the instances of one app that wait for an offer at a time (500); more are made as these are launched.
	MaxWaiting int
	// DeclineDuration is for how long offers are declined that serve nobody (120 s).
	DeclineDuration time.Duration
	// MinReviveInterval is the time between asking for offers again while nothing has changed (5 s). The first time, and
	// when something new waits, offers are asked for at once. ReviveRepetitions is how often it is asked again (3).
	MinReviveInterval time.Duration
	ReviveRepetitions int
	// LaunchConfirmTimeout and LaunchTimeout bound the time until a launched task is heard of, and until it runs (300 s).
	LaunchConfirmTimeout time.Duration
	LaunchTimeout        time.Duration
	// KillsInFlight bounds the kills that wait for their effect (100); a kill is repeated every KillRetry (30 s).
	KillsInFlight int
	KillRetry     time.Duration
	// ScaleInitialDelay and ScaleInterval are when the numbers of all apps are checked, whatever has happened (15 s, 300 s).
	ScaleInitialDelay time.Duration
	ScaleInterval     time.Duration
	// ReconcileInterval is between two reconciliations of all tasks (600 s); the first follows each subscription at once.
	ReconcileInterval time.Duration
	// ReservationTimeout is how long what was to be reserved may take to be offered, before that is tried anew (20 s).
	ReservationTimeout time.Duration
	// ExpungeInitialDelay is how long after the start nothing unreachable is given up: agents may not have come back to a
	// new master yet (300 s).
	ExpungeInitialDelay time.Duration
	// NoSuppress declines offers while none are wanted, instead of telling the master so.
	NoSuppress bool
	// MaxRunningDeployments bounds the deployments that run (100).
	MaxRunningDeployments int
	// NoMaintenance takes offers of agents that are to be maintained, too.
	NoMaintenance bool
	// Draining is how long before a maintenance window its agents are left alone (0).
	Draining time.Duration
	// App are the settings that definitions depend on which go back to what they were, and Check tells whether that could be
	// stored; nil is always.
	App   app.Settings
	Check func(root *app.Group, plan *deployment.Plan) error
	// Task are the settings that matching and the launched tasks depend on.
	Task task.Settings
}

func (c Config) withDefaults() Config {
	text := func(v *string, d string) {
		if *v == "" {
			*v = d
		}
	}
	number := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	span := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	text(&c.Role, "*")
	number(&c.MaxInstancesPerOffer, 100)
	number(&c.LaunchTokens, 100)
	number(&c.MaxWaiting, maxWaiting)
	span(&c.LaunchTokenRefresh, 30*time.Second)
	span(&c.DeclineDuration, 120*time.Second)
	span(&c.MinReviveInterval, 5*time.Second)
	number(&c.ReviveRepetitions, 3)
	span(&c.LaunchConfirmTimeout, 300*time.Second)
	span(&c.LaunchTimeout, 300*time.Second)
	number(&c.KillsInFlight, 100)
	span(&c.KillRetry, 30*time.Second)
	span(&c.ScaleInitialDelay, 15*time.Second)
	span(&c.ScaleInterval, 300*time.Second)
	span(&c.ReservationTimeout, 20*time.Second)
	span(&c.ReconcileInterval, 600*time.Second)
	span(&c.ExpungeInitialDelay, 300*time.Second)
	number(&c.MaxRunningDeployments, 100)
	text(&c.Task.MesosBridgeName, "mesos-bridge")
	if c.App == (app.Settings{}) {
		c.App = app.DefaultSettings()
	}
	return c
}

// Effective returns the settings with defaults in the place of zero values.
func (c Config) Effective() Config { return c.withDefaults() }
