package api

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	operator "starling/master/mesos/operator/master"
)

// Every call that the definition knows has a row, and every sub-message of a call is asked for by one row.
func TestTableOfCalls(t *testing.T) {
	asked := make(map[protoreflect.Name]bool)
	for n, name := range operator.Call_Type_name {
		row, ok := operatorCalls[operator.Call_Type(n)]
		if !ok {
			t.Errorf("%s has no row", name)
		}
		if row.needs == "" {
			continue
		}
		asked[row.needs] = true
		if string(row.needs) != strings.ToLower(name) {
			t.Errorf("%s needs %q", name, row.needs)
		}
		call := &operator.Call{Type: operator.Call_Type(n).Enum()}
		want := "Failed to validate master::Call: Expecting '" + string(row.needs) + "' to be present"
		if err := validateOperator(call); err == nil || err.Error() != want {
			t.Errorf("%s without it: got %v, want %q", name, err, want)
		}
		m := call.ProtoReflect()
		m.Mutable(m.Descriptor().Fields().ByName(row.needs))
		if err := validateOperator(call); row.of == "" && err != nil {
			t.Errorf("%s with it: got %v", name, err)
		} else if row.of != "" && (err == nil || !strings.HasPrefix(err.Error(), "Failed to validate master::Call: Expecting 'agent_id' to be present")) {
			t.Errorf("%s without %s: got %v", name, row.of, err)
		}
	}
	fields := new(operator.Call).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if name := fields.Get(i).Name(); name != "type" && !asked[name] {
			t.Errorf("no row asks for %q", name)
		}
	}
}

func TestCallsOfNoKind(t *testing.T) {
	const want = "Failed to validate master::Call: Expecting 'type' to be present"
	for _, call := range []*operator.Call{{}, {Type: operator.Call_Type(99).Enum()}} {
		if err := validateOperator(call); err == nil || err.Error() != want {
			t.Errorf("%v: got %v, want %q", call, err, want)
		}
	}
}
