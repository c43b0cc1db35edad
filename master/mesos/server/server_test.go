package server_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"starling/master/mesos/server"
)

const patience = 10 * time.Second

// start serves an application on a port of its own until the test ends, and gives its address. stop may be called
// before.
func start(t *testing.T, app *fiber.App) (addr string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, app, ln) }()
	stopped := false
	stop = func() {
		t.Helper()
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve() = %v, want nil", err)
			}
		case <-time.After(patience):
			t.Error("Serve does not return")
		}
	}
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

// client is a client without keep-alive that follows nothing and unpacks nothing.
func client(t *testing.T) *http.Client {
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// raw sends text over a connection of its own and gives all that comes back until the server closes it.
func raw(t *testing.T, addr, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	_, sent := io.WriteString(conn, text)
	all, err := io.ReadAll(conn)
	if err = errors.Join(sent, err); err != nil && len(all) == 0 {
		t.Fatal(err)
	}
	return string(all)
}

func do(t *testing.T, method, url string, header http.Header, body io.Reader) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	resp, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(got)
}

func pack(s string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, s)
	z.Close()
	return b.Bytes()
}

func echo(c *fiber.Ctx) error { return c.SendString(string(c.Body())) }

func TestErrorsAreText(t *testing.T) {
	var log bytes.Buffer
	app := server.NewApp(server.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	app.Get("/ok", func(c *fiber.Ctx) error { return c.SendString("fine") })
	app.Get("/refused", func(*fiber.Ctx) error { return server.Errorf(409, "app %q is locked", "/web") })
	app.Get("/bare", func(*fiber.Ctx) error { return fiber.ErrForbidden })
	app.Get("/secret", func(*fiber.Ctx) error { return errors.New("disk on fire") })
	app.Get("/panic", func(c *fiber.Ctx) error { c.SendString("half"); panic("a bug") })
	addr, stop := start(t, app)

	for _, tc := range []struct {
		method, path string
		status       int
		want         string
	}{
		{"GET", "/ok", 200, "fine"},
		{"GET", "/ok/", 200, "fine"},
		{"GET", "/nowhere", 404, "404 Not Found."},
		{"POST", "/ok", 405, "405 Method Not Allowed. Expecting one of { 'GET', 'HEAD' }, but received 'POST'."},
		{"GET", "/refused", 409, `app "/web" is locked`},
		{"GET", "/bare", 403, "403 Forbidden."},
		{"GET", "/secret", 500, "Internal error; the log has more under "},
		{"GET", "/panic", 500, "Internal error; the log has more under "},
	} {
		resp, body := do(t, tc.method, "http://"+addr+tc.path, nil, nil)
		if resp.StatusCode != tc.status || !strings.HasPrefix(body, tc.want) {
			t.Errorf("%s %s: %d %q, want %d %q", tc.method, tc.path, resp.StatusCode, body, tc.status, tc.want)
		}
		if ct := resp.Header.Get("Content-Type"); ct != "text/plain; charset=utf-8" {
			t.Errorf("%s %s: content type %q", tc.method, tc.path, ct)
		}
		if resp.Header.Get("Date") == "" {
			t.Errorf("%s %s: no Date", tc.method, tc.path)
		}
		if id, ok := strings.CutPrefix(body, "Internal error; the log has more under "); ok {
			defer func() {
				if len(id) != 8 || !strings.Contains(log.String(), "request_id="+id) {
					t.Errorf("%s: the log does not know %q:\n%s", tc.path, id, log.String())
				}
			}()
		}
	}
	if resp, _ := do(t, "POST", "http://"+addr+"/ok", nil, nil); resp.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("Allow = %q, want GET, HEAD", resp.Header.Get("Allow"))
	}
	stop() // the log is no longer written to
}

