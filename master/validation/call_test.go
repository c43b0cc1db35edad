package validation

import (
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/scheduler"
)

func TestID(t *testing.T) {
	for id, want := range map[string]string{
		"web.1":                  "",
		"...":                    "",
		"ä ö":                    "",
		strings.Repeat("a", 255): "",
		"":                       "ID must not be empty",
		strings.Repeat("a", 256): "ID must not be greater than 255 characters",
		".":                      "'.' is disallowed",
		"..":                     "'..' is disallowed",
		"a/b":                    "'a/b' contains invalid characters",
		`a\b`:                    `'a\b' contains invalid characters`,
		"a\nb":                   "contains invalid characters",
		"a\x7fb":                 "contains invalid characters",
		"a\x00":                  "contains invalid characters",
	} {
		t.Run(id, func(t *testing.T) { expect(t, ID(id), want) })
	}
}

func TestCall(t *testing.T) {
	uuid := []byte("0123456789abcdef")
	tests := []struct {
		name string
		call *scheduler.Call
		want string
	}{
		{"no type", &scheduler.Call{}, "Expecting 'type' to be present"},
		{"no framework id", &scheduler.Call{Type: scheduler.Call_TEARDOWN.Enum()}, "Expecting 'framework_id' to be present"},
		{"a subscription without a body", &scheduler.Call{Type: scheduler.Call_SUBSCRIBE.Enum()}, "Expecting 'subscribe' to be present"},
		{"a subscription with two ids", &scheduler.Call{
			Type: scheduler.Call_SUBSCRIBE.Enum(), FrameworkId: frameworkID("a"),
			Subscribe: &scheduler.Call_Subscribe{FrameworkInfo: &mesos.FrameworkInfo{Id: frameworkID("b")}},
		}, "'framework_id' differs from 'subscribe.framework_info.id'"},
		{"a subscription with an id in the call alone", &scheduler.Call{
			Type: scheduler.Call_SUBSCRIBE.Enum(), FrameworkId: frameworkID("a"),
			Subscribe: &scheduler.Call_Subscribe{FrameworkInfo: &mesos.FrameworkInfo{}},
		}, "'framework_id' differs from 'subscribe.framework_info.id'"},
		{"a first subscription", &scheduler.Call{
			Type:      scheduler.Call_SUBSCRIBE.Enum(),
			Subscribe: &scheduler.Call_Subscribe{FrameworkInfo: &mesos.FrameworkInfo{}},
		}, ""},
		{"a teardown", &scheduler.Call{Type: scheduler.Call_TEARDOWN.Enum(), FrameworkId: frameworkID("a")}, ""},
		{"a revival", &scheduler.Call{Type: scheduler.Call_REVIVE.Enum(), FrameworkId: frameworkID("a")}, ""},
		{"a suppression", &scheduler.Call{Type: scheduler.Call_SUPPRESS.Enum(), FrameworkId: frameworkID("a")}, ""},
		{"an unknown type", &scheduler.Call{Type: scheduler.Call_UNKNOWN.Enum(), FrameworkId: frameworkID("a")}, ""},
		{"an acknowledgement", &scheduler.Call{
			Type: scheduler.Call_ACKNOWLEDGE.Enum(), FrameworkId: frameworkID("a"), Acknowledge: &scheduler.Call_Acknowledge{Uuid: uuid},
		}, ""},
		{"an acknowledgement of a short uuid", &scheduler.Call{
			Type: scheduler.Call_ACKNOWLEDGE.Enum(), FrameworkId: frameworkID("a"), Acknowledge: &scheduler.Call_Acknowledge{Uuid: uuid[1:]},
		}, "Not a valid UUID"},
		{"an acknowledgement of an operation with a long uuid", &scheduler.Call{
			Type: scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS.Enum(), FrameworkId: frameworkID("a"),
			AcknowledgeOperationStatus: &scheduler.Call_AcknowledgeOperationStatus{Uuid: append(uuid, 0)},
		}, "Not a valid UUID"},
		{"an acknowledgement of an operation on no agent", &scheduler.Call{
			Type: scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS.Enum(), FrameworkId: frameworkID("a"),
			AcknowledgeOperationStatus: &scheduler.Call_AcknowledgeOperationStatus{Uuid: uuid},
		}, "Expecting 'agent_id' to be present"},
		{"an update with another id", &scheduler.Call{
			Type: scheduler.Call_UPDATE_FRAMEWORK.Enum(), FrameworkId: frameworkID("a"),
			UpdateFramework: &scheduler.Call_UpdateFramework{FrameworkInfo: &mesos.FrameworkInfo{Id: frameworkID("b")}},
		}, "'framework_id' differs from 'update_framework.framework_info.id'"},
	}
	for kind, field := range map[scheduler.Call_Type]string{
		scheduler.Call_ACCEPT: "accept", scheduler.Call_DECLINE: "decline", scheduler.Call_KILL: "kill",
		scheduler.Call_ACCEPT_INVERSE_OFFERS: "accept_inverse_offers", scheduler.Call_DECLINE_INVERSE_OFFERS: "decline_inverse_offers",
		scheduler.Call_SHUTDOWN: "shutdown", scheduler.Call_ACKNOWLEDGE: "acknowledge", scheduler.Call_RECONCILE: "reconcile",
		scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS: "acknowledge_operation_status", scheduler.Call_MESSAGE: "message",
		scheduler.Call_RECONCILE_OPERATIONS: "reconcile_operations", scheduler.Call_REQUEST: "request",
		scheduler.Call_UPDATE_FRAMEWORK: "update_framework",
	} {
		tests = append(tests, struct {
			name string
			call *scheduler.Call
			want string
		}{
			kind.String() + " without a body", &scheduler.Call{Type: kind.Enum(), FrameworkId: frameworkID("a")},
			"Expecting '" + field + "' to be present",
		})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { expect(t, Call(tt.call), tt.want) })
	}
}

