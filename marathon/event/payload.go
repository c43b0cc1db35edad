package event

import (
	"encoding/json"

	"starling/marathon/deployment"
)

// IPAddress is one address of a task.
type IPAddress struct {
	IPAddress string `json:"ipAddress"`
	Protocol  string `json:"protocol"`
}

// APIPost tells that somebody asked for a new or changed app.
type APIPost struct {
	ClientIP      string          `json:"clientIp"`
	URI           string          `json:"uri"`
	AppDefinition json.RawMessage `json:"appDefinition"`
}

// PodCall is who asked for something about a pod, and at which path.
type PodCall struct {
	ClientIP string `json:"clientIp"`
	URI      string `json:"uri"`
}

// PodCreated tells that somebody asked for a new pod.
type PodCreated struct{ PodCall }

// PodUpdated tells that somebody asked for a change of a pod.
type PodUpdated struct{ PodCall }

// PodDeleted tells that somebody asked for a pod to go.
type PodDeleted struct{ PodCall }

// StatusUpdate tells of a status that changed a known task. TaskStatus is the state as Mesos named it.
type StatusUpdate struct {
	AgentID     string      `json:"slaveId"`
	TaskID      string      `json:"taskId"`
	TaskStatus  string      `json:"taskStatus"`
	Message     string      `json:"message"`
	AppID       string      `json:"appId"`
	Host        string      `json:"host"`
	IPAddresses []IPAddress `json:"ipAddresses"`
	Ports       []int       `json:"ports"`
	Version     string      `json:"version"`
}

// InstanceChanged tells of a new condition or goal of an instance. AgentID and Host are null while it has no agent.
type InstanceChanged struct {
	InstanceID string  `json:"instanceId"`
	Condition  string  `json:"condition"`
	AppID      string  `json:"runSpecId"`
	AgentID    *string `json:"agentId"`
	Host       *string `json:"host"`
	Version    string  `json:"runSpecVersion"`
}

// InstanceHealthChanged tells of a new combined health; null is unknown.
type InstanceHealthChanged struct {
	InstanceID string `json:"instanceId"`
	AppID      string `json:"runSpecId"`
	Healthy    *bool  `json:"healthy"`
	Version    string `json:"runSpecVersion"`
}

// UnknownInstanceTerminated tells of the end of a task that belongs to no known instance.
type UnknownInstanceTerminated struct {
	InstanceID string `json:"instanceId"`
	AppID      string `json:"runSpecId"`
	Condition  string `json:"condition"`
}

// FailedHealthCheck tells of a counted failure of one check.
type FailedHealthCheck struct {
	AppID       string          `json:"appId"`
	TaskID      string          `json:"taskId"`
	InstanceID  string          `json:"instanceId"`
	HealthCheck json.RawMessage `json:"healthCheck"`
}

// HealthStatusChanged tells that the result of one check flipped.
type HealthStatusChanged struct {
	AppID      string `json:"appId"`
	InstanceID string `json:"instanceId"`
	TaskID     string `json:"taskId"`
	Version    string `json:"version"`
	Alive      bool   `json:"alive"`
}

// UnhealthyInstanceKill tells that an instance is killed because of its health checks.
type UnhealthyInstanceKill struct {
	AppID      string `json:"appId"`
	TaskID     string `json:"taskId"`
	InstanceID string `json:"instanceId"`
	Version    string `json:"version"`
	Reason     string `json:"reason"`
	Host       string `json:"host"`
	AgentID    string `json:"slaveId"`
}

// AddHealthCheck tells that a check became active for an app.
type AddHealthCheck struct {
	AppID       string          `json:"appId"`
	Version     string          `json:"version"`
	HealthCheck json.RawMessage `json:"healthCheck"`
}

// RemoveHealthCheck tells that an app's checks ended.
type RemoveHealthCheck struct {
	AppID string `json:"appId"`
}

// AppTerminated tells that the last instance of a removed app is gone.
type AppTerminated struct {
	AppID string `json:"appId"`
}

// ReplacementBrake tells that unreachable instances are not replaced any more, since most nodes seem dead, or that they are
// again. It is an event of our own.
type ReplacementBrake struct {
	Engaged bool `json:"engaged"`
	// Lost of the Agents that count seem dead.
	Lost   int    `json:"lostAgents"`
	Agents int    `json:"agents"`
	Reason string `json:"reason,omitempty"`
}

// EventType implements Payload.
func (ReplacementBrake) EventType() string { return "starling_brake_event" }

// CallbackPaused tells that a request to a callback failed, so that events for it are dropped for a while. It is an event of our own.
type CallbackPaused struct {
	// CallbackURL is without what may be secret in it.
	CallbackURL string `json:"callbackUrl"`
	// Failures is how many requests failed in a row, PauseSeconds for how long nothing is sent now, Dropped how many events that
	// waited are lost already.
	Failures     int    `json:"failures"`
	PauseSeconds int    `json:"pauseSeconds"`
	Dropped      int    `json:"dropped"`
	Reason       string `json:"reason"`
}

// EventType implements Payload.
func (CallbackPaused) EventType() string { return "starling_callback_paused_event" }

// GroupChangeSuccess tells that a change of definitions was stored and its deployment began.
type GroupChangeSuccess struct {
	GroupID string `json:"groupId"`
	Version string `json:"version"`
}

// GroupChangeFailed tells that a change of definitions was refused.
type GroupChangeFailed struct {
	GroupID string `json:"groupId"`
	Version string `json:"version"`
	Reason  string `json:"reason"`
}

