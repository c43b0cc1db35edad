package server

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// units are those of Mesos' durations.
var units = map[string]time.Duration{
	"ns": time.Nanosecond, "us": time.Microsecond, "ms": time.Millisecond, "secs": time.Second, "mins": time.Minute,
	"hrs": time.Hour, "days": 24 * time.Hour, "weeks": 7 * 24 * time.Hour,
}

// ParseDuration reads a duration as Mesos writes it, such as "1.5secs". It is never negative.
func ParseDuration(text string) (time.Duration, error) {
	digits := strings.TrimLeft(text, "-.0123456789")
	unit, known := units[digits]
	if !known {
		return 0, errors.New("expecting a number and one of ns, us, ms, secs, mins, hrs, days, weeks")
	}
	n, err := strconv.ParseFloat(text[:len(text)-len(digits)], 64)
	if err != nil {
		return 0, errors.New("expecting a number before the unit")
	}
	if d := n * float64(unit); d >= 0 && d < 1<<62 {
		return time.Duration(d), nil
	}
	return 0, errors.New("it is out of range")
}
