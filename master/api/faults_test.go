package api_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/client"
	"starling/master/mesos/codec"
	"starling/master/mesos/scheduler"
)

// What is wrong with what frameworks send, row by row of the specification (mesos-scheduler-api.md sections 1, 2 and 6,
// mesos-semantics.md section 3), over HTTP and in both encodings.

var codecs = map[string]codec.Codec{"JSON": codec.JSON, "protobuf": codec.Protobuf}

// inBoth runs a test once in each encoding.
func inBoth(t *testing.T, test func(t *testing.T, cd codec.Codec)) {
	for name, cd := range codecs {
		t.Run(name, func(t *testing.T) { test(t, cd) })
	}
}

// post sends a call that is written as JSON in an encoding.
func (s *site) post(cd codec.Codec, text string, headers ...string) (int, string) {
	s.t.Helper()
	call := new(scheduler.Call)
	if err := codec.JSON.Unmarshal([]byte(text), call); err != nil {
		s.t.Fatalf("%v in %s", err, text)
	}
	body, err := cd.Marshal(call)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, answer := s.do("POST /api/v1/scheduler", string(body), append(headers, "Content-Type: "+cd.ContentType())...)
	if got := resp.Header.Get("Content-Type"); answer != "" && got != "text/plain; charset=utf-8" {
		s.t.Errorf("%s: the refusal is of type %q", text, got)
	}
	return resp.StatusCode, answer
}

