package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mesos/server"
)

// lines reads a watch over HTTP, event by event.
type lines struct {
	t    testing.TB
	scan *bufio.Scanner
	end  func() // closes the connection
}

func watchOver(t testing.TB, base string) *lines {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", base+"/mesh/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("status %d, %s", res.StatusCode, res.Header.Get("Content-Type"))
	}
	return &lines{t, bufio.NewScanner(res.Body), func() { res.Body.Close() }}
}

func (l *lines) next() Event {
	l.t.Helper()
	if !l.scan.Scan() {
		l.t.Fatalf("the stream ended: %v", l.scan.Err())
	}
	var e Event
	if err := json.Unmarshal(l.scan.Bytes(), &e); err != nil {
		l.t.Fatalf("%v: %s", err, l.scan.Bytes())
	}
	return e
}

// want reads the next events, whose times are passed over.
func (l *lines) want(events ...Event) {
	l.t.Helper()
	for _, want := range events {
		got := l.next()
		if got.Time.IsZero() {
			l.t.Errorf("%+v has no time", got)
		}
		if got.Time = (time.Time{}); got != want {
			l.t.Errorf("event %+v, want %+v", got, want)
		}
	}
}

func TestWatchTellsWhatChanges(t *testing.T) {
	f := newFake(t, "self", record.Limits{})
	edge := f.other(t, "edge", record.Alive, record.Assignment{Key: "old", Value: []byte("1")})
	base, _ := serve(t, f)
	l := watchOver(t, base)
	l.want(Event{What: Begin, Node: "self", Nodes: 2})

	f.change(t, edge, set(t, catalog.TaskKey("f", "t"), &catalog.Task{Name: "web", State: 6}))
	l.want(Event{What: Set, Node: "edge", Key: "task/f/t", Version: 2, Size: 7, Summary: "TASK_STAGING web"})
	f.change(t, edge, record.Assignment{Key: "old", Value: []byte("22")})
	l.want(Event{What: Set, Node: "edge", Key: "old", Version: 3, Size: 2, Summary: "2 bytes that this node does not understand"})
	f.change(t, edge, record.Assignment{Key: "old"})
	l.want(Event{What: Delete, Node: "edge", Key: "old"})
	f.SetLiveness(time.Now(), "edge", record.Suspect)
	l.want(Event{What: State, Node: "edge", State: "suspect", Was: "alive"})

	again := record.NewMap("edge", 9)
	f.change(t, again, record.Assignment{Key: "b", Value: []byte("1")})
	l.want(
		Event{What: Restart, Node: "edge"},
		Event{What: Delete, Node: "edge", Key: "task/f/t"},
		Event{What: Set, Node: "edge", Key: "b", Version: 1, Size: 1, Summary: "1 bytes that this node does not understand"},
	)
	f.SetLiveness(time.Now().Add(-time.Hour), "edge", record.Dead)
	l.want(Event{What: State, Node: "edge", State: "dead", Was: "suspect"})
	f.Reap(time.Now(), time.Minute)
	l.want(Event{What: Reaped, Node: "edge"})

	f.SetLiveness(time.Now(), "third", record.Alive)
	l.want(Event{What: New, Node: "third", State: "alive"})
	third := record.NewMap("third", 2)
	f.change(t, third, record.Assignment{Key: catalog.KeyHealth, Value: []byte{0xff}})
	l.want(Event{What: Set, Node: "third", Key: "health", Version: 1, Size: 1, Summary: "the value is not what belongs to this key"})
}

func TestWatchersAreBounded(t *testing.T) {
	f := newFake(t, "self", record.Limits{})
	base, _ := serve(t, f)
	var open []*lines
	for range maxWatchers {
		l := watchOver(t, base)
		l.want(Event{What: Begin, Node: "self", Nodes: 1})
		open = append(open, l)
	}
	status, body := request(t, "GET", base+"/mesh/watch", nil)
	if status != 503 || !strings.Contains(body, "32 others watch") {
		t.Fatalf("one more: %d %s, want 503 with the reason", status, body)
	}
	if status, _ := request(t, "GET", base+"/mesh/members", nil); status != 200 {
		t.Errorf("members beside watchers: %d, want 200", status)
	}
	// One that leaves is noticed without anything being written to it.
	open[0].end()
	for deadline := time.Now().Add(10 * time.Second); ; {
		res, err := http.Get(base + "/mesh/watch")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the place of a watcher that left stays taken")
		}
		runtime.Gosched()
	}
	if status, _ := request(t, "HEAD", base+"/mesh/watch", nil); status != 405 {
		t.Errorf("HEAD: %d, want 405", status)
	}
}

