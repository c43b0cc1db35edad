package allocator

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"

	"starling/master/mesos"
	"starling/master/mesos/scheduler"
)

// maxProgram is the most instructions that the regular expression of a constraint may compile to, as in Mesos.
const maxProgram = 100

// constraint tells whether it holds for an agent.
type constraint func(*AgentSpec) bool

// CompileConstraints turns a framework's offer constraints (mesos-scheduler-api.md section 5) into what FrameworkSpec.Admits
// wants; nil, which admits everything, for none. The roles must be among those given.
func CompileConstraints(c *scheduler.OfferConstraints, roles []Role) (func(Role, *AgentSpec) bool, error) {
	if len(c.GetRoleConstraints()) == 0 {
		return nil, nil
	}
	// By role: any group must hold, of which all constraints must.
	compiled := make(map[Role][][]constraint)
	for _, role := range slices.Sorted(maps.Keys(c.GetRoleConstraints())) {
		rc := c.GetRoleConstraints()[role]
		if !slices.Contains(roles, role) {
			return nil, fmt.Errorf("Offer constraints specify `role_constraints` for a role '%s' not contained in the set of roles", role)
		}
		if len(rc.GetGroups()) == 0 {
			return nil, fmt.Errorf("Offer constraints for role '%s' are invalid: 'groups' must not be empty", role)
		}
		for _, g := range rc.GetGroups() {
			if len(g.GetAttributeConstraints()) == 0 {
				return nil, fmt.Errorf("Offer constraints for role '%s' are invalid: 'attribute_constraints' must not be empty", role)
			}
			var group []constraint
			for _, ac := range g.GetAttributeConstraints() {
				one, err := compile(ac)
				if err != nil {
					return nil, fmt.Errorf("Offer constraints for role '%s' are invalid: %w", role, err)
				}
				group = append(group, one)
			}
			compiled[role] = append(compiled[role], group)
		}
	}
	return func(role Role, agent *AgentSpec) bool {
		groups, constrained := compiled[role]
		return !constrained || slices.ContainsFunc(groups, func(group []constraint) bool {
			return !slices.ContainsFunc(group, func(holds constraint) bool { return !holds(agent) })
		})
	}, nil
}

// selected is what a selector found on an agent: nothing, a text, or an attribute that is none.
type selected struct {
	there, isText bool
	text          string
}

func compile(c *scheduler.AttributeConstraint) (constraint, error) {
	pick, err := selector(c.GetSelector())
	if err != nil {
		return nil, err
	}
	holds, err := predicate(c.GetPredicate())
	if err != nil {
		return nil, err
	}
	return func(agent *AgentSpec) bool { return holds(pick(agent)) }, nil
}

func selector(s *scheduler.AttributeConstraint_Selector) (func(*AgentSpec) selected, error) {
	known := func(text string) selected { return selected{there: text != "", isText: true, text: text} }
	switch s := s.GetSelector().(type) {
	case *scheduler.AttributeConstraint_Selector_AttributeName:
		return func(agent *AgentSpec) selected {
			for _, a := range agent.Attributes {
				if a.GetName() == s.AttributeName {
					return selected{there: true, isText: a.GetType() == mesos.Value_TEXT, text: a.GetText().GetValue()}
				}
			}
			return selected{}
		}, nil
	case *scheduler.AttributeConstraint_Selector_PseudoattributeType_:
		switch s.PseudoattributeType {
		case scheduler.AttributeConstraint_Selector_HOSTNAME:
			return func(agent *AgentSpec) selected { return known(agent.Hostname) }, nil
		case scheduler.AttributeConstraint_Selector_REGION:
			return func(agent *AgentSpec) selected { return known(agent.Region) }, nil
		case scheduler.AttributeConstraint_Selector_ZONE:
			return func(agent *AgentSpec) selected { return known(agent.Zone) }, nil
		}
		return nil, errors.New("the pseudoattribute of a selector is unknown")
	}
	return nil, errors.New("a selector names neither an attribute nor a pseudoattribute")
}

// predicate compiles a predicate. An attribute that is not a text passes all those on texts; one that is missing passes the
// negative ones.
func predicate(p *scheduler.AttributeConstraint_Predicate) (func(selected) bool, error) {
	positive := func(match func(string) bool) func(selected) bool {
		return func(s selected) bool { return s.there && (!s.isText || match(s.text)) }
	}
	negative := func(match func(string) bool) func(selected) bool {
		return func(s selected) bool { return !s.there || !s.isText || !match(s.text) }
	}
	equals := func(value string) func(string) bool { return func(text string) bool { return text == value } }
	switch p := p.GetPredicate().(type) {
	case *scheduler.AttributeConstraint_Predicate_Exists_:
		return func(s selected) bool { return s.there }, nil
	case *scheduler.AttributeConstraint_Predicate_NotExists_:
		return func(s selected) bool { return !s.there }, nil
	case *scheduler.AttributeConstraint_Predicate_TextEquals_:
		return positive(equals(p.TextEquals.GetValue())), nil
	case *scheduler.AttributeConstraint_Predicate_TextNotEquals_:
		return negative(equals(p.TextNotEquals.GetValue())), nil
	case *scheduler.AttributeConstraint_Predicate_TextMatches_:
		match, err := expression(p.TextMatches.GetRegex())
		return positive(match), err
	case *scheduler.AttributeConstraint_Predicate_TextNotMatches_:
		match, err := expression(p.TextNotMatches.GetRegex())
		return negative(match), err
	}
	return nil, errors.New("a predicate is missing")
}

// expression compiles a regular expression that has to match a whole text.
func expression(s string) (func(string) bool, error) {
	whole := `\A(?:` + s + `)\z`
	// By itself first: otherwise a stray bracket could close the group above.
	parsed, err := syntax.Parse(s, syntax.Perl)
	if err == nil {
		var prog *syntax.Prog
		if prog, err = syntax.Compile(parsed.Simplify()); err == nil && len(prog.Inst) > maxProgram {
			err = fmt.Errorf("it is too complex: %d instructions, %d are allowed", len(prog.Inst), maxProgram)
		}
	}
	var re *regexp.Regexp
	if err == nil {
		re, err = regexp.Compile(whole)
	}
	if err != nil {
		return nil, fmt.Errorf("the regular expression '%s' is invalid: %w", s, err)
	}
	return re.MatchString, nil
}
