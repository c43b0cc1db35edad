package codec_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"starling/master/mesos"
	"starling/master/mesos/codec"
	"starling/master/mesos/operator/master"
	"starling/master/mesos/scheduler"
)

// The rules for writing of mesos-messages.md, section 1.2.
func TestWriteJSON(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   proto.Message
		want string
	}{
		{"64-bit integers are numbers", &mesos.TimeInfo{Nanoseconds: new(int64(math.MaxInt64))}, `{"nanoseconds":9223372036854775807}`},
		{"unsigned ones too", &mesos.Value_Range{Begin: new(uint64(0)), End: new(uint64(math.MaxUint64))}, `{"begin":0,"end":18446744073709551615}`},
		{"doubles have a fraction", &mesos.Value_Scalar{Value: new(5.0)}, `{"value":5.0}`},
		{"doubles are as short as can be", &mesos.Value_Scalar{Value: new(0.1)}, `{"value":0.1}`},
		{"large doubles have an exponent", &mesos.Value_Scalar{Value: new(1e21)}, `{"value":1e+21}`},
		{"small doubles have an exponent", &mesos.Value_Scalar{Value: new(-1e-7)}, `{"value":-1e-7}`},
		{"infinity is a string", &mesos.Value_Scalar{Value: new(math.Inf(1))}, `{"value":"Infinity"}`},
		{"minus infinity is a string", &mesos.Value_Scalar{Value: new(math.Inf(-1))}, `{"value":"-Infinity"}`},
		{"bytes are base64 with padding", &mesos.UUID{Value: []byte{0xfb, 0xff}}, `{"value":"+/8="}`},
		{"enums are names", &mesos.Secret{Type: mesos.Secret_VALUE.Enum()}, `{"type":"VALUE"}`},
		{"unknown enums are left out", &mesos.Secret{Type: mesos.Secret_Type(99).Enum()}, `{}`},
		{"empty lists are left out", &mesos.Labels{Labels: []*mesos.Label{}}, `{}`},
		{"empty messages are not", &mesos.Resource{
			Name: new("cpus"), Type: mesos.Value_SCALAR.Enum(), Revocable: &mesos.Resource_RevocableInfo{},
		}, `{"name":"cpus","type":"SCALAR","revocable":{}}`},
		{"defaults are written", &mesos.CommandInfo_URI{Value: new("u")}, `{"value":"u","extract":true}`},
		{"numbers as defaults too", &mesos.Filters{}, `{"refuse_seconds":5.0}`},
		{
			"enums as defaults too",
			&mesos.Environment_Variable{Name: new("A")},
			`{"name":"A","type":"VALUE"}`,
		},
		{
			"defaults of deprecated fields are not",
			&mesos.FrameworkInfo{User: new("u"), Name: new("n")},
			`{"user":"u","name":"n","failover_timeout":0.0,"checkpoint":false}`,
		},
		{
			"deprecated fields that are set are",
			&mesos.FrameworkInfo{User: new("u"), Name: new("n"), Role: new("*")},
			`{"user":"u","name":"n","failover_timeout":0.0,"checkpoint":false,"role":"*"}`,
		},
		{
			"maps are objects in order of keys",
			&mesos.OfferFilters_ResourceQuantities{Quantities: map[string]*mesos.Value_Scalar{
				"mem": {Value: new(1.0)}, "cpus": {Value: new(0.5)},
			}},
			`{"quantities":{"cpus":{"value":0.5},"mem":{"value":1.0}}}`,
		},
		{"strings are escaped", &mesos.TaskID{Value: new("\"\\/\b\f\n\r\t\x01\x7fé\u2028")}, `{"value":"\"\\/\u0008\u000c\n\r\t\u0001\u007fé` + "\u2028" + `"}`},
		{"what is no UTF-8 is replaced", &mesos.TaskID{Value: new("a\xffb")}, `{"value":"a` + "\ufffd" + `b"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := codec.JSON.Marshal(tc.in)
			if err != nil || string(got) != tc.want {
				t.Errorf("Marshal() = %s, %v\nwant %s", got, err, tc.want)
			}
		})
	}
}

func TestWriteOldNames(t *testing.T) {
	status := &mesos.TaskStatus{
		TaskId: &mesos.TaskID{Value: new("t")}, State: mesos.TaskState_TASK_LOST.Enum(),
		AgentId: &mesos.AgentID{Value: new("S0")}, Source: mesos.TaskStatus_SOURCE_AGENT.Enum(),
		Reason: mesos.TaskStatus_REASON_AGENT_REMOVED.Enum(),
	}
	want := `{"task_id":{"value":"t"},"state":"TASK_LOST","source":"SOURCE_SLAVE","reason":"REASON_SLAVE_REMOVED","slave_id":{"value":"S0"}}`
	got, err := codec.JSONv0.Marshal(status)
	if err != nil || string(got) != want {
		t.Errorf("Marshal() = %s, %v\nwant %s", got, err, want)
	}
	again := &mesos.TaskStatus{}
	if err := codec.JSONv0.Unmarshal(got, again); err != nil || !proto.Equal(again, status) {
		t.Errorf("Unmarshal() = %v, %v", again, err)
	}
}

// The rules for reading, each as a piece of JSON and the canonical JSON of what was understood.
func TestReadJSON(t *testing.T) {
	offer := func() proto.Message { return &mesos.Filters{} }
	resource := func() proto.Message { return &mesos.Resource{} }
	framework := func() proto.Message { return &mesos.FrameworkInfo{} }
	scalar := func() proto.Message { return &mesos.Value_Scalar{} }
	ranges := func() proto.Message { return &mesos.Value_Range{} }
	const fw = `"user":"u","name":"n","failover_timeout":0.0,"checkpoint":false`
	for _, tc := range []struct {
		name string
		into func() proto.Message
		in   string
		want string
	}{
		{"blanks", offer, " {\t\"refuse_seconds\" :\r\n 1 } ", `{"refuse_seconds":1.0}`},
		{"unknown members", offer, `{"x":{"y":[1,null,"z",{"a":[]}]},"refuse_seconds":1,"z":-0.5e-3}`, `{"refuse_seconds":1.0}`},
		{"camelCase is unknown", offer, `{"refuseSeconds":1}`, `{"refuse_seconds":5.0}`},
		{"null is unset", offer, `{"refuse_seconds":null}`, `{"refuse_seconds":5.0}`},
		{"the last one counts", offer, `{"refuse_seconds":1,"refuse_seconds":2}`, `{"refuse_seconds":2.0}`},
		{"even if it is null", offer, `{"refuse_seconds":1,"refuse_seconds":null}`, `{"refuse_seconds":5.0}`},
		{
			"messages are replaced, not merged", framework,
			`{"user":"u","name":"n","labels":{"labels":[{"key":"a"}]},"labels":{}}`, `{` + fw + `,"labels":{}}`,
		},
		{"numbers as strings", offer, `{"refuse_seconds":"1.5"}`, `{"refuse_seconds":1.5}`},
		{"integers as strings", ranges, `{"begin":"1","end":"18446744073709551615"}`, `{"begin":1,"end":18446744073709551615}`},
		{"fractions of integers are cut off", ranges, `{"begin":1.99,"end":2e3}`, `{"begin":1,"end":2000}`},
		{"large integers with a fraction are exact", ranges, `{"begin":9007199254740993.5,"end":18446744073709551615.0}`, `{"begin":9007199254740993,"end":18446744073709551615}`},
		{"minus zero", ranges, `{"begin":-0,"end":-0.5}`, `{"begin":0,"end":0}`},
		{"infinity", scalar, `{"value":"Infinity"}`, `{"value":"Infinity"}`},
		{"minus infinity", scalar, `{"value":"-Infinity"}`, `{"value":"-Infinity"}`},
		{"booleans as strings", framework, `{"user":"u","name":"n","checkpoint":"true"}`, `{"user":"u","name":"n","failover_timeout":0.0,"checkpoint":true}`},
		{
			"unknown enums in lists and in optional fields are dropped", framework,
			`{"user":"u","name":"n","capabilities":[{"type":"TELEPATHY"},{"type":"MULTI_ROLE"}]}`,
			`{` + fw + `,"capabilities":[{},{"type":"MULTI_ROLE"}]}`,
		},
		{"a lone message for a list", framework, `{"user":"u","name":"n","capabilities":{"type":"MULTI_ROLE"}}`, `{` + fw + `,"capabilities":[{"type":"MULTI_ROLE"}]}`},
		{"a lone scalar for a list", framework, `{"user":"u","name":"n","roles":"web"}`, `{` + fw + `,"roles":["web"]}`},
		{"nulls in lists", framework, `{"user":"u","name":"n","roles":[null,"web",null]}`, `{` + fw + `,"roles":["web"]}`},
		{"empty lists", framework, `{"user":"u","name":"n","roles":[],"capabilities":[ ]}`, `{` + fw + `}`},
		{
			"maps", framework,
			`{"user":"u","name":"n","offer_filters":{"web":{},"db":null,"web":{"min_allocatable_resources":{"quantities":{"quantities":{"cpus":{"value":1}}}}}}}`,
			`{` + fw + `,"offer_filters":{"web":{"min_allocatable_resources":{"quantities":[{"quantities":{"cpus":{"value":1.0}}}]}}}}`,
		},
		{"empty messages", resource, `{"name":"x","type":"SCALAR","shared":{}}`, `{"name":"x","type":"SCALAR","shared":{}}`},
		{"bytes", func() proto.Message { return &mesos.UUID{} }, `{"value":"+/8="}`, `{"value":"+/8="}`},
		{"escapes", func() proto.Message { return &mesos.TaskID{} }, `{"v\u0061lue":"\u0041\n\"\\\/\b\f\r\t\ud83d\ude00\ud83dx\ude00"}`, `{"value":"A\n\"\\/\u0008\u000c\r\t😀` + "\ufffdx\ufffd" + `"}`},
		{"oneofs: the last one counts", func() proto.Message { return &scheduler.AttributeConstraint_Selector{} }, `{"attribute_name":"rack","pseudoattribute_type":"ZONE"}`, `{"pseudoattribute_type":"ZONE"}`},
		{
			"durations of the operator API", func() proto.Message { return &master.Call_DrainAgent{} },
			`{"agent_id":{"value":"S0"},"max_grace_period":{"seconds":10}}`,
			`{"agent_id":{"value":"S0"},"max_grace_period":{"seconds":10,"nanos":0},"mark_gone":false}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := tc.into()
			if err := codec.JSON.Unmarshal([]byte(tc.in), m); err != nil {
				t.Fatalf("Unmarshal(%s) = %v", tc.in, err)
			}
			got, err := codec.JSON.Marshal(m)
			if err != nil || string(got) != tc.want {
				t.Errorf("Unmarshal(%s) understood %s, %v\nwant %s", tc.in, got, err, tc.want)
			}
		})
	}
}

