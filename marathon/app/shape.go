package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"unicode/utf8"
)

// The codes for wrong JSON types and limits. Tools match on them.
const (
	codeMissing      = "error.path.missing"
	codeString       = "error.expected.jsstring"
	codeNumber       = "error.expected.jsnumber"
	codeNumberFormat = "error.expected.jsnumberformatexception"
	codeBoolean      = "error.expected.jsboolean"
	codeArray        = "error.expected.jsarray"
	codeObject       = "error.expected.jsobject"
	codeDate         = "error.expected.date.isoformat"
	codeEnum         = "error.unknown.enum.literal"
	codeMin          = "error.min"
	codeMax          = "error.max"
	codeMinLength    = "error.minLength"
	codeMaxLength    = "error.maxLength"
	codePattern      = "error.pattern"
)

// A shape says what a JSON value must look like. Fitting a value to a shape yields a clean copy: unknown fields and nulls
// are gone, nested defaults are in, integers are written as such. What fits decodes into the Go type without an error.
type shape struct {
	// fit does the work; the other fields belong to the kinds that use them.
	fit func(s *shape, v any, p *place, f *faults) any
	// kind is the name that JSON Schema has for what fits, empty where either of two does.
	kind   string
	either []*shape

	fields   map[string]*shape // of an object
	required []string
	closed   bool   // it has no other fields
	elem     *shape // of a list or map

	min, max             *float64
	minLength, maxLength int // of a text or a list; a maximum of 0 is none
	pattern              *regexp.Regexp
	enum                 []string
	format               string // as JSON Schema names it

	// def is put in where the field is absent; nil puts nothing in.
	def any
}

func text() *shape   { return &shape{fit: fitText, kind: "string"} }
func number() *shape { return &shape{fit: fitNumber, kind: "number"} }
func integer() *shape {
	return &shape{fit: fitInteger, kind: "integer", min: new(float64(math.MinInt32)), max: new(float64(math.MaxInt32))}
}

func long() *shape {
	return &shape{fit: fitInteger, kind: "integer", min: new(float64(-1 << 53)), max: new(float64(1 << 53))}
}
func boolean() *shape { return &shape{fit: fitBoolean, kind: "boolean"} }
func port() *shape    { return integer().between(0, 65535) }
func natural() *shape { return integer().atLeast(0) }

func list(elem *shape) *shape       { return &shape{fit: fitList, kind: "array", elem: elem} }
func dictionary(elem *shape) *shape { return &shape{fit: fitMap, kind: "object", elem: elem} }
func literal(enum ...string) *shape { return &shape{fit: fitText, kind: "string", enum: enum} }

func object(fields map[string]*shape, required ...string) *shape {
	return &shape{fit: fitObject, kind: "object", fields: fields, required: required}
}

func (s *shape) atLeast(low float64) *shape       { s.min = &low; return s }
func (s *shape) between(low, high float64) *shape { s.min, s.max = &low, &high; return s }
func (s *shape) length(low, high int) *shape      { s.minLength, s.maxLength = low, high; return s }
func (s *shape) matches(pattern *regexp.Regexp) *shape {
	s.pattern = pattern
	return s
}
func (s *shape) or(def any) *shape { s.def = def; return s }

func fitText(s *shape, v any, p *place, f *faults) any {
	t, ok := v.(string)
	if !ok {
		f.add(p, codeString)
		return nil
	}
	if s.enum != nil && !slices.Contains(s.enum, t) {
		f.add(p, codeEnum)
	}
	n := utf8.RuneCountInString(t)
	if n < s.minLength {
		f.add(p, codeMinLength)
	}
	if s.maxLength > 0 && n > s.maxLength {
		f.add(p, codeMaxLength)
	}
	if s.pattern != nil && !s.pattern.MatchString(t) {
		f.add(p, codePattern)
	}
	return t
}

func fitBoolean(_ *shape, v any, p *place, f *faults) any {
	if _, ok := v.(bool); !ok {
		f.add(p, codeBoolean)
		return nil
	}
	return v
}

func fitNumber(s *shape, v any, p *place, f *faults) any {
	n, ok := v.(json.Number)
	if !ok {
		f.add(p, codeNumber)
		return nil
	}
	x, err := n.Float64()
	if err != nil {
		f.add(p, codeNumberFormat)
		return nil
	}
	s.bound(x, p, f)
	return n
}

func fitInteger(s *shape, v any, p *place, f *faults) any {
	n, ok := v.(json.Number)
	if !ok {
		f.add(p, codeNumber)
		return nil
	}
	// 2.0 and 1e3 are integers too.
	x, err := n.Float64()
	if err != nil || x != math.Trunc(x) || math.Abs(x) > 1<<53 {
		f.add(p, codeNumberFormat)
		return nil
	}
	i, err := strconv.ParseInt(n.String(), 10, 64)
	if err != nil {
		i = int64(x)
	}
	if i < math.MinInt32 && *s.min == math.MinInt32 || i > math.MaxInt32 && *s.max == math.MaxInt32 {
		f.add(p, codeNumberFormat)
		return nil
	}
	s.bound(float64(i), p, f)
	return json.Number(strconv.FormatInt(i, 10))
}

