package catalog

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/record"
)

// ErrNoCoordinate is wrapped by the error for a node whose place in the network is not known: it has joined a moment ago, its
// datagrams do not pass, or what its record says of it makes no sense.
var ErrNoCoordinate = errors.New("no network coordinate yet")

// The bounds of a coordinate that can be true. Nothing on earth is further away than that.
const (
	// MaxDistance bounds each number of a coordinate.
	MaxDistance = 2 * time.Second
	// MaxError is the error of a node that knows nothing, in thousandths.
	MaxError      = 1500
	maxDimensions = 16
)

// RTT estimates the round trip between the owners of two records from their network coordinates. It is 0 between a node and itself.
// Within a minute of joining, the median of its error is a few milliseconds where nodes are tens of milliseconds apart. The error wraps
// ErrNoCoordinate.
func RTT(a, b *record.Snapshot) (time.Duration, error) {
	if a.Node() == b.Node() {
		return 0, nil
	}
	from, err := CoordinateOf(a)
	if err != nil {
		return 0, err
	}
	to, err := CoordinateOf(b)
	if err != nil {
		return 0, err
	}
	if len(from.Vector) != len(to.Vector) {
		return 0, fmt.Errorf("cannot compare %q with %q: their coordinates have %d and %d dimensions: %w", a.Node(), b.Node(), len(from.Vector), len(to.Vector), ErrNoCoordinate)
	}
	return from.RTT(to), nil
}

// CoordinateOf returns the coordinate in a record, checked. The error wraps ErrNoCoordinate.
func CoordinateOf(s *record.Snapshot) (*Coordinate, error) {
	value, ok := s.Get(KeyCoordinate)
	if !ok {
		return nil, fmt.Errorf("%q has %w", s.Node(), ErrNoCoordinate)
	}
	c := &Coordinate{}
	if err := proto.Unmarshal(value, c); err != nil {
		return nil, fmt.Errorf("%q has %w: %w", s.Node(), ErrNoCoordinate, err)
	}
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("%q has %w: %w", s.Node(), ErrNoCoordinate, err)
	}
	return c, nil
}

// Check returns why the coordinate cannot be true, nil if it can.
func (c *Coordinate) Check() error {
	const most = int64(MaxDistance / time.Microsecond)
	if n := len(c.Vector); n == 0 || n > maxDimensions {
		return fmt.Errorf("%d dimensions, 1 to %d are allowed", n, maxDimensions)
	}
	for _, v := range c.Vector {
		if int64(v) > most || int64(v) < -most {
			return fmt.Errorf("%d us away, at most %d are allowed", v, most)
		}
	}
	switch {
	case int64(c.Height) > most:
		return fmt.Errorf("height %d us, at most %d are allowed", c.Height, most)
	case int64(c.Adjustment) > most || int64(c.Adjustment) < -most:
		return fmt.Errorf("adjustment %d us, at most %d are allowed", c.Adjustment, most)
	case c.Error > MaxError:
		return fmt.Errorf("error %d, at most %d is allowed", c.Error, MaxError)
	}
	return nil
}

// RTT returns the round trip between two places: the distance of the vectors, what the links of both add, and what the model is known to
// be wrong by, unless that would make it nothing. Both have passed Check and have as many dimensions.
func (c *Coordinate) RTT(o *Coordinate) time.Duration {
	sum := 0.0
	for i, v := range c.Vector {
		d := float64(v) - float64(o.Vector[i])
		sum += d * d
	}
	rtt := math.Sqrt(sum) + float64(c.Height) + float64(o.Height)
	if adjusted := rtt + float64(c.Adjustment) + float64(o.Adjustment); adjusted > 0 {
		rtt = adjusted
	}
	return time.Duration(rtt * float64(time.Microsecond))
}
