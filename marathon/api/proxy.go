package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofiber/fiber/v2"

	"starling/marathon"
	"starling/master/mesos/server"
)

const (
	headerLeader    = "X-Marathon-Leader"
	headerVia       = "X-Marathon-Via"
	headerForwarded = "X-Forwarded-For"

	// electionWaits is how often a request looks again for a leader, every electionWait, before it is refused.
	electionWaits = 10
	electionWait  = 250 * time.Millisecond
)

// Proxy says how one that does not lead reaches the one that does. The zero value is usable.
type Proxy struct {
	// ConnectTimeout bounds the making of a connection (5 s), ReadTimeout the wait for an answer and for each part of it (10 s).
	ConnectTimeout, ReadTimeout time.Duration
	// MaxConns is how many connections to the leader are open at most (64); requests above wait.
	MaxConns int
	// Events has event streams go through this one; else clients are sent to the leader.
	Events bool
	// TLS is how the leader is verified where it is spoken to by HTTPS (marathon.Config.Scheme); nil means as any server.
	TLS *tls.Config
}

// follower passes requests on to the leader.
type follower struct {
	scheme string
	via    string // names this one in headers
	proxy  Proxy  // with all defaults set
	client http.RoundTripper
	// streams makes the connections of event streams, which last; places holds a token for each that is open.
	streams http.RoundTripper
	places  chan struct{}
}

// mostStreams is how many event streams one passes on at most.
const mostStreams = 1000

var (
	errSlowLeader = errors.New("the leader does not answer in time")
	errAnswered   = errors.New("the answer is complete")
	errNoPlace    = fmt.Errorf("%d event streams are passed on already", mostStreams)
)

func newFollower(p Proxy, cfg *marathon.Config) *follower {
	or := func(d, def time.Duration) time.Duration {
		if d <= 0 {
			return def
		}
		return d
	}
	p.ConnectTimeout, p.ReadTimeout = or(p.ConnectTimeout, 5*time.Second), or(p.ReadTimeout, 10*time.Second)
	if p.MaxConns <= 0 {
		p.MaxConns = 64
	}
	scheme := cfg.Scheme
	if scheme == "" {
		scheme = "http"
	}
	return &follower{
		scheme: scheme, via: "1.1 " + cfg.Address, proxy: p,
		client: p.transport(p.MaxConns), streams: p.transport(0), places: make(chan struct{}, mostStreams),
	}
}

// transport makes connections to the leader, so many at most; 0 is any number.
func (p Proxy) transport(most int) http.RoundTripper {
	return &http.Transport{
		DialContext:           (&net.Dialer{Timeout: p.ConnectTimeout}).DialContext,
		TLSClientConfig:       p.TLS,
		TLSHandshakeTimeout:   p.ConnectTimeout,
		ResponseHeaderTimeout: p.ReadTimeout,
		MaxConnsPerHost:       most,
		MaxIdleConnsPerHost:   p.MaxConns,
		IdleConnTimeout:       30 * time.Second,
		DisableCompression:    true, // what the client accepts decides
	}
}

// own tells of a request that every instance answers for itself: those who ask want to know about this very one.
func own(c *fiber.Ctx, path string) bool {
	switch path {
	case "/ping", "/health", "/metrics", "/metrics/prometheus":
		return true
	case "/logging":
		return flagOf(c, "here", false) // else that of the leader is set
	case "/v2/leader":
		return c.Method() == fiber.MethodGet || c.Method() == fiber.MethodHead
	default:
		return false
	}
}

// proxy passes requests on to the leader, unless this is the one.
func (a *api) proxy(c *fiber.Ctx) error {
	standing := a.m.Standing()
	if standing.Alone || standing.Leads {
		return c.Next()
	}
	path, _, _ := strings.Cut(server.OriginalURI(c), "?")
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return c.Next() // it is refused there
	}
	path = "/" + strings.Join(slices.DeleteFunc(strings.Split(decoded, "/"), func(s string) bool { return s == "" }), "/")
	if own(c, path) {
		return c.Next()
	}
	if slices.Contains(viaOf(c), a.follow.via) {
		return a.fail(c, refusal(fiber.StatusBadGateway, "Detected proxying loop."))
	}
	ctx := server.Context(c)
	ticker := time.NewTicker(electionWait)
	defer ticker.Stop()
	for range electionWaits {
		if standing.Leads || standing.Leader != "" {
			break
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return a.fail(c, context.Cause(ctx))
		}
		standing = a.m.Standing()
	}
	events := path == "/v2/events" || strings.HasPrefix(path, "/v2/events/")
	switch {
	case standing.Leads:
		c.Set(headerLeader, a.leaderURL())
		return c.Next()
	case standing.Clash:
		return a.fail(c, refusal(fiber.StatusBadGateway,
			"Could not determine the current leader: another Marathon goes by the same address, %s", a.m.Config().Address))
	case standing.Leader == "":
		return a.fail(c, refusal(fiber.StatusBadGateway, "Could not determine the current leader"))
	case events && !a.follow.proxy.Events:
		c.Set(headerLeader, a.follow.scheme+"://"+standing.Leader)
		c.Set(fiber.HeaderLocation, a.follow.scheme+"://"+standing.Leader+server.OriginalURI(c))
		c.Status(fiber.StatusFound)
		c.Context().Response.ResetBody()
		return nil
	}
	return a.fail(c, a.forward(ctx, c, decoded, standing.Leader, events))
}

// viaOf lists what a request came through.
func viaOf(c *fiber.Ctx) []string {
	var via []string
	for _, line := range c.Request().Header.PeekAll(headerVia) {
		for one := range strings.SplitSeq(string(line), ",") {
			via = append(via, strings.TrimSpace(one))
		}
	}
	return via
}

