package hosts

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"starling/master/mesos/codec"
	"starling/master/mesos/scheduler"
)

// Tollgate stands between frameworks and their master: it passes on every call, keeps count of what is launched, and strikes at
// a call that was chosen, so that a process can be killed at an exact point of what it does.
type Tollgate struct {
	// Address is where frameworks find it, host:port.
	Address string

	t      testing.TB
	master string // host:port
	client *http.Client

	mu       sync.Mutex // guards what follows
	calls    int
	launches map[string]int
	strike   *Strike
}

// Strike is what happens at a call, once.
type Strike struct {
	// At tells whether this is the call; n counts from 1, beginning with the order to strike. The SUBSCRIBE of a session is none.
	At func(n int, call *scheduler.Call) bool
	// Answered has it strike after the master has answered, and before the framework knows that; else the call does not get through.
	Answered bool
	// Do is told where the call came from, an IP address. The call is not answered.
	Do func(from string)

	begun int
	done  chan scheduler.Call_Type
}

// NewTollgate opens a gate before a master, on a host. It ends with the test.
func NewTollgate(t testing.TB, host *Host, master string) *Tollgate {
	t.Helper()
	g := &Tollgate{t: t, master: master, launches: map[string]int{}}
	var l net.Listener
	if err := inside(host.netns, func() (err error) { l, err = net.Listen("tcp", host.at(6050)); return err }); err != nil {
		t.Fatal(err)
	}
	g.Address = l.Addr().String()
	transport := &http.Transport{DialContext: host.network.dial}
	g.client = &http.Client{Transport: transport}
	s := &http.Server{Handler: http.HandlerFunc(g.serve)}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		<-done
		transport.CloseIdleConnections()
	})
	return g
}

// Order has the gate strike, instead of what it was to strike before. What comes back gets the type of the call when it has.
func (g *Tollgate) Order(s Strike) <-chan scheduler.Call_Type {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.begun, s.done = g.calls, make(chan scheduler.Call_Type, 1)
	g.strike = &s
	return s.done
}

// Calls is how many calls have come so far.
func (g *Tollgate) Calls() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.calls
}

// Twice lists the tasks whose launch was passed on more than once; all is how many there were.
func (g *Tollgate) Twice() (twice []string, all int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, n := range g.launches {
		if n > 1 {
			twice = append(twice, id)
		}
	}
	return twice, len(g.launches)
}

// due returns the strike if this call is the one.
func (g *Tollgate) due(call *scheduler.Call) *Strike {
	g.mu.Lock()
	defer g.mu.Unlock()
	if call.GetType() == scheduler.Call_SUBSCRIBE {
		return nil
	}
	g.calls++
	s := g.strike
	if s == nil || !s.At(g.calls-s.begun, call) {
		return nil
	}
	g.strike = nil
	return s
}

func (g *Tollgate) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the framework is gone
	}
	call := new(scheduler.Call)
	if cd, ok := codec.ByContentType(r.Header.Get("Content-Type")); ok {
		if err := cd.Unmarshal(body, call); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	s := g.due(call)
	if s != nil && !s.Answered {
		g.hit(s, call, r)
	}
	ctx := r.Context()
	if s != nil {
		ctx = context.WithoutCancel(ctx) // it gets through, whatever becomes of the framework
	}
	g.count(call)
	res, err := g.pass(ctx, r, body)
	if s != nil {
		if err == nil {
			res.Body.Close()
		}
		g.hit(s, call, r)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	for key, values := range res.Header {
		w.Header()[key] = values
	}
	w.WriteHeader(res.StatusCode)
	flush := http.NewResponseController(w)
	buf := make([]byte, 64<<10)
	for {
		_ = flush.Flush()
		n, err := res.Body.Read(buf)
		if _, werr := w.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// hit strikes, and leaves the call without an answer.
func (g *Tollgate) hit(s *Strike, call *scheduler.Call, r *http.Request) {
	from, _, _ := net.SplitHostPort(r.RemoteAddr)
	s.Do(from)
	s.done <- call.GetType()
	panic(http.ErrAbortHandler)
}

// count takes note of launches that are passed on.
func (g *Tollgate) count(call *scheduler.Call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, op := range call.GetAccept().GetOperations() {
		for _, task := range op.GetLaunch().GetTaskInfos() {
			g.launches[task.GetTaskId().GetValue()]++
		}
	}
}

func (g *Tollgate) pass(ctx context.Context, r *http.Request, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, r.Method, "http://"+g.master+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = r.Header.Clone()
	return g.client.Do(req)
}
