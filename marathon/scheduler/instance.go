package scheduler

import (
	"strings"
	"time"

	"starling/marathon/app"
	"starling/marathon/constraint"
	"starling/master/mesos"
)

// Goal is what is wanted of an instance.
type Goal string

// The goals.
const (
	// GoalRunning is an instance that is to run; when its task ends it is launched again.
	GoalRunning Goal = "Running"
	// GoalStopped is an instance that is not to run, and keeps what is reserved for it until it is to run again.
	GoalStopped Goal = "Stopped"
	// GoalDecommissioned is an instance that is to end, and to be forgotten when it has.
	GoalDecommissioned Goal = "Decommissioned"
)

// Condition is how an instance is, with the names that clients see in events.
type Condition string

// The conditions. An instance begins as Scheduled, and returns to it when its task ends and its goal is to run.
const (
	Scheduled           Condition = "Scheduled"
	Provisioned         Condition = "Provisioned"
	Staging             Condition = "Staging"
	Starting            Condition = "Starting"
	Running             Condition = "Running"
	Killing             Condition = "Killing"
	Unreachable         Condition = "Unreachable"
	UnreachableInactive Condition = "UnreachableInactive"
	Finished            Condition = "Finished"
	Failed              Condition = "Failed"
	Errored             Condition = "Error"
	Killed              Condition = "Killed"
	Gone                Condition = "Gone"
	Dropped             Condition = "Dropped"
	Unknown             Condition = "Unknown"
)

// Terminal tells whether a task in this condition has ended for good.
func (c Condition) Terminal() bool {
	switch c {
	case Finished, Failed, Errored, Killed, Gone, Dropped, Unknown:
		return true
	default:
		return false
	}
}

// Active tells whether a task in this condition exists, as far as anyone knows.
func (c Condition) Active() bool { return c != Scheduled && !c.Terminal() }

// unreachable tells of the two conditions of a task whose agent can't be reached.
func (c Condition) unreachable() bool { return c == Unreachable || c == UnreachableInactive }

// TaskState is the state that the API shows for a condition.
func (c Condition) TaskState() string {
	switch c {
	case Scheduled, Provisioned, Staging:
		return "TASK_STAGING"
	case UnreachableInactive:
		return "TASK_UNREACHABLE"
	default:
		return "TASK_" + strings.ToUpper(string(c))
	}
}

// Address is one address of a task. Protocol is IPv4 or IPv6.
type Address struct {
	IP       string `json:"ipAddress"`
	Protocol string `json:"protocol"`
}

// Instance is one copy of an app that is wanted or exists. Its JSON is how it is stored. An Instance is never changed:
// a new state is a new Instance, so whoever holds one may go on reading it.
type Instance struct {
	ID app.InstanceID `json:"id"`
	// Goal and Condition; Since is when the condition began.
	Goal      Goal      `json:"goal"`
	Condition Condition `json:"condition"`
	Since     time.Time `json:"since"`
	// Version is that of the definition it was launched with or, while it waits for its first launch, is made for.
	Version app.Timestamp `json:"version"`
	// Incarnation counts the launches; the last one, as long as it isn't over, was the task TaskID.
	Incarnation int    `json:"incarnation"`
	TaskID      string `json:"taskId,omitempty"`
	// Index is the number of the instance among those of its app that there are; nil where the app does not ask for one.
	Index *int `json:"index,omitempty"`
	// Deployment is the deployment that made this instance, or stopped it to have it run again, empty when the scale check did.
	Deployment string `json:"deployment,omitempty"`

	// Reservation is what an instance of a resident app keeps, whether it has a task or not; nil before it has any.
	Reservation *Reservation `json:"reservation,omitempty"`

	// All below belong to the task and are empty without one.

	AgentID    string            `json:"agentId,omitempty"`
	Host       string            `json:"host,omitempty"`
	Region     string            `json:"region,omitempty"`
	Zone       string            `json:"zone,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Role       string            `json:"role,omitempty"`
	// Ports are host ports in the order of the definition.
	Ports     []int     `json:"ports,omitempty"`
	Addresses []Address `json:"addresses,omitempty"`
	StagedAt  time.Time `json:"stagedAt,omitzero"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	// UnreachableSince is when the agent was lost.
	UnreachableSince time.Time `json:"unreachableSince,omitzero"`
	// AgentHealthy is the result of the check that the agent runs, nil before the first.
	AgentHealthy *bool `json:"agentHealthy,omitempty"`
	// Check is the result of the app's check, nil where none was reported.
	Check *CheckResult `json:"check,omitempty"`
	// Containers are the tasks of a pod, in the order of its containers; TaskID is that of the first, and all that is said of
	// a task above is said of them together. Apps have none.
	Containers []ContainerTask `json:"containers,omitempty"`
	// Draining is set when the agent is being drained: the end of this task is not its own fault.
	Draining bool `json:"draining,omitempty"`
}

