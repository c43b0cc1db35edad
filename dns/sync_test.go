package dns

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"

	"starling/dns/records"
	"starling/dns/udp"
	"starling/gossip/catalog"
	"starling/gossip/record"
)

// bubble runs a test in virtual time, on one processor: with more, the race detector of Go 1.26 breaks down now and then in the timers
// of a bubble (golang.org/issue/78156).
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, f)
}

// Before the mesh is heard, this node's own names are answered and all others may exist: nothing is denied.
func TestNothingIsDeniedBeforeTheMeshIsHeard(t *testing.T) {
	for name, heard := range map[string]time.Duration{"heard": 3 * time.Second, "never heard": 0} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				m := newMesh(t)
				own := task("own", taskRunning, 31000)
				own.Name, own.Discovery = "own", nil
				var sets []record.Assignment
				for key, value := range map[string]proto.Message{
					catalog.KeyNode:             &catalog.Node{Roles: []string{catalog.RoleAgent}, Address: "10.0.0.9", Hostname: "edge9", Port: 5051, AgentId: "reader"},
					catalog.TaskKey("f", "own"): own,
				} {
					data, err := proto.Marshal(value)
					if err != nil {
						t.Fatal(err)
					}
					sets = append(sets, record.Assignment{Key: key, Value: data})
				}
				m.Set(epoch, sets...)
				m.agent("a", "10.0.0.1")
				m.set("a", catalog.TaskKey("f", "1"), task("1", taskRunning, 31000))
				m.agent("b", "10.0.0.2")
				aged := task("aged", taskRunning, 31000)
				aged.Name, aged.Discovery = "aged", nil
				m.set("b", catalog.TaskKey("f", "aged"), aged)
				m.set("b", catalog.TaskKey("f", "3"), task("3", taskRunning, 31000))
				m.SetLiveness(epoch, "b", record.Unknown)
				synced := make(chan struct{})
				f := followed(t, m, func(c *Config) { c.Synced = synced })
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- f.run(ctx) }()
				want := func(name string, qtype uint16, rcode, answers int) {
					t.Helper()
					synctest.Wait()
					query, err := new(dns.Msg).SetQuestion(name, qtype).Pack()
					if err != nil {
						t.Fatal(err)
					}
					from := netip.MustParseAddrPort("127.0.0.1:4242")
					answer, next := newFast(f.Server).Answer(query, make([]byte, 1500), from)
					if next != udp.Send {
						answer = f.slow(ctx, query, from)
					}
					got := new(dns.Msg)
					if err := got.Unpack(answer); err != nil {
						t.Fatal(err)
					}
					if got.Rcode != rcode || len(got.Answer) != answers {
						t.Errorf("after %v, %s: %s with %d answers, want %s with %d", time.Since(start2000), name, dns.RcodeToString[got.Rcode], len(got.Answer),
							dns.RcodeToString[rcode], answers)
					}
				}
				before := func() {
					t.Helper()
					want("own.marathon.mesos.", dns.TypeA, dns.RcodeSuccess, 1)
					want("edge9.node.mesos.", dns.TypeA, dns.RcodeSuccess, 1)
					want("own.marathon.mesos.", dns.TypeAAAA, dns.RcodeServerFailure, 0)
					want("web.marathon.mesos.", dns.TypeA, dns.RcodeServerFailure, 0)
					want("slave.mesos.", dns.TypeA, dns.RcodeServerFailure, 0)
					want("nobody.mesos.", dns.TypeA, dns.RcodeServerFailure, 0)
					want("mesos.", dns.TypeSOA, dns.RcodeSuccess, 1)
					if f.Synced() {
						t.Error("it is synced")
					}
				}
				before()
				at := heard
				if at == 0 {
					at = defaultSyncPatience
				}
				m.set("a", catalog.TaskKey("f", "2"), task("2", taskRunning, 31001))
				time.Sleep(at - time.Millisecond)
				before()
				if heard > 0 {
					close(synced)
				}
				time.Sleep(time.Millisecond)
				want("own.marathon.mesos.", dns.TypeA, dns.RcodeSuccess, 1)
				want("_web._tcp.marathon.mesos.", dns.TypeSRV, dns.RcodeSuccess, 2)
				if heard == 0 {
					// What there are records of is answered, and no name is denied.
					want("aged.marathon.mesos.", dns.TypeA, dns.RcodeSuccess, 1)
					want("own.marathon.mesos.", dns.TypeAAAA, dns.RcodeSuccess, 0)
					want("nobody.mesos.", dns.TypeA, dns.RcodeServerFailure, 0)
					time.Sleep(time.Hour)
					want("nobody.mesos.", dns.TypeA, dns.RcodeServerFailure, 0)
					if f.Synced() {
						t.Error("it is synced")
					}
					close(synced)
				}
				want("slave.mesos.", dns.TypeA, dns.RcodeSuccess, 2)
				want("nobody.mesos.", dns.TypeA, dns.RcodeNameError, 0)
				want("aged.marathon.mesos.", dns.TypeA, dns.RcodeNameError, 0)
				if !f.Synced() {
					t.Error("it is not synced")
				}
				m.set("a", catalog.TaskKey("f", "2"), nil)
				want("_web._tcp.marathon.mesos.", dns.TypeSRV, dns.RcodeSuccess, 1)
				cancel()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Errorf("it ended with %v", err)
				}
			})
		})
	}
}

