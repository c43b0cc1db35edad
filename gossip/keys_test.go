package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"starling/gossip/keyring"
	"starling/gossip/memnet"
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

// The key of a while ago, in the file of a node that was away and holds a later one, would only say where that one comes from.
func TestAKeyComesBackNever(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(3, withKey("a"))
		for _, letter := range []string{"b", "c"} {
			if err := f.ends(f.rotate(f.nodes[1], letter, RotateOptions{}), time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		for _, letter := range []string{"a", "b"} {
			if err := f.ends(f.rotate(f.nodes[1], letter, RotateOptions{}), time.Minute); !errors.Is(err, ErrKeyUsed) {
				t.Errorf("back to %q: %v, want %v", letter, err, ErrKeyUsed)
			}
		}
		if !f.allHold("c")() {
			t.Error("not all hold the last key alone")
		}
	})
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
		t.Logf("slowest change %v; %d suspicions", slowest, doubts.Load())
		if deaths.Load() > 0 || doubts.Load() > 0 {
			t.Errorf("%d deaths and %d suspicions, want none", deaths.Load(), doubts.Load())
		}
		if err := f.nodes[5].RotateKey(t.Context(), secret("c"), RotateOptions{}); err != nil {
			t.Errorf("to the key that is in use: %v, want nothing to do", err)
		}
	})
}

// rotateUntil leads a rotation until all have acknowledged a phase, and interrupts it there.
func (f *flock) rotateUntil(n *node, letter string, phase keyring.Phase) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	defer cancel()
	err := n.RotateKey(ctx, secret(letter), RotateOptions{Progress: func(p RotationProgress) {
		if p.Phase == phase && p.Acknowledged == p.Nodes {
			cancel()
		}
	}})
	if want := context.Canceled; phase == keyring.Remove && err != nil || phase != keyring.Remove && !errors.Is(err, want) {
		f.t.Fatalf("until %s: %v, want %v", phase, err, want)
	}
}

// phases are what rings look like when all have acknowledged a phase of the rotation from a to b.
var phases = []struct {
	phase keyring.Phase
	ring  []string
}{{keyring.Install, []string{"a", "b"}}, {keyring.Use, []string{"b", "a"}}, {keyring.Remove, []string{"b"}}}

func TestAnyNodeFinishesARotation(t *testing.T) {
	for _, p := range phases {
		t.Run(string(p.phase), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *flock) {
				f.form(8, withKey("a"))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				f.rotateUntil(f.nodes[2], "b", p.phase)
				if !f.allHold(p.ring...)() {
					t.Fatalf("after %s not all hold %v", p.phase, p.ring)
				}
				// The one that led it crashes, and is back while another one finishes.
				f.nodes[2].kill()
				<-f.nodes[2].result
				f.nodes[2].result <- nil
				f.start(2, withKey("a")).Set(assign("node", "back"))
				if !f.nodes[2].holds(p.ring...) {
					t.Errorf("back with %v, want %v", f.nodes[2].keys.current().Fingerprints(), p.ring)
				}
				deaths, _ := f.watched(ctx)
				if err := f.ends(f.rotate(f.nodes[5], "b", RotateOptions{}), time.Minute); err != nil {
					t.Errorf("finished from another: %v", err)
				}
				f.within(20*time.Second, "whole with the new key", func() bool { return whole(f.nodes) && f.allHold("b")() })
				if deaths.Load() > 0 {
					t.Errorf("%d deaths, want none", deaths.Load())
				}
			})
		})
	}
}