func TestReadJSONReplacesTheMessage(t *testing.T) {
	m := &mesos.Filters{RefuseSeconds: new(7.0)}
	if err := codec.JSON.Unmarshal([]byte("{}"), m); err != nil || m.RefuseSeconds != nil {
		t.Errorf("Unmarshal() left %v, %v", m, err)
	}
}

func TestReadJSONRefuses(t *testing.T) {
	call := func() proto.Message { return &scheduler.Call{} }
	for _, tc := range []struct {
		name string
		into func() proto.Message
		in   string
		want string
		kind error
	}{
		{"nothing", call, "", "unexpected end, expected a value", &codec.SyntaxError{}},
		{"an array", call, "[]", "unexpected '[', expected an object", &codec.SyntaxError{}},
		{"half an object", call, `{"type":"KILL"`, "unexpected end, expected ',' or '}' at byte 14", &codec.SyntaxError{}},
		{"something behind", call, `{} {}`, "unexpected '{', expected the end at byte 3", &codec.SyntaxError{}},
		{"a comma too many", call, `{"type":"KILL",}`, "unexpected '}', expected a member name at byte 15", &codec.SyntaxError{}},
		{"a name without quotes", call, `{type:"KILL"}`, "unexpected 't', expected a member name at byte 1", &codec.SyntaxError{}},
		{"a bad literal", call, `{"x":nul}`, "unexpected 'n', expected a value at byte 5", &codec.SyntaxError{}},
		{"a leading zero", call, `{"x":01}`, "unexpected '0', expected a value at byte 5", &codec.SyntaxError{}},
		{"a leading plus", call, `{"x":+1}`, "unexpected '+', expected a value at byte 5", &codec.SyntaxError{}},
		{"half a fraction", call, `{"x":1.}`, "unexpected '1', expected a value at byte 5", &codec.SyntaxError{}},
		{"a bad escape", call, `{"x":"\q"}`, "bad escape in a string at byte 6", &codec.SyntaxError{}},
		{"half an escape", call, `{"x":"\u12"}`, "bad escape in a string at byte 6", &codec.SyntaxError{}},
		{"a line feed in a string", call, "{\"x\":\"a\nb\"}", `control character '\n' in a string at byte 7`, &codec.SyntaxError{}},
		{"what is no UTF-8", call, "{\"x\":\"\xff\"}", "a string that is not UTF-8 at byte 6", &codec.SyntaxError{}},
		{"too deep", call, strings.Repeat(`{"x":`, 64) + "[" + strings.Repeat("}", 64), "nested deeper than 64 levels at byte 320", &codec.SyntaxError{}},
		{"syntax goes first", call, `{"type":1,`, "unexpected end, expected a member name at byte 10", &codec.SyntaxError{}},

		{"a number for an enum", call, `{"type":3}`, "Not expecting a JSON number for field 'type'", &codec.FieldError{}},
		{"a string for a message", call, `{"kill":"t"}`, "Not expecting a JSON string for field 'kill'", &codec.FieldError{}},
		{"an array for a message", call, `{"kill":[]}`, "Not expecting a JSON array for field 'kill'", &codec.FieldError{}},
		{"an array for a scalar", call, `{"kill":{"task_id":{"value":["t"]}}}`, "Not expecting a JSON array for field 'kill.task_id.value'", &codec.FieldError{}},
		{"a boolean for a string", call, `{"kill":{"task_id":{"value":true}}}`, "Not expecting a JSON boolean for field 'kill.task_id.value'", &codec.FieldError{}},
		{"an array in an array", call, `{"suppress":{"roles":["a",["b"]]}}`, "Not expecting a JSON array for field 'suppress.roles[1]'", &codec.FieldError{}},
		{"an array for a map", call, `{"subscribe":{"framework_info":{"offer_filters":[]}}}`, "Not expecting a JSON array for field 'subscribe.framework_info.offer_filters'", &codec.FieldError{}},
		{"bad base64", call, `{"acknowledge":{"uuid":"*"}}`, "Failed to base64 decode the value for field 'acknowledge.uuid'", &codec.FieldError{}},
		{"base64 without padding", call, `{"acknowledge":{"uuid":"+/8"}}`, "Failed to base64 decode the value for field 'acknowledge.uuid'", &codec.FieldError{}},
		{"a word for a boolean", call, `{"subscribe":{"framework_info":{"checkpoint":"yes"}}}`, `Expecting 'true' or 'false', not "yes", for field 'subscribe.framework_info.checkpoint'`, &codec.FieldError{}},
		{"a word for a number", call, `{"decline":{"filters":{"refuse_seconds":"soon"}}}`, `Expecting a number, not "soon", for field 'decline.filters.refuse_seconds'`, &codec.FieldError{}},
		{"a number that is none", call, `{"decline":{"filters":{"refuse_seconds":"NaN"}}}`, `Expecting a number, not "NaN", for field 'decline.filters.refuse_seconds'`, &codec.FieldError{}},
		{"a double beyond doubles", call, `{"decline":{"filters":{"refuse_seconds":1e999}}}`, `The number "1e999" does not fit double for field 'decline.filters.refuse_seconds'`, &codec.FieldError{}},
		{"an integer beyond integers", func() proto.Message { return &mesos.Address{} }, `{"port":2147483648}`, "The number 2147483648 does not fit int32 for field 'port'", &codec.FieldError{}},
		{"a negative number for an unsigned field", func() proto.Message { return &mesos.Value_Range{} }, `{"begin":-1}`, "The number -1 does not fit uint64 for field 'begin'", &codec.FieldError{}},
		{"an integer of astronomic size", func() proto.Message { return &mesos.Value_Range{} }, `{"begin":1e300}`, "The number 1e300 does not fit uint64 for field 'begin'", &codec.FieldError{}},
		{"an unknown name in a required enum", func() proto.Message { return &mesos.Resource{} }, `{"name":"x","type":"PILE"}`, "Unknown enum value for field 'type'", &codec.FieldError{}},

		{
			"missing fields", call,
			`{"kill":{},"accept":{"offer_ids":[{"value":"o"},{}],"operations":[{"launch":{"task_infos":{"name":"t","task_id":{}}}}]},
			  "subscribe":{"framework_info":{"user":"u","offer_filters":{"web":{"min_allocatable_resources":{"quantities":[{"quantities":{"cpus":{}}}]}}}}}}`,
			"Missing required fields: subscribe.framework_info.name, " +
				"subscribe.framework_info.offer_filters[web].min_allocatable_resources.quantities[0].quantities[cpus].value, " +
				"accept.offer_ids[1].value, accept.operations[0].launch.task_infos[0].agent_id, " +
				"accept.operations[0].launch.task_infos[0].task_id.value, kill.task_id",
			&codec.RequiredError{},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := codec.JSON.Unmarshal([]byte(tc.in), tc.into())
			if err == nil || err.Error() != tc.want {
				t.Errorf("Unmarshal(%s) = %v\nwant %s", tc.in, err, tc.want)
			}
			if kind := cmp.Diff(kindOf(tc.kind), kindOf(err)); kind != "" {
				t.Errorf("another kind of error: %s", kind)
			}
		})
	}
}

