// Package client speaks the scheduler side of the Mesos v1 API over HTTP: a framework subscribes, reads events from one
// long answer, and makes calls on other connections.
//
// A [Client] knows where masters may be; [Client.Subscribe] finds the one that leads and gives a [Stream], which belongs
// to that master until it ends. What happens then (subscribe again, with which framework id) is the framework's choice.
// The client needs no goroutine of its own. Everything that waits has a deadline: connecting and each call one of their
// own, the stream that of five missed heartbeats.
//
// Errors that a caller may branch on: *[StatusError] for what a master refused, [ErrStreamEnded] and
// [ErrHeartbeatsMissed] for streams, and those of the context.
package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"starling/master/mesos/codec"
	"starling/master/mesos/recordio"
	"starling/master/mesos/scheduler"
)

// Path is the endpoint for schedulers on every master.
const Path = "/api/v1/scheduler"

const streamIDHeader = "Mesos-Stream-Id"

// maxRedirects is how many masters in a row may name another one as the leader before we take a breath.
const maxRedirects = 5

// maxErrorText is how many bytes of the text of an error are read.
const maxErrorText = 4 << 10

// Errors that end a stream.
var (
	// ErrStreamEnded says that the master, or the network, ended the stream.
	ErrStreamEnded = errors.New("event stream ended")
	// ErrHeartbeatsMissed says that nothing came for five heartbeat intervals.
	ErrHeartbeatsMissed = errors.New("no heartbeat for five intervals")
	// ErrClosed says that the stream was closed by its owner.
	ErrClosed = errors.New("event stream is closed")
)

// StatusError is the answer of a master that did not do what it was asked.
type StatusError struct {
	Master string // host:port
	Code   int    // HTTP status
	Text   string // what the master said about it
	// Leader is the host:port that the answer names as leading, "" if it names none.
	Leader string
}

func (e *StatusError) Error() string {
	text := e.Text
	if text == "" {
		text = http.StatusText(e.Code)
	}
	return fmt.Sprintf("master %s answers %d: %s", e.Master, e.Code, text)
}

// Temporary tells whether it may go better later, or with another master.
func (e *StatusError) Temporary() bool {
	return e.Code == http.StatusServiceUnavailable || e.Code == http.StatusTooManyRequests ||
		e.Code == http.StatusTemporaryRedirect || e.Code == http.StatusGatewayTimeout || e.Code == http.StatusBadGateway
}

// Config of a [Client]. Masters (or Resolve) are needed, the rest has defaults.
type Config struct {
	// Masters are the addresses, host:port, where masters may be.
	Masters []string
	// Resolve, if set, is asked for the addresses instead, before each round over them; they are tried in its order.
	Resolve func(ctx context.Context) ([]string, error)
	// Codec encodes calls and events; codec.JSON by default.
	Codec codec.Codec
	// Transport makes the connections. The default is plain HTTP/1.1 with keep-alive.
	Transport http.RoundTripper
	// Scheme is "http" by default.
	Scheme string
	// Authorize, if set, puts credentials on a request.
	Authorize func(*http.Request)
	// Permit, if set, is asked right before each request goes out; its error is that of the call. It is for those who may lose
	// the right to speak while a call waits.
	Permit func() error
	// Log gets what went wrong on the way to a leader. None: it is dropped.
	Log *slog.Logger

	// SubscribeTimeout bounds the wait of Subscribe for the answer of one master: 10 s by default.
	SubscribeTimeout time.Duration
	// CallTimeout bounds a call: 10 s by default.
	CallTimeout time.Duration
	// MinBackoff and MaxBackoff bound the pauses between rounds over the masters: 100 ms and 5 s by default. A pause is
	// doubled each time, and a random half of it is left out.
	MinBackoff, MaxBackoff time.Duration
	// MaxEvent is the size in bytes of the largest event: recordio.DefaultMaxSize by default.
	MaxEvent int
}

func (c *Config) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.SubscribeTimeout, 10*time.Second)
	def(&c.CallTimeout, 10*time.Second)
	def(&c.MinBackoff, 100*time.Millisecond)
	def(&c.MaxBackoff, 5*time.Second)
	if c.Codec == nil {
		c.Codec = codec.JSON
	}
	if c.Scheme == "" {
		c.Scheme = "http"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Resolve == nil {
		masters := slices.Clone(c.Masters)
		c.Resolve = func(context.Context) ([]string, error) {
			if len(masters) == 0 {
				return nil, errors.New("no masters are configured")
			}
			return masters, nil
		}
	}
	if c.Transport == nil {
		c.Transport = &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 4,
			IdleConnTimeout:     time.Minute,
			TLSHandshakeTimeout: 5 * time.Second,
		}
	}
}

// Client finds the leading master. Its methods may be called concurrently.
type Client struct {
	Config
	http *http.Client
	// resolved is set where the owner tells who leads, better than what was last.
	resolved bool

	mu     sync.Mutex
	leader string // who led last, tried first
}