func TestLimits(t *testing.T) {
	for _, streaming := range []bool{false, true} {
		t.Run(fmt.Sprintf("streaming=%v", streaming), func(t *testing.T) {
			o := server.Options{BodyLimit: 1 << 20}
			if streaming {
				o.StreamBody = func(h *fasthttp.RequestHeader) bool { return string(h.ContentType()) == "x/stream" }
			}
			app := server.NewApp(o)
			app.Post("/echo", echo)
			addr, _ := start(t, app)
			url := "http://" + addr + "/echo"
			big := strings.Repeat("a", 1<<20)

			for _, tc := range []struct {
				name   string
				header http.Header
				body   io.Reader
				status int
				length int
			}{
				{name: "a body of just the limit", body: strings.NewReader(big), status: 200, length: 1 << 20},
				{name: "the same in chunks", body: struct{ io.Reader }{strings.NewReader(big)}, status: 200, length: 1 << 20},
				{name: "one byte more", body: strings.NewReader(big + "a"), status: 413},
				{name: "one byte more in chunks", body: struct{ io.Reader }{strings.NewReader(big + "a")}, status: 413},
				{
					name: "packed, just the limit", body: bytes.NewReader(pack(big)),
					header: http.Header{"Content-Encoding": {"gzip"}}, status: 200, length: 1 << 20,
				},
				{
					name: "packed, unpacks to more", body: bytes.NewReader(pack(big + "a")),
					header: http.Header{"Content-Encoding": {"gzip"}}, status: 413,
				},
				{
					name: "packed twice is not unpacked twice", body: bytes.NewReader(pack("x")),
					header: http.Header{"Content-Encoding": {"gzip, gzip"}}, status: 415,
				},
				{
					name: "not packed at all", body: strings.NewReader("plain"),
					header: http.Header{"Content-Encoding": {"gzip"}}, status: 400,
				},
				{
					name: "packed in a way that we don't know", body: strings.NewReader("x"),
					header: http.Header{"Content-Encoding": {"br"}}, status: 415,
				},
				{
					name: "headers within the limit", header: http.Header{"X-Token": {strings.Repeat("t", 60<<10)}},
					body: strings.NewReader("x"), status: 200, length: 1,
				},
			} {
				resp, body := do(t, "POST", url, tc.header, tc.body)
				if resp.StatusCode != tc.status || tc.status == 200 && len(body) != tc.length {
					t.Errorf("%s: %d with %d bytes, want %d with %d", tc.name, resp.StatusCode, len(body), tc.status, tc.length)
				}
			}
			// Go's client gives up where the connection ends before all is sent, and does not read the answer.
			long := raw(t, addr, "POST /echo HTTP/1.1\r\nHost: x\r\nX-Token: "+strings.Repeat("t", 70<<10)+"\r\n\r\n")
			if !strings.HasPrefix(long, "HTTP/1.1 431 ") {
				t.Errorf("headers above the limit: %q", long)
			}
		})
	}
}

func TestCompression(t *testing.T) {
	app := server.NewApp(server.Options{})
	text := strings.Repeat("0123456789abcdef", 64) // 1,024 bytes
	app.Get("/enough", func(c *fiber.Ctx) error { return c.SendString(text) })
	app.Get("/less", func(c *fiber.Ctx) error { return c.SendString(text[1:]) })
	app.Get("/file", func(c *fiber.Ctx) error { server.NoCompress(c); return c.SendString(text) })
	addr, _ := start(t, app)

	for _, tc := range []struct {
		path, accept string
		packed       bool
	}{
		{"/enough", "gzip", true},
		{"/enough", "deflate, gzip;q=0.5", true},
		{"/enough", "*", true},
		{"/enough", "", false},
		{"/enough", "br", false},
		{"/enough", "gzip;q=0, *", false},
		{"/less", "gzip", false},
		{"/file", "gzip", false},
	} {
		h := http.Header{}
		if tc.accept != "" {
			h.Set("Accept-Encoding", tc.accept)
		}
		resp, body := do(t, "GET", "http://"+addr+tc.path, h, nil)
		if got := resp.Header.Get("Content-Encoding") == "gzip"; got != tc.packed {
			t.Errorf("%s with Accept-Encoding %q: packed %v, want %v", tc.path, tc.accept, got, tc.packed)
		}
		if tc.packed {
			z, err := gzip.NewReader(strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(z); err != nil || string(got) != text {
				t.Errorf("%s: unpacked to %d bytes, %v", tc.path, len(got), err)
			}
		}
	}
}

func TestPaths(t *testing.T) {
	app := server.NewApp(server.Options{Process: "slave(1)", JSONAliases: []string{"/state", "/files/*"}})
	app.Get("/state", func(c *fiber.Ctx) error { return c.SendString("state " + server.OriginalURI(c)) })
	app.Get("/files/browse", func(c *fiber.Ctx) error { return c.SendString("files " + c.Query("path")) })
	app.Get("/tasks", func(c *fiber.Ctx) error { return c.SendString("tasks") })
	app.Get("/away", func(c *fiber.Ctx) error { return server.Redirect(c, "m2:5050") })
	app.Get("/home", func(c *fiber.Ctx) error { return server.RedirectRoot(c, "m2:5050") })
	addr, _ := start(t, app)

	for _, tc := range []struct{ path, want string }{
		{"/state", "state /state"},
		{"/state.json", "state /state.json"},
		{"/slave(1)/state", "state /slave(1)/state"},
		{"/slave%281%29/state?a=b", "state /slave%281%29/state?a=b"},
		{"/slave(1)/state.json", "state /slave(1)/state.json"},
		{"/state/", "state /state/"},
		{"/files/browse.json?path=/a/../b.json", "files /a/../b.json"},
		{"/slave(2)/state", "404 Not Found."},
		{"/tasks.json", "404 Not Found."},
		{"/files/../state", "404 Not Found."},
		{"/slave(1)", "404 Not Found."},
	} {
		// As text: Go's client would tidy the path up.
		got := raw(t, addr, "GET "+tc.path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if _, body, _ := strings.Cut(got, "\r\n\r\n"); body != tc.want {
			t.Errorf("%s: %q, want %q", tc.path, body, tc.want)
		}
	}
	resp, body := do(t, "GET", "http://"+addr+"/slave(1)/away?x=1", nil, nil)
	if got := resp.Header.Get("Location"); resp.StatusCode != 307 || got != "//m2:5050/slave(1)/away?x=1" || body != "" {
		t.Errorf("redirect: %d to %q with %q", resp.StatusCode, got, body)
	}
	resp, _ = do(t, "GET", "http://"+addr+"/home?x=1", nil, nil)
	if got := resp.Header.Get("Location"); got != "//m2:5050" {
		t.Errorf("redirect to %q", got)
	}
}

func TestKeepAlivePipeliningAndContinue(t *testing.T) {
	for _, streaming := range []bool{false, true} {
		o := server.Options{}
		if streaming {
			o.StreamBody = func(*fasthttp.RequestHeader) bool { return false }
		}
		app := server.NewApp(o)
		app.Post("/echo", echo)
		addr, _ := start(t, app)

		got := raw(t, addr, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\none"+
			"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"+
			"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nbad"+
			"POST /echo HTTP/1.0\r\nContent-Length: 5\r\n\r\nthree")
		rest := got
		for _, want := range []string{"\r\n\r\none", "\r\n\r\ntwo", "404 Not Found.", "Connection: close", "\r\n\r\nthree"} {
			var ok bool
			if _, rest, ok = strings.Cut(rest, want); !ok {
				t.Fatalf("streaming %v: no %q in order in\n%s", streaming, want, got)
			}
		}

		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patience))
		io.WriteString(conn, "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n")
		r := bufio.NewReader(conn)
		if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("streaming %v: %q, %v; want 100 Continue", streaming, line, err)
		}
		io.WriteString(conn, "hello")
		if all, _ := io.ReadAll(r); !strings.HasSuffix(string(all), "\r\n\r\nhello") {
			t.Errorf("streaming %v: %q", streaming, all)
		}
		conn.Close()
	}
}

