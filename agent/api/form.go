package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/codec"
	"starling/master/mesos/resources"
)

// number is a JSON number as Mesos writes those that may have a fraction: always with one.
type number float64

// MarshalJSON implements json.Marshaler.
func (n number) MarshalJSON() ([]byte, error) {
	f := float64(n)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, fmt.Errorf("cannot write %v as a number", f)
	}
	out := strconv.AppendFloat(nil, f, 'f', -1, 64)
	if !bytes.ContainsRune(out, '.') {
		out = append(out, '.', '0')
	}
	return out, nil
}

// timestamp is a time in seconds.
func timestamp(t time.Time) number { return number(float64(t.UnixMicro()) / 1e6) }

// message is a message in the JSON of the older endpoints; nothing for one that is not set.
func message[M interface {
	comparable
	proto.Message
}](m M) json.RawMessage {
	var none M
	if m == none {
		return nil
	}
	out, err := codec.JSONv0.Marshal(m)
	if err != nil {
		// It was checked when it came in; what is damaged since is left out rather than failing all the rest.
		return nil
	}
	return out
}

// messages is a list of messages; never nil.
func messages[M interface {
	comparable
	proto.Message
}](ms []M) []json.RawMessage {
	out := make([]json.RawMessage, 0, len(ms))
	for _, m := range ms {
		if text := message(m); text != nil {
			out = append(out, text)
		}
	}
	return out
}

// summary is the short form of resources: cpus, gpus, mem and disk always, everything else where there is some.
func summary(rs resources.Resources) map[string]any {
	out := map[string]any{"cpus": number(0), "gpus": number(0), "mem": number(0), "disk": number(0)}
	summarise(out, rs.NonRevocable(), "")
	summarise(out, rs.Revocable(), "_revocable")
	return out
}

func summarise(out map[string]any, rs resources.Resources, suffix string) {
	for name, amount := range rs.Scalars() {
		out[name+suffix] = number(amount.Float())
	}
	for _, name := range rs.Names() {
		if ranges := rs.Ranges(name); len(ranges) > 0 {
			out[name+suffix] = resources.FormatRanges(ranges)
		} else if set := rs.Set(name); len(set) > 0 {
			out[name+suffix] = resources.FormatSet(set)
		}
	}
}

// attributes maps names to values: scalars are numbers, all others text.
func attributes(as []*mesos.Attribute) map[string]any {
	out := map[string]any{}
	for _, a := range as {
		switch a.GetType() {
		case mesos.Value_SCALAR:
			out[a.GetName()] = number(a.GetScalar().GetValue())
		case mesos.Value_RANGES:
			var ranges []resources.Range
			for _, r := range a.GetRanges().GetRange() {
				ranges = append(ranges, resources.Range{Begin: r.GetBegin(), End: r.GetEnd()})
			}
			out[a.GetName()] = resources.FormatRanges(ranges)
		case mesos.Value_SET:
			out[a.GetName()] = resources.FormatSet(a.GetSet().GetItem())
		case mesos.Value_TEXT:
			out[a.GetName()] = a.GetText().GetValue()
		}
	}
	return out
}

// encode writes JSON without escaping what only HTML needs.
func encode(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("cannot encode: %w", err)
	}
	return bytes.TrimRight(out.Bytes(), "\n"), nil
}
