// Package api serves a Marathon over HTTP: apps, groups, tasks, deployments, the queue, events, and what operators ask.
//
// Handlers are thin: they decode, call a method of the Marathon, which knows no HTTP, and encode. Errors become statuses
// in one place (fail), with the bodies that clients expect. Reading looks at the state for as long as it takes to copy
// pointers; encoding is done after that. A write waits until it is stored, but not for ever: then the answer is 503.
//
// Ids are paths and contain slashes, so routes are found here and not by fiber: the path is decoded once, repeated and
// trailing slashes don't count, a path that leads up with ".." is none, and what stands before and behind an id tells what is
// meant. Nothing is redirected but the root, to the UI.
//
// What is served follows spec/marathon-api.md; the wording of errors is that of its section 2.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"

	"starling/marathon"
	"starling/marathon/app"
	"starling/marathon/scheduler"
	"starling/marathon/state"
	"starling/master/mesos/server"
)

// writeTimeout bounds how long a change waits to be stored.
const writeTimeout = 25 * time.Second

// Config is what the API is made of.
type Config struct {
	Marathon *marathon.Marathon
	// Gatherer is what /metrics/prometheus shows besides Marathon's own numbers, which are always there; may be nil.
	Gatherer prometheus.Gatherer
	Log      *slog.Logger
	// Proxy says how the leader is reached where this Marathon is not the one.
	Proxy Proxy
	// Mount adds routes of others, such as the web UI, ahead of these; may be nil.
	Mount func(*fiber.App)

	// HTTP is what a front of the API is asked for: who may come in, how many at a time, and what answers look like.
	HTTP HTTP
	// HidePrometheus makes /metrics/prometheus unknown.
	HidePrometheus bool
	// Logging is what /logging shows and sets; nil makes that unknown. Flags are what /config shows: no secrets among them.
	Logging Logging
	Flags   map[string]string
}

type api struct {
	m        *marathon.Marathon
	log      *slog.Logger
	gatherer prometheus.Gatherer
	http     HTTP
	hideProm bool
	logging  Logging
	flags    map[string]string
	follow   *follower
}

// New returns the application, to be run by server.Serve.
func New(cfg Config) *fiber.App {
	own := prometheus.NewRegistry()
	own.MustRegister(marathon.NewCollector(cfg.Marathon))
	gatherers := prometheus.Gatherers{own}
	if cfg.Gatherer != nil {
		gatherers = append(gatherers, cfg.Gatherer)
	}
	settings := cfg.Marathon.Config()
	a := &api{
		m: cfg.Marathon, log: cfg.Log.With("component", "marathon/api"), gatherer: gatherers,
		http: cfg.HTTP, hideProm: cfg.HidePrometheus, logging: cfg.Logging, flags: cfg.Flags, follow: newFollower(cfg.Proxy, &settings),
	}
	fapp := server.NewApp(server.Options{Log: a.log, WriteError: a.writeError, WriteTimeout: time.Minute})
	touch(cfg.Marathon.Registry())
	a.front(fapp)
	fapp.Use(a.headers)
	fapp.Use(a.guard)
	fapp.Use(a.straight)
	fapp.Use(a.proxy)
	if cfg.Mount != nil {
		cfg.Mount(fapp)
	}
	fapp.Use(a.dispatch)
	return fapp
}

// fixedHeaders are on every answer.
var fixedHeaders = [][2]string{
	{fiber.HeaderCacheControl, "no-cache, no-store, must-revalidate"},
	{fiber.HeaderPragma, "no-cache"},
	{fiber.HeaderExpires, "0"},
	{fiber.HeaderXFrameOptions, "DENY"},
	{fiber.HeaderXXSSProtection, "1; mode=block"},
}

func (a *api) headers(c *fiber.Ctx) error {
	if leader := a.leaderURL(); leader != "" {
		c.Set(headerLeader, leader)
	}
	for _, h := range fixedHeaders {
		c.Set(h[0], h[1])
	}
	return c.Next()
}

