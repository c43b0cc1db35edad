// Package event holds what Marathon tells the world as it happens, and carries it to whoever listens.
//
// A Payload is one kind of event as a plain struct. Encode turns it into a Frame once, however many listen. A Bus hands
// frames to its subscriptions in the order in which they were published; a subscription has a bounded queue, and one
// whose reader is too slow is cut off (ErrSlow) instead of slowing the others or losing events in silence. Nothing is
// replayed: who comes late has missed what was. The bus has no goroutine; all of its methods may be called from anywhere.
//
// Names and fields follow spec/marathon-events.md section 2.
package event

import (
	"encoding/json"
	"fmt"
	"time"
)

// TimeFormat is how Marathon writes every time: UTC, with exactly three digits of a second.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// FormatTime writes a time as TimeFormat says.
func FormatTime(t time.Time) string { return t.UTC().Format(TimeFormat) }

// Payload is one event without its type and time, which Encode adds. It must marshal to a JSON object.
type Payload interface {
	// EventType is the name that clients filter by, for example "status_update_event". Those of events that Marathon does not
	// have begin with "starling_".
	EventType() string
}

// Frame is one event, ready to be sent. It must not be modified.
type Frame struct {
	Type string
	// Data is a JSON object on one line.
	Data []byte
}

// ownPrefix begins the types of events that Marathon does not have.
const ownPrefix = "starling_"

// Encode makes the frame of an event that happened at now. It fails only where the payload can't be marshalled.
func Encode(now time.Time, p Payload) (Frame, error) {
	body, err := json.Marshal(p)
	if err != nil {
		return Frame{}, fmt.Errorf("cannot encode %q: %w", p.EventType(), err)
	}
	if len(body) < 2 || body[0] != '{' {
		return Frame{}, fmt.Errorf("cannot encode %q: payload is not an object", p.EventType())
	}
	data := make([]byte, 0, len(body)+len(p.EventType())+64)
	data = append(data, `{"eventType":"`...)
	data = append(data, p.EventType()...)
	data = append(data, `","timestamp":"`...)
	data = now.UTC().AppendFormat(data, TimeFormat)
	data = append(data, '"')
	if len(body) > 2 {
		data = append(data, ',')
	}
	data = append(data, body[1:]...)
	return Frame{Type: p.EventType(), Data: data}, nil
}
