// Package api is the HTTP API of Mesos-DNS (its specification, section 9), usually on port 8123: what is resolvable, as
// JSON. A name that does not exist is answered with one empty record and 200, as clients expect.
package api

import (
	"bytes"
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
	"starling/dns/records"
	"starling/master/mesos/server"
)

// Config is what the API needs beside the server that it tells of.
type Config struct {
	// Version is shown at /v1/version.
	Version string
	// Metrics may be nil, then /metrics is not there.
	Metrics prometheus.Gatherer
	// Log gets what went wrong inside. None: it is dropped.
	Log *slog.Logger
	// Mount adds routes of others, such as the view of the mesh, which look after methods themselves; may be nil.
	Mount func(*fiber.App)
}

// API serves one DNS server's records.
type API struct {
	server *dns.Server
	app    *fiber.App
}

// New returns the API of a server.
func New(s *dns.Server, c Config) *API {
	a := &API{server: s, app: server.NewApp(server.Options{
		Log: c.Log, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute, BodyLimit: 64 << 10, Grace: 2 * time.Second,
	})}
	if c.Mount != nil {
		c.Mount(a.app)
	}
	a.app.Use(func(ctx *fiber.Ctx) error {
		if m := ctx.Method(); m != fiber.MethodGet && m != fiber.MethodHead {
			ctx.Set(fiber.HeaderAllow, "GET, HEAD")
			return ctx.SendStatus(fiber.StatusMethodNotAllowed)
		}
		return ctx.Next()
	})
	a.app.Get("/health", func(ctx *fiber.Ctx) error {
		if !s.Ready() {
			return ctx.SendStatus(fiber.StatusServiceUnavailable)
		}
		return ctx.Status(fiber.StatusOK).Send(nil)
	})
	if c.Metrics != nil {
		a.app.Get("/metrics", adaptor.HTTPHandler(promhttp.HandlerFor(c.Metrics, promhttp.HandlerOpts{})))
	}
	v1 := a.app.Group("/v1")
	v1.Get("/version", func(ctx *fiber.Ctx) error {
		return send(ctx, struct{ Service, URL, Version string }{"Mesos-DNS", "https://github.com/mesosphere/mesos-dns", c.Version})
	})
	v1.Get("/hosts/:host", a.hosts)
	v1.Get("/services/:service", a.services)
	v1.Get("/axfr", a.axfr)
	a.app.Use(func(ctx *fiber.Ctx) error {
		return ctx.Status(fiber.StatusNotFound).SendString("404: Page Not Found")
	})
	return a
}

// Serve answers requests on the listener, which it closes, until ctx ends.
func (a *API) Serve(ctx context.Context, l net.Listener) error { return server.Serve(ctx, a.app, l) }

func send(ctx *fiber.Ctx, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		return err
	}
	ctx.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	return ctx.Send(b.Bytes())
}

// lookup finds the records of a name in a path: lower case, a final dot or none, the wild card of Mesos-DNS cut out.
func (a *API) lookup(param string) (name string, found []records.Record) {
	if s, err := url.PathUnescape(param); err == nil {
		param = s
	}
	name = strings.ToLower(strings.TrimSuffix(strings.ReplaceAll(param, ".*", ""), ".")) + "."
	found, _ = a.server.Zone().Lookup(name)
	return name, found
}

type host struct {
	Host string `json:"host"`
	IP   string `json:"ip"`
}

func (a *API) hosts(ctx *fiber.Ctx) error {
	name, found := a.lookup(ctx.Params("host"))
	list := []host{}
	for _, r := range found {
		if r.Type != records.SRV {
			list = append(list, host{name, r.Addr.String()})
		}
	}
	if len(list) == 0 {
		list = append(list, host{})
	}
	return send(ctx, list)
}

type service struct {
	Service string `json:"service"`
	Host    string `json:"host"`
	IP      string `json:"ip"`
	Port    string `json:"port"`
}

func (a *API) services(ctx *fiber.Ctx) error {
	_, found := a.lookup(ctx.Params("service"))
	list := []service{}
	for _, r := range found {
		if r.Type != records.SRV {
			continue
		}
		addrs, _ := a.server.Zone().Lookup(r.Target)
		for _, t := range []records.Type{records.A, records.AAAA} {
			if i := slices.IndexFunc(addrs, func(a records.Record) bool { return a.Type == t }); i >= 0 {
				list = append(list, service{ctx.Params("service"), r.Target, addrs[i].Addr.String(), strconv.Itoa(int(r.Port))})
			}
		}
	}
	if len(list) == 0 {
		list = append(list, service{})
	}
	return send(ctx, list)
}

// axfr lists the whole set of records.
func (a *API) axfr(ctx *fiber.Ctx) error {
	z := a.server.Zone()
	c := z.Config()
	sets := map[records.Type]map[string][]string{records.A: {}, records.AAAA: {}, records.SRV: {}}
	for _, list := range z.Sources() {
		for _, r := range list {
			v := r.Addr.String()
			if r.Type == records.SRV {
				v = r.Target + ":" + strconv.Itoa(int(r.Port))
			}
			if set := sets[r.Type]; !slices.Contains(set[r.Name], v) {
				set[r.Name] = append(set[r.Name], v)
			}
		}
	}
	for _, set := range sets {
		for _, values := range set {
			slices.Sort(values)
		}
	}
	type recordSets struct{ As, AAAAs, SRVs map[string][]string }
	return send(ctx, struct {
		TTL, Serial, RefreshSeconds uint32
		Mname, Rname, Domain        string
		Records                     recordSets
	}{
		c.TTL, z.Serial(), c.Refresh, c.Mname + ".", c.Rname + ".", c.Domain,
		recordSets{sets[records.A], sets[records.AAAA], sets[records.SRV]},
	})
}
