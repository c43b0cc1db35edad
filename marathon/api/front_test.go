package api_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"starling/marathon/api"
)

func TestPassword(t *testing.T) {
	r := newRig(t, func(c *api.Config) { c.HTTP.User, c.HTTP.Password = "me", "a:b" })
	for _, tc := range []struct {
		header string
		status int
	}{
		{"", 401},
		{"Basic bWU6YTpi", 200}, // me:a:b
		{"basic bWU6YTpi", 200},
		{"Basic bWU6YTpj", 401}, // me:a:c
		{"Basic bWU6", 401},
		{"Basic !", 401},
		{"Bearer bWU6YTpi", 401},
	} {
		for _, path := range []string{"/ping", "/v2/apps", "/metrics", "/nowhere", "/v2/events"} {
			status := tc.status
			if status == 200 && path == "/nowhere" {
				status = 404
			} else if status == 200 && path == "/v2/events" {
				status = 405
			}
			got := r.want(status, "GET", path, "", "Authorization", tc.header)
			if leader := got.header.Get("X-Marathon-Leader"); leader != r.url {
				t.Errorf("GET %s with %q: leader %q", path, tc.header, leader)
			}
			if asks := got.header.Get("WWW-Authenticate"); (asks == `Basic realm="Mesosphere"`) != (status == 401) {
				t.Errorf("GET %s with %q: WWW-Authenticate %q", path, tc.header, asks)
			}
		}
	}
}

func TestOtherOrigins(t *testing.T) {
	r := newRig(t, func(c *api.Config) { c.HTTP.Origins = []string{"http://a", "http://b"} })
	for _, tc := range []struct{ origin, allowed string }{
		{"http://a", "http://a"}, {"http://b", "http://b"}, {"http://evil", "http://b"}, {"", "http://b"},
	} {
		h := r.want(200, "GET", "/ping", "", "Origin", tc.origin, "Access-Control-Request-Headers", "X-One, X-Two").header
		if h.Get("Access-Control-Allow-Origin") != tc.allowed || h.Get("Access-Control-Allow-Headers") != "X-One, X-Two" ||
			h.Get("Access-Control-Allow-Methods") != "GET, HEAD, OPTIONS" || h.Get("Access-Control-Max-Age") != "86400" {
			t.Errorf("from %q: %v", tc.origin, h)
		}
	}
	if h := newRig(t).want(200, "GET", "/ping", "", "Origin", "http://a").header; h.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("without the flag: %v", h)
	}
}

func TestCompression(t *testing.T) {
	for _, off := range []bool{false, true} {
		r := newRig(t, func(c *api.Config) { c.HTTP.NoCompression = off })
		h := r.want(200, "GET", "/metrics", "", "Accept-Encoding", "gzip").header
		if (h.Get("Content-Encoding") == "gzip") == off {
			t.Errorf("compression off: %t, headers %v", off, h)
		}
	}
}

// One request more than may be answered at a time is refused, and those that are answered are not.
func TestTooManyRequests(t *testing.T) {
	r := newRig(t, func(c *api.Config) { c.HTTP.MaxRequests = 1 })
	stream := open(t, r.url) // does not count
	defer stream.Close()
	r.want(200, "GET", "/ping", "")
	broken := r.breakStore("marathon/apps/a/")
	first := make(chan answer, 1)
	go func() { first <- r.do("POST", "/v2/apps", `{"id":"/a","cmd":"x"}`) }()
	r.given("the first request waits for the store", broken) // one before that might have it refused instead
	if got := r.want(503, "GET", "/ping", ""); got.body != `{"message":"Too many concurrent requests! Allowed: 1."}` {
		t.Errorf("the second request: %s", got.body)
	}
	r.store.Fail(nil)
	if got := <-first; got.status != 201 {
		t.Errorf("the first request: %d %s", got.status, got.body)
	}
	r.want(200, "GET", "/ping", "")
}

