package validation

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

func parseText(t testing.TB, text string) resources.Resources {
	t.Helper()
	if text == "" {
		return resources.Resources{}
	}
	rs, err := resources.Parse(text, "*")
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

// allocated is resources as the master completes them.
func allocated(t testing.TB, text string) []*mesos.Resource {
	return parseText(t, text).AllocatedTo("web").Proto()
}

// expect compares an error with the text that is wanted, or a part of it; empty stands for none.
func expect(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("want no error, got %q", err)
	case want != "" && err == nil:
		t.Errorf("want %q, got no error", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("want %q, got %q", want, err)
	}
}

func frameworkID(id string) *mesos.FrameworkID { return &mesos.FrameworkID{Value: &id} }

func capable(kinds ...mesos.FrameworkInfo_Capability_Type) []*mesos.FrameworkInfo_Capability {
	var out []*mesos.FrameworkInfo_Capability
	for _, kind := range kinds {
		out = append(out, &mesos.FrameworkInfo_Capability{Type: kind.Enum()})
	}
	return out
}

func webFramework() *mesos.FrameworkInfo {
	return &mesos.FrameworkInfo{
		User: proto.String("svc"), Name: proto.String("demo"), Id: frameworkID("m-0000"), Roles: []string{"web", "batch"},
		Capabilities: capable(mesos.FrameworkInfo_Capability_MULTI_ROLE),
	}
}

func nanos(n int64) *mesos.DurationInfo { return &mesos.DurationInfo{Nanoseconds: &n} }