// A handler that refuses a request without reading its body must not have the rest of it taken for a request.
func TestBodyLeftBehindIsNoRequest(t *testing.T) {
	served := make(chan string, 10)
	app := server.NewApp(server.Options{StreamBody: func(*fasthttp.RequestHeader) bool { return true }})
	app.Post("/refuse", func(*fiber.Ctx) error { return fiber.ErrUnauthorized })
	app.Get("/smuggled", func(*fiber.Ctx) error { served <- "smuggled"; return nil })
	app.Get("/next", func(c *fiber.Ctx) error { return c.SendString("next") })
	addr, _ := start(t, app)

	inner := strings.Repeat("x", 8192) + "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	next := "GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	for _, text := range []string{
		fmt.Sprintf("POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(inner), inner),
		fmt.Sprintf("POST /refuse HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(inner), inner),
	} {
		got := raw(t, addr, text+next)
		if !strings.Contains(got, "401") || !strings.HasSuffix(got, "\r\n\r\nnext") {
			t.Errorf("answers %q", got)
		}
	}
	// Too much to read away: the connection ends.
	long := strings.Repeat("x", 1<<20)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	go fmt.Fprintf(conn, "POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s%s", len(long), long, next)
	got, _ := io.ReadAll(conn)
	if strings.Contains(string(got), "next") {
		t.Errorf("the connection went on: %q", got)
	}
	select {
	case what := <-served:
		t.Errorf("%s was served", what)
	default:
	}
}

// A streamed body reaches the handler as it is sent.
func TestStreamedBodyArrivesAtOnce(t *testing.T) {
	seen := make(chan string)
	app := server.NewApp(server.Options{StreamBody: func(*fasthttp.RequestHeader) bool { return true }})
	app.Post("/in", func(c *fiber.Ctx) error {
		buf := make([]byte, 100)
		for {
			n, err := server.Body(c).Read(buf)
			if n > 0 {
				seen <- string(buf[:n])
			}
			if err != nil {
				return c.SendString("done")
			}
		}
	})
	addr, _ := start(t, app)
	r, w := io.Pipe()
	answer := make(chan string, 1)
	go func() {
		req, _ := http.NewRequest("POST", "http://"+addr+"/in", r)
		resp, err := client(t).Do(req)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		answer <- string(b)
	}()
	for _, want := range []string{"first", "second"} {
		io.WriteString(w, want)
		if got := <-seen; got != want {
			t.Fatalf("handler sees %q, want %q", got, want)
		}
	}
	w.Close()
	if got := <-answer; got != "done" {
		t.Errorf("answer %q", got)
	}
}
