package catalog

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/record"
)

// snapshot returns the record of a node with this value as its coordinate; nil: without.
func snapshot(node string, value []byte) *record.Snapshot {
	m := record.NewMap(node, 1)
	m.Set(time.Unix(0, 0), record.Assignment{Key: KeyCoordinate, Value: value})
	return m.Snapshot(node)
}

func TestRTT(t *testing.T) {
	encode := func(c *Coordinate) []byte {
		b, err := proto.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	here := snapshot("here", encode(&Coordinate{Vector: []int32{3000, 0}, Height: 100, Adjustment: 50}))
	for _, c := range []struct {
		name string
		to   *record.Snapshot
		want time.Duration
		err  string
	}{
		{"distance, heights and adjustments", snapshot("there", encode(&Coordinate{Vector: []int32{0, 4000}, Height: 10, Adjustment: -60})), 5100 * time.Microsecond, ""},
		{"adjustments do not make it nothing", snapshot("there", encode(&Coordinate{Vector: []int32{3000, 0}, Adjustment: -10_000})), 100 * time.Microsecond, ""},
		{"itself", here, 0, ""},
		{"no coordinate", snapshot("there", nil), 0, `"there" has no network coordinate yet`},
		{"garbage", snapshot("there", []byte{0xff}), 0, `"there" has no network coordinate yet: proto`},
		{"empty", snapshot("there", []byte{}), 0, "0 dimensions"},
		{"too far", snapshot("there", encode(&Coordinate{Vector: []int32{0, math.MinInt32}})), 0, "us away"},
		{"other dimensions", snapshot("there", encode(&Coordinate{Vector: []int32{0}})), 0, "2 and 1 dimensions"},
	} {
		got, err := RTT(here, c.to)
		switch {
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("%s: %v, %v; want %v", c.name, got, err, c.want)
		case c.err != "" && (!errors.Is(err, ErrNoCoordinate) || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: %v, want ErrNoCoordinate with %q", c.name, err, c.err)
		}
	}
	if rtt, err := RTT(snapshot("there", nil), here); !errors.Is(err, ErrNoCoordinate) {
		t.Errorf("from a node without a coordinate: %v, %v; want ErrNoCoordinate", rtt, err)
	}
}
