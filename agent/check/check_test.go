package check

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
)

func TestDefaultsAndInference(t *testing.T) {
	s, err := Health(&mesos.HealthCheck{Http: &mesos.HealthCheck_HTTPCheckInfo{Port: proto.Uint32(80), Path: proto.String("/x")}})
	want := Spec{
		Kind: HTTP, Scheme: "http", Path: "/x", Port: 80, Delay: 15 * time.Second, Interval: 10 * time.Second,
		Timeout: 20 * time.Second, Grace: 10 * time.Second, Failures: 3,
	}
	if err != nil || s != want {
		t.Errorf("got %+v, %v, want %+v", s, err, want)
	}
	g, err := General(&mesos.CheckInfo{Type: mesos.CheckInfo_TCP.Enum(), Tcp: &mesos.CheckInfo_Tcp{Port: proto.Uint32(81)}, DelaySeconds: proto.Float64(0.5)})
	if err != nil || g.Kind != TCP || g.Port != 81 || g.Delay != 500*time.Millisecond {
		t.Errorf("got %+v, %v", g, err)
	}
}

func TestBadChecksAreRefused(t *testing.T) {
	for _, tc := range []struct {
		name  string
		check *mesos.HealthCheck
		texts []string
	}{
		{"nothing", &mesos.HealthCheck{}, []string{"no type"}},
		{
			"much", &mesos.HealthCheck{
				Http:         &mesos.HealthCheck_HTTPCheckInfo{Port: proto.Uint32(70000), Path: proto.String("x"), Scheme: proto.String("ftp")},
				DelaySeconds: proto.Float64(-1),
			}, []string{"70000", `"x"`, `"ftp"`, "-1"},
		},
		{"no command", &mesos.HealthCheck{Type: mesos.HealthCheck_COMMAND.Enum()}, []string{"no value"}},
		{"no port", &mesos.HealthCheck{Type: mesos.HealthCheck_TCP.Enum()}, []string{"port 0"}},
	} {
		_, err := Health(tc.check)
		for _, text := range tc.texts {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: got %v, want it to name %s", tc.name, err, text)
			}
		}
	}
	if _, err := General(&mesos.CheckInfo{}); err == nil {
		t.Error("a check without a type was taken")
	}
}

func TestTiming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Spec{Delay: 5 * time.Second, Interval: 10 * time.Second, Timeout: 2 * time.Second}
		begun := time.Now()
		var at []int
		ctx, cancel := context.WithTimeout(t.Context(), 41*time.Second)
		defer cancel()
		Run(ctx, s, time.Second, func(ctx context.Context, _ Spec) Result {
			at = append(at, int(time.Since(begun).Seconds()))
			<-ctx.Done() // each attempt takes all of its timeout
			return Result{}
		}, func(Result) {})
		if want := []int{4, 16, 28, 40}; !slices.Equal(at, want) {
			t.Errorf("attempts after %v seconds, want %v", at, want)
		}
	})
}

// TestManyAtOnce has an agent come back to a hundred tasks that ran for long: it does not ask them all at once, and all soon.
func TestManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		var mu sync.Mutex
		var at []time.Duration
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				Run(ctx, Spec{Delay: 5 * time.Second, Interval: 10 * time.Second}, time.Hour, func(context.Context, Spec) Result { return Result{} }, func(Result) {
					mu.Lock()
					defer mu.Unlock()
					at = append(at, time.Since(begun))
				})
			})
		}
		all.Wait()
		slices.Sort(at)
		if len(at) != 100 || at[50] < time.Second || at[50] > 9*time.Second {
			t.Errorf("%d were asked, at %v", len(at), at)
		}
	})
}