func TestServerStopsWithOpenWatches(t *testing.T) {
	f := newFake(t, "self", record.Limits{})
	base, stop := serve(t, f)
	l := watchOver(t, base)
	l.want(Event{What: Begin, Node: "self", Nodes: 1})
	stop()
	if l.scan.Scan() || l.scan.Err() != nil {
		t.Errorf("after the stop: %q, %v; want a proper end", l.scan.Text(), l.scan.Err())
	}
}

// script is the writer of a watcher in a bubble.
type script struct {
	mu     sync.Mutex
	events []Event
	before func() // called ahead of each write
	fail   error
}

func (s *script) Write(p []byte) (int, error) {
	if s.before != nil {
		s.before()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return 0, s.fail
	}
	for line := range strings.Lines(string(p)) {
		var e Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return 0, err
		}
		s.events = append(s.events, e)
	}
	return len(p), nil
}

func (s *script) kinds() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, e := range s.events {
		all = append(all, string(e.What))
	}
	return strings.Join(all, " ")
}

// bubble runs a test in virtual time, on one processor: with more, the race detector of Go 1.26 breaks down now and then in the timers
// of a bubble (golang.org/issue/78156).
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, f)
}

func TestSilentWatchHasAHeartbeat(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, out := newFake(t, "self", record.Limits{}), &script{}
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- (&watcher{mesh: f, out: out, now: time.Now}).run(ctx) }()
		time.Sleep(2*HeartbeatEvery + time.Second)
		f.Set(time.Now(), record.Assignment{Key: "k", Value: []byte("v")})
		synctest.Wait()
		if got := out.kinds(); got != "begin heartbeat heartbeat set" {
			t.Errorf("events %q", got)
		}
		cancel(server.ErrStopping)
		if err := <-ended; !errors.Is(err, server.ErrStopping) {
			t.Errorf("run = %v, want the cause", err)
		}
	})
}

func TestSlowWatcherIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, out := newFake(t, "self", record.Limits{Changes: 8}), &script{}
		writes := 0
		out.before = func() {
			// While the first line is on its way, more happens than the history holds.
			if writes++; writes == 1 {
				for i := range 20 {
					f.Set(time.Now(), record.Assignment{Key: fmt.Sprint("k", i), Value: []byte("v")})
				}
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- (&watcher{mesh: f, out: out, now: time.Now}).run(ctx) }()
		synctest.Wait()
		f.Set(time.Now(), record.Assignment{Key: "after", Value: []byte("v")})
		synctest.Wait()
		if got := out.kinds(); got != "begin lagged begin set" {
			t.Errorf("events %q", got)
		}
		cancel()
		<-ended
	})
}

func TestWatchEndsWhenItCannotWrite(t *testing.T) {
	f := newFake(t, "self", record.Limits{})
	gone := errors.New("gone")
	if err := (&watcher{mesh: f, out: &script{fail: gone}, now: time.Now}).run(t.Context()); !errors.Is(err, gone) {
		t.Errorf("run = %v, want the error of the writer", err)
	}
}

// Much that happens at once is sent in pieces.
func TestLargeBatchIsSentInPieces(t *testing.T) {
	f, out := newFake(t, "self", record.Limits{}), &script{}
	largest, writes := 0, 0
	w := &watcher{mesh: f, out: writerFunc(func(p []byte) (int, error) {
		largest, writes = max(largest, len(p)), writes+1
		return out.Write(p)
	}), now: time.Now}
	w.begin()
	var many []record.Assignment
	for i := range 2000 {
		many = append(many, record.Assignment{Key: fmt.Sprint("key", i), Value: []byte("v")})
	}
	f.Set(time.Now(), many...)
	w.change(&record.Change{Node: "self", Snapshot: f.Snapshot("self")})
	if err := w.send(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.kinds(), "set"); n != 2000 || writes < 5 || largest > maxBatch+1024 {
		t.Errorf("%d events in %d writes of at most %d bytes", n, writes, largest)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
