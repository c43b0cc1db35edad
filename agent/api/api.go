// Package api serves an agent over HTTP, on one port: the node protocol for the leader, the v1 executor API, the v1 operator
// API with its streams into and out of containers, and the older JSON endpoints of Mesos for operators, dashboards and tools that
// look for a task's sandbox. All of it is reachable with and without the prefix "/slave(1)".
//
// Handlers are thin: they take the agent's State, which is a snapshot, and write it down in the names and shapes of the
// specification, or call a method of the agent that knows no HTTP. The calls of the operator API are rows of one table
// (calls.go). Until the agent has recovered, what depends on its state answers 503.
package api

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/adaptor"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"starling/agent"
	"starling/master/mesos"
	"starling/master/mesos/server"
	"starling/master/nodeapi"
)

// Config is what the API is made of.
type Config struct {
	// Verifier checks calls of the leader; nil takes all.
	Verifier *nodeapi.Verifier
	// Metrics is where the agent's numbers are registered and what /metrics/prometheus shows; nil makes one of its own.
	Metrics *prometheus.Registry
	Log     *slog.Logger
	// Level is that of the log, which operators may raise for a time; nil fixes it.
	Level *slog.LevelVar
	// PruneImages removes the images that nobody uses, but for those given; nil where there are none.
	PruneImages func(ctx context.Context, excluded []*mesos.Image) error
	// Mount adds routes of others, such as the view of the mesh, ahead of the answer to unknown paths; may be nil.
	Mount func(*fiber.App)
}

// Server is the API of one agent.
type Server struct {
	agent    *agent.Agent
	cfg      agent.Config
	verifier *nodeapi.Verifier
	log      *slog.Logger
	app      *fiber.App

	verbosity *server.Verbosity
	prune     func(context.Context, []*mesos.Image) error
}

// callTimeout bounds what a request waits for the agent; a launch waits for the disk.
const callTimeout = 30 * time.Second

// readable are the endpoints that have an alias with ".json" behind.
var readable = []string{
	"/state", "/flags", "/version", "/health", "/containers", "/monitor/statistics", "/metrics/snapshot", "/files/*",
}

// New returns the API of an agent. It starts nothing.
func New(a *agent.Agent, cfg Config) (*Server, error) {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{agent: a, cfg: a.Config(), verifier: cfg.Verifier, log: log.With("component", "agent/api")}
	s.verbosity, s.prune = server.NewVerbosity(cfg.Level), cfg.PruneImages
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.NewRegistry()
	}
	if err := cfg.Metrics.Register(newCollector(s)); err != nil {
		return nil, err
	}
	s.app = server.NewApp(server.Options{
		Log: s.log, Process: "slave(1)", JSONAliases: readable, BodyLimit: nodeapi.MaxBody,
		StreamBody: streamed,
	})
	s.app.All(nodeapi.PathCall, s.call)
	s.app.All("/api/v1", s.operator)
	s.app.All("/health", s.health)
	s.app.All("/version", s.version)
	s.app.All("/flags", s.flags)
	s.app.All("/state", s.withState(s.state))
	s.app.All("/containers", s.withState(s.containers))
	s.app.All("/monitor/statistics", s.withState(s.statistics))
	s.app.All("/metrics/snapshot", s.snapshot)
	s.app.All("/logging/toggle", s.verbosity.Toggle)
	s.app.All("/system/stats", server.SystemStats)
	s.app.All("/system/stats.json", server.SystemStats)
	s.app.Get("/metrics/prometheus", adaptor.HTTPHandler(promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{})))
	s.app.All(pathExecutor, s.executor)
	s.app.All("/files/browse", s.withState(s.browse))
	s.app.All("/files/read", s.withState(s.read))
	s.app.All("/files/download", s.withState(s.download))
	s.app.All("/files/debug", s.withState(s.debug))
	if cfg.Mount != nil {
		cfg.Mount(s.app)
	}
	s.app.Use(func(*fiber.Ctx) error { return server.Errorf(fiber.StatusNotFound, "404 Not Found.") })
	return s, nil
}

// App returns the fiber application, for tests.
func (s *Server) App() *fiber.App { return s.app }

// Serve answers requests on ln, which it closes, until ctx ends.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return server.Serve(ctx, s.app, ln)
}

// call is the endpoint of the node protocol.
func (s *Server) call(c *fiber.Ctx) error {
	ctx, cancel := context.WithTimeout(server.Context(c), callTimeout)
	defer cancel()
	resp := nodeapi.ServeCall(ctx, s.verifier, nodeapi.Request{
		Method: c.Method(), Path: c.Path(), Header: func(name string) string { return c.Get(name) },
		// What is decoded may share the body's memory, and the agent keeps it.
		Body: bytes.Clone(c.Body()),
	}, s.agent.Call)
	for name, value := range resp.Header {
		c.Set(name, value)
	}
	if resp.Status == fiber.StatusInternalServerError {
		s.log.Error("call failed", "err", resp.Err)
	} else if resp.Err != nil {
		s.log.Warn("call refused", "err", resp.Err)
	}
	return c.Status(resp.Status).Send(resp.Body)
}

// withState hands the agent's state to a handler.
func (s *Server) withState(h func(*fiber.Ctx, *agent.State) error) fiber.Handler {
	return func(c *fiber.Ctx) error {
		if err := s.ready(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(server.Context(c), callTimeout)
		defer cancel()
		st, err := s.agent.State(ctx)
		if err != nil {
			return unavailable(err)
		}
		return h(c, st)
	}
}

// ready is the answer to all that has to wait until the agent knows what runs; nil once it does.
func (s *Server) ready() error {
	if s.agent.Ready() {
		return nil
	}
	return server.Errorf(fiber.StatusServiceUnavailable, "Agent has not finished recovery")
}

// unavailable is the answer where the agent has no time or has ended.
func unavailable(err error) error {
	if errors.Is(err, agent.ErrStopped) {
		return server.Errorf(fiber.StatusServiceUnavailable, "Agent has stopped")
	}
	return server.Errorf(fiber.StatusServiceUnavailable, "Agent does not answer in time")
}

// health answers 200 without a body once the agent is ready. That holds while the node is degraded, too (its supervisor
// hangs, its disk is full): the API works then and tasks run, and whoever takes the node out of service because of it makes
// things worse. What is wrong is told by the node's health in the mesh and by the metrics: "problems" counts it,
// "containerizer_answers" is 0 while tasks can't be started.
func (s *Server) health(c *fiber.Ctx) error {
	if err := s.ready(); err != nil {
		return err
	}
	c.Status(fiber.StatusOK)
	return nil
}