// straight lets no path by that leads up.
func (a *api) straight(c *fiber.Ctx) error {
	if climbs(c.OriginalURL()) {
		return a.fail(c, refusal(fiber.StatusNotFound, "URI not found"))
	}
	return c.Next()
}

// climbs tells of a path with a segment that leads up, written plainly or escaped. Further down such a path is shortened
// already, and names something else than was asked for.
func climbs(uri string) bool {
	path, _, _ := strings.Cut(uri, "?")
	decoded, err := url.PathUnescape(path)
	return err == nil && slices.Contains(strings.Split(decoded, "/"), "..")
}

// methods are the handlers of one path.
type methods map[string]fiber.Handler

// dispatch finds the handler of a request by its path and method.
func (a *api) dispatch(c *fiber.Ctx) error {
	path, _, _ := strings.Cut(server.OriginalURI(c), "?")
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return a.fail(c, refusal(fiber.StatusBadRequest, "The path is not properly encoded."))
	}
	segments := slices.DeleteFunc(strings.Split(decoded, "/"), func(s string) bool { return s == "" })
	handlers := a.route(segments)
	if handlers == nil {
		return a.fail(c, refusal(fiber.StatusNotFound, "URI not found"))
	}
	method := c.Method()
	h := handlers[method]
	if h == nil && method == fiber.MethodHead {
		h = handlers[fiber.MethodGet]
	}
	if h != nil {
		return a.fail(c, h(c))
	}
	allow := []string{fiber.MethodOptions}
	for m := range handlers {
		allow = append(allow, m)
	}
	if handlers[fiber.MethodGet] != nil {
		allow = append(allow, fiber.MethodHead)
	}
	slices.Sort(allow)
	c.Set(fiber.HeaderAllow, strings.Join(allow, ", "))
	if method == fiber.MethodOptions {
		c.Status(fiber.StatusOK)
		c.Context().Response.ResetBody()
		return nil
	}
	return a.fail(c, refusal(fiber.StatusMethodNotAllowed, "Method not allowed"))
}

// route returns the handlers of a path, nil where there is nothing.
func (a *api) route(path []string) methods {
	first := ""
	if len(path) > 0 {
		first = path[0]
	}
	switch {
	case len(path) == 0, first == "ui" && len(path) == 1:
		return methods{fiber.MethodGet: a.toUI}
	case first == "v2" && len(path) > 1:
		return a.routeV2(path[1], path[2:])
	case first == "metrics" && len(path) == 2 && path[1] == "prometheus" && !a.hideProm:
		return methods{fiber.MethodGet: a.prometheus}
	case first == "api-console" && (len(path) == 1 || len(path) == 2 && path[1] == "index.html"):
		return methods{fiber.MethodGet: a.getConsole}
	case first == "public":
		return a.routePublic(path)
	case len(path) > 1:
		return nil
	}
	switch first {
	case "ping":
		return methods{fiber.MethodGet: a.ping}
	case "health":
		return methods{fiber.MethodGet: a.health}
	case "metrics":
		return methods{fiber.MethodGet: a.metrics}
	case "help":
		return methods{fiber.MethodGet: a.toConsole}
	case "config":
		return methods{fiber.MethodGet: a.getConfig}
	case "logging":
		if a.logging == nil {
			return nil
		}
		return methods{fiber.MethodGet: a.getLogging, fiber.MethodPost: a.postLogging}
	default:
		return nil
	}
}

