package codec

import (
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// checkRequired fails with a *RequiredError when m, or a message in it, lacks a required field.
func checkRequired(m proto.Message) error {
	if proto.CheckInitialized(m) == nil {
		return nil
	}
	return missingFields(m)
}

// missingFields finds what checkRequired only suspects; nil when nothing is missing.
func missingFields(m proto.Message) error {
	if fields := appendMissing(nil, "", m.ProtoReflect()); len(fields) > 0 {
		return &RequiredError{Fields: fields}
	}
	return nil
}

func appendMissing(to []string, prefix string, m protoreflect.Message) []string {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if fd := fields.Get(i); fd.Cardinality() == protoreflect.Required && !m.Has(fd) {
			to = append(to, prefix+string(fd.Name()))
		}
	}
	for i := range fields.Len() {
		fd := fields.Get(i)
		if !m.Has(fd) {
			continue
		}
		name := prefix + string(fd.Name())
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() == nil {
				continue
			}
			m.Get(fd).Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				to = appendMissing(to, name+"["+k.String()+"].", v.Message())
				return true
			})
		case fd.Message() == nil:
		case fd.IsList():
			list := m.Get(fd).List()
			for i := range list.Len() {
				to = appendMissing(to, name+"["+strconv.Itoa(i)+"].", list.Get(i).Message())
			}
		default:
			to = appendMissing(to, name+".", m.Get(fd).Message())
		}
	}
	return to
}
