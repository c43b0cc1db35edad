package constraint

import (
	"regexp"
	"testing"

	"starling/marathon/app"
)

// TestEveryOperatorOnEveryField has each operator accept and refuse a place by each kind of field: names, regions and zones, and
// attributes that are texts, numbers, ranges and sets in the form in which they are compared.
func TestEveryOperatorOnEveryField(t *testing.T) {
	for _, field := range []struct{ name, here, there string }{
		{"hostname", "edge-1.example.org", "edge-2.example.org"},
		{"@hostname", "edge-1.example.org", "edge-2.example.org"},
		{"@region", "eu-north", "eu-south"},
		{"@zone", "eu-north-1", "eu-north-2"},
		{"rack", "r1", "r11"},
		{"cores", "2.5", "2.501"},
		{"slots", "[1-5,7-9]", "[1-5,7-19]"},
		{"disks", "{hdd,ssd}", "{hdd}"},
	} {
		place := func(value string) Place {
			switch field.name {
			case "hostname", "@hostname":
				return Place{Hostname: value}
			case "@region":
				return Place{Hostname: "h", Region: value}
			case "@zone":
				return Place{Hostname: "h", Zone: value}
			}
			return Place{Hostname: "h", Attributes: map[string]string{field.name: value}}
		}
		here, there := place(field.here), place(field.there)
		exactly := regexp.QuoteMeta(field.here)
		for _, tc := range []struct {
			operator app.Operator
			value    string
			counted  []Place
			passes   bool
		}{
			{app.Unique, "", nil, true},
			{app.Unique, "", []Place{there}, true},
			{app.Unique, "", []Place{there, here}, false},
			{app.Cluster, "", nil, true},
			{app.Cluster, "", []Place{here}, true},
			{app.Cluster, "", []Place{there}, false},
			{app.Cluster, field.here, []Place{there}, true},
			{app.Cluster, field.there, nil, false},
			{app.GroupBy, "", []Place{there}, true},
			{app.GroupBy, "", []Place{here, here, there}, false},
			{app.GroupBy, "2", []Place{here, there}, true},
			{app.GroupBy, "3", []Place{here, here, there}, false},
			{app.MaxPer, "1", []Place{there, there}, true},
			{app.MaxPer, "2", []Place{here}, true},
			{app.MaxPer, "2", []Place{here, here}, false},
			{app.MaxPer, "0", nil, false},
			{app.Like, exactly, nil, true},
			{app.Like, ".*", nil, true},
			{app.Like, "x|" + exactly, nil, true},
			{app.Like, regexp.QuoteMeta(field.here[:1]), nil, false},
			{app.Like, regexp.QuoteMeta(field.there), nil, false},
			{app.Unlike, exactly, nil, false},
			{app.Unlike, ".*", nil, false},
			{app.Unlike, regexp.QuoteMeta(field.here[:1]), nil, true},
			{app.Unlike, regexp.QuoteMeta(field.there), nil, true},
			{app.Is, field.here, nil, true},
			{app.Is, field.there, nil, false},
			{app.Is, "", nil, false},
		} {
			c := app.Constraint{Field: field.name, Operator: tc.operator, Value: tc.value, HasValue: tc.value != "" || tc.operator == app.Is}
			rules, err := Compile([]app.Constraint{c})
			if err != nil {
				t.Fatal(err)
			}
			if misses := rules.Check(here, tc.counted, 4); (len(misses) == 0) != tc.passes {
				t.Errorf("%s at %q with %d counted: %v, want passes %t", c, field.here, len(tc.counted), misses, tc.passes)
			}
			// Where there is no such field, nothing holds but that it is not something.
			if field.name == "hostname" || field.name == "@hostname" {
				continue
			}
			if misses := rules.Check(Place{Hostname: "h"}, nil, 4); (len(misses) == 0) != (tc.operator == app.Unlike) {
				t.Errorf("%s where there is no such field: %v", c, misses)
			}
		}
	}
}