// CheckResult is what an app's check has shown; one field is set.
type CheckResult struct {
	HTTPStatus *int  `json:"httpStatus,omitempty"`
	TCPOpen    *bool `json:"tcpOpen,omitempty"`
	ExitCode   *int  `json:"exitCode,omitempty"`
}

// place is where the instance runs, as constraints see it.
func (i *Instance) place() constraint.Place {
	return constraint.Place{Hostname: i.Host, Region: i.Region, Zone: i.Zone, Attributes: i.Attributes}
}

// waits tells whether the instance wants an offer.
func (i *Instance) waits() bool { return i.Goal == GoalRunning && i.Condition == Scheduled }

// counted tells whether the instance counts towards the number that is wanted.
func (i *Instance) counted() bool { return i.Goal == GoalRunning && i.Condition != UnreachableInactive }

// withoutTask is the instance after its task has ended, waiting for the next one.
func (i *Instance) withoutTask() *Instance {
	return &Instance{
		ID: i.ID, Goal: i.Goal, Condition: i.Condition, Since: i.Since, Version: i.Version,
		Incarnation: i.Incarnation, Deployment: i.Deployment, Index: i.Index,
		Reservation: i.Reservation,
	}
}

// conditionOf maps what Mesos reports to a condition.
func conditionOf(status *mesos.TaskStatus) Condition {
	switch status.GetState() {
	case mesos.TaskState_TASK_STAGING:
		return Staging
	case mesos.TaskState_TASK_STARTING:
		return Starting
	case mesos.TaskState_TASK_RUNNING:
		return Running
	case mesos.TaskState_TASK_KILLING:
		return Killing
	case mesos.TaskState_TASK_FINISHED:
		return Finished
	case mesos.TaskState_TASK_FAILED:
		return Failed
	case mesos.TaskState_TASK_KILLED:
		return Killed
	case mesos.TaskState_TASK_ERROR:
		return Errored
	case mesos.TaskState_TASK_DROPPED:
		return Dropped
	case mesos.TaskState_TASK_UNREACHABLE:
		return Unreachable
	case mesos.TaskState_TASK_GONE, mesos.TaskState_TASK_GONE_BY_OPERATOR:
		return Gone
	case mesos.TaskState_TASK_LOST:
		return lostCondition(status)
	default:
		return Unknown
	}
}

// lostCondition tells apart what TASK_LOST lumps together; only masters that don't know partition-aware frameworks send it.
func lostCondition(status *mesos.TaskStatus) Condition {
	if strings.HasPrefix(status.GetMessage(), "Reconciliation: Task is unknown to the") {
		return Unknown
	}
	if status.Reason == nil {
		return Gone
	}
	switch status.GetReason() {
	case mesos.TaskStatus_REASON_TASK_UNKNOWN:
		return Unknown
	case mesos.TaskStatus_REASON_RECONCILIATION, mesos.TaskStatus_REASON_AGENT_DISCONNECTED, mesos.TaskStatus_REASON_AGENT_REMOVED:
		return Unreachable
	default:
		return Gone
	}
}
