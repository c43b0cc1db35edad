package node

import (
	"slices"
	"strings"

	"starling/cmd/internal/flags"
	"starling/marathon"
	"starling/marathon/scheduler"
	"starling/marathon/task"
)

// marathonLaunch are the settings of what is accepted, where it runs, and how patient Marathon is with it. Times of 0 are
// those of the scheduler.
type marathonLaunch struct {
	perOffer, deployments, killChunk     int
	changes                              int
	decline, revive, reconcile           flags.Millis
	killRetry                            flags.Millis
	tokens                               int
	tokenRefresh                         flags.Millis
	confirmTimeout, launchTimeout        flags.Millis
	scaleDelay, scaleInterval            flags.Millis
	expungeDelay, reservationTimeout     flags.Millis
	suppress, maintenance                bool
	draining                             float64
	acceptedRoles, oldAcceptedRoles, gpu string
	envPrefix, bridge, network           string
	enforceRole                          string
	maxApps                              int
	features                             flags.List

	eventQueue      int
	checkpoint      bool
	webUI, masterUI string
	principal       string
}

func (l *marathonLaunch) register(s *flags.Set) {
	d := marathon.DefaultConfig()
	s.IntVar(&l.perOffer, "max-instances-per-offer", 0, "how `many` tasks are launched on one offer at most (0: 100)")
	s.Var(&l.decline, "decline-offer-duration", "for how long offers that serve nobody are declined, in `ms` (0: 120000)")
	s.Var(&l.revive, "min-revive-offers-interval", "between asking for offers again while nothing has changed, in `ms` (0: 5000)")
	s.Var(&l.reconcile, "reconciliation-interval", "between two reconciliations of all tasks, in `ms` (0: 600000)")
	s.Var(&l.killRetry, "kill-retry-timeout", "before a kill without effect is repeated, in `ms` (0: 30000)")
	s.IntVar(&l.killChunk, "kill-chunk-size", 0, "how `many` kills may wait for their effect (0: 100)")
	s.IntVar(&l.deployments, "max-running-deployments", 0, "how `many` deployments may run (0: 100)")
	s.IntVar(&l.changes, "max-queued-root-group-updates", d.MaxChanges, "how `many` changes of definitions may wait to be made")
	s.IntVar(&l.tokens, "launch-tokens", 0, "how `many` launches may be under way before the first of them runs (0: 100)")
	s.Var(&l.tokenRefresh, "launch-token-refresh-interval", "after what time all launch tokens are given back, in `ms` (0: 30000)")
	s.Var(&l.confirmTimeout, "task-launch-confirm-timeout", "how long nothing may be heard of a launched task, in `ms` (0: 300000)")
	s.Var(&l.launchTimeout, "task-launch-timeout", "how long a launched task may take until it runs, in `ms` (0: 300000)")
	s.Var(&l.scaleDelay, "scale-apps-initial-delay", "when the numbers of all apps are checked first, in `ms` (0: 15000)")
	s.Var(&l.scaleInterval, "scale-apps-interval", "between two checks of the numbers of all apps, in `ms` (0: 300000)")
	s.Var(&l.reservationTimeout, "task-reservation-timeout", "how long what was reserved for a task with volumes may take to be offered before that is tried anew, in `ms` (0: 20000)")
	s.Var(&l.expungeDelay, "task-lost-expunge-initial-delay", "how long after the start no unreachable task is given up, in `ms` (0: 300000)")
	s.BoolVar(&l.suppress, "suppress-offers", true, "tell the master when no offers are wanted")
	s.BoolVar(&l.maintenance, "maintenance-mode", true, "launch nothing on agents under maintenance")
	s.Float64Var(&l.draining, "draining-seconds", 0, "how many `seconds` before its maintenance an agent is left alone")
	s.StringVar(&l.acceptedRoles, "accepted-resource-roles-default-behavior", "", "which resources an app takes that does not say so: `any`, unreserved or reserved")
	s.StringVar(&l.oldAcceptedRoles, "default-accepted-resource-roles", "", "the same in old words: `*` for unreserved, the role for reserved")
	s.StringVar(&l.gpu, "gpu-scheduling-behavior", "", "whether apps without GPUs may run where there are some: `restricted` or unrestricted")
	s.StringVar(&l.envPrefix, "env-vars-prefix", "", "the `text` before the names of HOST and of the port variables")
	s.StringVar(&l.bridge, "mesos-bridge-name", d.App.MesosBridgeName, "the `network` that MESOS containers in bridge mode join")
	s.StringVar(&l.network, "default-network-name", "", "the `network` of containers that name none")
	s.StringVar(&l.enforceRole, "new-group-enforce-role", "off", "whether apps in a new top-level group must run under its name as a role: `off` or top")
	s.IntVar(&l.maxApps, "max-apps", 0, "how `many` apps there may be (0: any number)")
	s.Var(&l.features, "enable-features", "what is off otherwise, comma-separated: `task_killing, secrets, gpu_resources, external_volumes`")
	s.IntVar(&l.eventQueue, "event-stream-max-outstanding-messages", d.EventQueue, "how `many` events wait for a slow stream before it is cut off")
	s.BoolVar(&l.checkpoint, "checkpoint", d.Checkpoint, "have tasks survive a restart of their agent")
	s.StringVar(&l.webUI, "webui-url", "", "the `URL` that the master shows for this framework (that of the API)")
	s.StringVar(&l.masterUI, "mesos-leader-ui-url", "", "the `URL` of the master's user interface (that of the leading master)")
	s.StringVar(&l.principal, "mesos-authentication-principal", "", "the `principal` to register with")
	s.Alias("max-instances-per-offer", "max_tasks_per_offer")
}

