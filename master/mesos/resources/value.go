package resources

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"starling/master/mesos"
)

// Milli is an amount in thousandths: 1500 is 1.5 CPUs, or 1.5 MiB.
type Milli int64

// maxScalar is the largest amount that a float64 still tells apart from its neighbours in thousandths.
const maxScalar = 1<<53/1000 - 1

// FromFloat rounds to the nearest thousandth.
func FromFloat(f float64) (Milli, error) {
	if math.IsNaN(f) || math.Abs(f) > maxScalar {
		return 0, fmt.Errorf("%v is not a number up to %d", f, int64(maxScalar))
	}
	return Milli(math.Round(f * 1000)), nil
}

// Float is the amount in whole units.
func (m Milli) Float() float64 { return float64(m) / 1000 }

// String is the amount in whole units, with as few decimals as it needs.
func (m Milli) String() string { return strconv.FormatFloat(m.Float(), 'f', -1, 64) }

// plus adds and stays at the largest amount instead of overflowing.
func (m Milli) plus(o Milli) Milli {
	if sum := m + o; sum >= m || o < 0 {
		return sum
	}
	return math.MaxInt64
}

// Range is all numbers from Begin to End, both included.
type Range struct{ Begin, End uint64 }

// String is "31000-31005".
func (r Range) String() string {
	return strconv.FormatUint(r.Begin, 10) + "-" + strconv.FormatUint(r.End, 10)
}

// FormatRanges writes ranges as the JSON of the older endpoints does: "[1-2, 5-5]".
func FormatRanges(ranges []Range) string {
	parts := make([]string, len(ranges))
	for i, r := range ranges {
		parts[i] = r.String()
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// FormatSet writes a set as the JSON of the older endpoints does: "{a, b}".
func FormatSet(set []string) string { return "{" + strings.Join(set, ", ") + "}" }

// value is the value of one item. Slices are never changed once they are in one.
type value struct {
	kind   mesos.Value_Type
	scalar Milli
	ranges []Range  // sorted, neither overlapping nor adjacent
	set    []string // sorted, each once
}

// amount is the scalar, 0 for other kinds; copies of an atomic item count each.
func (i item) amount() Milli {
	if i.atomic {
		return i.scalar * Milli(max(i.copies, 0))
	}
	return i.scalar
}

func (v value) empty() bool { return v.scalar <= 0 && len(v.ranges) == 0 && len(v.set) == 0 }

func (v value) plus(o value) value {
	v.scalar = v.scalar.plus(o.scalar)
	if len(o.ranges) > 0 {
		v.ranges = normalRanges(append(slices.Clone(v.ranges), o.ranges...))
	}
	if len(o.set) > 0 {
		v.set = append(slices.Clone(v.set), o.set...)
		slices.Sort(v.set)
		v.set = slices.Compact(v.set)
	}
	return v
}

func (v value) minus(o value) value {
	v.scalar = max(v.scalar-o.scalar, 0)
	v.ranges = subRanges(v.ranges, o.ranges)
	if len(o.set) > 0 {
		v.set = slices.DeleteFunc(slices.Clone(v.set), func(s string) bool {
			_, found := slices.BinarySearch(o.set, s)
			return found
		})
	}
	return v
}

func (v value) contains(o value) bool {
	if o.scalar > v.scalar {
		return false
	}
	mine := v.ranges
	for _, want := range o.ranges {
		for len(mine) > 0 && mine[0].End < want.Begin {
			mine = mine[1:]
		}
		if len(mine) == 0 || mine[0].Begin > want.Begin || mine[0].End < want.End {
			return false
		}
	}
	for _, s := range o.set {
		if _, found := slices.BinarySearch(v.set, s); !found {
			return false
		}
	}
	return true
}

func (v value) equal(o value) bool {
	return v.scalar == o.scalar && slices.Equal(v.ranges, o.ranges) && slices.Equal(v.set, o.set)
}

func (v value) compare(o value) int {
	return cmp.Or(cmp.Compare(v.scalar, o.scalar),
		slices.CompareFunc(v.ranges, o.ranges, func(a, b Range) int {
			return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.End, b.End))
		}),
		slices.Compare(v.set, o.set))
}

func (v value) String() string {
	switch v.kind {
	case mesos.Value_RANGES:
		return FormatRanges(v.ranges)
	case mesos.Value_SET:
		return FormatSet(v.set)
	}
	return v.scalar.String()
}

// normalRanges sorts ranges and merges what overlaps or touches. It takes the slice over.
func normalRanges(in []Range) []Range {
	slices.SortFunc(in, func(a, b Range) int { return cmp.Compare(a.Begin, b.Begin) })
	out := in[:0]
	for _, r := range in {
		// The difference instead of End+1, which is 0 behind the last number.
		if n := len(out); n > 0 && (r.Begin <= out[n-1].End || r.Begin-out[n-1].End == 1) {
			out[n-1].End = max(out[n-1].End, r.End)
			continue
		}
		out = append(out, r)
	}
	return out
}

// subRanges gives what is left of a without b, both in normal form.
func subRanges(a, b []Range) []Range {
	if len(a) == 0 || len(b) == 0 {
		return a
	}
	out := make([]Range, 0, len(a)+1)
	for _, r := range a {
		for len(b) > 0 && b[0].End < r.Begin {
			b = b[1:]
		}
		gone := false
		for _, cut := range b {
			if cut.Begin > r.End {
				break
			}
			if cut.Begin > r.Begin {
				out = append(out, Range{r.Begin, cut.Begin - 1})
			}
			if cut.End >= r.End {
				gone = true
				break
			}
			r.Begin = cut.End + 1
		}
		if !gone {
			out = append(out, r)
		}
	}
	return out
}