func kindOf(err error) string {
	if _, ok := errors.AsType[*codec.SyntaxError](err); ok {
		return "syntax"
	}
	if f, ok := errors.AsType[*codec.FieldError](err); ok {
		if f.Path == "" && f.Reason != "" {
			return "field without path"
		}
		return "field"
	}
	if _, ok := errors.AsType[*codec.RequiredError](err); ok {
		return "required"
	}
	return "other"
}

func TestDepthLimitIsAboveWhatMessagesNeed(t *testing.T) {
	in := strings.Repeat(`{"x":`, 63) + "{}" + strings.Repeat("}", 63)
	if err := codec.JSON.Unmarshal([]byte(in), &scheduler.Call{}); err != nil {
		t.Errorf("64 levels: %v", err)
	}
}

// proto2 in Go keeps numbers that an enum does not know; Mesos and its clients don't.
func TestProtobufUnknownEnums(t *testing.T) {
	field := func(num protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), v)
	}
	sub := func(num protowire.Number, b ...[]byte) []byte {
		var all []byte
		for _, one := range b {
			all = append(all, one...)
		}
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), all)
	}
	str := func(num protowire.Number, s string) []byte { return sub(num, []byte(s)) }

	fw := &mesos.FrameworkInfo{}
	in := append(append(str(1, "u"), str(2, "n")...), append(sub(10, field(1, 99)), sub(10, field(1, 6))...)...)
	if err := codec.Protobuf.Unmarshal(in, fw); err != nil {
		t.Fatal(err)
	}
	want := &mesos.FrameworkInfo{User: new("u"), Name: new("n"), Capabilities: []*mesos.FrameworkInfo_Capability{
		{}, {Type: mesos.FrameworkInfo_Capability_MULTI_ROLE.Enum()},
	}}
	if diff := cmp.Diff(want, fw, protocmp.Transform()); diff != "" {
		t.Errorf("optional enum: (-want +got)\n%s", diff)
	}

	err := codec.Protobuf.Unmarshal(append(str(1, "cpus"), field(2, 99)...), &mesos.Resource{})
	if err == nil || err.Error() != "Missing required fields: type" {
		t.Errorf("required enum: %v", err)
	}
}