// A call lacks what its type needs, or comes from where it must not.
func TestCallRows(t *testing.T) {
	s := start(t, nil)
	s.lead()
	inBoth(t, func(t *testing.T, cd codec.Codec) {
		f := s.subscribe(cd, mastertest.Info("f", nil))
		away := s.subscribe(cd, &mesos.FrameworkInfo{User: proto.String("u"), Name: proto.String("away"), FailoverTimeout: proto.Float64(60)})
		away.Close()
		s.eventually("its stream has ended", func() bool {
			status, _ := s.post(cd, `{"type":"REVIVE","framework_id":{"value":"`+away.id+`"}}`, "Mesos-Stream-Id: "+away.ID())
			return status == 403
		})
		stream := "Mesos-Stream-Id: " + f.ID()
		const invalid = "Failed to validate scheduler::Call: "
		const ack = `"agent_id":{"value":"a"},"task_id":{"value":"t"}`
		type row struct {
			call, stream string
			status       int
			want         string
		}
		rows := map[string]row{
			"no type":         {`{"framework_id":$ID}`, stream, 400, invalid + "Expecting 'type' to be present"},
			"no framework id": {`{"type":"TEARDOWN"}`, stream, 400, invalid + "Expecting 'framework_id' to be present"},
			"no subscribe":    {`{"type":"SUBSCRIBE"}`, "", 400, invalid + "Expecting 'subscribe' to be present"},
			"acknowledge: uuid of 15 bytes": {
				`{"type":"ACKNOWLEDGE","framework_id":$ID,"acknowledge":{` + ack + `,"uuid":"AAAAAAAAAAAAAAAAAAAA"}}`,
				stream, 400, invalid + "Not a valid UUID",
			},
			"acknowledge operation: uuid of 17 bytes": {
				`{"type":"ACKNOWLEDGE_OPERATION_STATUS","framework_id":$ID,"acknowledge_operation_status":{"agent_id":{"value":"a"},"operation_id":{"value":"o"},"uuid":"AAAAAAAAAAAAAAAAAAAAAAA="}}`,
				stream, 400, invalid + "Not a valid UUID",
			},
			"acknowledge operation: no agent": {
				`{"type":"ACKNOWLEDGE_OPERATION_STATUS","framework_id":$ID,"acknowledge_operation_status":{"operation_id":{"value":"o"},"uuid":"AAAAAAAAAAAAAAAAAAAAAA=="}}`,
				stream, 400, invalid + "Expecting 'agent_id' to be present",
			},
			"validation comes before the framework": {
				`{"type":"KILL","framework_id":{"value":"x"}}`,
				"", 400, invalid + "Expecting 'kill' to be present",
			},
			"unknown framework":                 {`{"type":"SUPPRESS","framework_id":{"value":"x"}}`, "", 400, "Framework cannot be found"},
			"not subscribed, whatever the id":   {`{"type":"SUPPRESS","framework_id":{"value":"` + away.id + `"}}`, "", 403, "Framework is not subscribed"},
			"no stream id":                      {`{"type":"SUPPRESS","framework_id":$ID}`, "", 400, "All non-subscribe calls should include the 'Mesos-Stream-Id' header"},
			"the stream id of another":          {`{"type":"SUPPRESS","framework_id":$ID}`, "Mesos-Stream-Id: " + away.ID(), 400, "The stream ID '" + away.ID() + "' included in this request didn't match the stream ID currently associated with framework ID " + f.id},
			"the id of another framework":       {`{"type":"SUPPRESS","framework_id":{"value":"` + away.id + `"}}`, stream, 403, "Framework is not subscribed"},
			"an unknown type":                   {`{"type":"UNKNOWN","framework_id":$ID}`, stream, 501, "501 Not Implemented."},
			"subscribe with a stream id":        {`{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"n"}}}`, stream, 400, "Subscribe calls should not include the 'Mesos-Stream-Id' header"},
			"subscribe with another id outside": {`{"type":"SUBSCRIBE","framework_id":{"value":"a"},"subscribe":{"framework_info":{"user":"u","name":"n","id":{"value":"b"}}}}`, "", 400, invalid + "'framework_id' differs from 'subscribe.framework_info.id'"},
			"subscribe with an id outside only": {`{"type":"SUBSCRIBE","framework_id":{"value":"a"},"subscribe":{"framework_info":{"user":"u","name":"n"}}}`, "", 400, invalid + "'framework_id' differs from 'subscribe.framework_info.id'"},
			"update with another id":            {`{"type":"UPDATE_FRAMEWORK","framework_id":$ID,"update_framework":{"framework_info":{"user":"svc","name":"f","id":{"value":"b"}}}}`, stream, 400, invalid + "'framework_id' differs from 'update_framework.framework_info.id'"},
			"update of the user":                {`{"type":"UPDATE_FRAMEWORK","framework_id":$ID,"update_framework":{"framework_info":{"user":"other","name":"f","id":$ID}}}`, stream, 400, "Updating 'FrameworkInfo.user' is unsupported; attempted to update from 'svc' to 'other'"},
			"update of checkpointing":           {`{"type":"UPDATE_FRAMEWORK","framework_id":$ID,"update_framework":{"framework_info":{"user":"svc","name":"f","id":$ID,"checkpoint":true}}}`, stream, 400, "Updating 'FrameworkInfo.checkpoint' is unsupported; attempted to update from 'false' to 'true'"},
			"update of the principal":           {`{"type":"UPDATE_FRAMEWORK","framework_id":$ID,"update_framework":{"framework_info":{"user":"svc","name":"f","id":$ID,"principal":"p"}}}`, stream, 400, "Changing framework's principal is not allowed."},
			"update to an invalid role":         {`{"type":"UPDATE_FRAMEWORK","framework_id":$ID,"update_framework":{"framework_info":{"user":"svc","name":"f","id":$ID,"role":"a b"}}}`, stream, 400, "'UpdateFramework.framework_info' is invalid: 'FrameworkInfo.role' is not a valid role"},
			"update that suppresses too much":   {`{"type":"UPDATE_FRAMEWORK","framework_id":$ID,"update_framework":{"framework_info":{"user":"svc","name":"f","id":$ID},"suppressed_roles":["z"]}}`, stream, 400, "'UpdateFramework.framework_info' is invalid: Suppressed roles { z } are not contained in the set of roles"},
			"update that changes nothing":       {`{"type":"UPDATE_FRAMEWORK","framework_id":$ID,"update_framework":{"framework_info":{"user":"svc","name":"f","id":$ID}}}`, stream, 200, ""},
			"revive":                            {`{"type":"REVIVE","framework_id":$ID}`, stream, 202, ""},
			"revive of a foreign role":          {`{"type":"REVIVE","framework_id":$ID,"revive":{"roles":["z"]}}`, stream, 202, ""},
			"suppress of an invalid role":       {`{"type":"SUPPRESS","framework_id":$ID,"suppress":{"roles":[" "]}}`, stream, 202, ""},
			"decline of an unknown offer":       {`{"type":"DECLINE","framework_id":$ID,"decline":{"offer_ids":[{"value":"x"}]}}`, stream, 202, ""},
			"decline of nothing":                {`{"type":"DECLINE","framework_id":$ID,"decline":{}}`, stream, 202, ""},
			"accept of nothing":                 {`{"type":"ACCEPT","framework_id":$ID,"accept":{}}`, stream, 202, ""},
			"accept of no inverse offer":        {`{"type":"ACCEPT_INVERSE_OFFERS","framework_id":$ID,"accept_inverse_offers":{"inverse_offer_ids":[{"value":"x"}]}}`, stream, 202, ""},
			"decline of no inverse offer":       {`{"type":"DECLINE_INVERSE_OFFERS","framework_id":$ID,"decline_inverse_offers":{"inverse_offer_ids":[{"value":"x"}]}}`, stream, 202, ""},
			"shutdown on an unknown agent":      {`{"type":"SHUTDOWN","framework_id":$ID,"shutdown":{"executor_id":{"value":"e"},"agent_id":{"value":"a"}}}`, stream, 202, ""},
			"message to an unknown agent":       {`{"type":"MESSAGE","framework_id":$ID,"message":{"executor_id":{"value":"e"},"agent_id":{"value":"a"},"data":"AAAA"}}`, stream, 202, ""},
			"request":                           {`{"type":"REQUEST","framework_id":$ID,"request":{"requests":[{"agent_id":{"value":"a"}}]}}`, stream, 202, ""},
			"acknowledge on an unknown agent":   {`{"type":"ACKNOWLEDGE","framework_id":$ID,"acknowledge":{` + ack + `,"uuid":"AAAAAAAAAAAAAAAAAAAAAA=="}}`, stream, 202, ""},
			"acknowledge operation, unknown":    {`{"type":"ACKNOWLEDGE_OPERATION_STATUS","framework_id":$ID,"acknowledge_operation_status":{"agent_id":{"value":"a"},"operation_id":{"value":"o"},"uuid":"AAAAAAAAAAAAAAAAAAAAAA=="}}`, stream, 202, ""},
		}
		for _, kind := range []string{
			"ACCEPT", "DECLINE", "ACCEPT_INVERSE_OFFERS", "DECLINE_INVERSE_OFFERS", "KILL", "SHUTDOWN", "ACKNOWLEDGE",
			"ACKNOWLEDGE_OPERATION_STATUS", "RECONCILE", "RECONCILE_OPERATIONS", "MESSAGE", "REQUEST", "UPDATE_FRAMEWORK",
		} {
			rows[kind+" without its body"] = row{`{"type":"` + kind + `","framework_id":$ID}`, stream, 400, invalid + "Expecting '" + strings.ToLower(kind) + "' to be present"}
		}
		for name, row := range rows {
			t.Run(name, func(t *testing.T) {
				s := *s
				s.t = t
				var headers []string
				if row.stream != "" {
					headers = []string{row.stream}
				}
				status, text := s.post(cd, strings.ReplaceAll(row.call, "$ID", `{"value":"`+f.id+`"}`), headers...)
				if status != row.status || !strings.HasPrefix(text, row.want) || row.want == "" && text != "" {
					t.Errorf("got %d %q, want %d %q", status, text, row.status, row.want)
				}
			})
		}
	})
}