func (a *api) routeV2(what string, rest []string) methods {
	switch what {
	case "apps":
		return a.routeApps(rest)
	case "pods", "pods::status":
		return a.routePods(what, rest)
	case "groups":
		return a.routeGroups(rest)
	case "tasks":
		switch {
		case len(rest) == 0:
			return methods{fiber.MethodGet: a.getTasks}
		case len(rest) == 1 && rest[0] == "delete":
			return methods{fiber.MethodPost: a.deleteTasks}
		}
	case "deployments":
		switch len(rest) {
		case 0:
			return methods{fiber.MethodGet: a.getDeployments}
		case 1:
			if rest[0] == "history" {
				return methods{fiber.MethodGet: a.getHistory}
			}
			return methods{fiber.MethodGet: a.getDeployment(rest[0]), fiber.MethodDelete: a.deleteDeployment(rest[0])}
		}
	case "queue":
		switch {
		case len(rest) == 0:
			return methods{fiber.MethodGet: a.getQueue}
		case len(rest) > 1 && rest[len(rest)-1] == "delay":
			return methods{fiber.MethodDelete: a.deleteDelay(rest[:len(rest)-1])}
		}
	case "orphans":
		return a.routeOrphans(rest)
	case "schemas":
		if len(rest) == 1 {
			if schema, ok := app.Schema(rest[0]); ok {
				return methods{fiber.MethodGet: func(c *fiber.Ctx) error { return writeJSON(c, fiber.StatusOK, schema) }}
			}
		}
	case "plugins":
		if len(rest) == 0 {
			return methods{fiber.MethodGet: a.getPlugins}
		}
		none := func(*fiber.Ctx) error {
			return refusal(fiber.StatusNotFound, "No plugin with this pluginId: %s", rest[0])
		}
		return methods{
			fiber.MethodGet: none, fiber.MethodPut: none, fiber.MethodPost: none, fiber.MethodDelete: none,
		}
	}
	if len(rest) > 0 {
		return nil
	}
	switch what {
	case "info":
		return methods{fiber.MethodGet: a.getInfo}
	case "leader":
		return methods{fiber.MethodGet: a.getLeader, fiber.MethodDelete: a.deleteLeader}
	case "brake":
		return methods{fiber.MethodGet: a.getBrake, fiber.MethodDelete: a.deleteBrake}
	case "handover":
		return methods{fiber.MethodGet: a.getHandover}
	case "events":
		return methods{fiber.MethodGet: a.getEvents}
	case "eventSubscriptions":
		return methods{
			fiber.MethodGet: a.getSubscriptions, fiber.MethodPost: a.postSubscription, fiber.MethodDelete: a.deleteSubscription,
		}
	default:
		return nil
	}
}

// refused is an answer other than success, with a message as its body.
type refused struct {
	status  int
	message string
}

func (r *refused) Error() string { return r.message }

func refusal(status int, format string, args ...any) error {
	return &refused{status: status, message: fmt.Sprintf(format, args...)}
}

// fail is the one place where errors become answers. What has no class is returned, for a 500 with an id.
func (a *api) fail(c *fiber.Ctx, err error) error {
	if err == nil {
		return nil
	}
	if r, ok := errors.AsType[*refused](err); ok {
		return writeJSON(c, r.status, message{r.message})
	}
	if invalid, ok := errors.AsType[*app.Invalid](err); ok {
		return writeInvalid(c, invalid)
	}
	if locked, ok := errors.AsType[*scheduler.Locked](err); ok {
		body := lockedBody{Message: locked.Error()}
		for _, id := range locked.Deployments {
			body.Deployments = append(body.Deployments, idBody{id})
		}
		return writeJSON(c, fiber.StatusConflict, body)
	}
	if many, ok := errors.AsType[*scheduler.TooManyDeployments](err); ok {
		return writeJSON(c, fiber.StatusForbidden, message{many.Error()})
	}
	if large, ok := errors.AsType[*state.TooLarge](err); ok {
		return writeInvalid(c, &app.Invalid{
			Message: app.MessageObject, Details: []app.Detail{{Path: "/", Errors: []string{large.Error()}}},
		})
	}
	switch {
	case errors.Is(err, marathon.ErrNotReady):
		return writeJSON(c, fiber.StatusServiceUnavailable, message{"Marathon is starting up, or shutting down"})
	case errors.Is(err, marathon.ErrTooManyChanges):
		return writeJSON(c, fiber.StatusServiceUnavailable, message{"Too many changes are waiting to be made. Nothing was changed; try again later."})
	case errors.Is(err, marathon.ErrStore):
		return writeJSON(c, fiber.StatusServiceUnavailable, message{"The store has not taken a write for some time. Nothing was changed; try again later."})
	case errors.Is(err, marathon.ErrNotStored):
		a.log.Error("request could not be stored", "method", c.Method(), "path", c.Path(), "err", err)
		return writeJSON(c, fiber.StatusServiceUnavailable, message{"The store has refused the change, so nothing was changed."})
	case errors.Is(err, marathon.ErrTermEnded):
		a.log.Warn("leadership ended during a request", "method", c.Method(), "path", c.Path(), "err", err)
		return writeJSON(c, fiber.StatusServiceUnavailable, message{"Leadership has changed meanwhile. The request may still take effect."})
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, server.ErrStopping):
		a.log.Warn("request not served in time", "method", c.Method(), "path", c.Path(), "err", err)
		return writeJSON(c, fiber.StatusServiceUnavailable, message{"The request could not be served in time. It may still take effect."})
	default:
		return err
	}
}