func TestProtobufRefuses(t *testing.T) {
	for name, in := range map[string][]byte{"text": []byte("{}"), "half a message": {0x0a, 0x05, 'a'}} {
		err := codec.Protobuf.Unmarshal(in, &scheduler.Call{})
		if _, ok := errors.AsType[*codec.SyntaxError](err); !ok {
			t.Errorf("%s: %v, want a SyntaxError", name, err)
		}
	}
	// A container in a container in a container...
	var deep []byte
	for range 1000 {
		deep = append(protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), deep), 0x0a, 0x01, 'x')
	}
	if err := codec.Protobuf.Unmarshal(deep, &mesos.ContainerID{}); err == nil {
		t.Error("1,000 levels are accepted")
	}
	err := codec.Protobuf.Unmarshal(nil, &mesos.TaskID{})
	if r, ok := errors.AsType[*codec.RequiredError](err); !ok || len(r.Fields) != 1 || r.Fields[0] != "value" {
		t.Errorf("missing field: %v", err)
	}
}

// Strict clients choke on a message that lacks a required field, so it is never sent.
func TestMarshalChecksRequiredFields(t *testing.T) {
	for _, cd := range []codec.Codec{codec.JSON, codec.JSONv0, codec.Protobuf} {
		dst := []byte("before")
		got, err := cd.Append(dst, &scheduler.Event{Error: &scheduler.Event_Error{}})
		if _, ok := errors.AsType[*codec.RequiredError](err); !ok || string(got) != "before" {
			t.Errorf("%s: Append() = %q, %v", cd.ContentType(), got, err)
		}
		got, err = cd.Append(dst, &scheduler.Event{})
		if err != nil || !strings.HasPrefix(string(got), "before") {
			t.Errorf("%s: Append() = %q, %v", cd.ContentType(), got, err)
		}
	}
}

