package api_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/codec"
	"starling/master/mesos/scheduler"
)

// What operators do with agents and machines, by call and at the older endpoints, in both encodings.

// desk makes the requests of an operator, and checks the answers.
type desk struct {
	*site
	cd codec.Codec
}

// call makes a call; its answer has the text given in it, and is empty for an empty one.
func (d *desk) call(text string, status int, want string) {
	d.t.Helper()
	got, answer := d.operate(d.cd, text)
	if got != status || !strings.Contains(answer, want) || want == "" && answer != "" {
		d.t.Errorf("%s: got %d %s, want %d %s", text, got, answer, status, want)
	}
}

// request makes a request whose answer matches an expression.
func (d *desk) request(line, body string, status int, want string) {
	d.t.Helper()
	resp, answer := d.do(line, body)
	if resp.StatusCode != status || !regexp.MustCompile(want).MatchString(answer) {
		d.t.Errorf("%s %s: got %d %s, want %d %s", line, body, resp.StatusCode, answer, status, want)
	}
}

// withTask returns a framework that runs one task on the only agent.
func (s *site) withTask(cd codec.Codec, task string) *framework {
	s.t.Helper()
	f := s.subscribe(cd, mastertest.Info("f", nil, mesos.FrameworkInfo_Capability_PARTITION_AWARE))
	offer := f.await(scheduler.Event_OFFERS).GetOffers().GetOffers()[0]
	info := mastertest.Task(task, "cpus:1;mem:32")
	info.AgentId = offer.GetAgentId()
	f.call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
		OfferIds: []*mesos.OfferID{offer.GetId()},
		Operations: []*mesos.Offer_Operation{{
			Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: &mesos.Offer_Operation_Launch{TaskInfos: []*mesos.TaskInfo{info}},
		}},
		Filters: &mesos.Filters{RefuseSeconds: proto.Float64(1e6)},
	}})
	f.awaitStatus(mesos.TaskState_TASK_RUNNING)
	return f
}

// await returns the next event of a type; those of others are skipped, as offers come and go.
func (f *framework) await(want scheduler.Event_Type) *scheduler.Event {
	f.t.Helper()
	return f.until(want.String(), func(e *scheduler.Event) bool { return e.GetType() == want })
}

// awaitStatus waits for the next status in a state, and acknowledges it.
func (f *framework) awaitStatus(want mesos.TaskState) *mesos.TaskStatus {
	f.t.Helper()
	status := f.until(want.String(), func(e *scheduler.Event) bool {
		return e.GetUpdate().GetStatus().GetState() == want && e.GetUpdate() != nil
	}).GetUpdate().GetStatus()
	if len(status.GetUuid()) > 0 {
		f.call(&scheduler.Call{Type: scheduler.Call_ACKNOWLEDGE.Enum(), Acknowledge: &scheduler.Call_Acknowledge{
			AgentId: status.GetAgentId(), TaskId: status.GetTaskId(), Uuid: status.GetUuid(),
		}})
	}
	return status
}

