package constraint

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/marathon/app"
	"starling/master/mesos"
)

func host(name string) Place { return Place{Hostname: name} }

func rack(name string) Place {
	return Place{Hostname: "h-" + name, Attributes: map[string]string{"rack": name}}
}

func racks(names ...string) []Place {
	places := make([]Place, len(names))
	for i, name := range names {
		places[i] = rack(name)
	}
	return places
}

// parse reads "field:OP" or "field:OP:value".
func parse(t *testing.T, s string) app.Constraint {
	t.Helper()
	fields := strings.SplitN(s, ":", 3)
	c := app.Constraint{Field: fields[0], Operator: app.Operator(fields[1])}
	if len(fields) == 3 {
		c.Value, c.HasValue = fields[2], true
	}
	return c
}

func TestOperators(t *testing.T) {
	zoned := Place{Hostname: "a", Region: "eu", Zone: "eu-1", Attributes: map[string]string{"cores": "2.5", "empty": ""}}
	tests := []struct {
		name       string
		constraint string
		at         Place
		counted    []Place
		desired    int
		why        string // "" passes
	}{
		{"unique on a free host", "hostname:UNIQUE", host("a"), []Place{host("b")}, 3, ""},
		{"unique on a used host", "hostname:UNIQUE", host("a"), []Place{host("a")}, 3, `hostname "a" already has an instance`},
		{"@hostname is the same field", "@hostname:UNIQUE", host("a"), []Place{host("a")}, 3, `@hostname "a" already has an instance`},
		{"unique on an attribute that lacks", "rack:UNIQUE", host("a"), nil, 3, "a has no rack"},

		{"cluster with the value", "rack:CLUSTER:r1", rack("r1"), racks("r1"), 3, ""},
		{"cluster with another value", "rack:CLUSTER:r1", rack("r2"), nil, 3, `rack is "r2", not "r1"`},
		{"cluster without value takes the first it meets", "rack:CLUSTER", rack("r2"), nil, 3, ""},
		{"cluster without value stays there", "rack:CLUSTER", rack("r2"), racks("r2"), 3, ""},
		{"cluster without value goes nowhere else", "rack:CLUSTER", rack("r3"), racks("r2"), 3, `rack is "r3", and the instances that run are on "r2"`},
		{"cluster on an attribute that lacks", "rack:CLUSTER", host("a"), nil, 3, "a has no rack"},

		{"like matches the whole value", "rack:LIKE:r[12]", rack("r1"), nil, 1, ""},
		{"like does not match a part", "rack:LIKE:r", rack("r1"), nil, 1, `rack "r1" does not match "r"`},
		{"like with alternatives matches the whole value", "rack:LIKE:r1|x", rack("r1y"), nil, 1, `rack "r1y" does not match "r1|x"`},
		{"like on an attribute that lacks", "rack:LIKE:.*", host("a"), nil, 1, "a has no rack"},
		{"unlike refuses a match", "rack:UNLIKE:r1", rack("r1"), nil, 1, `rack "r1" matches "r1"`},
		{"unlike passes others", "rack:UNLIKE:r1", rack("r2"), nil, 1, ""},
		{"unlike passes what has no such field", "rack:UNLIKE:r1", host("a"), nil, 1, ""},

		{"max per below the maximum", "rack:MAX_PER:2", rack("r1"), racks("r1", "r2", "r2"), 9, ""},
		{"max per at the maximum", "rack:MAX_PER:2", rack("r2"), racks("r1", "r2", "r2"), 9, `rack "r2" already has 2 of at most 2 instances`},

		{"is compares texts", "@zone:IS:eu-1", zoned, nil, 1, ""},
		{"is refuses another text", "@region:IS:us", zoned, nil, 1, `@region is "eu", not "us"`},
		{"is compares numbers to three decimals", "cores:IS:2.5000", zoned, nil, 1, ""},
		{"is refuses another number", "cores:IS:2.501", zoned, nil, 1, `cores is "2.5", not "2.501"`},
		{"is without value matches an empty text", "empty:IS:", zoned, nil, 1, ""},
		{"is on a zone that lacks", "@zone:IS:eu-1", host("a"), nil, 1, "a has no @zone"},
		{"is takes nan for a text", "rack:IS:nan", rack("nan"), nil, 1, ""},

		{"group by takes a new value", "rack:GROUP_BY", rack("r3"), racks("r1", "r2"), 9, ""},
		{"group by takes the emptiest", "rack:GROUP_BY", rack("r1"), racks("r1", "r2", "r2"), 9, ""},
		{
			"group by leaves the fuller alone", "rack:GROUP_BY", rack("r2"), racks("r1", "r2", "r2"), 9,
			`rack "r2" already has 2 instances, another value has only 1`,
		},
		{"group by when all are even", "rack:GROUP_BY", rack("r2"), racks("r1", "r2"), 9, ""},
		{
			"group by with a number waits for the values", "rack:GROUP_BY:3", rack("r1"), racks("r1", "r2"), 3,
			`rack "r1" already has 1 instances, and only 2 of 3 values have been offered`,
		},
		{"group by with a number lets a value fill its share", "rack:GROUP_BY:3", rack("r1"), racks("r1", "r2"), 9, ""},
		{
			"group by with a number fills no more than the share", "rack:GROUP_BY:3", rack("r1"), racks("r1", "r1", "r1"), 9,
			`rack "r1" already has 3 instances, and only 1 of 3 values have been offered`,
		},
		{"group by gives the rest away once", "rack:GROUP_BY:2", rack("r1"), racks("r1"), 3, ""},
		{"group by does not give the rest away twice", "rack:GROUP_BY:2", rack("r2"), racks("r1", "r1", "r2"), 3, ""},
		{"group by with more values than its number uses them", "rack:GROUP_BY:2", rack("r5"), racks("r1", "r2", "r3"), 9, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rules, err := Compile([]app.Constraint{parse(t, tt.constraint)})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, miss := range rules.Check(tt.at, tt.counted, tt.desired) {
				got += miss.Why
			}
			if got != tt.why {
				t.Errorf("Check says %q, want %q", got, tt.why)
			}
		})
	}
}

