package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/client"
	"starling/master/mesos/codec"
	"starling/master/mesos/recordio"
	"starling/master/mesos/scheduler"
)

const patience = 10 * time.Second

var (
	subscribe = &scheduler.Call{
		Type: scheduler.Call_SUBSCRIBE.Enum(),
		Subscribe: &scheduler.Call_Subscribe{
			FrameworkInfo: &mesos.FrameworkInfo{User: new("svc"), Name: new("demo")},
		},
	}
	revive = &scheduler.Call{FrameworkId: &mesos.FrameworkID{Value: new("F")}, Type: scheduler.Call_REVIVE.Enum()}
)

func subscribed(interval float64) *scheduler.Event {
	return &scheduler.Event{
		Type: scheduler.Event_SUBSCRIBED.Enum(),
		Subscribed: &scheduler.Event_Subscribed{
			FrameworkId: &mesos.FrameworkID{Value: new("F")}, HeartbeatIntervalSeconds: &interval,
		},
	}
}

// master is a master reduced to what a client sees. Fields are set before it is used.
type master struct {
	*httptest.Server
	addr string

	events   []*scheduler.Event // what a stream begins with
	raw      string             // and what follows, unframed
	end      chan struct{}      // ends streams when closed; nil: only the client does
	respond  http.HandlerFunc   // answers instead, if set
	onCall   http.HandlerFunc   // answers calls that are no SUBSCRIBE, if set
	mu       sync.Mutex
	calls    []*scheduler.Call
	requests int
}

func newMaster(t *testing.T) *master {
	m := &master{}
	m.Server = httptest.NewServer(m)
	t.Cleanup(func() {
		m.CloseClientConnections()
		m.Server.Close()
	})
	m.addr = strings.TrimPrefix(m.URL, "http://")
	return m
}

func (m *master) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	m.requests++
	m.mu.Unlock()
	if m.respond != nil {
		m.respond(w, r)
		return
	}
	cd, ok := codec.ByContentType(r.Header.Get("Content-Type"))
	if !ok || r.Header.Get("Accept") != cd.ContentType() || r.Method != http.MethodPost || r.URL.Path != client.Path {
		http.Error(w, fmt.Sprintf("bad request %s %s %v", r.Method, r.URL, r.Header), 400)
		return
	}
	body, _ := io.ReadAll(r.Body)
	call := &scheduler.Call{}
	if err := cd.Unmarshal(body, call); err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	m.mu.Lock()
	m.calls = append(m.calls, call)
	m.mu.Unlock()
	switch id := r.Header.Get("Mesos-Stream-Id"); {
	case call.GetType() == scheduler.Call_SUBSCRIBE && id != "":
		http.Error(w, "Subscribe calls should not include the 'Mesos-Stream-Id' header", 400)
	case call.GetType() == scheduler.Call_SUBSCRIBE:
		w.Header().Set("Content-Type", cd.ContentType())
		w.Header().Set("Mesos-Stream-Id", "stream-1")
		for _, e := range m.events {
			rec, _ := cd.Marshal(e)
			w.Write(recordio.Append(nil, rec))
		}
		io.WriteString(w, m.raw)
		w.(http.Flusher).Flush()
		select {
		case <-m.end:
		case <-r.Context().Done():
		}
	case id != "stream-1":
		http.Error(w, "The stream ID '"+id+"' included in this request didn't match", 400)
	case m.onCall != nil:
		m.onCall(w, r)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

func (m *master) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.requests
}

func newClient(t *testing.T, c client.Config) *client.Client {
	c.MinBackoff, c.MaxBackoff = time.Millisecond, 4*time.Millisecond
	cl := client.New(c)
	t.Cleanup(cl.Close)
	return cl
}

func mustSubscribe(t *testing.T, cl *client.Client) *client.Stream {
	t.Helper()
	stream, err := cl.Subscribe(t.Context(), subscribe)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stream.Close)
	return stream
}