func TestNegotiation(t *testing.T) {
	for header, want := range map[string]codec.Codec{
		"": codec.JSON, "*/*": codec.JSON, "application/*": codec.JSON, "application/json": codec.JSON,
		"application/x-protobuf": codec.Protobuf, "application/x-protobuf, application/json": codec.JSON,
		"application/x-protobuf;q=0.9, application/json;q=0.1": codec.JSON,
		"application/json;q=0, */*":                            codec.Protobuf,
		"application/json;q=0.0":                               nil,
		"Application/X-Protobuf; charset=binary":               codec.Protobuf,
		"text/html, text/*":                                    nil,
		"text/html, */*;q=0.8":                                 codec.JSON,
	} {
		got, ok := codec.Accept(header)
		if got != want || ok != (want != nil) {
			t.Errorf("Accept(%q) = %v, %v; want %v", header, got, ok, want)
		}
	}
	for header, want := range map[string]codec.Codec{
		"application/json": codec.JSON, " APPLICATION/json ; charset=utf-8": codec.JSON,
		"application/x-protobuf": codec.Protobuf, "application/protobuf": nil, "": nil, "json": nil,
	} {
		if got, ok := codec.ByContentType(header); got != want || ok != (want != nil) {
			t.Errorf("ByContentType(%q) = %v, %v; want %v", header, got, ok, want)
		}
	}
	if !codec.Accepts("application/recordio", codec.TypeRecordIO) || codec.Accepts("application/json", codec.TypeRecordIO) {
		t.Error("Accepts() is wrong about recordio")
	}
}