func TestFramework(t *testing.T) {
	old := func(change func(*mesos.FrameworkInfo)) *mesos.FrameworkInfo {
		info := &mesos.FrameworkInfo{User: proto.String("svc"), Name: proto.String("demo")}
		change(info)
		return info
	}
	multi := func(change func(*mesos.FrameworkInfo)) *mesos.FrameworkInfo {
		info := webFramework()
		change(info)
		return info
	}
	filter := func(name string, v float64) map[string]*mesos.OfferFilters {
		return map[string]*mesos.OfferFilters{"web": {MinAllocatableResources: &mesos.OfferFilters_MinAllocatableResources{
			Quantities: []*mesos.OfferFilters_ResourceQuantities{{Quantities: map[string]*mesos.Value_Scalar{name: {Value: &v}}}},
		}}}
	}
	for _, tt := range []struct {
		name string
		info *mesos.FrameworkInfo
		want string
	}{
		{"an old one", old(func(*mesos.FrameworkInfo) {}), ""},
		{"an old one with a role", old(func(f *mesos.FrameworkInfo) { f.Role = proto.String("web") }), ""},
		{"an old one with roles", old(func(f *mesos.FrameworkInfo) { f.Roles = []string{"web"} }), "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable"},
		{"an old one with a bad role", old(func(f *mesos.FrameworkInfo) { f.Role = proto.String("/web") }), "'FrameworkInfo.role' is not a valid role: "},
		{"one of several roles", multi(func(*mesos.FrameworkInfo) {}), ""},
		{"one of no roles", multi(func(f *mesos.FrameworkInfo) { f.Roles = nil }), ""},
		{"one of several roles with a role", multi(func(f *mesos.FrameworkInfo) { f.Role = proto.String("web") }), "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable"},
		{"a role twice", multi(func(f *mesos.FrameworkInfo) { f.Roles = []string{"b", "a", "b", "a", "c"} }), "'FrameworkInfo.roles' contains duplicate items: { a, b }"},
		{"a bad role among others", multi(func(f *mesos.FrameworkInfo) { f.Roles = []string{"a", "a//b"} }), "'FrameworkInfo.roles' contains invalid role: "},
		{"a role that is a star of another", multi(func(f *mesos.FrameworkInfo) { f.Roles = []string{"a/*"} }), "'FrameworkInfo.roles' contains invalid role: "},
		{"an empty id", multi(func(f *mesos.FrameworkInfo) { f.Id = frameworkID("") }), ""},
		{"a bad id", multi(func(f *mesos.FrameworkInfo) { f.Id = frameworkID("a/b") }), "'a/b' contains invalid characters"},
		{"a filter", multi(func(f *mesos.FrameworkInfo) { f.OfferFilters = filter("cpus", 1) }), ""},
		{"a filter below nothing", multi(func(f *mesos.FrameworkInfo) { f.OfferFilters = filter("cpus", -1) }), "'FrameworkInfo.offer_filters' for role 'web' are invalid: the quantity -1 of 'cpus'"},
		{"a filter that is no number", multi(func(f *mesos.FrameworkInfo) { f.OfferFilters = filter("cpus", math.NaN()) }), "'FrameworkInfo.offer_filters'"},
		{"a filter of no name", multi(func(f *mesos.FrameworkInfo) { f.OfferFilters = filter("", 1) }), "has no name"},
		{"a failover timeout", multi(func(f *mesos.FrameworkInfo) { f.FailoverTimeout = proto.Float64(604800) }), ""},
		{"a negative failover timeout", multi(func(f *mesos.FrameworkInfo) { f.FailoverTimeout = proto.Float64(-1) }), ""},
		{"a failover timeout of centuries", multi(func(f *mesos.FrameworkInfo) { f.FailoverTimeout = proto.Float64(9.3e9) }), "The framework failover_timeout (9.3e+09) is invalid"},
		{"a failover timeout that is no number", multi(func(f *mesos.FrameworkInfo) { f.FailoverTimeout = proto.Float64(math.NaN()) }), "The framework failover_timeout (NaN) is invalid"},
	} {
		t.Run(tt.name, func(t *testing.T) { expect(t, Framework(tt.info), tt.want) })
	}
}

func TestSuppressed(t *testing.T) {
	info := webFramework()
	expect(t, Suppressed(info, []string{"batch"}), "")
	expect(t, Suppressed(info, []string{"x", "web", "a"}), "Suppressed roles { a, x } are not contained in the set of roles")
	expect(t, Suppressed(&mesos.FrameworkInfo{}, []string{"*"}), "")
}

func TestUpdate(t *testing.T) {
	base := webFramework()
	base.Principal = proto.String("p")
	for want, change := range map[string]func(*mesos.FrameworkInfo){
		"": func(f *mesos.FrameworkInfo) { f.Name, f.Roles = proto.String("other"), nil },
		"Changing framework's principal is not allowed.":                                                 func(f *mesos.FrameworkInfo) { f.Principal = nil },
		"Updating 'FrameworkInfo.user' is unsupported; attempted to update from 'svc' to 'root'":         func(f *mesos.FrameworkInfo) { f.User = proto.String("root") },
		"Updating 'FrameworkInfo.checkpoint' is unsupported; attempted to update from 'false' to 'true'": func(f *mesos.FrameworkInfo) { f.Checkpoint = proto.Bool(true) },
	} {
		info := proto.CloneOf(base)
		change(info)
		expect(t, Update(base, info), want)
	}
}