func TestSubscribeAndCall(t *testing.T) {
	for _, cd := range []codec.Codec{codec.JSON, codec.Protobuf} {
		t.Run(cd.ContentType(), func(t *testing.T) {
			m := newMaster(t)
			m.events = []*scheduler.Event{subscribed(15), {Type: scheduler.Event_HEARTBEAT.Enum()}}
			m.end = make(chan struct{})
			stream := mustSubscribe(t, newClient(t, client.Config{Masters: []string{m.addr}, Codec: cd}))
			if stream.ID() != "stream-1" || stream.Master() != m.addr {
				t.Errorf("stream %q at %q", stream.ID(), stream.Master())
			}
			for i, want := range m.events {
				if got, err := stream.Next(); err != nil || !proto.Equal(got, want) {
					t.Fatalf("event %d is %v, %v; want %v", i, got, err, want)
				}
			}
			if err := stream.Call(t.Context(), revive); err != nil {
				t.Fatal(err)
			}
			if len(m.calls) != 2 || !proto.Equal(m.calls[0], withDefaults(t, cd, subscribe)) || !proto.Equal(m.calls[1], revive) {
				t.Errorf("the master saw %v", m.calls)
			}
			close(m.end)
			for range 2 { // the end stays
				if _, err := stream.Next(); !errors.Is(err, client.ErrStreamEnded) {
					t.Errorf("Next() = %v, want ErrStreamEnded", err)
				}
			}
		})
	}
}

// withDefaults is what a master reads of a call: JSON says defaults.
func withDefaults(t *testing.T, cd codec.Codec, call *scheduler.Call) *scheduler.Call {
	t.Helper()
	data, err := cd.Marshal(call)
	if err != nil {
		t.Fatal(err)
	}
	again := &scheduler.Call{}
	if err := cd.Unmarshal(data, again); err != nil {
		t.Fatal(err)
	}
	return again
}

func answer(status int, header, value, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if header != "" {
			w.Header().Set(header, value)
		}
		w.WriteHeader(status)
		io.WriteString(w, text)
	}
}

func TestSubscribeFindsTheLeader(t *testing.T) {
	leader := newMaster(t)
	leader.events = []*scheduler.Event{subscribed(15)}
	const dead = "127.0.0.1:1" // nobody is given that port
	for _, tc := range []struct {
		name    string
		respond http.HandlerFunc
	}{
		{"a redirect without scheme", answer(307, "Location", "//"+leader.addr+client.Path, "")},
		{"a redirect with scheme and another path", answer(307, "Location", "http://"+leader.addr+"/elsewhere", "")},
		{"no leader elected", answer(503, "", "", "No leader elected")},
		{"too many requests", answer(429, "", "", "")},
		{"an answer that is no stream", answer(200, "", "", "hello")},
		{"a redirect to nowhere", answer(307, "Location", "//"+dead, "")},
		{"a redirect to itself", func(w http.ResponseWriter, r *http.Request) {
			answer(307, "Location", "//"+r.Host+client.Path, "")(w, r)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			other := newMaster(t)
			other.respond = tc.respond
			cl := newClient(t, client.Config{Masters: []string{dead, other.addr, leader.addr}})
			stream := mustSubscribe(t, cl)
			if stream.Master() != leader.addr {
				t.Errorf("subscribed at %s, want %s", stream.Master(), leader.addr)
			}
			if n := other.count(); n == 0 || n > 10 {
				t.Errorf("the other master was asked %d times", n)
			}
			stream.Close()
			before := other.count()
			if mustSubscribe(t, cl); other.count() != before {
				t.Error("the master that led last was not tried first")
			}
		})
	}
}

// A cluster that elects nobody for a while is asked again and again.
func TestSubscribeWaitsForALeader(t *testing.T) {
	m := newMaster(t)
	m.events = []*scheduler.Event{subscribed(15)}
	asked := 0
	m.respond = func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked < 5 {
			http.Error(w, "No leader elected", http.StatusServiceUnavailable)
			return
		}
		m.respond = nil
		m.ServeHTTP(w, r)
	}
	mustSubscribe(t, newClient(t, client.Config{Masters: []string{m.addr}}))
	if asked != 5 {
		t.Errorf("asked %d times, want 5", asked)
	}
}