func TestCheckListsEveryMiss(t *testing.T) {
	rules, err := Compile([]app.Constraint{parse(t, "hostname:UNIQUE"), parse(t, "rack:LIKE:x"), parse(t, "hostname:LIKE:h-r1")})
	if err != nil {
		t.Fatal(err)
	}
	misses := rules.Check(rack("r1"), racks("r1"), 2)
	var got []string
	for _, miss := range misses {
		got = append(got, miss.String())
	}
	want := []string{
		`hostname:UNIQUE: hostname "h-r1" already has an instance`,
		`rack:LIKE:x: rack "r1" does not match "x"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCompileRefusesWhatWasNotValidated(t *testing.T) {
	for _, text := range []string{"rack:LIKE:(", "rack:MAX_PER:x", "rack:GROUP_BY:x", "rack:NEAR"} {
		if _, err := Compile([]app.Constraint{parse(t, text)}); err == nil {
			t.Errorf("Compile(%s) gave no error", text)
		}
	}
}

func TestNoRulesAllowEverything(t *testing.T) {
	var rules *Rules
	if misses := rules.Check(host("a"), nil, 1); misses != nil {
		t.Errorf("got %v, want none", misses)
	}
}

func TestCheckRegion(t *testing.T) {
	there := Place{Hostname: "a", Region: "us", Zone: "us-1"}
	tests := []struct {
		name        string
		constraints []app.Constraint
		at          Place
		home        string
		allowed     bool
	}{
		{"same region", nil, there, "us", true},
		{"other region", nil, there, "eu", false},
		{"other region, named", []app.Constraint{parse(t, "@region:IS:us")}, there, "eu", true},
		{"other region, zone named", []app.Constraint{parse(t, "@zone:GROUP_BY")}, there, "eu", true},
		{"other region, other field named", []app.Constraint{parse(t, "hostname:UNIQUE")}, there, "eu", false},
		{"agent without region", nil, host("a"), "eu", true},
		{"master without region", nil, there, "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if why := CheckRegion(tt.constraints, tt.at, tt.home); (why == "") != tt.allowed {
				t.Errorf("got %q, want allowed %v", why, tt.allowed)
			}
		})
	}
}

func TestPlaceOf(t *testing.T) {
	domain := &mesos.DomainInfo{FaultDomain: &mesos.DomainInfo_FaultDomain{
		Region: &mesos.DomainInfo_FaultDomain_RegionInfo{Name: proto.String("eu")},
		Zone:   &mesos.DomainInfo_FaultDomain_ZoneInfo{Name: proto.String("eu-1")},
	}}
	span := func(begin, end uint64) *mesos.Value_Range {
		return &mesos.Value_Range{Begin: proto.Uint64(begin), End: proto.Uint64(end)}
	}
	attributes := []*mesos.Attribute{
		{Name: proto.String("text"), Type: mesos.Value_TEXT.Enum(), Text: &mesos.Value_Text{Value: proto.String("r1")}},
		{Name: proto.String("whole"), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(40)}},
		{Name: proto.String("part"), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(2.50049)}},
		{Name: proto.String("ranges"), Type: mesos.Value_RANGES.Enum(), Ranges: &mesos.Value_Ranges{Range: []*mesos.Value_Range{span(7, 9), span(1, 5)}}},
		{Name: proto.String("set"), Type: mesos.Value_SET.Enum(), Set: &mesos.Value_Set{Item: []string{"b", "a"}}},
	}
	place := PlaceOf("edge-1", domain, attributes)
	for field, want := range map[string]string{
		"hostname": "edge-1", "@hostname": "edge-1", "@region": "eu", "@zone": "eu-1",
		"text": "r1", "whole": "40", "part": "2.5", "ranges": "[1-5,7-9]", "set": "{a,b}",
	} {
		if got, ok := place.Value(field); !ok || got != want {
			t.Errorf("Value(%q) = %q, %v, want %q", field, got, ok, want)
		}
	}
	if _, ok := place.Value("other"); ok {
		t.Error("a field that the agent lacks has a value")
	}
}

func TestVictims(t *testing.T) {
	tests := []struct {
		name        string
		constraints []app.Constraint
		places      []Place
		n           int
		want        []int
	}{
		{"without constraints the first", nil, racks("r1", "r1", "r2"), 2, []int{0, 1}},
		{"other constraints do not matter", []app.Constraint{parse(t, "rack:MAX_PER:2")}, racks("r1", "r2", "r2"), 1, []int{0}},
		{"the fullest first", []app.Constraint{parse(t, "rack:GROUP_BY")}, racks("r1", "r2", "r2", "r2"), 2, []int{1, 2}},
		{"then by order", []app.Constraint{parse(t, "rack:GROUP_BY")}, racks("r1", "r2", "r2"), 3, []int{1, 0, 2}},
		{"no more than there are", nil, racks("r1"), 5, []int{0}},
		{"none", nil, racks("r1"), 0, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rules, err := Compile(tt.constraints)
			if err != nil {
				t.Fatal(err)
			}
			if got := rules.Victims(tt.places, tt.n); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
