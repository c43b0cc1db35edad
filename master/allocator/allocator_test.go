package allocator

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/scheduler"
)

func TestRefuseFor(t *testing.T) {
	seconds := func(s float64) *mesos.Filters { return &mesos.Filters{RefuseSeconds: &s} }
	for _, tt := range []struct {
		name string
		in   *mesos.Filters
		want time.Duration
	}{
		{"no filters", nil, 5 * time.Second},
		{"unset", &mesos.Filters{}, 5 * time.Second},
		{"none", seconds(0), 0},
		{"a part of a second", seconds(0.25), 250 * time.Millisecond},
		{"negative", seconds(-1), 5 * time.Second},
		{"no number", seconds(math.NaN()), 5 * time.Second},
		{"minus infinity", seconds(math.Inf(-1)), 5 * time.Second},
		{"too long", seconds(31536001), 365 * 24 * time.Hour},
		{"for ever", seconds(math.Inf(1)), 365 * 24 * time.Hour},
	} {
		if got := RefuseFor(tt.in); got != tt.want {
			t.Errorf("%s: want %v, got %v", tt.name, tt.want, got)
		}
	}
}

func TestParseMinAllocatable(t *testing.T) {
	for text, want := range map[string][]Quantities{
		"":                         nil,
		"cpus:0.01|mem:32":         {{"cpus": 10}, {"mem": 32000}},
		"cpus:1;mem:100 | gpus:1 ": {{"cpus": 1000, "mem": 100000}, {"gpus": 1000}},
	} {
		got, err := ParseMinAllocatable(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q (-want +got):\n%s", text, d)
		}
	}
	for _, text := range []string{"cpus", "cpus:x", "|", "ports:[1-2]", "cpus:1;ports:[1-2]", "cpus:0", "cpus:-1"} {
		if got, err := ParseMinAllocatable(text); err == nil {
			t.Errorf("%q: want an error, got %v", text, got)
		}
	}
}

func TestSpecOf(t *testing.T) {
	info := &mesos.FrameworkInfo{
		Roles: []string{"a", "b"},
		Capabilities: []*mesos.FrameworkInfo_Capability{
			{Type: mesos.FrameworkInfo_Capability_MULTI_ROLE.Enum()},
			{Type: mesos.FrameworkInfo_Capability_GPU_RESOURCES.Enum()},
			{Type: mesos.FrameworkInfo_Capability_REGION_AWARE.Enum()},
			{},
		},
		OfferFilters: map[string]*mesos.OfferFilters{
			"a": {MinAllocatableResources: &mesos.OfferFilters_MinAllocatableResources{
				Quantities: []*mesos.OfferFilters_ResourceQuantities{
					{Quantities: map[string]*mesos.Value_Scalar{"cpus": {Value: proto.Float64(2)}}},
				},
			}},
			"b": {},
		},
	}
	want := FrameworkSpec{
		Roles: []Role{"a", "b"}, Suppressed: []Role{"b"}, Capabilities: Capabilities{GPU: true, RegionAware: true},
		MinAllocatable: map[Role][]Quantities{"a": {{"cpus": 2000}}},
	}
	if d := cmp.Diff(want, SpecOf(info, []Role{"b"})); d != "" {
		t.Errorf("specification (-want +got):\n%s", d)
	}
	if got := SpecOf(&mesos.FrameworkInfo{}, nil).Roles; !cmp.Equal(got, []Role{"*"}) {
		t.Errorf("an old framework: want role *, got %v", got)
	}
}

func constraints(role Role, groups ...[]*scheduler.AttributeConstraint) *scheduler.OfferConstraints {
	rc := &scheduler.OfferConstraints_RoleConstraints{}
	for _, g := range groups {
		rc.Groups = append(rc.Groups, &scheduler.OfferConstraints_RoleConstraints_Group{AttributeConstraints: g})
	}
	return &scheduler.OfferConstraints{RoleConstraints: map[string]*scheduler.OfferConstraints_RoleConstraints{role: rc}}
}

func attribute(name string, p *scheduler.AttributeConstraint_Predicate) *scheduler.AttributeConstraint {
	return &scheduler.AttributeConstraint{
		Selector: &scheduler.AttributeConstraint_Selector{
			Selector: &scheduler.AttributeConstraint_Selector_AttributeName{AttributeName: name},
		},
		Predicate: p,
	}
}

func pseudo(kind scheduler.AttributeConstraint_Selector_PseudoattributeType, p *scheduler.AttributeConstraint_Predicate) *scheduler.AttributeConstraint {
	return &scheduler.AttributeConstraint{
		Selector: &scheduler.AttributeConstraint_Selector{
			Selector: &scheduler.AttributeConstraint_Selector_PseudoattributeType_{PseudoattributeType: kind},
		},
		Predicate: p,
	}
}

var (
	exists = &scheduler.AttributeConstraint_Predicate{
		Predicate: &scheduler.AttributeConstraint_Predicate_Exists_{Exists: &scheduler.AttributeConstraint_Predicate_Exists{}},
	}
	notExists = &scheduler.AttributeConstraint_Predicate{
		Predicate: &scheduler.AttributeConstraint_Predicate_NotExists_{NotExists: &scheduler.AttributeConstraint_Predicate_NotExists{}},
	}
)

func equals(s string) *scheduler.AttributeConstraint_Predicate {
	return &scheduler.AttributeConstraint_Predicate{Predicate: &scheduler.AttributeConstraint_Predicate_TextEquals_{
		TextEquals: &scheduler.AttributeConstraint_Predicate_TextEquals{Value: &s},
	}}
}