// DeploymentInfo tells that a step of a deployment begins.
type DeploymentInfo struct {
	Plan        deployment.Light `json:"plan"`
	CurrentStep deployment.Step  `json:"currentStep"`
}

// DeploymentStepSuccess tells that a step of a deployment ended.
type DeploymentStepSuccess struct {
	Plan        deployment.Light `json:"plan"`
	CurrentStep deployment.Step  `json:"currentStep"`
}

// DeploymentStepFailure tells that a step of a deployment was given up.
type DeploymentStepFailure struct {
	Plan        deployment.Light `json:"plan"`
	CurrentStep deployment.Step  `json:"currentStep"`
}

// DeploymentSuccess tells that a deployment has ended as it should.
type DeploymentSuccess struct {
	ID   string           `json:"id"`
	Plan deployment.Light `json:"plan"`
}

// DeploymentFailed tells that a deployment was cancelled.
type DeploymentFailed struct {
	ID     string           `json:"id"`
	Plan   deployment.Light `json:"plan"`
	Reason string           `json:"reason,omitempty"`
}

// SchedulerRegistered tells of the first subscription of this framework id.
type SchedulerRegistered struct {
	FrameworkID string `json:"frameworkId"`
	Master      string `json:"master"`
}

// SchedulerReregistered tells of a later subscription.
type SchedulerReregistered struct {
	Master string `json:"master"`
}

// SchedulerDisconnected tells that the session with the master ended.
type SchedulerDisconnected struct{}

// FrameworkMessage carries bytes that an executor sent, in base64.
type FrameworkMessage struct {
	AgentID    string `json:"slaveId"`
	ExecutorID string `json:"executorId"`
	Message    []byte `json:"message"`
}

// Subscribe tells that events are posted to a URL from now on.
type Subscribe struct {
	ClientIP    string `json:"clientIp"`
	CallbackURL string `json:"callbackUrl"`
}

// Unsubscribe tells that they are not any more.
type Unsubscribe struct {
	ClientIP    string `json:"clientIp"`
	CallbackURL string `json:"callbackUrl"`
}

// StreamAttached is the first event of every stream.
type StreamAttached struct {
	RemoteAddress string `json:"remoteAddress"`
}

// StreamDetached tells that a stream's client has left.
type StreamDetached struct {
	RemoteAddress string `json:"remoteAddress"`
}

// EventType implements Payload.
func (APIPost) EventType() string { return "api_post_event" }

// EventType implements Payload.
func (PodCreated) EventType() string { return "pod_created_event" }

// EventType implements Payload.
func (PodUpdated) EventType() string { return "pod_updated_event" }

// EventType implements Payload.
func (PodDeleted) EventType() string { return "pod_deleted_event" }

// EventType implements Payload.
func (StatusUpdate) EventType() string { return "status_update_event" }

// EventType implements Payload.
func (InstanceChanged) EventType() string { return "instance_changed_event" }

// EventType implements Payload.
func (InstanceHealthChanged) EventType() string { return "instance_health_changed_event" }

// OrphanAdopted tells that a task that no instance had belongs to its app again. Marathon has no such event.
type OrphanAdopted struct {
	TaskID string `json:"taskId"`
	AppID  string `json:"appId"`
}

// EventType implements Payload.
func (OrphanAdopted) EventType() string { return "starling_orphan_adopted_event" }

// EventType implements Payload.
func (UnknownInstanceTerminated) EventType() string { return "unknown_instance_terminated_event" }

// EventType implements Payload.
func (FailedHealthCheck) EventType() string { return "failed_health_check_event" }

// EventType implements Payload.
func (HealthStatusChanged) EventType() string { return "health_status_changed_event" }

// EventType implements Payload.
func (UnhealthyInstanceKill) EventType() string { return "unhealthy_instance_kill_event" }

// EventType implements Payload.
func (AddHealthCheck) EventType() string { return "add_health_check_event" }

// EventType implements Payload.
func (RemoveHealthCheck) EventType() string { return "remove_health_check_event" }

// EventType implements Payload.
func (AppTerminated) EventType() string { return "app_terminated_event" }

// EventType implements Payload.
func (GroupChangeSuccess) EventType() string { return "group_change_success" }

// EventType implements Payload.
func (GroupChangeFailed) EventType() string { return "group_change_failed" }

// EventType implements Payload.
func (DeploymentInfo) EventType() string { return "deployment_info" }

// EventType implements Payload.
func (DeploymentStepSuccess) EventType() string { return "deployment_step_success" }

// EventType implements Payload.
func (DeploymentStepFailure) EventType() string { return "deployment_step_failure" }

// EventType implements Payload.
func (DeploymentSuccess) EventType() string { return "deployment_success" }

// EventType implements Payload.
func (DeploymentFailed) EventType() string { return "deployment_failed" }

// EventType implements Payload.
func (SchedulerRegistered) EventType() string { return "scheduler_registered_event" }

// EventType implements Payload.
func (SchedulerReregistered) EventType() string { return "scheduler_reregistered_event" }

// EventType implements Payload.
func (SchedulerDisconnected) EventType() string { return "scheduler_disconnected_event" }

// EventType implements Payload.
func (FrameworkMessage) EventType() string { return "framework_message_event" }

// EventType implements Payload.
func (Subscribe) EventType() string { return "subscribe_event" }

// EventType implements Payload.
func (Unsubscribe) EventType() string { return "unsubscribe_event" }

// EventType implements Payload.
func (StreamAttached) EventType() string { return "event_stream_attached" }

// EventType implements Payload.
func (StreamDetached) EventType() string { return "event_stream_detached" }