// Every node is restarted, in order or not, at every phase, and in the middle of phases too.
func TestRestartsInTheMiddle(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(8, withKey("a"))
		for round, letter := range []string{"b", "c", "d", "e", "f", "g"} {
			r := f.rotate(f.nodes[7], letter, RotateOptions{})
			for i := range 3 {
				time.Sleep(time.Duration(round*150) * time.Millisecond)
				n := f.nodes[(round+3*i)%7]
				if i%2 == 0 {
					n.stop()
				} else {
					n.kill()
				}
				if err := <-n.result; err != nil {
					t.Errorf("%s: %v", n.Self(), err)
				}
				n.result <- nil
				time.Sleep(time.Duration(i) * 700 * time.Millisecond)
				f.start(n.i, withKey("a")).Set(assign("node", "again"))
			}
			if err := f.ends(r, 5*time.Minute); err != nil {
				t.Errorf("to %s: %v", letter, err)
			}
			f.within(time.Minute, "whole with "+letter, func() bool { return whole(f.nodes) && f.allHold(letter)() })
		}
	})
}

func TestADeadNodeHoldsUpARotation(t *testing.T) {
	gone := func(f *flock, i int) {
		f.nodes[i].kill()
		<-f.nodes[i].result
		f.nodes[i].result <- nil
		f.within(30*time.Second, "dead everywhere", func() bool {
			return !slices.ContainsFunc(f.nodes, func(n *node) bool { return n.i != i && n.liveness(f.nodes[i].Self()) != record.Dead })
		})
	}
	others := func(f *flock, letters ...string) bool {
		return !slices.ContainsFunc(f.nodes, func(n *node) bool { return n.i != 4 && !n.holds(letters...) })
	}
	back := func(f *flock) {
		f.start(4, withKey("a")).Set(assign("node", "back"))
		f.within(time.Minute, "whole", func() bool { return whole(f.nodes) })
	}
	for _, tt := range []struct {
		name   string
		before keyring.Phase // that it has acknowledged when it dies
		want   keyring.Phase // that the rotation stops in
		ring   []string      // of the others then
	}{
		{"that knows nothing of it", "", keyring.Install, []string{"a", "b"}},
		{"that knows the new key", keyring.Install, keyring.Use, []string{"b", "a"}},
		{"that uses the new key", keyring.Use, "", []string{"b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *flock) {
				f.form(8, withKey("a"))
				if tt.before != "" {
					f.rotateUntil(f.nodes[0], "b", tt.before)
				}
				gone(f, 4)
				for range 2 { // nothing changes by asking again
					err := f.ends(f.rotate(f.nodes[1], "b", RotateOptions{}), time.Minute)
					held, _ := errors.AsType[*HeldUpError](err)
					switch {
					case tt.want == "" && err != nil:
						t.Errorf("%v, want it done: the node understands what the others have", err)
					case tt.want != "" && (held == nil || held.Phase != tt.want || held.Silent || !slices.Equal(held.Nodes, []string{"node-004"})):
						t.Errorf("%v, want it held up in %s by node-004", err, tt.want)
					}
					if !others(f, tt.ring...) {
						t.Errorf("not all of the others hold %v", tt.ring)
					}
				}
				back(f)
				if err := f.ends(f.rotate(f.nodes[6], "b", RotateOptions{}), time.Minute); err != nil {
					t.Errorf("with the node back: %v", err)
				}
				f.within(20*time.Second, "whole with the new key", func() bool { return whole(f.nodes) && f.allHold("b")() })
			})
		})
	}
	t.Run("and is abandoned", func(t *testing.T) {
		bubble(t, func(t *testing.T, f *flock) {
			f.form(8, withKey("a"))
			gone(f, 4)
			if err := f.ends(f.rotate(f.nodes[1], "b", RotateOptions{Abandon: true}), time.Minute); err != nil {
				t.Fatal(err)
			}
			var theirs, ours countingHandler
			f.nodes[0].logs.log = slog.New(&ours)
			f.start(4, func(c *Config) { c.Key, c.Log = secret("a"), slog.New(&theirs) })
			time.Sleep(3 * time.Minute)
			if n := len(f.nodes[4].Members()); n != 1 {
				t.Errorf("%d members are seen with the old key", n)
			}
			if n := theirs.count("not joined, it has another cluster key"); n < 2 || n > 7*4 {
				t.Errorf("%d lines at the node with the old key in three minutes, want one a minute and peer", n)
			}
			if n := ours.count("refused what has another cluster key"); n < 2 || n > 4 {
				t.Errorf("%d lines at its seed in three minutes, want one a minute", n)
			}
			f.nodes[4].stop()
			<-f.nodes[4].result
			f.nodes[4].result <- nil
			f.start(4, withKey("b"))
			f.within(time.Minute, "whole with the new file", func() bool { return whole(f.nodes) && f.allHold("b")() })
		})
	})
	t.Run("and is abandoned with the new key", func(t *testing.T) {
		bubble(t, func(t *testing.T, f *flock) {
			f.form(8, withKey("a"))
			f.rotateUntil(f.nodes[0], "b", keyring.Install)
			gone(f, 4)
			if err := f.ends(f.rotate(f.nodes[1], "b", RotateOptions{Abandon: true}), time.Minute); err != nil {
				t.Fatal(err)
			}
			// It sends with a key that nobody accepts any more, but knows the other one.
			back(f)
			f.within(20*time.Second, "the node has followed", f.allHold("b"))
		})
	})
}

