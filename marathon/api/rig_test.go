package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/marathon"
	"starling/marathon/api"
	"starling/marathon/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/server"
	"starling/master/store"
)

const patience = time.Minute

// rig is a Marathon on HTTP, with a cluster behind it.
type rig struct {
	t       *testing.T
	url     string
	cluster *mastertest.Cluster
	store   *mastertest.Store
	well    map[string]bool // tasks that were reported to be healthy
}

func newRig(t *testing.T, change ...func(*api.Config)) *rig {
	t.Helper()
	return newMarathonRig(t, nil, change...)
}

func newMarathonRig(t *testing.T, settings func(*marathon.Config), change ...func(*api.Config)) *rig {
	t.Helper()
	r := &rig{t: t, cluster: mastertest.New(nil), store: mastertest.NewStore(), well: make(map[string]bool)}
	r.cluster.Add(mastertest.Agent{
		ID: "a1", Host: "127.0.0.1", CPUs: 20, Mem: 1 << 16, Disk: 1 << 20, FirstPort: 31000, LastPort: 31999,
		Attributes: map[string]string{"rack": "r1"},
	})
	master := mastertest.NewServer(t, r.cluster)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	c := marathon.DefaultConfig()
	c.Masters, c.Hostname, c.Address, c.User = []string{master.Address()}, "here", ln.Addr().String(), "nobody"
	c.Store, c.Log, c.Version = r.store, log, "0.1"
	c.MinBackoff, c.MaxBackoff = 5*time.Millisecond, 50*time.Millisecond
	if settings != nil {
		settings(&c)
	}
	m, err := marathon.New(c)
	if err != nil {
		t.Fatal(err)
	}
	served := api.Config{Marathon: m, Log: log}
	for _, f := range change {
		f(&served)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- m.Run(ctx) }()
	go func() { ended <- server.Serve(ctx, api.New(served), ln) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("ended with %v", err)
			}
		}
	})
	r.url = "http://" + ln.Addr().String()
	r.eventually("ready", m.Ready)
	return r
}

func (r *rig) eventually(what string, is func() bool) {
	r.t.Helper()
	deadline := time.After(patience)
	look := time.NewTicker(3 * time.Millisecond)
	defer look.Stop()
	for !is() {
		select {
		case <-look.C:
		case <-deadline:
			r.t.Fatalf("not in time: %s", what)
		}
	}
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) json(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("%v in %q", err, a.body)
	}
	return v
}

// do sends a request as it stands: Go's client would tidy the path up.
func (r *rig) do(method, path, body string, headers ...string) answer {
	r.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	extra := ""
	for i := 0; i+1 < len(headers); i += 2 {
		extra += headers[i] + ": " + headers[i+1] + "\r\n"
	}
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nContent-Type: application/json\r\nConnection: close\r\n%s\r\n%s",
		method, path, len(body), extra, body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(data)}
}

// want sends a request and checks the status.
func (r *rig) want(status int, method, path, body string, headers ...string) answer {
	r.t.Helper()
	a := r.do(method, path, body, headers...)
	if a.status != status {
		r.t.Fatalf("%s %s %s: %d, want %d: %s", method, path, body, a.status, status, a.body)
	}
	return a
}

func (r *rig) settled() {
	r.t.Helper()
	r.eventually("no deployment runs", func() bool { return r.do("GET", "/v2/deployments", "").body == "[]" })
}

// abdicate has Marathon give leadership up, and waits until its next term has begun. It returns the answer.
func (r *rig) abdicate() string {
	r.t.Helper()
	r.eventually("there is a session", func() bool { return r.cluster.Sessions() > 0 })
	before := r.cluster.Sessions()
	said := r.want(200, "DELETE", "/v2/leader", "").body
	r.eventually("there is one of another term", func() bool { return r.cluster.Sessions() > before })
	return said
}

// breakStore has the store fail to write whatever has to do with keys of a prefix. What it returns is closed at the first such write.
func (r *rig) breakStore(prefix string) (broken <-chan struct{}) {
	asked := make(chan struct{})
	once := sync.OnceFunc(func() { close(asked) })
	r.store.Fail(func(ops []store.Op) error {
		if !slices.ContainsFunc(ops, func(op store.Op) bool { return strings.HasPrefix(op.Key, prefix) }) {
			return nil
		}
		once()
		return errors.New("disk is full")
	})
	return asked
}

// given waits for something that a channel tells.
func (r *rig) given(what string, given <-chan struct{}) {
	r.t.Helper()
	select {
	case <-given:
	case <-time.After(patience):
		r.t.Fatalf("not in time: %s", what)
	}
}

func (r *rig) running(name string) int {
	n := 0
	for _, t := range r.cluster.Tasks() {
		if t.Info.GetName() == name && t.State == mesos.TaskState_TASK_RUNNING {
			n++
		}
	}
	return n
}
