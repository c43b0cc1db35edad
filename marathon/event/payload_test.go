package event

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"starling/marathon/deployment"
)

// TestPayloadsHaveTheFieldsThatClientsKnow compares each event with the table of the reference: no field lacks, however empty
// it is, and none is there that a strict client would stumble over.
func TestPayloadsHaveTheFieldsThatClientsKnow(t *testing.T) {
	raw := json.RawMessage(`{}`)
	step := deployment.Step{}
	for _, tc := range []struct {
		payload Payload
		name    string
		fields  string
	}{
		{APIPost{AppDefinition: raw}, "api_post_event", "appDefinition clientIp uri"},
		{StatusUpdate{}, "status_update_event", "appId host ipAddresses message ports slaveId taskId taskStatus version"},
		{FrameworkMessage{}, "framework_message_event", "executorId message slaveId"},
		{Subscribe{}, "subscribe_event", "callbackUrl clientIp"},
		{Unsubscribe{}, "unsubscribe_event", "callbackUrl clientIp"},
		{StreamAttached{}, "event_stream_attached", "remoteAddress"},
		{StreamDetached{}, "event_stream_detached", "remoteAddress"},
		{AddHealthCheck{HealthCheck: raw}, "add_health_check_event", "appId healthCheck version"},
		{RemoveHealthCheck{}, "remove_health_check_event", "appId"},
		{FailedHealthCheck{HealthCheck: raw}, "failed_health_check_event", "appId healthCheck instanceId taskId"},
		{HealthStatusChanged{}, "health_status_changed_event", "alive appId instanceId taskId version"},
		{UnhealthyInstanceKill{}, "unhealthy_instance_kill_event", "appId host instanceId reason slaveId taskId version"},
		{InstanceChanged{}, "instance_changed_event", "agentId condition host instanceId runSpecId runSpecVersion"},
		{InstanceHealthChanged{}, "instance_health_changed_event", "healthy instanceId runSpecId runSpecVersion"},
		{UnknownInstanceTerminated{}, "unknown_instance_terminated_event", "condition instanceId runSpecId"},
		{AppTerminated{}, "app_terminated_event", "appId"},
		{GroupChangeSuccess{}, "group_change_success", "groupId version"},
		{GroupChangeFailed{}, "group_change_failed", "groupId reason version"},
		{DeploymentInfo{CurrentStep: step}, "deployment_info", "currentStep plan"},
		{DeploymentStepSuccess{CurrentStep: step}, "deployment_step_success", "currentStep plan"},
		{DeploymentStepFailure{CurrentStep: step}, "deployment_step_failure", "currentStep plan"},
		{DeploymentSuccess{}, "deployment_success", "id plan"},
		{DeploymentFailed{}, "deployment_failed", "id plan"},
		{DeploymentFailed{Reason: "x"}, "deployment_failed", "id plan reason"},
		{SchedulerRegistered{}, "scheduler_registered_event", "frameworkId master"},
		{SchedulerReregistered{}, "scheduler_reregistered_event", "master"},
		{SchedulerDisconnected{}, "scheduler_disconnected_event", ""},
	} {
		frame, err := Encode(noon, tc.payload)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(frame.Data, &fields); err != nil {
			t.Fatal(err)
		}
		if frame.Type != tc.name || fields["eventType"] != tc.name || fields["timestamp"] != "2024-05-04T12:00:00.123Z" {
			t.Errorf("%T: type %q, in the data %v at %v", tc.payload, frame.Type, fields["eventType"], fields["timestamp"])
		}
		delete(fields, "eventType")
		delete(fields, "timestamp")
		if got := strings.Join(slices.Sorted(maps.Keys(fields)), " "); got != tc.fields {
			t.Errorf("%s has %q, want %q", tc.name, got, tc.fields)
		}
	}
}

func TestFrameworkMessageIsAText(t *testing.T) {
	frame, err := Encode(noon, FrameworkMessage{AgentID: "a", ExecutorID: "e", Message: []byte("hello")})
	if want := `"message":"aGVsbG8="`; err != nil || !strings.Contains(string(frame.Data), want) {
		t.Errorf("got %s, %v, want %s in it", frame.Data, err, want)
	}
}