func TestSubscribeGivesUp(t *testing.T) {
	for _, status := range []int{400, 401, 403, 415} {
		m := newMaster(t)
		m.respond = answer(status, "", "", "because\n")
		_, err := newClient(t, client.Config{Masters: []string{m.addr}}).Subscribe(t.Context(), subscribe)
		s, ok := errors.AsType[*client.StatusError](err)
		if !ok || s.Code != status || s.Text != "because" || s.Master != m.addr || s.Temporary() {
			t.Errorf("%d: Subscribe() = %v", status, err)
		}
		if m.count() != 1 {
			t.Errorf("%d: asked %d times", status, m.count())
		}
	}

	m := newMaster(t)
	because := errors.New("shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	asked := 0
	m.respond = func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked == 2 {
			cancel(because)
		}
		http.Error(w, "No leader elected", http.StatusServiceUnavailable)
	}
	_, err := newClient(t, client.Config{Masters: []string{m.addr}}).Subscribe(ctx, subscribe)
	if _, ok := errors.AsType[*client.StatusError](err); !errors.Is(err, because) || !ok {
		t.Errorf("Subscribe() = %v, want the cause and the last refusal", err)
	}
	_, err = newClient(t, client.Config{Masters: []string{m.addr}}).Subscribe(ctx, subscribe)
	if !errors.Is(err, because) || strings.Contains(err.Error(), "before") || strings.Contains(err.Error(), "%!") {
		t.Errorf("Subscribe() = %v, want the cause alone, as nobody was asked", err)
	}

	ctx, done := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer done()
	if _, err := newClient(t, client.Config{}).Subscribe(ctx, subscribe); err == nil || !strings.Contains(err.Error(), "no masters are configured") {
		t.Errorf("Subscribe() = %v without masters", err)
	}
	if _, err := newClient(t, client.Config{}).Subscribe(ctx, &scheduler.Call{Subscribe: &scheduler.Call_Subscribe{}}); err == nil ||
		!strings.Contains(err.Error(), "Missing required fields: subscribe.framework_info") {
		t.Errorf("Subscribe() = %v without a framework", err)
	}
}

func TestSubscribeDoesNotWaitForASilentMaster(t *testing.T) {
	silent, leader := newMaster(t), newMaster(t)
	silent.respond = func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}
	leader.events = []*scheduler.Event{subscribed(15)}
	stream := mustSubscribe(t, newClient(t, client.Config{
		Masters: []string{silent.addr, leader.addr}, SubscribeTimeout: 50 * time.Millisecond,
	}))
	if stream.Master() != leader.addr {
		t.Errorf("subscribed at %s", stream.Master())
	}
}

func TestStreamEnds(t *testing.T) {
	for _, tc := range []struct {
		name string
		prep func(*master)
		want func(error) bool
	}{
		{"after five missed heartbeats", func(m *master) { m.events = []*scheduler.Event{subscribed(0.005)} }, is(client.ErrHeartbeatsMissed)},
		{"when the master goes within a record", func(m *master) {
			m.end = make(chan struct{})
			m.raw = "100\n{"
			close(m.end)
		}, is(client.ErrStreamEnded)},
		{"when it says nonsense", func(m *master) { m.raw = "nonsense" }, is(recordio.ErrMalformed)},
		{"when an event is no event", func(m *master) { m.raw = "2\n[]" }, func(err error) bool {
			_, ok := errors.AsType[*codec.SyntaxError](err)
			return ok
		}},
		{"when an event is too large", func(m *master) { m.raw = "2000\n" }, func(err error) bool {
			_, ok := errors.AsType[*recordio.TooLargeError](err)
			return ok
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMaster(t)
			m.events = []*scheduler.Event{subscribed(60)}
			tc.prep(m)
			stream := mustSubscribe(t, newClient(t, client.Config{Masters: []string{m.addr}, MaxEvent: 1000}))
			if _, err := stream.Next(); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Next(); !tc.want(err) {
				t.Errorf("Next() = %v", err)
			}
		})
	}
}

func is(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }

// Heartbeats are missed by a caller that waits, not by one that is busy.
func TestSlowCallerMissesNothing(t *testing.T) {
	m := newMaster(t)
	m.events = []*scheduler.Event{subscribed(0.1), {Type: scheduler.Event_HEARTBEAT.Enum()}}
	stream := mustSubscribe(t, newClient(t, client.Config{Masters: []string{m.addr}}))
	if _, err := stream.Next(); err != nil {
		t.Fatal(err)
	}
	<-time.After(600 * time.Millisecond) // busy for more than five intervals
	if e, err := stream.Next(); err != nil || e.GetType() != scheduler.Event_HEARTBEAT {
		t.Errorf("Next() = %v, %v; want the heartbeat that was there all the time", e, err)
	}
}

