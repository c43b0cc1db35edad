package codec

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func (c *jsonCodec) Unmarshal(data []byte, m proto.Message) error {
	proto.Reset(m)
	d := decoder{scanner: scanner{data: data}}
	if d.peek() != '{' {
		if err := syntax(data); err != nil {
			return err
		}
		return d.unexpected("an object")
	}
	r := m.ProtoReflect()
	err := d.message(c.of(r.Descriptor()), r)
	if err == nil {
		err = d.end()
	}
	if err != nil {
		// What is no JSON at all is called so, even if a value before the fault did not fit its field either.
		var field *FieldError
		if errors.As(err, &field) {
			if bad := syntax(data); bad != nil {
				return bad
			}
		}
		return err
	}
	return checkRequired(m)
}

// syntax checks that data is one JSON value.
func syntax(data []byte) error {
	s := scanner{data: data}
	if err := s.skip(); err != nil {
		return err
	}
	return s.end()
}

// errDropped says that a value is to be left out: the name of an enum that we do not know.
var errDropped = errors.New("value dropped")

// decoder fills messages from JSON.
type decoder struct {
	scanner
	// path leads to the current field or element.
	path []step
}

type step struct {
	name  string
	index int // of an element when name is ""
}

func (d *decoder) where() string {
	var b strings.Builder
	for _, s := range d.path {
		switch {
		case s.name == "":
			fmt.Fprintf(&b, "[%d]", s.index)
		case b.Len() > 0:
			b.WriteString("." + s.name)
		default:
			b.WriteString(s.name)
		}
	}
	return b.String()
}

func (d *decoder) fieldErrorf(format string, args ...any) error {
	path := d.where()
	return &FieldError{Path: path, Reason: fmt.Sprintf(format, args...) + " for field '" + path + "'"}
}

// mismatch says that the kind of the value at pos does not fit the field.
func (d *decoder) mismatch() error {
	var kind string
	switch d.peek() {
	case '{':
		kind = "object"
	case '[':
		kind = "array"
	case '"':
		kind = "string"
	case 't', 'f':
		kind = "boolean"
	case 'n':
		kind = "null"
	default:
		kind = "number"
	}
	// A value that is no value at all is a matter of syntax.
	if err := (&scanner{data: d.data, pos: d.pos}).skip(); err != nil {
		return err
	}
	return d.fieldErrorf("Not expecting a JSON %s", kind)
}

// message reads an object into m. Of members with the same name the last one counts.
func (d *decoder) message(p *plan, m protoreflect.Message) error {
	var seen [4]uint64 // by index of the field; clearing a field that is unset costs as much as setting it
	return d.members(func(key []byte) error {
		f := p.byName[string(key)]
		if f == nil {
			return d.skip()
		}
		if word, bit := f.index/64, uint64(1)<<(f.index%64); word >= len(seen) || seen[word]&bit != 0 {
			m.Clear(f.fd)
		} else {
			seen[word] |= bit
		}
		if d.peek() == 'n' {
			return d.literal("null")
		}
		d.path = append(d.path, step{name: f.name})
		err := d.field(f, m)
		d.path = d.path[:len(d.path)-1]
		return err
	})
}

func (d *decoder) field(f *fieldPlan, m protoreflect.Message) error {
	switch {
	case f.isMap:
		return d.mapField(f, m)
	case f.isList:
		return d.list(f, m)
	case f.value.plan != nil:
		if d.peek() != '{' {
			return d.mismatch()
		}
		return d.message(f.value.plan(), m.Mutable(f.fd).Message())
	}
	v, err := d.scalar(&f.value)
	if errors.Is(err, errDropped) && f.fd.Cardinality() != protoreflect.Required {
		return nil
	} else if errors.Is(err, errDropped) {
		return d.fieldErrorf("Unknown enum value")
	} else if err != nil {
		return err
	}
	m.Set(f.fd, v)
	return nil
}

// list reads an array, or a lone value as an array of one. Elements that are null are left out.
func (d *decoder) list(f *fieldPlan, m protoreflect.Message) error {
	list := m.Mutable(f.fd).List()
	element := func() error {
		if d.peek() == 'n' {
			return d.literal("null")
		}
		if f.value.plan != nil {
			if d.peek() != '{' {
				return d.mismatch()
			}
			return d.message(f.value.plan(), list.AppendMutable().Message())
		}
		v, err := d.scalar(&f.value)
		if errors.Is(err, errDropped) {
			return nil
		} else if err != nil {
			return err
		}
		list.Append(v)
		return nil
	}
	if d.peek() != '[' {
		return element()
	}
	d.path = append(d.path, step{})
	last := len(d.path) - 1
	err := d.elements(func() error {
		err := element()
		d.path[last].index++
		return err
	})
	d.path = d.path[:last]
	return err
}

func (d *decoder) mapField(f *fieldPlan, m protoreflect.Message) error {
	if d.peek() != '{' {
		return d.mismatch()
	}
	values := m.Mutable(f.fd).Map()
	return d.members(func(key []byte) error {
		name := string(key)
		k, ok := mapKey(f.keys.Kind(), name)
		if !ok {
			return d.fieldErrorf("Bad map key %q", name)
		}
		values.Clear(k)
		if d.peek() == 'n' {
			return d.literal("null")
		}
		d.path = append(d.path, step{name: name})
		defer func() { d.path = d.path[:len(d.path)-1] }()
		if f.value.plan != nil {
			if d.peek() != '{' {
				return d.mismatch()
			}
			return d.message(f.value.plan(), values.Mutable(k).Message())
		}
		v, err := d.scalar(&f.value)
		if errors.Is(err, errDropped) {
			return nil
		} else if err != nil {
			return err
		}
		values.Set(k, v)
		return nil
	})
}

