// Package server is what the HTTP servers of all roles have in common: limits, panics, compression, content
// negotiation and the texts of the Mesos v1 API, long-lived streams, and a stop that is graceful and bounded.
//
// [NewApp] gives a fiber application with all of that around its handlers, [Serve] runs it on a listener. Handlers are
// written with fiber as usual and fail by returning an error: a *fiber.Error (see [Errorf]) is answered with its status
// and text, any other error, and a panic, with 500 and a short id under which the log has the rest. Errors are plain text
// unless [Options.WriteError] says otherwise.
//
// By the time a handler runs, the body has been read, within [Options.BodyLimit], and a gzip-encoded one is unpacked
// within the same limit; c.Body() is safe. Only requests picked by [Options.StreamBody] arrive with their body unread:
// see [Body]. Strings and slices that fiber hands out are valid during the handler alone: copy what stays. A handler
// that answers with an endless stream calls [Stream] and returns.
//
// Why fiber's own body stream writer is not used for streams: it sees a client that has gone only when a write fails,
// two heartbeats later, and swallows the events between.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

// Defaults of [Options].
const (
	DefaultHeaderLimit        = 64 << 10
	DefaultBodyLimit          = 10 << 20
	DefaultHeaderTimeout      = 10 * time.Second
	DefaultReadTimeout        = 30 * time.Second
	DefaultWriteTimeout       = time.Minute
	DefaultIdleTimeout        = 2 * time.Minute
	DefaultStreamWriteTimeout = 10 * time.Second
	DefaultGrace              = 5 * time.Second
)

// Options shape an application. The zero value is usable.
type Options struct {
	// Log gets what went wrong inside. None: it is dropped.
	Log *slog.Logger
	// HeaderLimit is the size in bytes of a request line with headers; above it the answer is 431. Each open connection
	// may hold a buffer of this size.
	HeaderLimit int
	// BodyLimit is the size in bytes of a request body, unpacked; above it the answer is 413.
	BodyLimit int
	// HeaderTimeout bounds the reading of a request line with headers, from its first byte on: whoever sends them drop by drop
	// holds a connection for that long.
	HeaderTimeout time.Duration
	// ReadTimeout bounds the reading of a body, WriteTimeout the writing of an answer (not of a stream), IdleTimeout
	// the wait for the next request on a connection.
	ReadTimeout, WriteTimeout, IdleTimeout time.Duration
	// StreamWriteTimeout bounds each write to a stream; a client that takes longer is cut off.
	StreamWriteTimeout time.Duration
	// Grace is how long a stop waits for requests and streams before it closes their connections.
	Grace time.Duration

	// Process is the name of the Mesos process that every path may be prefixed with, as in /master/state or
	// /slave(1)/state, percent-encoded or not. Handlers see the path without it; see [OriginalURI].
	Process string
	// JSONAliases are the paths that may have ".json" appended, as in /state.json. A trailing "/*" stands for all paths
	// below.
	JSONAliases []string

	// StreamBody picks the requests whose handlers read the body as it arrives, by [Body] and not by c.Body(), which
	// knows no limit. It sees the headers alone.
	StreamBody func(h *fasthttp.RequestHeader) bool
	// WriteError writes the answer to a request that failed. The default is plain text.
	WriteError func(c *fiber.Ctx, status int, text string) error
}

func (o *Options) setDefaults() {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	defTime := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.HeaderLimit, DefaultHeaderLimit)
	def(&o.BodyLimit, DefaultBodyLimit)
	defTime(&o.HeaderTimeout, DefaultHeaderTimeout)
	defTime(&o.ReadTimeout, DefaultReadTimeout)
	defTime(&o.WriteTimeout, DefaultWriteTimeout)
	defTime(&o.IdleTimeout, DefaultIdleTimeout)
	defTime(&o.StreamWriteTimeout, DefaultStreamWriteTimeout)
	defTime(&o.Grace, DefaultGrace)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.WriteError == nil {
		o.WriteError = WriteText
	}
}

// runtime is what belongs to one application besides its routes. It hangs on the application as the logger of its HTTP
// server, so that Serve and Stream find it without a table of applications.
type runtime struct {
	Options
	app *fiber.App
	// base ends when the application stops; its cause says why.
	base    context.Context
	end     context.CancelCauseFunc
	streams sync.WaitGroup

	mu       sync.Mutex
	stopping bool
	served   bool
	conns    map[net.Conn]bool // open ones, streams left out; true while a request is answered
}

// ErrStopping is the cause of contexts that ended because the server stops.
var ErrStopping = errors.New("server is stopping")

// errNotOurs is a mistake of the program, not of a client.
var errNotOurs = errors.New("application was not made by server.NewApp")

