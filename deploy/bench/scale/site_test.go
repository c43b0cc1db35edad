package scale_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"starling/master"
	"starling/master/api"
	"starling/master/mastertest"
	"starling/master/mesos/server"
	"starling/master/nodeapi"
)

// site is a master with its API at a real port, and its election.
type site struct {
	t         testing.TB
	addr      string
	master    *master.Master
	contender *mastertest.Contender
	client    *nodeapi.Client
	lose      func()
	stop      func()
}

// serve runs a master that does not lead yet. Several may share one mesh and one store.
func serve(t testing.TB, f *fleet, docs *mastertest.Store) *site {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{
		t: t, addr: ln.Addr().String(), contender: mastertest.NewContender(),
		client: nodeapi.NewClient(nodeapi.ClientConfig{Dial: f.dial, Timeout: patience}), lose: func() {},
	}
	log := slog.New(&strict{slog.NewTextHandler(t.Output(), nil), t})
	cfg := master.DefaultConfig()
	cfg.ID, cfg.Hostname, cfg.Address, cfg.Port = mastertest.MasterID, "127.0.0.1", "127.0.0.1", ln.Addr().(*net.TCPAddr).Port
	cfg.Mesh, cfg.Contender, cfg.Store, cfg.Client, cfg.Log = f.mesh, s.contender, docs, s.client, log
	cfg.Settle = 0
	// These agents tell what happened once: on a busy machine no acknowledgement may be given up because an answer takes long.
	cfg.CallTimeout, cfg.LaunchPatience = patience, patience
	if s.master, err = master.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	app := api.New(api.Config{Master: s.master, Log: log})
	done := make(chan error, 2)
	go func() { done <- s.master.Run(ctx) }()
	go func() { done <- server.Serve(ctx, app, ln) }()
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		s.lose()
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("master or its server ended with: %v", err)
			}
		}
		s.client.Close()
	}
	t.Cleanup(s.stop)
	return s
}

// lead elects the master, and waits until it leads.
func (s *site) lead(epoch uint64) {
	s.t.Helper()
	s.lose = s.contender.Elect(epoch)
	eventually(s.t, "the master leads", func() bool { return s.master.Standing().Leading })
}

// patience is how long anything may take; what takes longer has failed.
const patience = 10 * time.Minute

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; !is(); pause = min(2*pause, 16*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		time.Sleep(pause)
	}
}

// get reads a JSON answer of the API.
func (s *site) get(path string, into any) {
	s.t.Helper()
	resp, err := http.Get("http://" + s.addr + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %.200s", resp.StatusCode, body)
	}
	if err == nil {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		s.t.Fatalf("GET %s: %v", path, err)
	}
}

// metric reads one number of /metrics/snapshot.
func (s *site) metric(name string) float64 {
	s.t.Helper()
	values, err := s.master.Metrics(context.Background())
	if err != nil {
		s.t.Fatal(err)
	}
	v, ok := values[name]
	if !ok {
		s.t.Fatalf("no metric %q", name)
	}
	return v
}

// state is what is checked of /state.
type state struct {
	Agents []struct {
		ID string `json:"id"`
	} `json:"slaves"`
	Frameworks []struct {
		ID    string `json:"id"`
		Tasks []struct {
			ID        string `json:"id"`
			AgentID   string `json:"slave_id"`
			State     string `json:"state"`
			Discovery struct {
				Name string `json:"name"`
			} `json:"discovery"`
			Statuses []struct {
				State string `json:"state"`
			} `json:"statuses"`
		} `json:"tasks"`
	} `json:"frameworks"`
}

// complete returns why /state does not show every agent and every task as it is.
func (s *site) complete(f *fleet) error {
	var st state
	s.get("/state", &st)
	if len(st.Agents) != len(f.agents) {
		return fmt.Errorf("/state shows %d agents, there are %d", len(st.Agents), len(f.agents))
	}
	shown := 0
	for _, fw := range st.Frameworks {
		for _, task := range fw.Tasks {
			a := f.byID[task.AgentID]
			if a == nil {
				return fmt.Errorf("task %q is shown on agent %q, which is not there", task.ID, task.AgentID)
			}
			a.mu.Lock()
			known := a.tasks[taskKey{fw.ID, task.ID}] != nil
			a.mu.Unlock()
			if !known || task.State != "TASK_RUNNING" || len(task.Statuses) == 0 || task.Discovery.Name == "" {
				return fmt.Errorf("task %q of framework %q is shown as %+v, the agent knows it: %v", task.ID, fw.ID, task, known)
			}
			shown++
		}
	}
	if want := int(f.tasks.Load()); shown != want {
		return fmt.Errorf("/state shows %d tasks, there are %d", shown, want)
	}
	return nil
}

// strict fails the test on what a human must act upon, a panic of the loop among it, and passes on warnings.
//
// That many agents do not answer within the second that the master gives them, before it gives others up, may be so where
// all of them share a busy machine; it looks again then.
type strict struct {
	slog.Handler
	t testing.TB
}

func (h *strict) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (h *strict) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &strict{h.Handler.WithAttrs(attrs), h.t}
}

func (h *strict) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError && !strings.HasPrefix(r.Message, "most agents are away or do not answer") {
		h.t.Errorf("the master says: %s", r.Message)
	}
	return h.Handler.Handle(ctx, r)
}