func TestDrainCalls(t *testing.T) {
	inBoth(t, func(t *testing.T, cd codec.Codec) {
		s := start(t, nil)
		a := s.agent(1, "cpus:4;mem:4096")
		s.lead()
		d := &desk{s, cd}
		f := s.withTask(cd, "t")
		call := func(kind, id, more string, status int, want string) {
			t.Helper()
			d.call(fmt.Sprintf(`{"type":"%s","%s":{"agent_id":{"value":"%s"}%s}}`, kind, strings.ToLower(kind), id, more), status, want)
		}
		call("DRAIN_AGENT", "nobody", "", 400, "Unknown agent")
		call("DEACTIVATE_AGENT", "nobody", "", 400, "Unknown agent")
		call("REACTIVATE_AGENT", "nobody", "", 400, "Unknown agent")
		call("REACTIVATE_AGENT", a.ID, "", 400, "Agent is not deactivated")
		call("MARK_AGENT_GONE", "nobody", "", 404, "Agent 'nobody' not found")
		call("DRAIN_AGENT", a.ID, `,"max_grace_period":{"seconds":-1}`, 400, "'max_grace_period' is negative")
		call("DRAIN_AGENT", a.ID, `,"max_grace_period":{"seconds":1,"nanos":-1}`, 400, "'max_grace_period' is invalid")

		a.SetStubborn(true)
		call("DRAIN_AGENT", a.ID, `,"max_grace_period":{"seconds":10,"nanos":5},"mark_gone":false`, 200, "")
		call("REACTIVATE_AGENT", a.ID, "", 400, "Agent is still in the DRAINING state")
		info := `"drain_info":{"state":"DRAINING","config":{"max_grace_period":{"nanoseconds":10000000005},"mark_gone":false}}`
		d.call(`{"type":"GET_AGENTS"}`, 200, info)
		d.call(`{"type":"GET_AGENTS"}`, 200, `"estimated_drain_start_time":{"nanoseconds":`)
		d.request("GET /slaves", "", 200, regexp.QuoteMeta(info)+`,"estimated_drain_start_time_seconds":\d`)
		d.request("GET /state", "", 200, `"active":false,"deactivated":true`)
		s.eventually("the agent drains", func() bool { drain, _ := a.Draining(); return drain != nil })
		if err := a.Finish(t.Context(), f.id, "t", mesos.TaskState_TASK_KILLED); err != nil {
			t.Fatal(err)
		}
		f.awaitStatus(mesos.TaskState_TASK_KILLED)
		s.eventually("the agent is drained", func() bool {
			_, answer := s.operate(cd, `{"type":"GET_AGENTS"}`)
			return strings.Contains(answer, `"drain_info":{"state":"DRAINED"`)
		})
		call("REACTIVATE_AGENT", a.ID, "", 200, "")
		f.call(&scheduler.Call{Type: scheduler.Call_REVIVE.Enum()})
		f.await(scheduler.Event_OFFERS)
		call("DEACTIVATE_AGENT", a.ID, "", 200, "")
		f.await(scheduler.Event_RESCIND)
		call("REACTIVATE_AGENT", a.ID, "", 200, "")

		call("MARK_AGENT_GONE", a.ID, "", 200, "")
		call("MARK_AGENT_GONE", a.ID, "", 200, "")
		d.call(`{"type":"GET_AGENTS"}`, 200, `{"type":"GET_AGENTS","get_agents":{"agents":[],"recovered_agents":[]}}`)
		f.await(scheduler.Event_FAILURE)
		s.eventually("the agent was told", func() bool { _, gone := a.Draining(); return gone })
		call("DRAIN_AGENT", a.ID, "", 400, "Unknown agent")
	})
}