// A node that comes with a key file when a rotation is under way becomes a member as long as its key is on the ring.
func TestLateJoiners(t *testing.T) {
	for _, p := range phases {
		for _, file := range []string{"a", "b"} {
			t.Run(fmt.Sprint(p.phase, " ", file), func(t *testing.T) {
				bubble(t, func(t *testing.T, f *flock) {
					f.form(8, withKey("a"))
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					f.rotateUntil(f.nodes[2], "b", p.phase)
					deaths, _ := f.watched(ctx)
					late := f.start(8, withKey(file))
					late.Set(assign("node", "late"))
					if !slices.Contains(p.ring, file) {
						time.Sleep(2 * time.Minute)
						if n := len(late.Members()); n != 1 {
							t.Errorf("with a key that was removed %d members are seen", n)
						}
						f.nodes = f.nodes[:8]
						late.stop()
						<-late.result
					} else {
						took := f.within(time.Minute, "a member with the ring of the others", func() bool { return whole(f.nodes) && f.allHold(p.ring...)() })
						t.Logf("a member after %v", took)
					}
					if err := f.ends(f.rotate(f.nodes[5], "b", RotateOptions{}), time.Minute); err != nil {
						t.Error(err)
					}
					f.within(time.Minute, "whole with the new key", func() bool { return whole(f.nodes) && f.allHold("b")() })
					if deaths.Load() > 0 {
						t.Errorf("%d deaths, want none", deaths.Load())
					}
				})
			})
		}
	}
}

func TestARotationUnderLoss(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(12, withKey("a"))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		f.net.SetLoss(0.2)
		f.net.SetLatency(time.Millisecond, 50*time.Millisecond)
		deaths, _ := f.watched(ctx)
		start := time.Now()
		for _, letter := range []string{"b", "c"} {
			if err := f.ends(f.rotate(f.nodes[3], letter, RotateOptions{}), 5*time.Minute); err != nil {
				t.Errorf("to %s: %v", letter, err)
			}
		}
		t.Logf("two rotations under 20 %% loss in %v", time.Since(start))
		if !f.allHold("c")() || deaths.Load() > 0 {
			t.Errorf("all with the new key: %v, %d deaths", f.allHold("c")(), deaths.Load())
		}
	})
}

func TestTwoRotationsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.net.SetLatency(time.Millisecond, 30*time.Millisecond)
		f.form(8, withKey("a"))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		deaths, _ := f.watched(ctx)
		from := "a"
		for i, pair := range [][2]string{{"b", "c"}, {"e", "d"}, {"f", "g"}, {"h", "h"}} {
			one, two := f.rotate(f.nodes[i], pair[0], RotateOptions{}), f.rotate(f.nodes[7-i], pair[1], RotateOptions{})
			errs := []error{f.ends(one, time.Minute), f.ends(two, time.Minute)}
			winner := -1
			for j, err := range errs {
				switch {
				case err == nil && (winner < 0 || pair[0] == pair[1]):
					winner = j
				case errors.Is(err, ErrSuperseded) || errors.Is(err, keyring.ErrUnfinished):
				default:
					t.Errorf("%s and %s: %v, want one done, one superseded", pair[0], pair[1], errs)
				}
			}
			if winner < 0 {
				t.Fatalf("from %s to %s and %s: nobody won: %v", from, pair[0], pair[1], errs)
			}
			from = pair[winner]
			f.within(20*time.Second, "all hold that of the winner", f.allHold(from))
		}
		if deaths.Load() > 0 {
			t.Errorf("%d deaths, want none", deaths.Load())
		}
	})
}

