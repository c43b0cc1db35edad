package callback_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"starling/marathon/event"
	"starling/marathon/event/callback"
)

// web is what is behind the URLs of a test: each host does as its function says.
type web struct {
	mu    sync.Mutex
	hosts map[string]func(ctx context.Context) (int, error)
	got   map[string][]string // guarded by mu
	most  int                 // requests at a time; guarded by mu
	now   int                 // guarded by mu
}

func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.got[r.URL.Host] = append(w.got[r.URL.Host], string(body))
	w.now++
	w.most = max(w.most, w.now)
	does := w.hosts[r.URL.Host]
	w.mu.Unlock()
	status, err := does(r.Context())
	w.mu.Lock()
	w.now--
	w.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Status: fmt.Sprint(status), Body: http.NoBody, Request: r}, nil
}

func (w *web) seen(host string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.got[host], " ")
}

func well(context.Context) (int, error) { return 200, nil }

func hang(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() }

// rig is a sender in virtual time.
type rig struct {
	*web
	bus                   event.Bus
	sender                *callback.Sender
	sent, failed, dropped int // guarded by mu
	paused                []event.CallbackPaused
	n                     int
}

func newRig(t *testing.T, queue int, hosts map[string]func(context.Context) (int, error)) *rig {
	r := &rig{web: &web{hosts: hosts, got: map[string][]string{}}}
	count := func(to *int) func(int) {
		return func(n int) { r.mu.Lock(); defer r.mu.Unlock(); *to += n }
	}
	r.sender = callback.New(callback.Config{
		Timeout: 10 * time.Second, Queue: queue, Transport: r.web, Log: slog.New(slog.DiscardHandler),
		Sent: count(&r.sent), Failed: count(&r.failed), Dropped: count(&r.dropped),
		Paused: func(p event.CallbackPaused) { r.mu.Lock(); defer r.mu.Unlock(); r.paused = append(r.paused, p) },
	})
	urls := []string{}
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		urls = append(urls, "http://"+host+"/")
	}
	r.sender.Set(urls)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	sub := r.bus.Subscribe(0)
	go func() { defer close(ended); r.sender.Run(ctx, &r.bus, sub) }()
	t.Cleanup(func() { cancel(); <-ended })
	synctest.Wait()
	return r
}

// publish tells the next events, numbered.
func (r *rig) publish(count int) {
	for range count {
		r.n++
		r.bus.Publish(event.Frame{Type: "x", Data: fmt.Append(nil, r.n)})
	}
	synctest.Wait()
}

func TestFailuresPauseAndDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := true
		r := newRig(t, 0, map[string]func(context.Context) (int, error){
			"good": well,
			"bad": func(context.Context) (int, error) {
				if broken {
					return 302, nil // not followed, and no success
				}
				return 204, nil
			},
		})
		r.publish(3)
		if r.seen("good") != "1 2 3" || r.seen("bad") != "1" {
			t.Fatalf("good %q, bad %q", r.seen("good"), r.seen("bad"))
		}
		time.Sleep(2*time.Second - 1)
		r.publish(1) // 4: within 2^1 s
		time.Sleep(time.Nanosecond)
		r.publish(1) // 5 is tried
		time.Sleep(4*time.Second - 1)
		r.publish(1) // 6: within 2^2 s
		time.Sleep(time.Nanosecond)
		broken = false
		r.publish(2) // 7 and 8
		broken = true
		r.publish(1) // 9 fails, once in a row again
		time.Sleep(2 * time.Second)
		broken = false
		r.publish(1)
		var pauses []string
		for _, p := range r.paused {
			pauses = append(pauses, fmt.Sprintf("%s %d %ds %d: %s", p.CallbackURL, p.Failures, p.PauseSeconds, p.Dropped, p.Reason))
		}
		if got, want := strings.Join(pauses, "\n"), "http://bad/ 1 2s 2: answered 302\nhttp://bad/ 2 4s 0: answered 302\nhttp://bad/ 1 2s 0: answered 302"; got != want {
			t.Errorf("told of pauses:\n%s\nwant\n%s", got, want)
		}
		if got := r.seen("bad"); got != "1 5 7 8 9 10" {
			t.Errorf("bad was sent %q", got)
		}
		if got := r.seen("good"); got != "1 2 3 4 5 6 7 8 9 10" {
			t.Errorf("good was sent %q", got)
		}
		if r.failed != 3 || r.sent != 13 || r.dropped != 4 {
			t.Errorf("%d failed, %d sent, %d dropped", r.failed, r.sent, r.dropped)
		}
	})
}

