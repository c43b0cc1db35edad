package gossip

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"starling/gossip/record"
)

// The secrets of the tests, named by letters.
func secret(letter string) Secret { return Secret(strings.Repeat(letter, 32)) }

func withKey(letter string) func(*Config) {
	return func(c *Config) { c.Key = secret(letter) }
}

// holds tells whether a node says of itself, and shows in its keyring, that it has these secrets, the first one in use.
func (n *node) holds(letters ...string) bool {
	var want []string
	for _, l := range letters {
		want = append(want, secret(l).Fingerprint())
	}
	a, ok := acknowledged(n.Snapshot(n.Self()))
	return ok && slices.Equal(n.keys.current().Fingerprints(), want) && slices.Equal(a.installed, want)
}

func (f *flock) allHold(letters ...string) func() bool {
	return func() bool {
		return !slices.ContainsFunc(f.nodes, func(n *node) bool { return n != nil && !n.holds(letters...) })
	}
}

// rotation is a RotateKey under way.
type rotating struct {
	cancel context.CancelFunc
	result chan error
}

func (f *flock) rotate(n *node, letter string, o RotateOptions) *rotating {
	ctx, cancel := context.WithCancel(f.t.Context())
	r := &rotating{cancel, make(chan error, 1)}
	go func() { r.result <- n.RotateKey(ctx, secret(letter), o) }()
	return r
}

// ends waits for the end of a rotation.
func (f *flock) ends(r *rotating, limit time.Duration) error {
	f.t.Helper()
	select {
	case err := <-r.result:
		return err
	case <-time.After(limit):
		f.t.Fatalf("the rotation goes on after %v", limit)
		return nil
	}
}

// watched counts, until stopped, how often nodes held others for worse than alive.
func (f *flock) watched(ctx context.Context) (deaths, doubts *atomic.Int32) {
	deaths, doubts = new(atomic.Int32), new(atomic.Int32)
	for _, n := range f.nodes {
		feed := n.Feed()
		go func() {
			for {
				changes, err := feed.Next(ctx)
				if err != nil {
					return
				}
				for _, c := range changes {
					if c.Key != "" || c.Snapshot == nil {
						continue
					}
					switch c.Snapshot.Liveness() {
					case record.Dead, record.Left:
						f.t.Logf("%s: %s is %v", n.Self(), c.Node, c.Snapshot.Liveness())
						deaths.Add(1)
					case record.Suspect:
						doubts.Add(1)
					}
				}
			}
		}()
	}
	return deaths, doubts
}

func TestARotationUnderLoad(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
		f.form(20, withKey("a"))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		deaths, doubts := f.watched(ctx)
		var slowest time.Duration
		loaded := make(chan struct{})
		go func() {
			defer close(loaded)
			for i := 0; ctx.Err() == nil; i++ {
				n := f.nodes[i%len(f.nodes)]
				value := fmt.Sprint(i)
				n.Set(assign("task/f/1", value))
				start := time.Now()
				for !everywhere(f.nodes, n.Self(), "task/f/1", value)() {
					time.Sleep(5 * time.Millisecond)
					if time.Since(start) > 5*time.Second {
						t.Errorf("change %d of %s is not everywhere after 5 s", i, n.Self())
						return
					}
				}
				slowest = max(slowest, time.Since(start))
			}
		}()
		time.Sleep(2 * time.Second)
		before := slowest
		for _, step := range []string{"b", "c"} {
			start := time.Now()
			var phases []string
			r := f.rotate(f.nodes[3], step, RotateOptions{Progress: func(p RotationProgress) {
				phases = append(phases, fmt.Sprint(p.Phase, " ", p.Acknowledged, "/", p.Nodes))
			}})
			if err := f.ends(r, time.Minute); err != nil {
				t.Fatalf("to %s: %v", step, err)
			}
			t.Logf("to %s in %v: %v", step, time.Since(start), phases)
			if !f.allHold(step)() {
				t.Errorf("not all hold %s alone", step)
			}
		}
		time.Sleep(5 * time.Second)
		cancel()
		<-loaded
		t.Logf("slowest change before %v, in all %v; %d suspicions", before, slowest, doubts.Load())
		if deaths.Load() > 0 || doubts.Load() > 0 {
			t.Errorf("%d deaths and %d suspicions, want none", deaths.Load(), doubts.Load())
		}
		if slowest > 2*time.Second {
			t.Errorf("a change took %v to be everywhere, want 2 s at most", slowest)
		}
		if err := f.nodes[5].RotateKey(t.Context(), secret("c"), RotateOptions{}); err != nil {
			t.Errorf("to the key that is in use: %v, want nothing to do", err)
		}
	})
}