// mapKey turns the name of a member into a key of a map.
func mapKey(kind protoreflect.Kind, name string) (protoreflect.MapKey, bool) {
	if kind == protoreflect.StringKind {
		return protoreflect.ValueOfString(name).MapKey(), true
	}
	if kind == protoreflect.BoolKind {
		b, err := strconv.ParseBool(name)
		return protoreflect.ValueOfBool(b).MapKey(), err == nil
	}
	v, ok := integer(kind, []byte(name))
	if !ok {
		return protoreflect.MapKey{}, false
	}
	return v.MapKey(), true
}

// scalar reads a value that is no message.
func (d *decoder) scalar(p *valuePlan) (protoreflect.Value, error) {
	var none protoreflect.Value
	first := d.peek()
	switch p.kind {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.EnumKind:
		if first != '"' {
			return none, d.mismatch()
		}
		text, err := d.text()
		if err != nil {
			return none, err
		}
		switch p.kind {
		case protoreflect.StringKind:
			return protoreflect.ValueOfString(string(text)), nil
		case protoreflect.EnumKind:
			if n, ok := p.enum.byName[string(text)]; ok {
				return protoreflect.ValueOfEnum(n), nil
			}
			return none, errDropped
		}
		data, err := base64.StdEncoding.Strict().AppendDecode(make([]byte, 0, len(text)), text)
		if err != nil || bytes.ContainsAny(text, "\r\n") {
			return none, d.fieldErrorf("Failed to base64 decode the value")
		}
		return protoreflect.ValueOfBytes(data), nil

	case protoreflect.BoolKind:
		switch first {
		case 't':
			return protoreflect.ValueOfBool(true), d.literal("true")
		case 'f':
			return protoreflect.ValueOfBool(false), d.literal("false")
		case '"':
			text, err := d.text()
			if err != nil {
				return none, err
			}
			if s := string(text); s == "true" || s == "false" {
				return protoreflect.ValueOfBool(s == "true"), nil
			}
			return none, d.fieldErrorf("Expecting 'true' or 'false', not %s,", clip(text))
		}
		return none, d.mismatch()
	}
	text, err := d.numeral(first)
	if err != nil {
		return none, err
	}
	if p.kind == protoreflect.DoubleKind || p.kind == protoreflect.FloatKind {
		return d.float(p.kind, text)
	}
	if numberLen(text) != len(text) {
		return none, d.fieldErrorf("Expecting a number, not %s,", clip(text))
	}
	v, ok := integer(p.kind, text)
	if !ok {
		return none, d.fieldErrorf("The number %s does not fit %s", text, p.kind)
	}
	return v, nil
}

// numeral gives the text of a number, which may come as a string.
func (d *decoder) numeral(first byte) ([]byte, error) {
	switch {
	case first == '"':
		return d.text()
	case first == '-' || '0' <= first && first <= '9':
		return d.number()
	}
	return nil, d.mismatch()
}

func (d *decoder) float(kind protoreflect.Kind, text []byte) (protoreflect.Value, error) {
	bits := 64
	if kind == protoreflect.FloatKind {
		bits = 32
	}
	var f float64
	switch s := string(text); {
	case s == "Infinity":
		f = math.Inf(1)
	case s == "-Infinity":
		f = math.Inf(-1)
	case len(text) == 0 || numberLen(text) != len(text):
		return protoreflect.Value{}, d.fieldErrorf("Expecting a number, not %s,", clip(text))
	default:
		var err error
		if f, err = strconv.ParseFloat(s, bits); err != nil {
			return protoreflect.Value{}, d.fieldErrorf("The number %s does not fit %s", clip(text), kind)
		}
	}
	if bits == 32 {
		return protoreflect.ValueOfFloat32(float32(f)), nil
	}
	return protoreflect.ValueOfFloat64(f), nil
}

// integer converts a number; a fraction is cut off.
func integer(kind protoreflect.Kind, text []byte) (protoreflect.Value, bool) {
	if len(text) == 0 || len(text) > 400 {
		return protoreflect.Value{}, false
	}
	s := string(text)
	if strings.ContainsAny(s, ".eE") {
		var ok bool
		if s, ok = truncated(s); !ok {
			return protoreflect.Value{}, false
		}
	}
	if s == "-0" {
		s = "0"
	}
	switch kind {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		n, err := strconv.ParseInt(s, 10, 32)
		return protoreflect.ValueOfInt32(int32(n)), err == nil
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		n, err := strconv.ParseInt(s, 10, 64)
		return protoreflect.ValueOfInt64(n), err == nil
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		n, err := strconv.ParseUint(s, 10, 32)
		return protoreflect.ValueOfUint32(uint32(n)), err == nil
	default:
		n, err := strconv.ParseUint(s, 10, 64)
		return protoreflect.ValueOfUint64(n), err == nil
	}
}

// truncated gives the integer part of a number with a fraction or an exponent, exactly.
func truncated(s string) (string, bool) {
	// Beyond this no 64-bit integer is left, and big.Float would do much work for nothing.
	if f, err := strconv.ParseFloat(s, 64); err != nil || math.Abs(f) >= 1<<65 {
		return "", false
	}
	f, _, err := big.ParseFloat(s, 10, 256, big.ToZero)
	if err != nil {
		return "", false
	}
	n, _ := f.Int(nil)
	return n.String(), true
}

// clip quotes the beginning of a text.
func clip(text []byte) string {
	if len(text) > 40 {
		return strconv.Quote(string(text[:40]) + "...")
	}
	return strconv.Quote(string(text))
}
