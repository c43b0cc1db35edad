// Package api serves a master over HTTP: the v1 scheduler API with its event streams, the v1 operator API, the older JSON
// endpoints, metrics, and the node protocol's reports, all on one port.
//
// Handlers are thin: they decode, call a method of the master that knows no HTTP, and encode. Errors of the master become
// statuses in one place (fail), in the wording of the specification. A master that does not lead sends whoever needs the
// leader there (307), or says that there is none (503); reading goes on at a master that has led until another is known.
//
// Answers that show much (/state and its like) are encoded once for each version of the master's state, however many
// ask.
package api

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/adaptor"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"starling/master"
	"starling/master/mesos/server"
	"starling/master/nodeapi"
)

// Config is what the API is made of.
type Config struct {
	Master *master.Master
	// Verifier checks reports of agents; nil takes all.
	Verifier *nodeapi.Verifier
	// Gatherer is what /metrics/prometheus shows; nil shows the master's numbers alone.
	Gatherer prometheus.Gatherer
	Log      *slog.Logger
	// Level is that of the log, which operators may raise for a time; nil fixes it.
	Level *slog.LevelVar
	// LogFile is the path of the file that the log ends up in, to be shown to operators; empty shows none.
	LogFile string
	// Mount adds routes of others, such as the web UI or the view of the mesh, ahead of the answer to unknown paths; may be nil.
	Mount func(*fiber.App)
}

// callTimeout bounds what a request waits for the master.
const callTimeout = 10 * time.Second

// readable are the older endpoints, which have an alias with ".json" behind.
var readable = []string{
	"/state", "/state-summary", "/slaves", "/frameworks", "/tasks", "/roles", "/flags", "/version", "/health",
	"/metrics/snapshot", "/files/*",
}

type api struct {
	master    *master.Master
	verifier  *nodeapi.Verifier
	log       *slog.Logger
	logFile   string
	verbosity *server.Verbosity
	cache     cache
}

// New returns the application, to be run by server.Serve.
func New(cfg Config) *fiber.App {
	a := &api{
		master: cfg.Master, verifier: cfg.Verifier, log: cfg.Log.With("component", "master/api"), logFile: cfg.LogFile,
		verbosity: server.NewVerbosity(cfg.Level),
	}
	app := server.NewApp(server.Options{
		Log: a.log, Process: "master", JSONAliases: readable, StreamWriteTimeout: 30 * time.Second,
	})
	app.All("/api/v1/scheduler", a.leader(a.scheduler))
	app.All("/api/v1", a.leader(a.operator))
	app.All("/api/v1/operator", a.leader(a.operator))
	app.All(nodeapi.PathReport, a.report)

	app.All("/health", a.health)
	app.All("/version", a.version)
	app.All("/flags", a.flags)
	app.All("/metrics/snapshot", a.metrics)
	app.All("/files/browse", a.browse)
	app.All("/files/read", a.read)
	app.All("/files/download", a.download)
	app.All("/files/debug", a.debugFiles)
	app.All("/logging/toggle", a.verbosity.Toggle)
	app.All("/system/stats.json", server.SystemStats)
	app.All("/system/stats", server.SystemStats)
	app.Get("/metrics/prometheus", prometheusHandler(cfg))
	app.All("/redirect", a.redirect)
	app.All("/redirect/*", notFound)
	app.All("/state", a.reader(a.state))
	app.All("/state-summary", a.reader(a.stateSummary))
	app.All("/slaves", a.reader(a.slaves))
	app.All("/frameworks", a.reader(a.frameworks))
	app.All("/tasks", a.reader(a.tasks))
	app.All("/roles", a.reader(a.roles))
	app.All("/weights", a.reader(a.weights))
	app.All("/quota", a.reader(a.quota))
	app.All("/quota/*", a.reader(a.quota))
	app.All("/teardown", a.leader(a.teardown))
	app.All("/allocator/explain", a.leader(a.explain))
	app.All("/maintenance/schedule", a.leader(a.maintenanceSchedule))
	app.All("/maintenance/status", a.leader(a.maintenanceStatus))
	app.All("/machine/down", a.leader(a.machines(a.master.StartMaintenance)))
	app.All("/machine/up", a.leader(a.machines(a.master.StopMaintenance)))
	a.mountReservations(app)
	if cfg.Mount != nil {
		cfg.Mount(app)
	}
	app.Use(notFound)
	return app
}

