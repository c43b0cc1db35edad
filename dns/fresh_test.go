package dns

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"starling/dns/records"
	"starling/gossip/catalog"
)

// How long it takes from a change in the map of this node's process to the answer over UDP, for what appears, fails and goes, while other tasks
// change 200 times a second. The figures are logged: a busy machine makes them long, and only what is lost fails the test.
func TestChangesAreAnsweredAtOnce(t *testing.T) {
	m := newMesh(t)
	m.agent("a", "10.0.0.1")
	m.agent("b", "10.0.0.2")
	for i := range 1000 {
		other := task(fmt.Sprint(i), taskRunning, 31000)
		other.Name, other.Discovery = fmt.Sprint("other-", i), nil
		m.set("b", catalog.TaskKey("f", fmt.Sprint(i)), other)
	}
	l, err := Listen(t.Context(), "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Source: m, Self: "reader", Zone: records.DefaultConfig(), Listen: []*Listener{l}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	conn, err := dns.Dial("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	eventually(t, "what was there is in the zone", s.Synced)
	wait := func(answers int) time.Duration {
		t.Helper()
		for begun := time.Now(); ; {
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			q := new(dns.Msg).SetQuestion("fresh.marathon.mesos.", dns.TypeA)
			if err := conn.WriteMsg(q); err != nil {
				t.Fatal(err)
			}
			got, err := conn.ReadMsg()
			if err != nil {
				t.Fatal(err)
			}
			took := time.Since(begun)
			if len(got.Answer) == answers {
				return took
			}
			if took > 10*time.Second {
				t.Fatalf("%d answers after %v, want %d", len(got.Answer), took, answers)
			}
		}
	}
	took := map[string][]time.Duration{}
	next := time.Now()
	for i := range 500 {
		// On a machine on which a change takes longer than the time until the next one, they would never be done.
		if late := time.Now().Add(-20 * time.Millisecond); next.Before(late) {
			next = late
		}
		for now := time.Now(); next.Before(now); next = next.Add(5 * time.Millisecond) {
			other := task(fmt.Sprint(i), []int32{2, taskRunning}[i%2], 31000)
			other.Name, other.Discovery = fmt.Sprint("other-", i), nil
			m.set("b", catalog.TaskKey("f", fmt.Sprint(i)), other)
		}
		x := task("fresh", taskRunning, 31000)
		x.Name, x.Discovery = "fresh", nil
		key := catalog.TaskKey("f", "fresh")
		m.set("a", key, x)
		took["running"] = append(took["running"], wait(1))
		other := task("fresh2", taskRunning, 31000)
		other.Name, other.Discovery = "fresh", nil
		m.set("b", catalog.TaskKey("f", "fresh2"), other)
		took["another"] = append(took["another"], wait(2))
		x.Checked, x.Healthy, x.WasHealthy = true, new(bool), true
		m.set("a", key, x)
		took["unhealthy"] = append(took["unhealthy"], wait(1))
		m.set("a", key, nil)
		m.set("b", catalog.TaskKey("f", "fresh2"), nil)
		took["gone"] = append(took["gone"], wait(0))
	}
	for what, list := range took {
		slices.Sort(list)
		t.Logf("%s: median %v, 99%% %v, worst %v", what, list[len(list)/2], list[len(list)*99/100], list[len(list)-1])
	}
}