// NewApp makes an application. It starts nothing; hand it to [Serve] once its routes are there.
func NewApp(o Options) *fiber.App {
	o.setDefaults()
	rt := &runtime{Options: o, conns: map[net.Conn]bool{}}
	rt.base, rt.end = context.WithCancelCause(context.Background())
	app := fiber.New(fiber.Config{
		CaseSensitive:         true,
		DisableStartupMessage: true,
		ReadBufferSize:        o.HeaderLimit,
		BodyLimit:             o.BodyLimit,
		ReadTimeout:           o.HeaderTimeout,
		WriteTimeout:          o.WriteTimeout,
		IdleTimeout:           o.IdleTimeout,
		// Bodies are read by the guard, which alone can refuse a large one and still be heard.
		StreamRequestBody: true,
		// Forms are nobody's business here, and parsing them ahead goes past the guard of bodies.
		DisablePreParseMultipartForm: true,
		ErrorHandler:                 rt.handleError,
	})
	rt.app = app
	srv := app.Server()
	srv.Logger = rt
	srv.CloseOnShutdown = true
	srv.Handler = rt.guard(srv.Handler)
	srv.ConnState = rt.connState
	srv.HeaderReceived = func(*fasthttp.RequestHeader) fasthttp.RequestConfig {
		return fasthttp.RequestConfig{ReadTimeout: o.ReadTimeout}
	}
	return app
}

// runtimeOf finds what NewApp hung on the application.
func runtimeOf(app *fiber.App) (*runtime, error) {
	if rt, ok := app.Server().Logger.(*runtime); ok {
		return rt, nil
	}
	return nil, errNotOurs
}

// Printf makes the runtime the logger of fasthttp, which uses it for faults of clients.
func (rt *runtime) Printf(format string, args ...any) {
	rt.Log.Debug("http server", "reason", fmt.Sprintf(format, args...))
}

// Context gives a context that ends when the application stops, for work that a handler waits for.
func Context(c *fiber.Ctx) context.Context {
	if rt, err := runtimeOf(c.App()); err == nil {
		return rt.base
	}
	return c.Context()
}

// Serve answers requests on ln until ctx ends, or ln fails. It then closes ln, ends all streams, lets requests finish
// within Options.Grace, closes the connections that are left, and returns when no handler runs any more: nil after
// a stop, otherwise what went wrong. An application can be served once.
func Serve(ctx context.Context, app *fiber.App, ln net.Listener) error {
	rt, err := runtimeOf(app)
	if err != nil {
		return err
	}
	rt.mu.Lock()
	again := rt.served
	rt.served = true
	rt.mu.Unlock()
	if again {
		return errors.New("application is served already")
	}
	accepted := make(chan error, 1) // one value, when the listener is done
	go func() { accepted <- app.Listener(ln) }()

	var failed error
	select {
	case err := <-accepted:
		failed = err
		if failed == nil {
			failed = net.ErrClosed
		}
		accepted <- nil
	case <-ctx.Done():
	}
	rt.stop()
	_ = ln.Close()
	<-accepted
	err = rt.drainConns(app)
	switch {
	case failed != nil:
		return fmt.Errorf("cannot accept on %s: %w", ln.Addr(), failed)
	case err != nil:
		return fmt.Errorf("cannot stop in time: %w", err)
	}
	return nil
}

// drainConns lets requests and streams end, and cuts them off when they take too long.
func (rt *runtime) drainConns(app *fiber.App) error {
	grace, cancel := context.WithTimeout(context.Background(), rt.Grace)
	defer cancel()
	// fasthttp would wait for a request on connections that have not seen their first one yet.
	rt.closeConns(false)
	err := app.ShutdownWithContext(grace)
	if errors.Is(err, net.ErrClosed) { // the listener, by us
		err = nil
	}
	if err = errors.Join(err, rt.waitStreams(grace)); err == nil {
		return nil
	}
	rt.Log.Warn("requests cut off", "err", err)
	rt.closeConns(true)
	rest, cancel := context.WithTimeout(context.Background(), rt.Grace)
	defer cancel()
	return errors.Join(rt.waitConns(rest), rt.waitStreams(rest))
}

// waitConns waits until no connection is open and no handler runs. Shutdown does that too, but not twice.
func (rt *runtime) waitConns(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for rt.openConns() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (rt *runtime) openConns() int {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	return len(rt.conns)
}

// stop tells streams and handlers to end, and refuses new streams.
func (rt *runtime) stop() {
	rt.mu.Lock()
	rt.stopping = true
	rt.mu.Unlock()
	rt.end(ErrStopping)
}

// waitStreams waits until the last stream has ended.
func (rt *runtime) waitStreams(ctx context.Context) error {
	done := make(chan struct{})
	go func() { rt.streams.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connState keeps the table of connections. It is called with each change of each. Active says little: fasthttp calls a
// new connection so before anything was sent on it.
func (rt *runtime) connState(conn net.Conn, state fasthttp.ConnState) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	switch state {
	case fasthttp.StateNew, fasthttp.StateIdle:
		rt.conns[conn] = false
	case fasthttp.StateClosed, fasthttp.StateHijacked:
		delete(rt.conns, conn)
	}
}

// busy notes that a request on the connection is being answered.
func (rt *runtime) busy(conn net.Conn) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if _, ok := rt.conns[conn]; ok {
		rt.conns[conn] = true
	}
}

// closeConns closes the connections that wait for a request, or all.
func (rt *runtime) closeConns(all bool) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	for conn, busy := range rt.conns {
		if all || !busy {
			_ = conn.Close()
		}
	}
}