func TestARotationIsTakenBack(t *testing.T) {
	for _, p := range phases[:2] {
		t.Run(string(p.phase), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *flock) {
				f.form(8, withKey("a"))
				f.rotateUntil(f.nodes[2], "b", p.phase)
				if err := f.nodes[4].RotateKey(t.Context(), secret("c"), RotateOptions{}); !errors.Is(err, keyring.ErrUnfinished) {
					t.Errorf("to a third key: %v, want %v", err, keyring.ErrUnfinished)
				}
				if err := f.ends(f.rotate(f.nodes[4], "a", RotateOptions{}), time.Minute); err != nil {
					t.Errorf("back: %v", err)
				}
				f.within(20*time.Second, "whole with the old key", func() bool { return whole(f.nodes) && f.allHold("a")() })
			})
		})
	}
}

// A mesh that is cut in two when a rotation begins is whole again afterwards, whichever side it was begun on, and on both.
func TestARotationInASplitMesh(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(8, withKey("a"))
		side := func(ip string) bool {
			return slices.Contains([]string{memnet.Addr(0), memnet.Addr(1), memnet.Addr(2)}, ip)
		}
		f.net.Cut(func(from, to string) bool { return side(from) != side(to) })
		one, two := f.rotate(f.nodes[1], "b", RotateOptions{}), f.rotate(f.nodes[5], "c", RotateOptions{})
		for _, r := range []*rotating{one, two} {
			if _, ok := errors.AsType[*HeldUpError](f.ends(r, 2*time.Minute)); !ok {
				t.Error("a rotation in half of a mesh was not held up")
			}
		}
		f.net.Cut(nil)
		took := f.within(10*time.Minute, "whole again, with the same ring", func() bool {
			return whole(f.nodes) && (f.allHold("a", "b")() || f.allHold("a", "c")())
		})
		t.Logf("whole again after %v", took)
		letter := "b"
		if f.allHold("a", "c")() {
			letter = "c"
		}
		if err := f.ends(f.rotate(f.nodes[4], letter, RotateOptions{}), time.Minute); err != nil {
			t.Error(err)
		}
		f.within(time.Minute, "whole with the new key", func() bool { return whole(f.nodes) && f.allHold(letter)() })
	})
}

// A node that joins in the last moment of a phase is in the mesh, though the one that leads the rotation has not heard of it yet. It is not lost.
func TestAJoinerInTheLastMoment(t *testing.T) {
	for _, phase := range []keyring.Phase{keyring.Install, keyring.Use} {
		t.Run(string(phase), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *flock) {
				f.net.SetLatency(5*time.Millisecond, 20*time.Millisecond)
				f.form(8, withKey("a"))
				late := 8
				r := f.rotate(f.nodes[5], "b", RotateOptions{Progress: func(p RotationProgress) {
					if p.Phase == phase && p.Acknowledged == p.Nodes && late < 11 {
						f.start(late, withKey("a"))
						late++
						time.Sleep(20 * time.Millisecond) // so that the seed has heard of it, if not all have
					}
				}})
				if err := f.ends(r, 2*time.Minute); err != nil {
					t.Error(err)
				}
				took := f.within(time.Minute, "all whole with the new key", func() bool { return whole(f.nodes) && f.allHold("b")() })
				t.Logf("%d joined late; whole %v after the end", late-8, took)
			})
		})
	}
}
