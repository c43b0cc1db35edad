package metric

import "strings"

// Part is one of the numbers that a metric consists of.
type Part struct {
	// Suffix follows the name, after a dot; empty where the metric is this one number.
	Suffix string
	Value  float64
	// Counts is set for a number that only grows.
	Counts bool
}

// Parts takes a metric apart into plain numbers.
func (m Metric) Parts() []Part {
	rates := func() []Part {
		return []Part{
			{"count", float64(m.Rates.Count), true},
			{"mean_rate", m.Rates.Mean, false},
			{"m1_rate", m.Rates.M1, false},
			{"m5_rate", m.Rates.M5, false},
			{"m15_rate", m.Rates.M15, false},
		}
	}
	switch m.Kind {
	case KindMeter:
		return rates()
	case KindTimer:
		s := m.Spread
		return append(rates(), Part{"min", s.Min, false}, Part{"mean", s.Mean, false}, Part{"max", s.Max, false},
			Part{"stddev", s.StdDev, false}, Part{"p50", s.P50, false}, Part{"p75", s.P75, false}, Part{"p95", s.P95, false},
			Part{"p98", s.P98, false}, Part{"p99", s.P99, false}, Part{"p999", s.P999, false})
	default:
		return []Part{{"", m.Value, m.Kind == KindCounter}}
	}
}

// under returns the full name of a part.
func (p Part) under(name string) string {
	if p.Suffix == "" {
		return name
	}
	return name + "." + p.Suffix
}

// clean keeps a name from breaking a line of a protocol.
func clean(name string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == ':' || r == '|' || r == '@' || r == '#' || r > '~' {
			return '_'
		}
		return r
	}, name)
}