// hopByHop are headers that speak of one connection alone.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Host", "Content-Length",
	"Proxy-Authorization", "Proxy-Authenticate",
}

// dropHops takes away what speaks of one connection alone, and what Connection says of that kind (RFC 9110, 7.6.1).
func dropHops(h http.Header) {
	for _, line := range h.Values("Connection") {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		h.Del(name)
	}
}

// forward has the leader answer a request.
func (a *api) forward(ctx context.Context, c *fiber.Ctx, decoded, leader string, events bool) error {
	client, release := a.follow.client, func() {}
	if events {
		select {
		case a.follow.places <- struct{}{}:
			client, release = a.follow.streams, func() { <-a.follow.places }
		default:
			return refusal(fiber.StatusServiceUnavailable, "%v", errNoPlace)
		}
	}
	path, query, _ := strings.Cut(server.OriginalURI(c), "?")
	method := string(c.Request().Header.Method())
	ctx, cancel := context.WithCancelCause(ctx)
	req := (&http.Request{
		Method: method, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		URL:  &url.URL{Scheme: a.follow.scheme, Host: leader, Path: decoded, RawPath: path, RawQuery: query},
		Host: leader, Header: make(http.Header),
	}).WithContext(ctx)
	c.Request().Header.VisitAll(func(name, value []byte) { req.Header.Add(string(name), string(value)) })
	dropHops(req.Header)
	req.Header.Set(headerVia, strings.Join(append(viaOf(c), a.follow.via), ", "))
	req.Header.Set(headerForwarded, strings.Join(append(req.Header.Values(headerForwarded), c.Context().RemoteIP().String()), ", "))
	if len(req.Header.Values(fiber.HeaderUserAgent)) == 0 {
		req.Header.Set(fiber.HeaderUserAgent, "") // none of its own
	}
	if body := bytes.Clone(c.Body()); len(body) > 0 {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	patience := time.AfterFunc(2*a.follow.proxy.ReadTimeout, func() { cancel(errSlowLeader) })
	res, err := client.RoundTrip(req)
	if err != nil {
		release()
		patience.Stop()
		cause := context.Cause(ctx)
		cancel(errAnswered)
		return a.unreached(leader, errors.Join(err, cause))
	}
	answer := &relayed{body: res.Body, patience: patience, wait: a.follow.proxy.ReadTimeout, cancel: cancel, release: sync.OnceFunc(release)}
	if strings.HasPrefix(res.Header.Get(fiber.HeaderContentType), "text/event-stream") {
		return a.relayStream(c, res, answer)
	}
	a.relay(c, res, answer)
	return nil
}

// unreached says what went wrong on the way to the leader.
func (a *api) unreached(leader string, err error) error {
	a.log.Warn("cannot pass a request on to the leader", "addr", leader, "err", err)
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, server.ErrStopping):
		return server.ErrStopping
	case errors.Is(err, errSlowLeader), errors.As(err, &timeout) && timeout.Timeout():
		return refusal(fiber.StatusGatewayTimeout, "Connection to leader timed out.")
	case errors.Is(err, syscall.ECONNREFUSED):
		return refusal(fiber.StatusBadGateway, "Connection to leader refused.")
	default:
		return refusal(fiber.StatusBadGateway, "Connection to leader failed.")
	}
}

// headers are those of the leader's answer that are passed on.
func (f *follower) headers(res *http.Response) http.Header {
	h := res.Header.Clone()
	dropHops(h)
	h.Add(headerVia, f.via)
	return h
}

// relay passes the leader's answer on, its body as it arrives.
func (a *api) relay(c *fiber.Ctx, res *http.Response, answer *relayed) {
	c.Response().Header.Reset()
	c.Status(res.StatusCode)
	for name, values := range a.follow.headers(res) {
		for _, value := range values {
			c.Response().Header.Add(name, value)
		}
	}
	if res.Header.Get(fiber.HeaderContentType) == "" {
		c.Response().Header.SetNoDefaultContentType(true)
	}
	server.NoCompress(c) // it is packed already where that makes sense
	if res.ContentLength == 0 || string(c.Request().Header.Method()) == fiber.MethodHead {
		answer.Close()
		c.Context().Response.ResetBody()
		return
	}
	c.Context().Response.SetBodyStream(answer, int(res.ContentLength))
}

// relayStream passes an endless answer on.
func (a *api) relayStream(c *fiber.Ctx, res *http.Response, answer *relayed) error {
	header := make(map[string]string)
	for name, values := range a.follow.headers(res) {
		header[name] = strings.Join(values, ", ")
	}
	answer.wait = 3 * heartbeat
	err := server.Stream(c, header, func(ctx context.Context, w *server.StreamWriter) error {
		defer answer.Close()
		defer context.AfterFunc(ctx, func() { answer.cancel(errAnswered) })()
		_, err := io.Copy(w, answer)
		return err
	})
	if err != nil {
		answer.Close()
	}
	return err
}

// relayed is a body of the leader's, whose parts have to arrive in time.
type relayed struct {
	body     io.ReadCloser
	patience *time.Timer
	wait     time.Duration
	cancel   context.CancelCauseFunc
	release  func() // gives its place back; may be called again
}

// Read reads the next part.
func (r *relayed) Read(p []byte) (int, error) {
	r.patience.Reset(r.wait)
	return r.body.Read(p)
}

// Close lets go of the leader's answer, however much of it was read.
func (r *relayed) Close() error {
	r.patience.Stop()
	r.cancel(errAnswered)
	r.release()
	return r.body.Close()
}