func notFound(*fiber.Ctx) error { return server.Errorf(fiber.StatusNotFound, "404 Not Found.") }

func prometheusHandler(cfg Config) fiber.Handler {
	gatherer := cfg.Gatherer
	if gatherer == nil {
		registry := prometheus.NewRegistry()
		registry.MustRegister(master.NewCollector(cfg.Master))
		gatherer = registry
	}
	return adaptor.HTTPHandler(promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}))
}

// context is for what a handler waits for.
func (a *api) context(c *fiber.Ctx) (context.Context, context.CancelFunc) {
	return context.WithTimeout(server.Context(c), callTimeout)
}

// leader lets only a leader answer.
func (a *api) leader(h fiber.Handler) fiber.Handler {
	return func(c *fiber.Ctx) error {
		s := a.master.Standing()
		switch {
		case s.Leading:
			return h(c)
		case s.Recovering:
			return a.fail(c, master.ErrRecovering)
		}
		return a.elsewhere(c, s)
	}
}

// stale is the header of an answer that is not the leader's (RFC 7234, section 5.5.1).
const stale = `110 - "Response is Stale: this master does not lead, and knows of nobody who does"`

// reader is leader for what only reads: one that has led goes on showing what it knows until another leader is known.
func (a *api) reader(h fiber.Handler) fiber.Handler {
	return func(c *fiber.Ctx) error {
		s := a.master.Standing()
		switch {
		case s.Leading:
			return h(c)
		case s.Led && !s.Recovering && s.Leader == nil:
			c.Set(fiber.HeaderWarning, stale)
			return h(c)
		case s.Recovering:
			return a.fail(c, master.ErrRecovering)
		}
		return a.elsewhere(c, s)
	}
}

// elsewhere sends a request to the leader.
func (a *api) elsewhere(c *fiber.Ctx, s master.Standing) error {
	if s.Leader == nil {
		return a.fail(c, master.ErrNotLeading)
	}
	return server.Redirect(c, server.HostPort(s.Leader.Hostname, s.Leader.Port))
}

// fail turns an error of the master into an answer.
func (a *api) fail(c *fiber.Ctx, err error) error {
	if refusal, ok := errors.AsType[*master.Refusal](err); ok {
		return server.Errorf(refusalStatus(refusal.Kind), "%s", refusal.Text)
	}
	if _, ok := errors.AsType[*fiber.Error](err); ok {
		return err
	}
	c.Set(fiber.HeaderRetryAfter, "1")
	switch {
	case errors.Is(err, master.ErrRecovering), errors.Is(err, master.ErrBusy):
		return server.Errorf(fiber.StatusServiceUnavailable, "%s", err)
	case errors.Is(err, master.ErrNotLeading):
		if s := a.master.Standing(); s.Leader != nil && !s.Leading {
			return server.Redirect(c, server.HostPort(s.Leader.Hostname, s.Leader.Port))
		}
		return server.Errorf(fiber.StatusServiceUnavailable, "No leader elected")
	case errors.Is(err, master.ErrStopped), errors.Is(err, server.ErrStopping):
		return server.Errorf(fiber.StatusServiceUnavailable, "Master is stopping")
	case errors.Is(err, context.DeadlineExceeded):
		return server.Errorf(fiber.StatusServiceUnavailable, "Master is overloaded")
	}
	return err
}

func refusalStatus(kind master.Kind) int {
	switch kind {
	case master.Forbidden:
		return fiber.StatusForbidden
	case master.Conflict:
		return fiber.StatusConflict
	case master.NotFound:
		return fiber.StatusNotFound
	case master.Unavailable:
		return fiber.StatusServiceUnavailable
	case master.Unsupported:
		return fiber.StatusNotImplemented
	}
	return fiber.StatusBadRequest
}

// report takes what agents report over the node protocol.
func (a *api) report(c *fiber.Ctx) error {
	ctx, cancel := a.context(c)
	defer cancel()
	resp := nodeapi.ServeReport(ctx, a.verifier, nodeapi.Request{
		Method: c.Method(), Path: nodeapi.PathReport, Header: func(name string) string { return c.Get(name) },
		Body: bytes.Clone(c.Body()),
	}, a.master.Report)
	if resp.Err != nil {
		a.log.Debug("report refused", "peer", c.IP(), "err", resp.Err)
	}
	for name, value := range resp.Header {
		c.Set(name, value)
	}
	c.Status(resp.Status)
	c.Context().Response.SetBodyRaw(resp.Body)
	return nil
}
