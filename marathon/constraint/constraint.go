// Package constraint decides whether an agent may take an instance of an app, and says in words why not.
//
// It is pure. A Rules is compiled once from the constraints of an app and then asked for each offer, with the place of
// the offer and the places of the instances that count: those launched with the app's present configuration that hold an
// agent. The meaning of each operator is that of Marathon.
package constraint

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"starling/marathon/app"
)

// Rules are the compiled constraints of one app. The zero value allows everything. It is safe for concurrent use.
type Rules struct {
	rules []rule
}

type rule struct {
	app.Constraint
	number  int            // of GROUP_BY and MAX_PER
	pattern *regexp.Regexp // of LIKE and UNLIKE
}

// Compile prepares constraints that passed validation. The error names the first that did not.
func Compile(constraints []app.Constraint) (*Rules, error) {
	rules := &Rules{rules: make([]rule, 0, len(constraints))}
	for _, c := range constraints {
		r := rule{Constraint: c}
		var err error
		switch c.Operator {
		case app.Like, app.Unlike:
			// The whole value has to match.
			r.pattern, err = regexp.Compile("^(?:" + c.Value + ")$")
		case app.MaxPer:
			r.number, err = strconv.Atoi(c.Value)
		case app.GroupBy:
			if c.HasValue {
				r.number, err = strconv.Atoi(c.Value)
			}
		case app.Unique, app.Cluster, app.Is:
		default:
			err = fmt.Errorf("unknown operator")
		}
		if err != nil {
			return nil, fmt.Errorf("invalid constraint %s: %w", c, err)
		}
		rules.rules = append(rules.rules, r)
	}
	return rules, nil
}

// Miss is a constraint that an offer does not meet.
type Miss struct {
	Constraint app.Constraint
	// Why is a sentence for the user, without the constraint itself.
	Why string
}

// String joins both.
func (m Miss) String() string { return m.Constraint.String() + ": " + m.Why }

// Check returns every constraint that keeps an instance away from the place; none means that it may run there. counted are
// the places of the instances that count, desired is how many the app wants.
func (r *Rules) Check(at Place, counted []Place, desired int) []Miss {
	if r == nil {
		return nil
	}
	var misses []Miss
	for i := range r.rules {
		if why := r.rules[i].check(at, counted, desired); why != "" {
			misses = append(misses, Miss{Constraint: r.rules[i].Constraint, Why: why})
		}
	}
	return misses
}

// check returns why the rule refuses, or nothing.
func (r *rule) check(at Place, counted []Place, desired int) string {
	value, ok := at.Value(r.Field)
	if !ok {
		if r.Operator == app.Unlike {
			return ""
		}
		return fmt.Sprintf("%s has no %s", at.name(), r.Field)
	}
	switch r.Operator {
	case app.Unique:
		if n := count(counted, r.Field, value); n > 0 {
			return fmt.Sprintf("%s %q already has an instance", r.Field, value)
		}
	case app.Cluster:
		return r.checkCluster(value, counted)
	case app.GroupBy:
		return r.checkGroupBy(value, counted, desired)
	case app.Like:
		if !r.pattern.MatchString(value) {
			return fmt.Sprintf("%s %q does not match %q", r.Field, value, r.Value)
		}
	case app.Unlike:
		if r.pattern.MatchString(value) {
			return fmt.Sprintf("%s %q matches %q", r.Field, value, r.Value)
		}
	case app.MaxPer:
		if n := count(counted, r.Field, value); n >= r.number {
			return fmt.Sprintf("%s %q already has %d of at most %d instances", r.Field, value, n, r.number)
		}
	case app.Is:
		if normalNumber(value) != normalNumber(r.Value) {
			return fmt.Sprintf("%s is %q, not %q", r.Field, value, r.Value)
		}
	}
	return ""
}

func (r *rule) checkCluster(value string, counted []Place) string {
	if r.HasValue {
		if value != r.Value {
			return fmt.Sprintf("%s is %q, not %q", r.Field, value, r.Value)
		}
		return ""
	}
	if len(counted) == 0 || count(counted, r.Field, value) > 0 {
		return ""
	}
	first, _ := counted[0].Value(r.Field)
	return fmt.Sprintf("%s is %q, and the instances that run are on %q", r.Field, value, first)
}

// checkGroupBy passes what either generation of Marathon passes. The older one spreads over the values that it has seen;
// the newer one, given the number of values, lets a value fill its share before the others show up.
func (r *rule) checkGroupBy(value string, counted []Place, desired int) string {
	counts := countByValue(counted, r.Field)
	here, seen := counts[value]
	smallest := here
	for _, n := range counts {
		smallest = min(smallest, n)
	}
	if !seen || len(counts) >= r.number && here == smallest {
		return ""
	}
	if r.number > 0 {
		base, rest := desired/r.number, desired%r.number
		used := 0
		for _, n := range counts {
			used += max(0, n-base)
		}
		if here < base || here == base && rest > used {
			return ""
		}
	}
	if len(counts) < r.number {
		return fmt.Sprintf("%s %q already has %d instances, and only %d of %d values have been offered", r.Field, value, here, len(counts), r.number)
	}
	return fmt.Sprintf("%s %q already has %d instances, another value has only %d", r.Field, value, here, smallest)
}

func count(places []Place, field, value string) int {
	n := 0
	for i := range places {
		if v, ok := places[i].Value(field); ok && v == value {
			n++
		}
	}
	return n
}

func countByValue(places []Place, field string) map[string]int {
	counts := make(map[string]int)
	for i := range places {
		if v, ok := places[i].Value(field); ok {
			counts[v]++
		}
	}
	return counts
}

// normalNumber brings numbers to three decimals, so that 1, 1.0 and 1.0001 are the same; other texts stay.
func normalNumber(s string) string {
	if s == "" || strings.ContainsAny(s, "xXpPiInN_") { // neither hexadecimal nor infinity nor NaN
		return s
	}
	if x, err := strconv.ParseFloat(s, 64); err == nil {
		return strconv.FormatFloat(x, 'f', 3, 64)
	}
	return s
}

// CheckRegion refuses an agent in another region than that of the master, unless the app says something about regions or
// zones. It returns why, or nothing.
func CheckRegion(constraints []app.Constraint, at Place, home string) string {
	if at.Region == "" || home == "" || at.Region == home {
		return ""
	}
	for _, c := range constraints {
		if c.Field == "@region" || c.Field == "@zone" {
			return ""
		}
	}
	return fmt.Sprintf("%s is in region %q, the master in %q, and no constraint on @region or @zone allows that", at.name(), at.Region, home)
}