// whileReading is a mesh in whose middle somebody asks.
type whileReading struct {
	*mesh
	ask func()
}

func (w *whileReading) Snapshots() iter.Seq[*record.Snapshot] {
	return func(yield func(*record.Snapshot) bool) {
		for s := range w.mesh.Snapshots() {
			w.ask()
			if !yield(s) {
				return
			}
		}
		w.ask()
	}
}

// A name is not denied because its node was not read yet: neither where the mesh is heard from the beginning nor where it is later.
func TestNothingIsDeniedWhileTheMeshIsRead(t *testing.T) {
	for name, closed := range map[string]bool{"at the start": true, "later": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := &whileReading{mesh: newMesh(t), ask: func() {}}
				for _, node := range []string{"a", "b", "c"} {
					w.agent(node, "10.0.0.1")
					x := task(node, taskRunning, 31000)
					x.Name, x.Discovery = node, nil
					w.set(node, catalog.TaskKey("f", node), x)
				}
				synced := make(chan struct{})
				if closed {
					close(synced)
				}
				s, err := New(Config{Source: w, Self: "reader", Synced: synced, Zone: records.DefaultConfig(), Log: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				answered, failed := 0, 0
				w.ask = func() {
					for _, node := range []string{"a", "b", "c"} {
						m := s.respond(t.Context(), new(dns.Msg).SetQuestion(node+".marathon.mesos.", dns.TypeA), client{size: dns.MinMsgSize})
						switch {
						case m.Rcode == dns.RcodeSuccess && len(m.Answer) == 1:
							answered++
						case m.Rcode == dns.RcodeServerFailure:
							failed++
						default:
							t.Errorf("%s: %s with %d answers", node, dns.RcodeToString[m.Rcode], len(m.Answer))
						}
					}
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- s.Run(ctx) }()
				synctest.Wait()
				if !closed {
					close(synced)
					synctest.Wait()
				}
				if answered == 0 || failed == 0 {
					t.Errorf("%d times answered, %d times not yet", answered, failed)
				}
				answered, failed = 0, 0
				if w.ask(); answered != 3 {
					t.Errorf("in the end %d are answered", answered)
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// start2000 is when time begins in a bubble.
var start2000 = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// The serial number moves with the content and with nothing else, at most once a second, and is the same at nodes that were told the same.
func TestTheSerialNumberMovesWithTheContent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMesh(t)
		var fs []*follower
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		for range 2 {
			f := followed(t, m, nil)
			fs = append(fs, f)
			go func() { done <- f.run(ctx) }()
			time.Sleep(90 * time.Second) // they start at different times
		}
		f := fs[0]
		m.agent("a", "10.0.0.1")
		set := func(id string, state int32) {
			x := task(id, state, 31000)
			x.Changed = uint32(time.Now().Unix())
			m.set("a", catalog.TaskKey("f", id), x)
			synctest.Wait()
		}
		time.Sleep(5 * time.Second)
		before := f.zone.Serial()
		set("1", 6) // staging
		m.set("a", catalog.KeyResources, &catalog.Resources{})
		time.Sleep(5 * time.Second)
		if got := f.zone.Serial(); got != before {
			t.Errorf("it moved from %d to %d, and no name has changed", before, got)
		}
		set("1", taskRunning)
		if got, want := f.zone.Serial(), uint32(time.Now().Unix()); got != want || fs[1].zone.Serial() != want {
			t.Errorf("it is %d and %d after a change, want %d at both", got, fs[1].zone.Serial(), want)
		}
		first, begun := f.zone.Serial(), time.Now()
		for i := range 1000 {
			set("1", []int32{6, taskRunning}[i%2])
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		took := time.Since(begun)
		if moved := f.zone.Serial() - first; moved < 4 || float64(moved) > took.Seconds()+1 {
			t.Errorf("it moved by %d in %v of changes", moved, took)
		}
		if fs[0].zone.Serial() != fs[1].zone.Serial() {
			t.Errorf("it is %d and %d after many changes", fs[0].zone.Serial(), fs[1].zone.Serial())
		}
		// A death is stamped by nobody.
		was := f.zone.Serial()
		m.SetLiveness(time.Now(), "a", record.Dead)
		synctest.Wait()
		if got := f.zone.Serial(); got != was+1 {
			t.Errorf("it is %d after a death, want %d", got, was+1)
		}
		cancel()
		for range 2 {
			<-done
		}
		if f.stamped(uint32(time.Now().Add(2 * time.Minute).Unix())); f.stamp != 0 {
			t.Error("a clock far ahead is believed")
		}
		if f.stamped(uint32(time.Now().Add(30 * time.Second).Unix())); f.stamp == 0 {
			t.Error("a clock that is a little ahead is not believed")
		}
	})
}
