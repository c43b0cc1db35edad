package app

import (
	"fmt"
	"strconv"
	"time"
)

// Timestamp is a moment in whole milliseconds since 1970 UTC. It is how Marathon names versions, so it can be compared,
// used as a key, and read back from its text without loss. Zero means none.
type Timestamp int64

const timestampLayout = "2006-01-02T15:04:05.000Z"

// At returns the timestamp of t, cut to the millisecond.
func At(t time.Time) Timestamp {
	if t.IsZero() {
		return 0
	}
	return Timestamp(t.UnixMilli())
}

// NextVersion returns the version for a change made at now: the time, but always later than last, so that no two versions
// are alike however fast changes come and wherever the clock jumps.
func NextVersion(now time.Time, last Timestamp) Timestamp {
	return max(At(now), last+1)
}

// Time returns the moment in UTC; the zero time for zero.
func (t Timestamp) Time() time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(t)).UTC()
}

// IsZero tells that there is no time.
func (t Timestamp) IsZero() bool { return t == 0 }

// String returns the form of the API: "2024-05-04T10:11:12.345Z".
func (t Timestamp) String() string { return time.UnixMilli(int64(t)).UTC().Format(timestampLayout) }

// MarshalJSON writes the text form.
func (t Timestamp) MarshalJSON() ([]byte, error) { return strconv.AppendQuote(nil, t.String()), nil }

// MarshalText writes the text form.
func (t Timestamp) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what ParseTimestamp reads.
func (t *Timestamp) UnmarshalText(text []byte) error {
	parsed, err := ParseTimestamp(string(text))
	if err == nil {
		*t = parsed
	}
	return err
}

// ParseTimestamp reads an ISO-8601 date-time with "Z" or an offset, and with any number of digits after the second, of
// which three are kept. The error quotes the value.
func ParseTimestamp(s string) (Timestamp, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700", "2006-01-02T15:04Z07:00"} {
		if t, err := time.Parse(layout, s); err == nil {
			if t.Year() < 1 || t.Year() > 9999 {
				break
			}
			return Timestamp(t.UnixMilli()), nil
		}
	}
	return 0, fmt.Errorf("invalid timestamp %q: want a date-time such as 2024-05-04T10:11:12.345Z", s)
}
