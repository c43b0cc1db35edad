//go:build linux

package dns_test

import (
	"math/bits"
	"testing"
	"time"
)

// histogram counts durations in buckets that grow with them: 32 to each doubling, so that a percentile is off by 3% at most.
type histogram struct {
	counts [64 * 32]uint64
	total  uint64
}

func bucket(ns uint64) int {
	if ns < 32 {
		return int(ns)
	}
	shift := bits.Len64(ns) - 6
	return shift*32 + int(ns>>shift)
}

// ceiling is the highest value of a bucket.
func ceiling(b int) uint64 {
	if b < 64 {
		return uint64(b)
	}
	shift := b/32 - 1
	return uint64(b-shift*32+1)<<shift - 1
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucket(uint64(max(d, 0)))]++
	h.total++
}

// quantile is the duration that the share q of all does not exceed.
func (h *histogram) quantile(q float64) time.Duration {
	left := uint64(q * float64(h.total))
	for b, n := range h.counts {
		if n > left {
			return time.Duration(ceiling(b))
		}
		left -= n
	}
	return 0
}

func TestHistogramIsOffByThreePercentAtMost(t *testing.T) {
	for _, v := range []uint64{0, 1, 31, 32, 63, 64, 65, 127, 128, 1000, 12345, 1e6, 123456789, 1e10} {
		top := ceiling(bucket(v))
		if top < v || float64(top) > float64(v)*1.033 {
			t.Errorf("%d is counted as up to %d", v, top)
		}
		if v > 0 && bucket(v-1) > bucket(v) {
			t.Errorf("%d is counted above %d", v-1, v)
		}
	}
	var h histogram
	for i := range 1000 {
		h.add(time.Duration(i) * time.Microsecond)
	}
	for _, c := range []struct {
		q    float64
		want time.Duration
	}{{0.5, 500 * time.Microsecond}, {0.99, 990 * time.Microsecond}, {0, 0}} {
		if got := h.quantile(c.q); got < c.want || got > c.want+c.want/30 {
			t.Errorf("quantile(%v) = %v, want %v", c.q, got, c.want)
		}
	}
}