func TestCloseAndCancel(t *testing.T) {
	m := newMaster(t)
	m.events = []*scheduler.Event{subscribed(60)}
	cl := newClient(t, client.Config{Masters: []string{m.addr}})
	because := errors.New("no longer leading")
	for name, tc := range map[string]struct {
		end  func(*client.Stream, context.CancelCauseFunc)
		want error
	}{
		"close":  {func(s *client.Stream, _ context.CancelCauseFunc) { s.Close(); s.Close() }, client.ErrClosed},
		"cancel": {func(_ *client.Stream, cancel context.CancelCauseFunc) { cancel(because) }, because},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		stream, err := cl.Subscribe(ctx, subscribe)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Next(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := stream.Next()
			ended <- err
		}()
		tc.end(stream, cancel)
		select {
		case err := <-ended:
			if !errors.Is(err, tc.want) {
				t.Errorf("%s: Next() = %v, want %v", name, err, tc.want)
			}
		case <-time.After(patience):
			t.Fatalf("%s: Next does not return", name)
		}
		stream.Close()
		cancel(nil)
	}
}

func TestCallErrors(t *testing.T) {
	m := newMaster(t)
	m.events = []*scheduler.Event{subscribed(60)}
	stream := mustSubscribe(t, newClient(t, client.Config{Masters: []string{m.addr}}))

	m.onCall = answer(403, "", "", "Framework is not subscribed")
	err := stream.Call(t.Context(), revive)
	if s, ok := errors.AsType[*client.StatusError](err); !ok || s.Code != 403 ||
		err.Error() != "cannot call REVIVE: master "+m.addr+" answers 403: Framework is not subscribed" {
		t.Errorf("Call() = %v", err)
	}
	m.onCall = answer(307, "Location", "//m2:5050/x", "")
	err = stream.Call(t.Context(), revive)
	if s, ok := errors.AsType[*client.StatusError](err); !ok || s.Leader != "m2:5050" || !s.Temporary() {
		t.Errorf("Call() = %v, want the name of the leader", err)
	}
	m.onCall = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	impatient := mustSubscribe(t, newClient(t, client.Config{Masters: []string{m.addr}, CallTimeout: 50 * time.Millisecond}))
	if err := impatient.Call(t.Context(), revive); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Call() = %v, want a deadline", err)
	}
	if err := stream.Call(t.Context(), &scheduler.Call{Kill: &scheduler.Call_Kill{}}); err == nil ||
		!strings.Contains(err.Error(), "Missing required fields: kill.task_id") {
		t.Errorf("Call() = %v", err)
	}
}

// Who may speak no more does not, whatever was under way.
func TestNoCallWithoutPermission(t *testing.T) {
	m := newMaster(t)
	m.events = []*scheduler.Event{subscribed(60)}
	over := errors.New("the term is over")
	var ended atomic.Bool
	asked := 0
	c := newClient(t, client.Config{
		Permit: func() error {
			if ended.Load() {
				return over
			}
			return nil
		},
		Resolve: func(context.Context) ([]string, error) {
			if asked++; asked > 1 {
				ended.Store(true) // while it is found out who leads
			}
			return []string{m.addr}, nil
		},
	})
	stream := mustSubscribe(t, c)
	ended.Store(true)
	if err := stream.Call(t.Context(), revive); !errors.Is(err, over) {
		t.Errorf("Call() = %v, want %v", err, over)
	}
	ended.Store(false)
	m.respond = func(http.ResponseWriter, *http.Request) { t.Error("a master was asked") }
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond) // it tries till then
	defer cancel()
	if _, err := c.Subscribe(ctx, subscribe); !errors.Is(err, over) {
		t.Errorf("Subscribe() = %v, want %v", err, over)
	}
}

func TestAuthorize(t *testing.T) {
	m := newMaster(t)
	m.respond = func(w http.ResponseWriter, r *http.Request) {
		if p, s, ok := r.BasicAuth(); !ok || p != "demo" || s != "secret" {
			http.Error(w, "401 Unauthorized.", http.StatusUnauthorized)
			return
		}
		answer(200, "Mesos-Stream-Id", "x", "")(w, r)
	}
	mustSubscribe(t, newClient(t, client.Config{
		Masters: []string{m.addr}, Authorize: func(r *http.Request) { r.SetBasicAuth("demo", "secret") },
	}))
}