func notEquals(s string) *scheduler.AttributeConstraint_Predicate {
	return &scheduler.AttributeConstraint_Predicate{Predicate: &scheduler.AttributeConstraint_Predicate_TextNotEquals_{
		TextNotEquals: &scheduler.AttributeConstraint_Predicate_TextNotEquals{Value: &s},
	}}
}

func matches(s string) *scheduler.AttributeConstraint_Predicate {
	return &scheduler.AttributeConstraint_Predicate{Predicate: &scheduler.AttributeConstraint_Predicate_TextMatches_{
		TextMatches: &scheduler.AttributeConstraint_Predicate_TextMatches{Regex: &s},
	}}
}

func notMatches(s string) *scheduler.AttributeConstraint_Predicate {
	return &scheduler.AttributeConstraint_Predicate{Predicate: &scheduler.AttributeConstraint_Predicate_TextNotMatches_{
		TextNotMatches: &scheduler.AttributeConstraint_Predicate_TextNotMatches{Regex: &s},
	}}
}

func TestConstraints(t *testing.T) {
	agent := &AgentSpec{
		Hostname: "edge1", Region: "eu",
		Attributes: []*mesos.Attribute{
			{Name: proto.String("rack"), Type: mesos.Value_TEXT.Enum(), Text: &mesos.Value_Text{Value: proto.String("r12")}},
			{Name: proto.String("rack"), Type: mesos.Value_TEXT.Enum(), Text: &mesos.Value_Text{Value: proto.String("second")}},
			{Name: proto.String("level"), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(3)}},
		},
	}
	type group = []*scheduler.AttributeConstraint
	for _, tt := range []struct {
		name   string
		groups []group
		want   bool
	}{
		{"an attribute that is there", []group{{attribute("rack", exists)}}, true},
		{"one that is not", []group{{attribute("shelf", exists)}}, false},
		{"one that must not be", []group{{attribute("shelf", notExists)}}, true},
		{"the first of a name counts", []group{{attribute("rack", equals("second"))}}, false},
		{"equal", []group{{attribute("rack", equals("r12"))}}, true},
		{"not equal", []group{{attribute("rack", notEquals("r12"))}}, false},
		{"not equal to what is missing", []group{{attribute("shelf", notEquals("x"))}}, true},
		{"equal to what is missing", []group{{attribute("shelf", equals("x"))}}, false},
		{"a number passes all on texts", []group{{attribute("level", equals("x")), attribute("level", notEquals("x")), attribute("level", matches("x")), attribute("level", notMatches("x"))}}, true},
		{"a match of the whole", []group{{attribute("rack", matches("r[0-9]+"))}}, true},
		{"a match of a part", []group{{attribute("rack", matches("r1"))}}, false},
		{"alternatives match whole", []group{{attribute("rack", matches("r1|r12"))}}, true},
		{"no match", []group{{attribute("rack", notMatches("r1"))}}, true},
		{"all of a group", []group{{attribute("rack", exists), attribute("shelf", exists)}}, false},
		{"any of the groups", []group{{attribute("shelf", exists)}, {attribute("rack", exists)}}, true},
		{"the hostname", []group{{pseudo(scheduler.AttributeConstraint_Selector_HOSTNAME, equals("edge1"))}}, true},
		{"the region", []group{{pseudo(scheduler.AttributeConstraint_Selector_REGION, equals("us"))}}, false},
		{"a zone that is not set", []group{{pseudo(scheduler.AttributeConstraint_Selector_ZONE, exists)}}, false},
	} {
		admits, err := CompileConstraints(constraints("web", tt.groups...), []Role{"web", "other"})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := admits("web", agent); got != tt.want {
			t.Errorf("%s: want %v, got %v", tt.name, tt.want, got)
		}
		if !admits("other", agent) {
			t.Errorf("%s: a role without constraints is refused", tt.name)
		}
	}
	if admits, err := CompileConstraints(nil, nil); admits != nil || err != nil {
		t.Errorf("no constraints: want nothing, got an error %v", err)
	}
}

func TestBadConstraintsAreRefused(t *testing.T) {
	type group = []*scheduler.AttributeConstraint
	for _, tt := range []struct {
		name string
		in   *scheduler.OfferConstraints
		want string
	}{
		{"a role of somebody else", constraints("foreign", group{attribute("a", exists)}), "a role 'foreign' not contained in the set of roles"},
		{"no groups", constraints("web"), "'groups' must not be empty"},
		{"no constraints", constraints("web", nil), "'attribute_constraints' must not be empty"},
		{"no selector", constraints("web", group{{Predicate: exists}}), "a selector names neither"},
		{"an unknown pseudoattribute", constraints("web", group{pseudo(0, exists)}), "is unknown"},
		{"no predicate", constraints("web", group{attribute("a", nil)}), "a predicate is missing"},
		{"a bad expression", constraints("web", group{attribute("a", matches("("))}), "the regular expression '(' is invalid"},
		{"one that breaks out", constraints("web", group{attribute("a", notMatches(")|("))}), "is invalid"},
		{"one too complex", constraints("web", group{attribute("a", matches(strings.Repeat("x?", 200)))}), "too complex"},
		{"one that grows", constraints("web", group{attribute("a", matches("(((a{30}){30}){30}"))}), "is invalid"},
	} {
		_, err := CompileConstraints(tt.in, []Role{"web"})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: want %q, got %v", tt.name, tt.want, err)
		}
	}
}