func TestJudge(t *testing.T) {
	started := time.Unix(1_700_000_000, 0)
	yes := true
	for _, tc := range []struct {
		name    string
		before  *bool
		results string // one a second: + healthy, - not
		want    string // . nothing, t tell, e tell and end
	}{
		{"healthy at once", nil, "+++", "t.."},
		{"the grace period forgives", nil, "----+", "....t"},
		{"not for ever", nil, "-----------", ".........tt"},
		{"in a row", nil, "+--+--+---", "tttttttt" + "te"},
		{"after a success there is no grace", nil, "+---", "ttte"},
		{"a success in between begins anew", nil, "+-+-+-+", "ttttttt"},
		{"known as healthy from before", &yes, "+--+---", ".ttttte"},
	} {
		j := NewJudge(Spec{Grace: 10 * time.Second, Failures: 3}, started, tc.before)
		var got strings.Builder
		for i, r := range tc.results {
			switch v := j.Take(started.Add(time.Duration(i+1)*time.Second), r == '+'); {
			case v.End:
				got.WriteByte('e')
			case v.Tell:
				got.WriteByte('t')
			default:
				got.WriteByte('.')
			}
		}
		if got.String() != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got.String(), tc.want)
		}
	}
}

func portOf(t *testing.T, addr string) uint32 {
	t.Helper()
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(port)
}

func TestHTTPAndTCP(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/hangs":
			<-r.Context().Done()
		case "/ok":
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	p := &Prober{}
	ports := map[string]uint32{
		"http": portOf(t, plain.Listener.Addr().String()), "https": portOf(t, secure.Listener.Addr().String()), "": portOf(t, closed.Addr().String()),
	}
	for _, tc := range []struct {
		scheme, path string
		healthy      bool
		status       uint32
	}{
		{"http", "/ok", true, 200},
		{"https", "/ok", true, 200},
		{"http", "/moved", true, 200},
		{"http", "/bad", false, 503},
		{"http", "/hangs", false, 0},
	} {
		within := time.Minute
		if tc.path == "/hangs" {
			within = 300 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), within)
		r := p.Probe(ctx, Spec{Kind: HTTP, Scheme: tc.scheme, Path: tc.path, Port: ports[tc.scheme]})
		cancel()
		if r.Healthy != tc.healthy || (r.Status == nil) != (tc.status == 0) || r.Status != nil && *r.Status != tc.status {
			t.Errorf("%s%s: got %+v", tc.scheme, tc.path, r)
		}
	}
	if r := p.Probe(t.Context(), Spec{Kind: TCP, Port: ports["http"]}); !r.Healthy || !*r.Connected {
		t.Errorf("an open port: got %+v", r)
	}
	if r := p.Probe(t.Context(), Spec{Kind: TCP, Port: ports[""]}); r.Healthy || *r.Connected || r.Err == nil {
		t.Errorf("a closed port: got %+v", r)
	}
}

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	p := &Prober{Env: []string{"WHO=task", "PATH=/usr/bin:/bin"}, Dir: dir}
	probe := func(within time.Duration, script string) Result {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		return p.Probe(ctx, Spec{Kind: Command, Command: &mesos.CommandInfo{Value: &script, Environment: &mesos.Environment{
			Variables: []*mesos.Environment_Variable{{Name: proto.String("MORE"), Value: proto.String("x")}},
		}}})
	}
	if r := probe(time.Minute, `echo "$WHO $MORE" > here`); !r.Healthy || *r.Exit != 0 {
		t.Errorf("success: got %+v", r)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "here")); string(data) != "task x\n" {
		t.Errorf("environment and folder: got %q, %v", data, err)
	}
	if r := probe(time.Minute, "exit 4"); r.Healthy || *r.Exit != 4 {
		t.Errorf("failure: got %+v", r)
	}
	begun := time.Now()
	if r := probe(time.Second, "sleep 100 & sleep 100"); r.Healthy || r.Exit != nil || r.Err == nil {
		t.Errorf("too long: got %+v", r)
	}
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("took %v", took)
	}
	r := p.Probe(t.Context(), Spec{Kind: Command, Command: &mesos.CommandInfo{Shell: proto.Bool(false), Value: proto.String("/no/such/program")}})
	if r.Healthy || r.Err == nil {
		t.Errorf("a program that lacks: got %+v", r)
	}
}
