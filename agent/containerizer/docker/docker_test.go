package docker

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/agent/containerizer/containerizertest"
	"starling/agent/containerizer/docker/dockertest"
	"starling/master/mesos"
)

var _ containerizer.Containerizer = (*Containerizer)(nil)

// testImage is what most tests run.
const testImage = "starling-test:1"

// node is a machine with an engine and an agent under test.
type node struct {
	t      testing.TB
	engine *dockertest.Engine
	dir    string
	cfg    Config
	log    *containerizertest.Log
}

// newNode starts an engine with the test image.
func newNode(t testing.TB, opts dockertest.Options) *node {
	t.Helper()
	e := dockertest.Start(t, opts)
	if !opts.Idle {
		e.Import(testImage)
	}
	return onEngine(t, e)
}

// onEngine is another agent on an engine.
func onEngine(t testing.TB, e *dockertest.Engine) *node {
	dir := t.TempDir()
	log := containerizertest.NewLog(t)
	return &node{t: t, engine: e, dir: dir, log: log, cfg: Config{
		AgentID: "agent-1", Dir: filepath.Join(dir, "docker"), Host: e.Socket, KillOrphans: true,
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}}
}

// open begins a life of the agent.
func (n *node) open() *Containerizer {
	n.t.Helper()
	c, err := New(n.cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

// run runs a shell in a container with the node's network and pids, where a signal that nobody handles ends it.
func (n *node) run(id, script string) containerizer.Spec {
	sandbox := filepath.Join(n.dir, "sandbox-"+id)
	if err := os.MkdirAll(sandbox, 0o755); err != nil {
		n.t.Fatal(err)
	}
	return containerizer.Spec{
		ID: id, Path: "/bin/sh", Dir: sandbox, Stdout: sandbox + "/stdout", Stderr: sandbox + "/stderr",
		Command: &mesos.CommandInfo{Value: proto.String(script)},
		Container: &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum(), Docker: &mesos.ContainerInfo_DockerInfo{
			Image: proto.String(testImage), Parameters: []*mesos.Parameter{{Key: proto.String("pid"), Value: proto.String("host")}},
		}},
	}
}

// life is a containerizer that was recovered, and whose exits are read.
type life struct {
	*Containerizer
	t     testing.TB
	found map[string]containerizer.Container
	exits *containerizertest.Exits
}

// begin begins a life and ends it with the test.
func (n *node) begin() *life {
	n.t.Helper()
	l := &life{Containerizer: n.open(), t: n.t, found: map[string]containerizer.Container{}}
	found, err := l.Recover(context.Background())
	if err != nil && len(l.found) == 0 && !strings.Contains(err.Error(), containerizer.ErrDegraded.Error()) {
		n.t.Fatalf("recover: %v", err)
	}
	for _, k := range found {
		l.found[k.ID] = k
	}
	l.exits = containerizertest.Follow(n.t, l)
	n.t.Cleanup(l.end)
	return l
}

func (l *life) end() {
	if err := l.Close(); err != nil {
		l.t.Error(err)
	}
	<-l.exits.Done
}

func (l *life) launch(spec containerizer.Spec) containerizer.Container {
	l.t.Helper()
	k, err := l.Launch(context.Background(), spec)
	if err != nil {
		l.t.Fatalf("launch %q: %v", spec.ID, err)
	}
	return k
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestSuite(t *testing.T) {
	dockertest.Need(t)
	e := dockertest.Start(t, dockertest.Options{})
	e.Import(testImage)
	containerizertest.Run(t, func(t *testing.T) containerizertest.Harness {
		n := onEngine(t, e)
		t.Cleanup(e.RemoveContainers)
		return containerizertest.Harness{
			LateLook: true,
			Open:     func(*testing.T) containerizer.Containerizer { return n.open() },
			Close: func(t *testing.T, c containerizer.Containerizer) {
				if err := c.(*Containerizer).Close(); err != nil {
					t.Error(err)
				}
			},
			Spec: func(_ *testing.T, id string, b containerizertest.Behaviour) containerizer.Spec {
				script := "echo ready; exec sleep 1000"
				switch {
				case b.Ends:
					script = fmt.Sprintf("exit %d", b.ExitCode)
				case b.IgnoresTerm:
					script = "trap '' TERM; echo ready; while :; do sleep 1; done"
				}
				spec := n.run(id, script)
				if b.Missing {
					spec.Path = "/no/such/program"
					spec.Command = &mesos.CommandInfo{Shell: proto.Bool(false), Value: proto.String(spec.Path)}
				}
				return spec
			},
			Ready: func(t *testing.T, id string) {
				containerizertest.WaitFor(t, time.Minute, "word of "+id, func() bool {
					data, _ := os.ReadFile(filepath.Join(n.dir, "sandbox-"+id, "stdout"))
					return string(data) == "ready\n"
				})
			},
		}
	})
}
