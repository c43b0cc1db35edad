package resources

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"starling/master/mesos"
	"starling/master/mesos/codec"
)

// kinds of the names with a fixed meaning. A node that offered ports as a scalar would never run anything, and nobody
// would see why, so the text that an operator writes is held to them.
var kinds = map[string]mesos.Value_Type{
	CPUs: mesos.Value_SCALAR, Mem: mesos.Value_SCALAR, Disk: mesos.Value_SCALAR, GPUs: mesos.Value_SCALAR,
	Ports: mesos.Value_RANGES,
}

// Parse reads resources as operators write them: as text, "cpus:4;mem:4096;ports:[31000-32000];disk(role):100", or as a
// JSON array of resources. Blanks don't count in the text, and a line feed does as a semicolon. What names no role is
// reserved for defaultRole ("" means "*": for nobody). The error lists all faults and is an *InvalidError.
func Parse(s, defaultRole string) (Resources, error) {
	if defaultRole == "" {
		defaultRole = AnyRole
	}
	var protos []*mesos.Resource
	var faults []string
	if strings.HasPrefix(strings.TrimSpace(s), "[") {
		protos, faults = parseJSON(s, defaultRole)
	} else {
		protos, faults = parseText(s, defaultRole)
	}
	for _, p := range protos {
		if kind, ok := kinds[p.GetName()]; ok && kind != p.GetType() {
			faults = append(faults, fmt.Sprintf("resource %q: must be of the type %s, not %s", p.GetName(), kind, p.GetType()))
		}
	}
	r, err := FromProto(protos)
	if err != nil {
		faults = append(faults, err.(*InvalidError).Faults...)
	}
	if len(faults) > 0 {
		return Resources{}, &InvalidError{Faults: faults}
	}
	return r, nil
}

func parseJSON(s, defaultRole string) (protos []*mesos.Resource, faults []string) {
	var elements []json.RawMessage
	if err := json.Unmarshal([]byte(s), &elements); err != nil {
		return nil, []string{fmt.Sprintf("resources are not a JSON array: %v", err)}
	}
	for i, e := range elements {
		p := &mesos.Resource{}
		if err := codec.JSON.Unmarshal(e, p); err != nil {
			faults = append(faults, fmt.Sprintf("resource %d: %v", i, err))
			continue
		}
		if p.Role == nil && len(p.Reservations) == 0 {
			p.Role = new(defaultRole)
		}
		protos = append(protos, p)
	}
	return protos, faults
}

func parseText(s, defaultRole string) (protos []*mesos.Resource, faults []string) {
	s = strings.Map(func(r rune) rune {
		switch r {
		case '\n':
			return ';'
		case ' ', '\t', '\r':
			return -1
		}
		return r
	}, s)
	for part := range strings.SplitSeq(s, ";") {
		if part == "" {
			continue
		}
		p, err := parseOne(part, defaultRole)
		if err != nil {
			faults = append(faults, fmt.Sprintf("resource %q: %v", part, err))
			continue
		}
		protos = append(protos, p)
	}
	return protos, faults
}

// parseOne reads "name:value" or "name(role):value".
func parseOne(s, defaultRole string) (*mesos.Resource, error) {
	name, text, ok := strings.Cut(s, ":")
	// A role may hold colons.
	if open := strings.IndexByte(s, '('); open >= 0 && open < len(name) {
		end := strings.Index(s, "):")
		if end < open {
			return nil, fmt.Errorf("expected name(role):value")
		}
		name, text = s[:end+1], s[end+2:]
	}
	if !ok {
		return nil, fmt.Errorf("expected name:value")
	}
	role := defaultRole
	if open := strings.IndexByte(name, '('); open >= 0 {
		name, role = name[:open], name[open+1:len(name)-1]
		if err := CheckRole(role); err != nil {
			return nil, err
		}
	}
	p := &mesos.Resource{Name: &name, Role: &role}
	v, err := ParseValue(text)
	if err != nil {
		return nil, err
	}
	if v.GetType() == mesos.Value_TEXT {
		return nil, fmt.Errorf("%q is neither a number, nor ranges like [1-5], nor a set like {a,b}", text)
	}
	p.Type, p.Scalar, p.Ranges, p.Set = v.Type, v.Scalar, v.Ranges, v.Set
	return p, nil
}

// ParseValue reads a value as in the text of resources and attributes: a number is a scalar, "[1-3,5-5]" ranges, "{a,b}"
// a set, anything else text. Blanks must have been removed.
func ParseValue(s string) (*mesos.Value, error) {
	switch {
	case s == "":
		return nil, fmt.Errorf("the value is empty")
	case s[0] == '[':
		return parseRanges(s)
	case s[0] == '{':
		inner, ok := strings.CutSuffix(s[1:], "}")
		if !ok {
			return nil, fmt.Errorf("the set %q does not end with '}'", s)
		}
		set := &mesos.Value_Set{}
		for one := range strings.SplitSeq(inner, ",") {
			if one != "" {
				set.Item = append(set.Item, one)
			}
		}
		return &mesos.Value{Type: mesos.Value_SET.Enum(), Set: set}, nil
	}
	if strings.Trim(s, "+-.0123456789eE") == "" {
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return &mesos.Value{Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: &f}}, nil
		}
	}
	return &mesos.Value{Type: mesos.Value_TEXT.Enum(), Text: &mesos.Value_Text{Value: &s}}, nil
}

func parseRanges(s string) (*mesos.Value, error) {
	inner, ok := strings.CutSuffix(s[1:], "]")
	if !ok {
		return nil, fmt.Errorf("the ranges %q do not end with ']'", s)
	}
	ranges := &mesos.Value_Ranges{}
	for one := range strings.SplitSeq(inner, ",") {
		if one == "" {
			continue
		}
		from, to, ok := strings.Cut(one, "-")
		begin, err1 := strconv.ParseUint(from, 10, 64)
		end, err2 := strconv.ParseUint(to, 10, 64)
		if !ok || err1 != nil || err2 != nil {
			return nil, fmt.Errorf("the range %q is not of the form 31000-32000", one)
		}
		ranges.Range = append(ranges.Range, &mesos.Value_Range{Begin: &begin, End: &end})
	}
	return &mesos.Value{Type: mesos.Value_RANGES.Enum(), Ranges: ranges}, nil
}