// New makes a client. It connects to nobody yet.
func New(c Config) *Client {
	resolved := c.Resolve != nil
	c.setDefaults()
	return &Client{Config: c, resolved: resolved, http: &http.Client{
		Transport: c.Transport,
		// Redirects are followed by hand: only host and port of the location count, and the body has to go along.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close gives up connections that are kept for later. Streams go on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Subscribe sends a SUBSCRIBE call to the leading master. It follows redirects, tries all masters in turn, the one that
// led last first unless Resolve orders them, and goes on with pauses until one takes the call, one refuses it for good
// (*StatusError), or ctx ends. The end of ctx later ends the stream.
func (c *Client) Subscribe(ctx context.Context, call *scheduler.Call) (*Stream, error) {
	body, err := c.Codec.Marshal(call)
	if err != nil {
		return nil, fmt.Errorf("cannot subscribe: %w", err)
	}
	var last error // of the round before
	for pause := c.MinBackoff; ; pause = min(2*pause, c.MaxBackoff) {
		stream, err := c.round(ctx, body)
		if stream != nil {
			return stream, nil
		}
		if err != nil && (last == nil || ctx.Err() == nil) {
			last = err // what a cancelled attempt says is only that
		}
		if s, ok := errors.AsType[*StatusError](last); ok && !s.Temporary() {
			return nil, fmt.Errorf("cannot subscribe: %w", last)
		}
		wait := time.NewTimer(pause/2 + rand.N(pause/2+1))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			err := fmt.Errorf("cannot subscribe: %w", context.Cause(ctx))
			if last != nil {
				err = fmt.Errorf("%w (before: %w)", err, last)
			}
			return nil, err
		}
	}
}

// round tries each master once, besides those that it is redirected to. The error is that of the last one, or what
// a master refused for good.
func (c *Client) round(ctx context.Context, body []byte) (*Stream, error) {
	masters, err := c.Resolve(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot find masters: %w", err)
	}
	if leader := c.lastLeader(); leader != "" && !c.resolved {
		masters = append([]string{leader}, slices.DeleteFunc(slices.Clone(masters), func(m string) bool { return m == leader })...)
	}
	for redirects := 0; len(masters) > 0 && ctx.Err() == nil; {
		master := masters[0]
		masters = masters[1:]
		var stream *Stream
		if stream, err = c.subscribe(ctx, master, body); err == nil {
			c.setLeader(master)
			return stream, nil
		}
		c.Log.Debug("master does not take subscription", "addr", master, "err", err)
		c.setLeader("")
		s, ok := errors.AsType[*StatusError](err)
		switch {
		case ok && s.Leader != "" && redirects < maxRedirects:
			redirects++
			masters = append([]string{s.Leader}, masters...)
		case ok && !s.Temporary():
			return nil, err
		}
	}
	return nil, err
}

func (c *Client) lastLeader() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leader
}

func (c *Client) setLeader(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leader = addr
}

// subscribe asks one master.
func (c *Client) subscribe(ctx context.Context, master string, body []byte) (*Stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	late := fmt.Errorf("master %s does not answer within %v: %w", master, c.SubscribeTimeout, context.DeadlineExceeded)
	timer := time.AfterFunc(c.SubscribeTimeout, func() { cancel(late) })
	resp, err := c.post(ctx, master, body, "")
	if !timer.Stop() && err == nil {
		// Too late after all; the body is of a request that is cancelled.
		_ = resp.Body.Close()
		err = late
	}
	if err == nil && resp.Header.Get(streamIDHeader) == "" {
		_ = resp.Body.Close()
		err = fmt.Errorf("master %s sends no %s", master, streamIDHeader)
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(err)
		return nil, err
	}
	return &Stream{
		client: c, master: master, id: resp.Header.Get(streamIDHeader), cancel: cancel, ctx: ctx, body: resp.Body,
		reader: recordio.NewReader(resp.Body, c.MaxEvent), interval: defaultHeartbeat,
	}, nil
}

// post sends a call and gives the answer if it is of status 200 or 202.
func (c *Client) post(ctx context.Context, master string, body []byte, streamID string) (*http.Response, error) {
	target := url.URL{Scheme: c.Scheme, Host: master, Path: Path}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("master %q: %w", master, err)
	}
	req.Header.Set("Content-Type", c.Codec.ContentType())
	req.Header.Set("Accept", c.Codec.ContentType())
	if streamID != "" {
		req.Header.Set(streamIDHeader, streamID)
	} else {
		req.Header.Set("Accept-Encoding", "identity") // else events wait for each other
	}
	if c.Authorize != nil {
		c.Authorize(req)
	}
	if c.Permit != nil {
		if err := c.Permit(); err != nil {
			return nil, err
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("master %s: %w", master, err)
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusAccepted {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorText))
	status := &StatusError{Master: master, Code: resp.StatusCode, Text: strings.TrimSpace(string(text))}
	if resp.StatusCode == http.StatusTemporaryRedirect || resp.StatusCode == http.StatusPermanentRedirect {
		if to, err := url.Parse(resp.Header.Get("Location")); err == nil {
			status.Leader = to.Host
		}
	}
	return nil, status
}
