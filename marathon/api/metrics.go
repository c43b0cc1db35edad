package api

import (
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/adaptor"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/valyala/fasthttp"

	"starling/marathon/metric"
)

// Names of what is counted of requests, without the prefix.
const (
	requestSize   = "http.requests.size.counter.bytes"
	responseSize  = "http.responses.size.counter.bytes"
	gzippedSize   = "http.responses.size.gzipped.counter.bytes"
	streamSize    = "http.responses.event-stream.size.counter.bytes"
	requestTimer  = "http.requests.duration.timer.seconds"
	requestsStart = "http.requests."
	timerEnd      = ".duration.timer.seconds"
)

// timed are the methods that have a timer of their own.
var timed = []string{fiber.MethodGet, fiber.MethodPost, fiber.MethodPut, fiber.MethodDelete}

// touch makes all numbers, so that they are there before the first request.
func touch(r *metric.Registry) {
	for _, name := range []string{requestSize, responseSize, gzippedSize, streamSize} {
		r.Counter(name)
	}
	for class := 1; class <= 5; class++ {
		r.Meter(rateName(class))
	}
	r.Timer(requestTimer)
	for _, method := range timed {
		r.Timer(timerName(method))
	}
}

func rateName(class int) string { return "http.responses." + strconv.Itoa(class) + "xx.rate.meter" }

func timerName(method string) string { return requestsStart + strings.ToLower(method) + timerEnd }

// observe takes note of a request that was answered. unpacked is the size of the answer before it was compressed.
func observe(r *metric.Registry, rc *fasthttp.RequestCtx, unpacked int, took time.Duration) {
	size := 0
	if !rc.Request.IsBodyStream() {
		size = len(rc.Request.Body())
	} // what was refused before it was read is not read to be counted
	r.Counter(requestSize).Add(int64(size))
	if !rc.Hijacked() {
		r.Counter(responseSize).Add(int64(unpacked))
		if len(rc.Response.Header.ContentEncoding()) > 0 {
			r.Counter(gzippedSize).Add(int64(sizeOf(&rc.Response)))
		}
	}
	if class := rc.Response.StatusCode() / 100; class >= 1 && class <= 5 {
		r.Meter(rateName(class)).Mark(1)
	}
	r.Timer(requestTimer).Observe(took)
	for _, method := range timed {
		if string(rc.Method()) == method {
			r.Timer(timerName(method)).Observe(took)
		}
	}
}

// counted counts what is written to an event stream.
type counted struct {
	io.Writer
	registry *metric.Registry
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.registry.Counter(streamSize).Add(int64(n))
	return n, err
}

// numbers is the form of /metrics.
type numbers struct {
	Version    string              `json:"version"`
	Counters   map[string]count    `json:"counters"`
	Gauges     map[string]value    `json:"gauges"`
	Histograms map[string]struct{} `json:"histograms"`
	Meters     map[string]meter    `json:"meters"`
	Timers     map[string]timer    `json:"timers"`
}

type count struct {
	Count float64 `json:"count"`
}

type value struct {
	Value float64 `json:"value"`
}

type rates struct {
	M1   float64 `json:"m1_rate"`
	M5   float64 `json:"m5_rate"`
	M15  float64 `json:"m15_rate"`
	Mean float64 `json:"mean_rate"`
}

type meter struct {
	Count int64 `json:"count"`
	rates
	Units string `json:"units"`
}

type timer struct {
	Count  int64   `json:"count"`
	Min    float64 `json:"min"`
	Mean   float64 `json:"mean"`
	Max    float64 `json:"max"`
	P50    float64 `json:"p50"`
	P75    float64 `json:"p75"`
	P95    float64 `json:"p95"`
	P98    float64 `json:"p98"`
	P99    float64 `json:"p99"`
	P999   float64 `json:"p999"`
	StdDev float64 `json:"stddev"`
	rates
	DurationUnits string `json:"duration_units"`
	RateUnits     string `json:"rate_units"`
}

func (a *api) metrics(c *fiber.Ctx) error {
	n := numbers{
		Version: "4.0.0", Counters: map[string]count{}, Gauges: map[string]value{},
		Histograms: map[string]struct{}{}, Meters: map[string]meter{}, Timers: map[string]timer{},
	}
	for _, m := range a.m.Metrics() {
		r := rates{m.Rates.M1, m.Rates.M5, m.Rates.M15, m.Rates.Mean}
		switch m.Kind {
		case metric.KindCounter:
			n.Counters[m.Name] = count{m.Value}
		case metric.KindGauge:
			n.Gauges[m.Name] = value{m.Value}
		case metric.KindMeter:
			n.Meters[m.Name] = meter{m.Rates.Count, r, "events/second"}
		case metric.KindTimer:
			s := m.Spread
			n.Timers[m.Name] = timer{
				m.Rates.Count, s.Min, s.Mean, s.Max, s.P50, s.P75, s.P95, s.P98, s.P99, s.P999, s.StdDev,
				r, "seconds", "calls/second",
			}
		}
	}
	return writeJSON(c, fiber.StatusOK, n)
}

func (a *api) prometheus(c *fiber.Ctx) error {
	return adaptor.HTTPHandler(promhttp.HandlerFor(a.gatherer, promhttp.HandlerOpts{}))(c)
}