// writeError answers for requests that no handler of ours has answered: what fiber refuses, and what goes wrong inside.
func (a *api) writeError(c *fiber.Ctx, status int, text string) error {
	return writeJSON(c, status, message{text})
}

type message struct {
	Message string `json:"message"`
}

type idBody struct {
	ID string `json:"id"`
}

type lockedBody struct {
	Message     string   `json:"message"`
	Deployments []idBody `json:"deployments"`
}

// writeInvalid answers 400 to what is no JSON, with the reason as a text, and 422 to what breaks a rule.
func writeInvalid(c *fiber.Ctx, invalid *app.Invalid) error {
	if invalid.Syntax != "" {
		return writeJSON(c, fiber.StatusBadRequest, map[string]string{"message": invalid.Message, "details": invalid.Syntax})
	}
	body := struct {
		Message string       `json:"message"`
		Details []app.Detail `json:"details,omitempty"`
	}{invalid.Message, invalid.Details}
	return writeJSON(c, fiber.StatusUnprocessableEntity, body)
}

// writeJSON answers with a value.
func writeJSON(c *fiber.Ctx, status int, v any) error {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("cannot encode the answer: %w", err)
	}
	c.Status(status)
	c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	c.Context().Response.SetBodyRaw(bytes.TrimSuffix(body.Bytes(), []byte("\n")))
	return nil
}

// context is for what a handler waits for.
func (a *api) context(c *fiber.Ctx) (context.Context, context.CancelFunc) {
	return context.WithTimeout(server.Context(c), writeTimeout)
}

// flagOf reads a boolean query parameter: absent it is its default, and any other value than true is false.
func flagOf(c *fiber.Ctx, name string, def bool) bool {
	args := c.Context().QueryArgs()
	if !args.Has(name) {
		return def
	}
	return strings.EqualFold(string(args.Peek(name)), "true")
}

// queryAll returns all values of a query parameter. They are the caller's.
func queryAll(c *fiber.Ctx, name string) []string {
	var values []string
	for _, v := range c.Context().QueryArgs().PeekMulti(name) {
		values = append(values, string(v))
	}
	return values
}

// query returns one query parameter as a string of its own.
func query(c *fiber.Ctx, name string) string { return string(c.Context().QueryArgs().Peek(name)) }

// pathID makes the id out of the segments of a path.
func pathID(segments []string) (app.PathID, error) {
	return app.ParseID("/"+strings.Join(segments, "/"), app.Root)
}

func noApp(id string) error {
	return refusal(fiber.StatusNotFound, "App '/%s' does not exist", strings.TrimPrefix(id, "/"))
}