// A body that is refused for its length is not read to be counted: the answer comes before it.
func TestRefusedBodyIsNotRead(t *testing.T) {
	r := newRig(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(conn, "POST /v2/apps HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000000\r\n\r\n"+strings.Repeat(" ", 1<<16))
	got, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || got.StatusCode != 413 {
		t.Errorf("got %v, %v, want 413", got, err)
	}
}

// open begins an event stream.
func open(t *testing.T, url string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(conn, "GET /v2/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestRequestMetrics(t *testing.T) {
	r := newRig(t)
	before := len(r.want(200, "GET", "/v2/info", "").body)
	r.want(400, "POST", "/v2/apps", `{`)
	r.want(404, "GET", "/v2/apps/none", "")
	defer open(t, r.url).Close()
	r.eventually("the stream is counted", func() bool {
		got := r.want(200, "GET", "/metrics", "").json(t)
		return got["counters"].(map[string]any)["marathon.http.responses.event-stream.size.counter.bytes"].(map[string]any)["count"].(float64) > 50
	})
	got := r.want(200, "GET", "/metrics", "").json(t)
	of := func(kind, name string) map[string]any {
		t.Helper()
		one, ok := got[kind].(map[string]any)["marathon."+name].(map[string]any)
		if !ok {
			t.Fatalf("no %s in %s: %v", name, kind, got[kind])
		}
		return one
	}
	if n := of("meters", "http.responses.4xx.rate.meter")["count"]; n != 2.0 {
		t.Errorf("%v answers of class 4xx, want 2", n)
	}
	if n := of("meters", "http.responses.5xx.rate.meter"); n["count"] != 0.0 || n["units"] != "events/second" || n["m1_rate"] != 0.0 {
		t.Errorf("answers of class 5xx: %v", n)
	}
	if n := of("timers", "http.requests.post.duration.timer.seconds"); n["count"] != 1.0 || n["max"].(float64) <= 0 || n["p999"] != n["max"] ||
		n["duration_units"] != "seconds" || n["rate_units"] != "calls/second" {
		t.Errorf("POST: %v", n)
	}
	if n := of("counters", "http.requests.size.counter.bytes")["count"]; n != 1.0 {
		t.Errorf("%v bytes of requests, want 1", n)
	}
	if n := of("counters", "http.responses.size.counter.bytes")["count"].(float64); n < float64(before) {
		t.Errorf("%v bytes of answers, want at least %d", n, before)
	}
	if n := of("gauges", "http.requests.active.gauge")["value"]; n != 1.0 {
		t.Errorf("%v requests are being answered, want this one", n)
	}
	text := r.want(200, "GET", "/metrics/prometheus", "").body
	for _, want := range []string{
		"marathon_http_responses_4xx_rate_meter_count 2\n", "# TYPE marathon_http_responses_5xx_rate_meter_m1_rate gauge\n",
		"# TYPE marathon_http_requests_post_duration_timer_seconds summary\n",
		`marathon_http_requests_post_duration_timer_seconds{quantile="0.999"}`, "marathon_http_requests_post_duration_timer_seconds_count 1\n",
		"# TYPE marathon_http_requests_post_duration_timer_seconds_stddev gauge\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	// A new term counts from the beginning.
	r.want(200, "DELETE", "/v2/leader", "")
	r.eventually("counters begin anew", func() bool {
		return !strings.Contains(r.do("GET", "/metrics/prometheus", "").body, "rate_meter_count 2\n")
	})
	hidden := newRig(t, func(c *api.Config) { c.HidePrometheus = true })
	hidden.want(404, "GET", "/metrics/prometheus", "")
	hidden.want(200, "GET", "/metrics", "")
}

// A browser asks without credentials whether a page may send them.
func TestBrowsersMayAskWithoutAPassword(t *testing.T) {
	r := newRig(t, func(c *api.Config) {
		c.HTTP.User, c.HTTP.Password, c.HTTP.Origins = "me", "secret", []string{"http://a"}
	})
	h := r.want(200, "OPTIONS", "/v2/apps", "", "Origin", "http://a", "Access-Control-Request-Method", "GET",
		"Access-Control-Request-Headers", "authorization").header
	if h.Get("Access-Control-Allow-Origin") != "http://a" || h.Get("Access-Control-Allow-Headers") != "authorization" {
		t.Errorf("allowed is %v", h)
	}
	r.want(401, "OPTIONS", "/v2/apps", "")
	r.want(401, "GET", "/v2/apps", "", "Origin", "http://a", "Access-Control-Request-Method", "GET")
}
