package api

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mesos/codec"
)

// jsonWriter writes JSON by appending, in the order in which it is told: the older endpoints promise an order of members
// to people who read them, and encoding tens of thousands of tasks through maps would cost many times as much.
type jsonWriter struct {
	b []byte
	// first is set where no comma is due.
	first bool
	err   error

	// done are the parts before b. kept are those that may be used again, used what this document uses; used is nil where
	// nothing is to be kept.
	done       []*part
	kept, used parts
}

func newJSON() *jsonWriter { return &jsonWriter{first: true} }

func (w *jsonWriter) comma() {
	if !w.first {
		w.b = append(w.b, ',')
	}
	w.first = false
}

func (w *jsonWriter) object(members func()) {
	w.b = append(w.b, '{')
	w.first = true
	members()
	w.b = append(w.b, '}')
	w.first = false
}

func (w *jsonWriter) array(elements func()) {
	w.b = append(w.b, '[')
	w.first = true
	elements()
	w.b = append(w.b, ']')
	w.first = false
}

// key begins a member.
func (w *jsonWriter) key(name string) {
	w.comma()
	w.quote(name)
	w.b = append(w.b, ':')
}

// element begins an element of an array.
func (w *jsonWriter) element() { w.comma() }

func (w *jsonWriter) quote(s string) {
	plain := true
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			plain = false
			break
		}
	}
	if plain {
		w.b = append(w.b, '"')
		w.b = append(w.b, s...)
		w.b = append(w.b, '"')
		return
	}
	quoted, _ := json.Marshal(s) // strings never fail
	w.b = append(w.b, quoted...)
}

func (w *jsonWriter) string(name, value string) {
	w.key(name)
	w.quote(value)
}

func (w *jsonWriter) bool(name string, value bool) {
	w.key(name)
	w.b = strconv.AppendBool(w.b, value)
}

func (w *jsonWriter) float(name string, value float64) {
	w.key(name)
	w.number(value)
}

// number writes a double as Mesos does: always with a fraction or an exponent.
func (w *jsonWriter) number(value float64) {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		value = 0
	}
	at, format := len(w.b), byte('f')
	if size := math.Abs(value); size != 0 && (size < 1e-6 || size >= 1e21) {
		format = 'e'
	}
	w.b = strconv.AppendFloat(w.b, value, format, -1, 64)
	for _, c := range w.b[at:] {
		if c == '.' || c == 'e' {
			return
		}
	}
	w.b = append(w.b, ".0"...)
}

func (w *jsonWriter) int(name string, value int) {
	w.key(name)
	w.b = strconv.AppendInt(w.b, int64(value), 10)
}

// time writes seconds since the epoch; 0.0 for the zero time.
func (w *jsonWriter) time(name string, t time.Time) {
	if t.IsZero() {
		w.float(name, 0)
		return
	}
	w.float(name, float64(t.UnixMicro())/1e6)
}

// message writes a message with the old names.
func (w *jsonWriter) message(name string, m proto.Message) {
	w.key(name)
	w.messageValue(m)
}

func (w *jsonWriter) messageValue(m proto.Message) {
	b, err := codec.JSONv0.Append(w.b, m)
	if err != nil {
		if w.err == nil {
			w.err = err
		}
		b = append(w.b, "{}"...)
	}
	w.b = b
}

func (w *jsonWriter) strings(name string, values []string) {
	w.key(name)
	w.array(func() {
		for _, v := range values {
			w.element()
			w.quote(v)
		}
	})
}

// document writes an object, and returns all that was written.
func (w *jsonWriter) document(members func(*jsonWriter)) (*document, error) {
	w.object(func() { members(w) })
	w.cut()
	d := &document{parts: w.done, packing: new(sync.Mutex)}
	for _, p := range w.done {
		d.size += len(p.plain)
	}
	return d, w.err
}

// cut ends the part that is being written.
func (w *jsonWriter) cut() {
	if len(w.b) > 0 {
		w.done = append(w.done, &part{plain: w.b})
		w.b = nil
	}
}

// elements writes elements of an array that are encoded once for as long as key stands for the same ones. They must not
// be none.
func (w *jsonWriter) elements(key any, write func(*jsonWriter)) {
	w.run(key, nil, write)
}

// agents is elements for some agents.
func (w *jsonWriter) agents(of []*master.AgentView, write func(*jsonWriter)) {
	w.run(of[0], of, write)
}

func (w *jsonWriter) run(key any, of []*master.AgentView, write func(*jsonWriter)) {
	if w.used == nil {
		write(w)
		return
	}
	w.comma()
	p := w.kept[key]
	if p == nil || !slices.Equal(p.of, of) {
		inner := newJSON()
		write(inner)
		if inner.err != nil && w.err == nil {
			w.err = inner.err
		}
		p = &part{plain: slices.Clip(inner.b), of: slices.Clone(of)}
	}
	w.used[key] = p
	w.cut()
	w.done = append(w.done, p)
}