// idleFeatures change nothing: they are always there, or only were switches of a time.
var idleFeatures = []string{"vips", "maintenance_mode"}

// apply sets what the flags say.
func (l *marathonLaunch) apply(c *marathon.Config, role string) error {
	draining, err := seconds(l.draining)
	if err != nil {
		return usagef("--draining-seconds: %w", err)
	}
	for name, n := range map[string]int{
		"max-instances-per-offer": l.perOffer, "kill-chunk-size": l.killChunk, "max-running-deployments": l.deployments,
		"launch-tokens": l.tokens, "max-apps": l.maxApps,
	} {
		if n < 0 {
			return usagef("--%s: %d is negative", name, n)
		}
	}
	if l.eventQueue < 1 {
		return usagef("--event-stream-max-outstanding-messages: %d is less than 1", l.eventQueue)
	}
	if l.changes < 1 {
		return usagef("--max-queued-root-group-updates: %d is less than 1", l.changes)
	}
	accepted, err := l.accepted(role)
	if err != nil {
		return err
	}
	if l.gpu != "" && l.gpu != "restricted" && l.gpu != "unrestricted" {
		return usagef("--gpu-scheduling-behavior: %q is neither restricted nor unrestricted", l.gpu)
	}
	if l.enforceRole != "off" && l.enforceRole != "top" {
		return usagef("--new-group-enforce-role: %q is neither off nor top", l.enforceRole)
	}
	c.Scheduler = scheduler.Config{
		MaxInstancesPerOffer: l.perOffer, DeclineDuration: l.decline.Std(), MinReviveInterval: l.revive.Std(),
		ReconcileInterval: l.reconcile.Std(), KillRetry: l.killRetry.Std(), KillsInFlight: l.killChunk,
		MaxRunningDeployments: l.deployments, LaunchTokens: l.tokens, LaunchTokenRefresh: l.tokenRefresh.Std(),
		LaunchConfirmTimeout: l.confirmTimeout.Std(), LaunchTimeout: l.launchTimeout.Std(),
		ScaleInitialDelay: l.scaleDelay.Std(), ScaleInterval: l.scaleInterval.Std(), ExpungeInitialDelay: l.expungeDelay.Std(),
		ReservationTimeout: l.reservationTimeout.Std(),
		NoSuppress:         !l.suppress, NoMaintenance: !l.maintenance, Draining: draining,
		Task: task.Settings{
			EnvVarsPrefix: l.envPrefix, AcceptedRoles: accepted, GPUsUnrestricted: l.gpu == "unrestricted", MesosBridgeName: l.bridge,
		},
	}
	c.App.MesosBridgeName, c.App.DefaultNetworkName, c.App.MaxApps = l.bridge, l.network, l.maxApps
	c.App.NewGroupEnforceRole = l.enforceRole == "top"
	c.MaxChanges = l.changes
	c.EventQueue, c.Checkpoint, c.Principal = l.eventQueue, l.checkpoint, l.principal
	c.MesosUI = l.masterUI
	if l.webUI != "" {
		c.WebUIURL = l.webUI
	}
	return l.enable(c)
}

// accepted is which resources an app takes that does not say so.
func (l *marathonLaunch) accepted(role string) (task.RoleBehavior, error) {
	switch b := task.RoleBehavior(l.acceptedRoles); b {
	case task.AnyRole, task.Unreserved, task.Reserved:
		return b, nil
	case "":
	default:
		return "", usagef("--accepted-resource-roles-default-behavior: %q is none of any, unreserved, reserved", l.acceptedRoles)
	}
	if l.oldAcceptedRoles == "" {
		return task.AnyRole, nil
	}
	var star, own bool
	for name := range strings.SplitSeq(l.oldAcceptedRoles, ",") {
		switch strings.TrimSpace(name) {
		case "*":
			star = true
		case role:
			own = true
		default:
			return "", usagef("--default-accepted-resource-roles: %q is neither * nor the role %q", name, role)
		}
	}
	switch {
	case star && own:
		return task.AnyRole, nil
	case own:
		return task.Reserved, nil
	default:
		return task.Unreserved, nil
	}
}

// enable switches features on.
func (l *marathonLaunch) enable(c *marathon.Config) error {
	for _, name := range l.features {
		switch name = strings.TrimSpace(name); {
		case name == "task_killing":
			c.TaskKilling = true
		case name == "secrets":
			c.App.Secrets = true
		case name == "external_volumes":
			c.App.ExternalVolumes = true
		case name == "gpu_resources":
			c.GPUs, c.App.GPUResources = true, true
		case name != "" && !slices.Contains(idleFeatures, name):
			return usagef("--enable-features: there is no feature %q", name)
		}
	}
	return nil
}
