package codec

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxProtobufDepth bounds the nesting of binary messages, as the C++ and Java libraries do by default.
const maxProtobufDepth = 100

type protobufCodec struct{}

func (protobufCodec) ContentType() string { return TypeProtobuf }

func (c protobufCodec) Marshal(m proto.Message) ([]byte, error) { return c.Append(nil, m) }

func (protobufCodec) Append(dst []byte, m proto.Message) ([]byte, error) {
	out, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(dst, m)
	if err != nil {
		if missing := missingFields(m); missing != nil {
			return dst, missing
		}
		return dst, err
	}
	return out, nil
}

// Unmarshal follows proto2 where Go's protobuf does not: a number that an enum does not know leaves an optional field
// unset, and makes a required one missing.
func (protobufCodec) Unmarshal(data []byte, m proto.Message) error {
	opts := proto.UnmarshalOptions{AllowPartial: true, RecursionLimit: maxProtobufDepth}
	if err := opts.Unmarshal(data, m); err != nil {
		// The library varies the blank in its texts on purpose, so that nobody compares them.
		return &SyntaxError{Reason: strings.ReplaceAll(err.Error(), "\u00a0", " ")}
	}
	protobufPlans.of(m.ProtoReflect().Descriptor()).dropUnknownEnums(m.ProtoReflect())
	return checkRequired(m)
}

// protobufPlans tells where in a message enums can be.
var protobufPlans = &planCache{}

// dropUnknownEnums clears enum fields whose number has no name.
func (p *plan) dropUnknownEnums(m protoreflect.Message) {
	for _, f := range p.enums {
		if !m.Has(f.fd) {
			continue
		}
		v := m.Get(f.fd)
		switch {
		case f.fd.IsMap():
			values := v.Map()
			values.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				if f.value.enum == nil {
					f.value.plan().dropUnknownEnums(v.Message())
				} else if !f.value.enum.known(v.Enum()) {
					values.Clear(k)
				}
				return true
			})
		case f.fd.IsList() && f.value.enum != nil:
			list, kept := v.List(), 0
			for i := range list.Len() {
				if e := list.Get(i); f.value.enum.known(e.Enum()) {
					list.Set(kept, e)
					kept++
				}
			}
			list.Truncate(kept)
		case f.fd.IsList():
			list, sub := v.List(), f.value.plan()
			for i := range list.Len() {
				sub.dropUnknownEnums(list.Get(i).Message())
			}
		case f.value.enum != nil:
			if !f.value.enum.known(v.Enum()) {
				m.Clear(f.fd)
			}
		default:
			f.value.plan().dropUnknownEnums(v.Message())
		}
	}
}
