package app

import "strings"

// Schema returns the JSON Schema (draft 4) of what clients send as "app", "pod" or "group": types, limits and defaults, for
// editors and checks ahead of time. A null counts as a field that is absent, which the schema leaves unsaid, as it does the
// rules beyond one field. It reports false for other names. The value is the caller's, ready to be encoded.
func Schema(name string) (map[string]any, bool) {
	shapes := map[string]*shape{"app": appShape, "pod": podShape, "group": groupShape}
	s := shapes[name]
	if s == nil {
		return nil, false
	}
	out := s.schema("#", make(map[*shape]string))
	out["$schema"] = "http://json-schema.org/draft-04/schema#"
	return out, true
}

// schema describes what fits. at is where the description stands, above are the shapes that it stands in: a group holds
// groups, and refers to itself.
func (s *shape) schema(at string, above map[*shape]string) map[string]any {
	if ref, ok := above[s]; ok {
		return map[string]any{"$ref": ref}
	}
	above[s] = at
	defer delete(above, s)
	out := make(map[string]any)
	if s.kind != "" {
		out["type"] = s.kind
	}
	var either []any
	for _, one := range s.either {
		either = append(either, one.schema(at, above)) // no shape of which one of two fits holds itself
	}
	if either != nil {
		out["anyOf"] = either
	}
	if s.fields != nil {
		properties := make(map[string]any, len(s.fields))
		for name, field := range s.fields {
			property := field.schema(at+"/properties/"+strings.ReplaceAll(name, "/", "~1"), above)
			if field.def != nil {
				property["default"] = field.def
			}
			properties[name] = property
		}
		out["properties"] = properties
	}
	if s.closed {
		out["additionalProperties"] = false
	}
	if len(s.required) > 0 {
		out["required"] = s.required
	}
	s.limits(out)
	switch {
	case s.elem == nil:
	case s.kind == "array":
		out["items"] = s.elem.schema(at+"/items", above)
	default:
		out["additionalProperties"] = s.elem.schema(at+"/additionalProperties", above)
	}
	return out
}

func (s *shape) limits(out map[string]any) {
	if s.min != nil {
		out["minimum"] = *s.min
	}
	if s.max != nil {
		out["maximum"] = *s.max
	}
	least, most := "minLength", "maxLength"
	if s.kind == "array" {
		least, most = "minItems", "maxItems"
	}
	if s.minLength > 0 {
		out[least] = s.minLength
	}
	if s.maxLength > 0 {
		out[most] = s.maxLength
	}
	if s.pattern != nil {
		out["pattern"] = s.pattern.String()
	}
	if s.enum != nil {
		out["enum"] = s.enum
	}
	if s.format != "" {
		out["format"] = s.format
	}
}
