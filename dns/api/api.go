// Package api is the HTTP API of Mesos-DNS (its specification, section 9), usually on port 8123: what is resolvable, as
// JSON. A name that does not exist is answered with one empty record and 200, as clients expect.
//
// What is small is looked up and sent at once. The two lists of everything, /v1/axfr and /v1/enumerate, are written while
// they are read from the zone: no lock is held while a client reads slowly, and only so many are sent at a time.
//
// Beside that there are /metrics, and /health and /ready, which are 200 once the mesh has been heard.
package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/adaptor"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"starling/dns"
	"starling/dns/config"
	"starling/dns/records"
	"starling/master/mesos/server"
)

// Config is what the API needs beside the server that it tells of.
type Config struct {
	// Settings are shown at /v1/config, without their secrets and with the serial number and the resolvers of the moment.
	// EnumerationOn false leaves /v1/enumerate and /v1/axfr out.
	Settings config.Config
	// Metrics may be nil, then /metrics is not there.
	Metrics prometheus.Gatherer
	// Log gets what went wrong inside. None: it is dropped.
	Log *slog.Logger
	// Mount adds routes of others, such as the view of the mesh, which look after methods themselves; may be nil.
	Mount func(*fiber.App)
}

// API serves one DNS server's records.
type API struct {
	server   *dns.Server
	settings config.Config
	app      *fiber.App
	// lists has room for each list that may be on its way at the same time.
	lists chan struct{}
}

// version is that of the Mesos-DNS whose API this is: what its clients compare with is not this software's own.
const version = "v0.7.0"

// The texts of Mesos-DNS.
const (
	textNotFound      = "404: Page Not Found"
	textBadMethod     = "405: Method Not Allowed"
	textNotAcceptable = "406: Not Acceptable"
	textNotYet        = "To be implemented..."
)

// New returns the API of a server.
func New(s *dns.Server, c Config) *API {
	a := &API{server: s, settings: c.Settings.Redacted(), lists: make(chan struct{}, maxLists), app: server.NewApp(server.Options{
		Log: c.Log, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute, BodyLimit: 64 << 10, Grace: 2 * time.Second,
	})}
	if c.Mount != nil {
		c.Mount(a.app)
	}
	a.app.Get("/health", a.health)
	a.app.Get("/ready", a.health)
	if c.Metrics != nil {
		a.app.Get("/metrics", adaptor.HTTPHandler(promhttp.HandlerFor(c.Metrics, promhttp.HandlerOpts{})))
	}
	a.get("/v1/version", func(ctx *fiber.Ctx) error {
		return send(ctx, struct{ Service, URL, Version string }{"Mesos-DNS", "https://github.com/mesosphere/mesos-dns", version})
	})
	a.get("/v1/config", a.config)
	a.get("/v1/hosts/:host", a.hosts)
	a.get("/v1/hosts/:host/ports", func(*fiber.Ctx) error { return server.Errorf(fiber.StatusNotImplemented, textNotYet) })
	a.get("/v1/services/:service", a.services)
	if c.Settings.EnumerationOn {
		a.get("/v1/axfr", a.axfr)
		a.get("/v1/enumerate", a.enumerate)
	}
	a.app.Use(func(*fiber.Ctx) error { return server.Errorf(fiber.StatusNotFound, textNotFound) })
	return a
}

// get adds a page of JSON, which has no other method.
func (a *API) get(path string, handler fiber.Handler) {
	a.app.Add(fiber.MethodGet, path, func(ctx *fiber.Ctx) error {
		if !acceptsJSON(ctx.Request().Header.PeekAll(fiber.HeaderAccept)) {
			return server.Errorf(fiber.StatusNotAcceptable, textNotAcceptable)
		}
		return handler(ctx)
	})
	a.app.All(path, func(ctx *fiber.Ctx) error {
		ctx.Set(fiber.HeaderAllow, fiber.MethodGet)
		return server.Errorf(fiber.StatusMethodNotAllowed, textBadMethod)
	})
}

// Serve answers requests on the listener, which it closes, until ctx ends.
func (a *API) Serve(ctx context.Context, l net.Listener) error { return server.Serve(ctx, a.app, l) }

// notYet is the answer to what can't be told before the mesh has been heard.
func notYet(ctx *fiber.Ctx) error {
	ctx.Set(fiber.HeaderRetryAfter, "1")
	return server.Errorf(fiber.StatusServiceUnavailable, "the mesh has not been heard yet")
}

func (a *API) health(ctx *fiber.Ctx) error {
	if !a.server.Synced() {
		return notYet(ctx)
	}
	return ctx.Status(fiber.StatusOK).Send(nil)
}

// send answers with JSON in the form of Mesos-DNS, whose lines all begin with one space more.
func send(ctx *fiber.Ctx, v any) error {
	data, err := json.MarshalIndent(v, " ", " ")
	if err != nil {
		return err
	}
	ctx.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	return ctx.Send(data)
}

func (a *API) config(ctx *fiber.Ctx) error {
	c := a.settings
	c.SOASerial = a.server.Zone().Serial()
	c.Resolvers = []string{}
	for _, r := range a.server.Resolvers() {
		c.Resolvers = append(c.Resolvers, config.ResolverText(r))
	}
	return send(ctx, c)
}

// lookup finds the records of a name in a path: any case, a final dot or none, the wild card of Mesos-DNS cut out. It
// returns the name as it was typed, too.
func (a *API) lookup(param string) (typed, name string, found []records.Record) {
	if s, err := url.PathUnescape(param); err == nil {
		param = s
	}
	name = records.Lower(strings.TrimSuffix(strings.ReplaceAll(param, ".*", ""), ".")) + "."
	found, _ = a.server.Zone().Lookup(name)
	return param, name, found
}

// Host is one address of a name, at /v1/hosts.
type Host struct {
	Host string `json:"host"`
	IP   string `json:"ip"`
}

func (a *API) hosts(ctx *fiber.Ctx) error {
	_, name, found := a.lookup(ctx.Params("host"))
	var list []Host
	for _, t := range []records.Type{records.A, records.AAAA} {
		for _, r := range found {
			if r.Type == t {
				list = append(list, Host{name, r.Addr.String()})
			}
		}
	}
	if len(list) == 0 {
		if !a.server.Synced() {
			return notYet(ctx)
		}
		list = []Host{{}}
	}
	return send(ctx, list)
}

// Service is one address at which a service is found, at /v1/services.
type Service struct {
	Service string `json:"service"`
	Host    string `json:"host"`
	IP      string `json:"ip"`
	Port    string `json:"port"`
}

func (a *API) services(ctx *fiber.Ctx) error {
	typed, _, found := a.lookup(ctx.Params("service"))
	var list []Service
	for _, r := range found {
		if r.Type != records.SRV {
			continue
		}
		addrs, _ := a.server.Zone().Lookup(r.Target)
		for _, t := range []records.Type{records.A, records.AAAA} {
			if i := slices.IndexFunc(addrs, func(a records.Record) bool { return a.Type == t }); i >= 0 {
				list = append(list, Service{typed, r.Target, addrs[i].Addr.String(), strconv.Itoa(int(r.Port))})
			}
		}
	}
	if len(list) == 0 {
		if !a.server.Synced() {
			return notYet(ctx)
		}
		list = []Service{{}}
	}
	return send(ctx, list)
}