func TestMaintenanceCalls(t *testing.T) {
	inBoth(t, func(t *testing.T, cd codec.Codec) {
		s := start(t, nil)
		a := s.agent(1, "cpus:4;mem:4096")
		s.lead()
		d := &desk{s, cd}
		f := s.withTask(cd, "t")
		const (
			machine  = `{"hostname":"127.0.0.1","ip":"127.0.0.1"}`
			schedule = `{"windows":[{"machine_ids":[` + machine + `],"unavailability":{"start":{"nanoseconds":1700000000000000000},"duration":{"nanoseconds":3600000000000}}}]}`
		)
		d.request("GET /maintenance/schedule", "", 200, `^\{\}$`)
		d.request("GET /maintenance/status", "", 200, `^\{\}$`)
		d.call(`{"type":"GET_MAINTENANCE_SCHEDULE"}`, 200, `{"type":"GET_MAINTENANCE_SCHEDULE","get_maintenance_schedule":{"schedule":{}}}`)
		d.call(`{"type":"GET_MAINTENANCE_STATUS"}`, 200, `{"type":"GET_MAINTENANCE_STATUS","get_maintenance_status":{"status":{}}}`)

		d.request("POST /maintenance/schedule", `nonsense`, 400, "^Failed to parse the maintenance schedule: ")
		d.request("POST /maintenance/schedule", ``, 400, "^Failed to parse the maintenance schedule: ")
		d.request("POST /maintenance/schedule", `{"windows":[{"machine_ids":[`+machine+`]}]}`, 400, "unavailability")
		d.request("POST /maintenance/schedule", strings.Replace(schedule, machine, "", 1), 400, "^List of machines in the maintenance window is empty$")
		d.request("PUT /maintenance/schedule", schedule, 405, "")
		d.request("POST /maintenance/status", "", 405, "")
		d.request("POST /machine/down", `{}`, 400, "^Failed to parse the list of machines: it is no JSON array$")
		d.request("POST /machine/down", `[1]`, 400, "^Failed to parse the list of machines: ")
		d.request("POST /machine/down", `[]`, 400, "^List of machines is empty$")
		d.request("GET /machine/down", "", 405, "")
		not := regexp.QuoteMeta("Machine '" + machine + "' is not part of a maintenance schedule")
		d.request("POST /machine/down", "["+machine+"]", 400, "^"+not+"$")
		d.request("POST /machine/up", "["+machine+"]", 400, "^"+not+"$")
		d.call(`{"type":"START_MAINTENANCE","start_maintenance":{}}`, 400, "List of machines is empty")
		d.call(`{"type":"STOP_MAINTENANCE","stop_maintenance":{"machines":[{"ip":"1.2.3"}]}}`, 400, "Failed to parse the IP '1.2.3' of a machine")

		d.request("POST /maintenance/schedule", schedule, 200, "^$")
		d.request("GET /master/maintenance/schedule", "", 200, "^"+regexp.QuoteMeta(schedule)+"$")
		d.call(`{"type":"GET_MAINTENANCE_SCHEDULE"}`, 200, schedule)
		inverse := f.await(scheduler.Event_INVERSE_OFFERS).GetInverseOffers().GetInverseOffers()[0]
		d.call(`{"type":"GET_FRAMEWORKS"}`, 200, `"inverse_offers":[{"id":{"value":"`+inverse.GetId().GetValue()+`"}`)
		f.call(&scheduler.Call{Type: scheduler.Call_DECLINE_INVERSE_OFFERS.Enum(), DeclineInverseOffers: &scheduler.Call_DeclineInverseOffers{
			InverseOfferIds: []*mesos.OfferID{inverse.GetId()}, Filters: &mesos.Filters{RefuseSeconds: proto.Float64(1e6)},
		}})
		said := `{"draining_machines":[{"id":` + machine + `,"statuses":[{"status":"DECLINE","framework_id":{"value":"` + f.id + `"},"timestamp":{"nanoseconds":`
		d.request("GET /maintenance/status", "", 200, "^"+regexp.QuoteMeta(said))
		d.call(`{"type":"GET_MAINTENANCE_STATUS"}`, 200, said)
		d.call(`{"type":"DRAIN_AGENT","drain_agent":{"agent_id":{"value":"`+a.ID+`"}}}`, 400, "Agent is part of a maintenance schedule")
		d.request("POST /machine/up", "["+machine+"]", 400, "is not in DOWN mode and cannot be brought up$")

		d.call(`{"type":"START_MAINTENANCE","start_maintenance":{"machines":[`+machine+`]}}`, 200, "")
		if got := f.awaitStatus(mesos.TaskState_TASK_LOST); got.GetReason() != mesos.TaskStatus_REASON_AGENT_REMOVED {
			t.Errorf("got %v", got)
		}
		f.await(scheduler.Event_FAILURE)
		d.request("POST /machine/down", "["+machine+"]", 400, "is not in DRAINING mode and cannot be brought down$")
		d.request("POST /maintenance/schedule", `{}`, 400, "is deactivated and cannot be removed from the schedule$")
		d.request("GET /maintenance/status", "", 200, "^"+regexp.QuoteMeta(`{"down_machines":[`+machine+`]}`)+"$")
		d.request("GET /slaves", "", 200, `"slaves":\[\]`)
		s.eventually("the task has ended", func() bool { return len(a.Tasks()) == 0 })

		d.call(`{"type":"STOP_MAINTENANCE","stop_maintenance":{"machines":[`+machine+`]}}`, 200, "")
		d.request("GET /maintenance/schedule", "", 200, `^\{\}$`)
		f.call(&scheduler.Call{Type: scheduler.Call_REVIVE.Enum()})
		f.await(scheduler.Event_OFFERS)
		d.call(`{"type":"UPDATE_MAINTENANCE_SCHEDULE","update_maintenance_schedule":{"schedule":`+schedule+`}}`, 200, "")
		d.request("POST /machine/down", "["+machine+"]", 200, "^$")
		d.request("POST /machine/up", "["+machine+"]", 200, "^$")
	})
}