func (s *shape) bound(x float64, p *place, f *faults) {
	if s.min != nil && x < *s.min {
		f.add(p, codeMin)
	}
	if s.max != nil && x > *s.max {
		f.add(p, codeMax)
	}
}

func fitList(s *shape, v any, p *place, f *faults) any {
	in, ok := v.([]any)
	if !ok {
		f.add(p, codeArray)
		return nil
	}
	if len(in) < s.minLength {
		f.add(p, codeMinLength)
	}
	if s.maxLength > 0 && len(in) > s.maxLength {
		f.add(p, codeMaxLength)
		return nil
	}
	out := make([]any, len(in))
	for i, e := range in {
		out[i] = s.elem.fit(s.elem, e, p.index(i), f)
	}
	return out
}

func fitMap(s *shape, v any, p *place, f *faults) any {
	in, ok := v.(map[string]any)
	if !ok {
		f.add(p, codeObject)
		return nil
	}
	out := make(map[string]any, len(in))
	for _, key := range sortedKeys(in) {
		if in[key] != nil {
			out[key] = s.elem.fit(s.elem, in[key], p.field(key), f)
		}
	}
	return out
}

func fitObject(s *shape, v any, p *place, f *faults) any {
	in, ok := v.(map[string]any)
	if !ok {
		f.add(p, codeObject)
		return nil
	}
	out := make(map[string]any, len(s.fields))
	for _, name := range sortedKeys(s.fields) {
		field := s.fields[name]
		if value := in[name]; value != nil {
			out[name] = field.fit(field, value, p.field(name), f)
		} else if field.def != nil {
			out[name] = field.def
		}
	}
	for _, name := range s.required {
		if in[name] == nil {
			f.add(p.field(name), codeMissing)
		}
	}
	return out
}

// moment fits a timestamp.
func moment() *shape {
	return &shape{kind: "string", format: "date-time", fit: func(_ *shape, v any, p *place, f *faults) any {
		t, ok := v.(string)
		if !ok {
			f.add(p, codeString)
			return nil
		}
		if _, err := ParseTimestamp(t); err != nil {
			f.add(p, codeDate)
			f.add(p, "%v", err)
			return nil
		}
		return t
	}}
}

// textOr fits a text that the first shape allows, or what the other one fits.
func textOr(texts *shape, other *shape) *shape {
	return &shape{either: []*shape{texts, other}, fit: func(_ *shape, v any, p *place, f *faults) any {
		_, isObject := v.(map[string]any)
		if _, ok := v.(string); ok || !isObject && other.fields != nil {
			return texts.fit(texts, v, p, f)
		}
		return other.fit(other, v, p, f)
	}}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// decode reads body, fits it to the shape and stores it in into. The error is an *Invalid.
func decode(body []byte, s *shape, into any) error {
	tree, err := parseJSON(body)
	if err != nil {
		return err
	}
	f := faults{message: MessageJSON}
	clean := s.fit(s, tree, nil, &f)
	if err := f.err(); err != nil {
		return err
	}
	encoded, err := json.Marshal(clean)
	if err == nil {
		err = json.Unmarshal(encoded, into)
	}
	if err != nil { // a shape that lets through what its Go type does not take
		return &Invalid{Message: MessageJSON, Details: []Detail{{Path: "/", Errors: []string{err.Error()}}}}
	}
	return nil
}

// parseJSON returns the one JSON value that the body holds, numbers as json.Number.
func parseJSON(body []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var tree any
	err := decoder.Decode(&tree)
	if err == nil {
		offset := decoder.InputOffset()
		if rest := bytes.TrimLeft(body[offset:], " \t\r\n"); len(rest) > 0 {
			err = fmt.Errorf("unexpected text after the value")
			return nil, syntax(body, int64(len(body)-len(rest)), err)
		}
		return tree, nil
	}
	offset := int64(len(body))
	if wrong, ok := errors.AsType[*json.SyntaxError](err); ok {
		offset = max(wrong.Offset-1, 0)
	} else if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("unexpected end of input")
	}
	return nil, syntax(body, offset, err)
}

func syntax(body []byte, offset int64, err error) error {
	before := body[:min(offset, int64(len(body)))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - (bytes.LastIndexByte(before, '\n') + 1) + 1
	return &Invalid{Message: MessageJSON, Syntax: fmt.Sprintf("%v at line %d, column %d", err, line, column)}
}