// A subscription that is refused gets a stream with one ERROR event, and its end.
func TestSubscriptionRows(t *testing.T) {
	s := start(t, func(cfg *master.Config) {
		cfg.Roles = []string{"web", "batch"}
		cfg.RootSubmissions = false
	})
	s.lead()
	inBoth(t, func(t *testing.T, cd codec.Codec) {
		const multi = mesos.FrameworkInfo_Capability_MULTI_ROLE
		removed := s.subscribe(cd, mastertest.Info("removed", nil))
		removed.call(&scheduler.Call{Type: scheduler.Call_TEARDOWN.Enum()})
		owned := mastertest.Info("owned", nil)
		owned.Principal, owned.FailoverTimeout = proto.String("p"), proto.Float64(60)
		lasting := s.subscribe(cd, owned)
		with := func(info *mesos.FrameworkInfo, change func(*mesos.FrameworkInfo)) *mesos.FrameworkInfo {
			change(info)
			return info
		}
		frameworkID := func(id string) *mesos.FrameworkID { return &mesos.FrameworkID{Value: &id} }
		for name, row := range map[string]struct {
			info        *mesos.FrameworkInfo
			suppressed  []string
			constraints string
			want        string
		}{
			"roles without MULTI_ROLE": {
				info: with(mastertest.Info("f", nil), func(f *mesos.FrameworkInfo) { f.Roles = []string{"web"} }),
				want: "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable",
			},
			"role with MULTI_ROLE": {
				info: with(mastertest.Info("f", []string{"web"}, multi), func(f *mesos.FrameworkInfo) { f.Role = proto.String("web") }),
				want: "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable",
			},
			"a role twice": {
				info: mastertest.Info("f", []string{"web", "web"}, multi),
				want: "'FrameworkInfo.roles' contains duplicate items: { web }",
			},
			"invalid roles":  {info: mastertest.Info("f", []string{"-web"}, multi), want: "'FrameworkInfo.roles' contains invalid role: "},
			"an invalid one": {info: mastertest.Info("f", []string{"a/../b"}), want: "'FrameworkInfo.role' is not a valid role: "},
			"roles not on the list": {
				info: mastertest.Info("f", []string{"web", "x", "y"}, multi),
				want: "Roles { x, y } are not present in the master's --roles",
			},
			"root": {
				info: with(mastertest.Info("f", nil), func(f *mesos.FrameworkInfo) { f.User = proto.String("root") }),
				want: "User 'root' is not allowed to run frameworks without --root_submissions set",
			},
			"an id with a slash": {
				info: with(mastertest.Info("f", nil), func(f *mesos.FrameworkInfo) { f.Id = frameworkID("a/b") }),
				want: "'a/b' contains invalid characters",
			},
			"too long an id": {
				info: with(mastertest.Info("f", nil), func(f *mesos.FrameworkInfo) { f.Id = frameworkID(strings.Repeat("x", 256)) }),
				want: "ID must not be greater than 255 characters",
			},
			"a failover timeout that no duration holds": {
				info: with(mastertest.Info("f", nil), func(f *mesos.FrameworkInfo) { f.FailoverTimeout = proto.Float64(1e20) }),
				want: "The framework failover_timeout (1e+20) is invalid",
			},
			"an offer filter below nothing": {
				info: with(mastertest.Info("f", nil), func(f *mesos.FrameworkInfo) {
					f.OfferFilters = map[string]*mesos.OfferFilters{"*": {MinAllocatableResources: &mesos.OfferFilters_MinAllocatableResources{
						Quantities: []*mesos.OfferFilters_ResourceQuantities{{Quantities: map[string]*mesos.Value_Scalar{"cpus": {Value: proto.Float64(-1)}}}},
					}}}
				}),
				want: "'FrameworkInfo.offer_filters' for role '*' are invalid: ",
			},
			"suppressed roles of others": {
				info: mastertest.Info("f", []string{"web"}, multi), suppressed: []string{"z", "web", "y"},
				want: "Suppressed roles { y, z } are not contained in the set of roles",
			},
			"a removed framework": {
				info: with(mastertest.Info("f", nil), func(f *mesos.FrameworkInfo) { f.Id = frameworkID(removed.id) }),
				want: "Framework has been removed",
			},
			"another principal": {
				info: with(mastertest.Info("owned", nil), func(f *mesos.FrameworkInfo) { f.Id, f.Principal = frameworkID(lasting.id), proto.String("q") }),
				want: "Changing framework's principal is not allowed.",
			},
			"constraints of a role without groups": {
				info:        mastertest.Info("f", []string{"web"}, multi),
				constraints: `role_constraints{key:"web" value{}}`, want: "constraint",
			},
			"constraints with a group of none": {
				info:        mastertest.Info("f", []string{"web"}, multi),
				constraints: `role_constraints{key:"web" value{groups{}}}`, want: "constraint",
			},
			"constraints with a faulty expression": {
				info:        mastertest.Info("f", []string{"web"}, multi),
				constraints: `role_constraints{key:"web" value{groups{attribute_constraints{selector{attribute_name:"a"} predicate{text_matches{regex:"("}}}}}}`, want: "constraint",
			},
			"constraints with too large an expression": {
				info:        mastertest.Info("f", []string{"web"}, multi),
				constraints: `role_constraints{key:"web" value{groups{attribute_constraints{selector{attribute_name:"a"} predicate{text_matches{regex:"[a-z]{1000}"}}}}}}`, want: "constraint",
			},
		} {
			t.Run(name, func(t *testing.T) {
				sub := &scheduler.Call_Subscribe{FrameworkInfo: row.info, SuppressedRoles: row.suppressed}
				if row.constraints != "" {
					sub.OfferConstraints = new(scheduler.OfferConstraints)
					if err := prototext.Unmarshal([]byte(row.constraints), sub.OfferConstraints); err != nil {
						t.Fatal(err)
					}
				}
				c := client.New(client.Config{Masters: []string{s.addr}, Codec: cd})
				defer c.Close()
				stream, err := c.Subscribe(t.Context(), &scheduler.Call{Type: scheduler.Call_SUBSCRIBE.Enum(), FrameworkId: row.info.GetId(), Subscribe: sub})
				if err != nil {
					t.Fatal(err)
				}
				defer stream.Close()
				f := &framework{Stream: stream, t: t}
				if got := f.expect(scheduler.Event_ERROR).GetError().GetMessage(); !strings.HasPrefix(got, row.want) && (row.want != "constraint" || !strings.Contains(got, "onstraint")) {
					t.Errorf("got %q, want %q", got, row.want)
				}
				stop := time.AfterFunc(patience, f.Close)
				defer stop.Stop()
				if event, err := f.Next(); !errors.Is(err, io.EOF) {
					t.Errorf("after the error: %v, %v, want the end of the stream", event, err)
				}
			})
		}
		// None of them did anything to the one that was there.
		lasting.call(&scheduler.Call{Type: scheduler.Call_REVIVE.Enum()})
	})
}