// Whoever listens for it hears what is told before it runs.
func TestWhatIsToldBeforeItRunsIsPosted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &web{hosts: map[string]func(context.Context) (int, error){"good": well}, got: map[string][]string{}}
		s := callback.New(callback.Config{Timeout: 10 * time.Second, Transport: w, Log: slog.New(slog.DiscardHandler)})
		s.Set([]string{"http://good/"})
		var bus event.Bus
		sub := bus.Subscribe(0)
		bus.Publish(event.Frame{Type: "x", Data: []byte("early")})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); s.Run(ctx, &bus, sub) }()
		synctest.Wait()
		if got := w.seen("good"); got != "early" {
			t.Errorf("sent %q", got)
		}
		cancel()
		<-ended
	})
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3, map[string]func(context.Context) (int, error){
			"slow": func(context.Context) (int, error) { time.Sleep(9 * time.Second); return 200, nil },
		})
		r.publish(1) // is under way, so that it is not in the queue
		r.publish(9)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := r.seen("slow"); got != "1 2 3 4" || r.dropped != 6 {
			t.Errorf("sent %q, %d dropped", got, r.dropped)
		}
		r.publish(1)
		r.sender.Set(nil)
		r.publish(1)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := r.seen("slow"); got != "1 2 3 4 11" {
			t.Errorf("after its removal: %q", got)
		}
	})
}

// W4a: those who hang or are dead cost others nothing.
func TestTwoHundredThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := map[string]func(context.Context) (int, error){"zz-good": well}
		for i := range 200 {
			hosts[fmt.Sprintf("h%03d", i)] = hang
			if i%2 == 0 {
				hosts[fmt.Sprintf("h%03d", i)] = func(context.Context) (int, error) { return 0, errors.New("refused") }
			}
		}
		r := newRig(t, 0, hosts)
		// At first nobody has shown to work. The one who does is found among those who hang, wherever it stands: 100 of them cost a second
		// each, six at a time, and the last six may cost ten seconds.
		r.publish(1)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if r.seen("zz-good") != "1" {
			t.Fatalf("after 30 s: %q", r.seen("zz-good"))
		}
		// From then on it gets each event at once, however the others do.
		for range 300 {
			time.Sleep(time.Second)
			r.publish(1)
			if want := fmt.Sprint(r.n); !strings.HasSuffix(r.seen("zz-good"), want) {
				t.Fatalf("event %s is not there at once: ...%q", want, r.seen("zz-good")[max(0, len(r.seen("zz-good"))-30):])
			}
		}
		if r.most > 14 {
			t.Errorf("%d requests at a time", r.most)
		}
	})
}

// The same over real connections: the number of goroutines is bounded.
func TestGoroutinesAreBounded(t *testing.T) {
	hole, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and answers nothing
	if err != nil {
		t.Fatal(err)
	}
	var held []net.Conn
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			conn, err := hole.Accept()
			if err != nil {
				return
			}
			held = append(held, conn)
		}
	}()
	t.Cleanup(func() {
		hole.Close()
		<-gone
		for _, conn := range held {
			conn.Close()
		}
	})
	var mu sync.Mutex
	got := 0
	good := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { mu.Lock(); got++; mu.Unlock() }))
	defer good.Close()
	s := callback.New(callback.Config{Timeout: 10 * time.Second, Log: slog.New(slog.DiscardHandler)})
	var urls []string
	for i := range 200 {
		urls = append(urls, fmt.Sprintf("http://%s/%d", hole.Addr(), i))
	}
	var bus event.Bus
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	before := runtime.NumGoroutine()
	sub := bus.Subscribe(0)
	go func() { defer close(ended); s.Run(ctx, &bus, sub) }()
	s.Set([]string{good.URL})
	eventually := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !is(); runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatalf("not in time: %s", what)
			}
		}
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return got }
	most := 0
	for n := 1; n <= 50; n++ {
		if n == 2 {
			s.Set(append(urls, good.URL))
		}
		bus.Publish(event.Frame{Type: "x", Data: []byte("{}")})
		begun := time.Now()
		eventually("the event is there", func() bool { most = max(most, runtime.NumGoroutine()-before); return count() == n })
		// Behind the holes it would come after half a minute, or after their timeout of 10 s.
		if took := time.Since(begun); took > 8*time.Second {
			t.Errorf("event %d took %s", n, took)
		}
	}
	t.Logf("%d goroutines more than without", most)
	if most > 50 {
		t.Errorf("%d goroutines more than without", most)
	}
	cancel()
	<-ended
}
