package codec

import (
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// jsonCodec is Mesos' JSON. The zero value uses the names of v1.
type jsonCodec struct {
	planCache
}

func (c *jsonCodec) ContentType() string { return TypeJSON }

func (c *jsonCodec) Marshal(m proto.Message) ([]byte, error) {
	return c.Append(make([]byte, 0, 512), m)
}

func (c *jsonCodec) Append(dst []byte, m proto.Message) ([]byte, error) {
	if err := checkRequired(m); err != nil {
		return dst, err
	}
	r := m.ProtoReflect()
	return appendMessage(dst, c.of(r.Descriptor()), r), nil
}

func appendMessage(dst []byte, p *plan, m protoreflect.Message) []byte {
	dst = append(dst, '{')
	first := true
	for _, f := range p.fields {
		if !m.Has(f.fd) {
			if f.unset != nil {
				dst = appendKey(dst, f, &first)
				dst = append(dst, f.unset...)
			}
			continue
		}
		v := m.Get(f.fd)
		switch {
		case f.single:
			if f.value.enum != nil && !f.value.enum.known(v.Enum()) {
				continue
			}
			dst = appendKey(dst, f, &first)
			dst = appendValue(dst, &f.value, v)
		case f.isList:
			dst = appendKey(dst, f, &first)
			dst = appendList(dst, f, v.List())
		default:
			dst = appendKey(dst, f, &first)
			dst = appendMap(dst, f, v.Map())
		}
	}
	return append(dst, '}')
}

func appendKey(dst []byte, f *fieldPlan, first *bool) []byte {
	if !*first {
		dst = append(dst, ',')
	}
	*first = false
	return append(dst, f.key...)
}

func appendList(dst []byte, f *fieldPlan, list protoreflect.List) []byte {
	dst = append(dst, '[')
	first := true
	for i := range list.Len() {
		v := list.Get(i)
		if f.value.enum != nil && !f.value.enum.known(v.Enum()) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = appendValue(dst, &f.value, v)
	}
	return append(dst, ']')
}

// appendMap writes keys in order, so that equal messages are equal bytes.
func appendMap(dst []byte, f *fieldPlan, values protoreflect.Map) []byte {
	keys := make([]protoreflect.MapKey, 0, values.Len())
	values.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, k)
		return true
	})
	slices.SortFunc(keys, func(a, b protoreflect.MapKey) int {
		x, y := a.String(), b.String()
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	dst = append(dst, '{')
	first := true
	for _, k := range keys {
		v := values.Get(k)
		if f.value.enum != nil && !f.value.enum.known(v.Enum()) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = appendString(dst, k.String())
		dst = append(dst, ':')
		dst = appendValue(dst, &f.value, v)
	}
	return append(dst, '}')
}

func appendValue(dst []byte, p *valuePlan, v protoreflect.Value) []byte {
	switch p.kind {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return appendMessage(dst, p.plan(), v.Message())
	case protoreflect.StringKind:
		return appendString(dst, v.String())
	case protoreflect.EnumKind:
		return append(dst, p.enum.quoted[v.Enum()]...)
	case protoreflect.BoolKind:
		return strconv.AppendBool(dst, v.Bool())
	case protoreflect.BytesKind:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, v.Bytes())
		return append(dst, '"')
	case protoreflect.DoubleKind:
		return appendFloat(dst, v.Float(), 64)
	case protoreflect.FloatKind:
		return appendFloat(dst, v.Float(), 32)
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		return strconv.AppendUint(dst, v.Uint(), 10)
	default: // the signed integers
		return strconv.AppendInt(dst, v.Int(), 10)
	}
}

// appendFloat writes the shortest form that reads back the same, always with a fraction or an exponent. What JSON has
// no number for is a string.
func appendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...)
	case math.IsNaN(f):
		return append(dst, `"NaN"`...)
	}
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		dst = strconv.AppendFloat(dst, f, 'e', -1, bits)
		// An exponent of one digit, as most writers have it: e-7 for e-07.
		if n := len(dst); dst[n-2] == '0' && (dst[n-3] == '-' || dst[n-3] == '+') {
			dst[n-2] = dst[n-1]
			dst = dst[:n-1]
		}
		return dst
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, bits)
	if !slices.Contains(dst[start:], '.') {
		dst = append(dst, '.', '0')
	}
	return dst
}

const hex = "0123456789abcdef"

// appendString writes a JSON string. Bytes that are no UTF-8 become U+FFFD, so that the text is valid whatever a
// client put into a binary message.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		b := s[i]
		if b < utf8.RuneSelf {
			if b >= ' ' && b != '"' && b != '\\' && b != 0x7f {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			switch b {
			case '"', '\\':
				dst = append(dst, '\\', b)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\ufffd"...)
			start = i + 1
		}
		i += size
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
