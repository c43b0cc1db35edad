package inventory

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/codec"
	"starling/master/mesos/resources"
)

// Policies for what an agent was told anew since it ran last.
const (
	// Equal allows no change, Additive more resources, more attributes and a domain where there was none: as with Mesos.
	Equal    = "equal"
	Additive = "additive"
	// Any allows every change: tasks keep what they hold, and what they hold beyond what there is now is told and not offered.
	Any = "any"
)

// CheckPolicy returns what is wrong with a policy.
func CheckPolicy(policy string) error {
	if !slices.Contains([]string{Equal, Additive, Any}, policy) {
		return fmt.Errorf("unknown policy %q: it is one of %s, %s and %s", policy, Equal, Additive, Any)
	}
	return nil
}

// Reconfigure compares what an agent is with what it was when it ran last, and returns the changes, one sentence each. The
// error is for changes that the policy does not allow, and says what can be done.
func Reconfigure(policy string, before, now *mesos.AgentInfo) (changes []string, err error) {
	if err := CheckPolicy(policy); err != nil {
		return nil, fmt.Errorf("--reconfiguration_policy: %w", err)
	}
	var refused []string
	// note takes a change; added tells that nothing that was there is gone.
	note := func(added bool, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		changes = append(changes, text)
		if policy == Equal || policy == Additive && !added {
			refused = append(refused, text)
		}
	}
	if before.GetHostname() != now.GetHostname() {
		note(false, "hostname %q is now %q", before.GetHostname(), now.GetHostname())
	}
	if before.GetPort() != now.GetPort() {
		note(false, "port %d is now %d", before.GetPort(), now.GetPort())
	}
	if !proto.Equal(before.GetDomain(), now.GetDomain()) {
		note(before.GetDomain() == nil, "domain %s is now %s", place(before), place(now))
	}
	compareResources(before, now, note)
	compareAttributes(before, now, note)
	if len(refused) > 0 {
		err = fmt.Errorf("--reconfiguration_policy=%s does not allow what has changed since this agent ran last: %s; "+
			"put it back, or start with --reconfiguration_policy=%s: running tasks go on and keep what they hold", policy, strings.Join(refused, "; "), Any)
	}
	return changes, err
}

func place(info *mesos.AgentInfo) string {
	d := info.GetDomain().GetFaultDomain()
	if d == nil {
		return "none"
	}
	return fmt.Sprintf("%q/%q", d.GetRegion().GetName(), d.GetZone().GetName())
}

func compareResources(before, now *mesos.AgentInfo, note func(bool, string, ...any)) {
	was, err := resources.FromProto(before.GetResources())
	is, err2 := resources.FromProto(now.GetResources())
	if err = errors.Join(err, err2); err != nil {
		note(false, "resources cannot be compared: %v", err)
		return
	}
	names := slices.Concat(was.Names(), is.Names())
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		named := func(r *mesos.Resource) bool { return r.GetName() == name }
		old, current := was.Filter(named), is.Filter(named)
		switch {
		case old.Equal(current):
		case old.Empty():
			note(true, "resource %s is new", current)
		case current.Empty():
			note(false, "resource %s is gone", old)
		default:
			note(current.Contains(old), "resource %s is now %s", old, current)
		}
	}
}

func compareAttributes(before, now *mesos.AgentInfo, note func(bool, string, ...any)) {
	has := func(info *mesos.AgentInfo, a *mesos.Attribute) bool {
		return slices.ContainsFunc(info.GetAttributes(), func(b *mesos.Attribute) bool { return proto.Equal(a, b) })
	}
	for _, a := range before.GetAttributes() {
		if !has(now, a) {
			note(false, "attribute %s is gone", attribute(a))
		}
	}
	for _, a := range now.GetAttributes() {
		if !has(before, a) {
			note(true, "attribute %s is new", attribute(a))
		}
	}
}

// attribute writes an attribute as an operator does.
func attribute(a *mesos.Attribute) string {
	switch a.GetType() {
	case mesos.Value_SCALAR:
		return fmt.Sprintf("%s:%g", a.GetName(), a.GetScalar().GetValue())
	case mesos.Value_RANGES:
		var parts []string
		for _, r := range a.GetRanges().GetRange() {
			parts = append(parts, fmt.Sprintf("%d-%d", r.GetBegin(), r.GetEnd()))
		}
		return fmt.Sprintf("%s:[%s]", a.GetName(), strings.Join(parts, ","))
	case mesos.Value_SET:
		return fmt.Sprintf("%s:{%s}", a.GetName(), strings.Join(a.GetSet().GetItem(), ","))
	}
	return fmt.Sprintf("%s:%s", a.GetName(), a.GetText().GetValue())
}

// ReadInfo reads what an agent was when it ran last, from a file that the bytes of WriteInfo went into. It is nil where there
// is none, and where it does not read: that it changed is then not to be known.
func ReadInfo(path string) (*mesos.AgentInfo, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	info := &mesos.AgentInfo{}
	if err == nil {
		err = codec.JSON.Unmarshal(data, info)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read what this agent was when it ran last: %w", err)
	}
	return info, nil
}

// WriteInfo makes the bytes of that file.
func WriteInfo(info *mesos.AgentInfo) ([]byte, error) {
	data, err := codec.JSON.Marshal(info)
	if err != nil {
		return nil, fmt.Errorf("cannot write what this agent is: %w", err)
	}
	return append(data, '\n'), nil
}
