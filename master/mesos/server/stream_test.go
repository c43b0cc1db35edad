package server_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"

	"starling/master/mesos/codec"
	"starling/master/mesos/recordio"
	"starling/master/mesos/scheduler"
	"starling/master/mesos/server"
)

var heartbeat = &scheduler.Event{Type: scheduler.Event_HEARTBEAT.Enum()}

// within fails the test when ch gives nothing in time.
func within[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

// streaming serves one endpoint whose stream writes what is sent on the channel, and tells why it ended.
func streaming(t *testing.T, o server.Options) (addr string, events chan *scheduler.Event, ended chan error, stop func()) {
	events, ended = make(chan *scheduler.Event), make(chan error, 1)
	app := server.NewApp(o)
	app.Post("/subscribe", func(c *fiber.Ctx) error {
		header := map[string]string{"Content-Type": "application/json", "Mesos-Stream-Id": "id-1"}
		return server.Stream(c, header, func(ctx context.Context, w *server.StreamWriter) error {
			for {
				select {
				case e := <-events:
					if err := w.WriteMessage(codec.JSON, e); err != nil {
						ended <- err
						return err
					}
				case <-ctx.Done():
					ended <- context.Cause(ctx)
					return nil
				}
			}
		})
	})
	addr, stop = start(t, app)
	return addr, events, ended, stop
}

func TestStream(t *testing.T) {
	addr, events, ended, _ := streaming(t, server.Options{WriteTimeout: 50 * time.Millisecond})
	req, _ := http.NewRequest("POST", "http://"+addr+"/subscribe", strings.NewReader("{}"))
	req.Close = true // some clients ask for it, and mean to stay all the same
	resp, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" ||
		resp.Header.Get("Mesos-Stream-Id") != "id-1" || resp.Header.Get("Date") == "" ||
		len(resp.TransferEncoding) != 1 || resp.TransferEncoding[0] != "chunked" {
		t.Errorf("answer %d, %v, %v", resp.StatusCode, resp.Header, resp.TransferEncoding)
	}
	r := recordio.NewReader(resp.Body, 0)
	begin := time.Now()
	for time.Since(begin) < 150*time.Millisecond { // well beyond the time that a plain answer may take
		events <- heartbeat
		rec, err := r.Next()
		if err != nil || string(rec) != `{"type":"HEARTBEAT"}` {
			t.Fatalf("Next() = %q, %v", rec, err)
		}
	}
	resp.Body.Close()
	if cause := within(t, "end of the stream", ended); !errors.Is(cause, server.ErrClientGone) {
		t.Errorf("stream ended by %v, want ErrClientGone", cause)
	}
}

func TestStreamTowardsHTTP10HasNoChunks(t *testing.T) {
	addr, events, _, stop := streaming(t, server.Options{})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, "POST /subscribe HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
	events <- heartbeat
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	all, err := io.ReadAll(resp.Body)
	if err != nil || string(all) != "20\n"+`{"type":"HEARTBEAT"}` {
		t.Errorf("body %q, %v", all, err)
	}
	<-stopped
}

// A stop ends streams in a way that clients can tell from a lost connection, and does not wait out the grace.
func TestStopEndsStreams(t *testing.T) {
	addr, events, ended, stop := streaming(t, server.Options{Grace: patience})
	resp, err := client(t).Post("http://"+addr+"/subscribe", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events <- heartbeat
	begin := time.Now()
	stop()
	if took := time.Since(begin); took > patience/2 {
		t.Errorf("stop took %v", took)
	}
	if cause := within(t, "end of the stream", ended); !errors.Is(cause, server.ErrStopping) {
		t.Errorf("stream ended by %v, want ErrStopping", cause)
	}
	r := recordio.NewReader(resp.Body, 0)
	if _, err := r.Next(); err != nil {
		t.Errorf("the event before the stop: %v", err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("the end: %v, want EOF", err)
	}
}

// A client that stops reading costs its stream, after the write timeout, and nobody else anything.
func TestStreamOfClientThatDoesNotRead(t *testing.T) {
	addr, events, ended, _ := streaming(t, server.Options{StreamWriteTimeout: 50 * time.Millisecond})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "POST /subscribe HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
	large := &scheduler.Event{
		Type:  scheduler.Event_ERROR.Enum(),
		Error: &scheduler.Event_Error{Message: new(strings.Repeat("x", 1<<20))},
	}
	for range 1000 {
		select {
		case events <- large:
			continue
		case err := <-ended:
			// The kernel gives it up after the same time, and whoever reads of the connection may be told of it first.
			ne, ok := errors.AsType[net.Error](err)
			if !(ok && ne.Timeout()) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("stream ended by %v, want a timeout", err)
			}
		case <-time.After(patience):
			t.Error("the stream does not end")
		}
		return
	}
	t.Error("a gigabyte went to a client that reads nothing")
}

func TestStreamSurvivesPanic(t *testing.T) {
	app := server.NewApp(server.Options{})
	app.Get("/panic", func(c *fiber.Ctx) error {
		return server.Stream(c, nil, func(context.Context, *server.StreamWriter) error { panic("a bug") })
	})
	app.Get("/ok", func(c *fiber.Ctx) error { return c.SendString("fine") })
	addr, _ := start(t, app)
	got := raw(t, addr, "GET /panic HTTP/1.1\r\nHost: x\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || strings.HasSuffix(got, "0\r\n\r\n") {
		t.Errorf("answer %q, want one that is cut off", got)
	}
	if resp, _ := do(t, "GET", "http://"+addr+"/ok", nil, nil); resp.StatusCode != 200 {
		t.Errorf("then: %d", resp.StatusCode)
	}
}

// A request that runs when the stop begins is answered, and connections that wait for nothing do not delay it.
func TestStopLetsRequestsFinish(t *testing.T) {
	entered, release := make(chan bool), make(chan bool)
	app := server.NewApp(server.Options{Grace: patience})
	app.Get("/slow", func(c *fiber.Ctx) error {
		entered <- true
		<-server.Context(c).Done() // the stop has begun
		<-release
		return c.SendString("done")
	})
	addr, stop := start(t, app)
	for range 3 {
		idle, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
	}
	answer := make(chan string, 1)
	go func() {
		resp, err := client(t).Get("http://" + addr + "/slow")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		answer <- string(b)
	}()
	within(t, "request", entered)
	begin := time.Now()
	go func() { release <- true }()
	stop()
	if took := time.Since(begin); took > patience/2 {
		t.Errorf("stop took %v", took)
	}
	if got := within(t, "answer", answer); got != "done" {
		t.Errorf("answer %q", got)
	}
}

// A request that does not end is cut off after the grace.
func TestStopIsBounded(t *testing.T) {
	entered, release := make(chan bool), make(chan bool)
	app := server.NewApp(server.Options{Grace: 50 * time.Millisecond})
	app.Get("/stuck", func(*fiber.Ctx) error { entered <- true; <-release; return nil })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, app, ln) }()
	failed := make(chan error, 1)
	go func() {
		_, err := client(t).Get("http://" + ln.Addr().String() + "/stuck")
		failed <- err
	}()
	within(t, "request", entered)
	cancel()
	if err := within(t, "return of Serve", done); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Serve() = %v, want that it could not stop in time", err)
	}
	if err := within(t, "end of the request", failed); err == nil {
		t.Error("the request was answered")
	}
	close(release)
}

func TestServeEdges(t *testing.T) {
	if err := server.Serve(t.Context(), fiber.New(), nil); err == nil {
		t.Error("a foreign application is served")
	}
	for range 20 { // a context that has ended before the start, in a race with the start
		app := server.NewApp(server.Options{})
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		done := make(chan error, 1)
		go func() { done <- server.Serve(ctx, app, ln) }()
		if err := within(t, "return of Serve", done); err != nil {
			t.Fatalf("Serve() = %v", err)
		}
		if err := server.Serve(ctx, app, ln); err == nil {
			t.Error("an application is served twice")
		}
	}
	app := server.NewApp(server.Options{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := server.Serve(t.Context(), app, ln); err == nil {
		t.Error("Serve() = nil on a closed listener")
	}
}
