package server

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

// Keys of values that travel with a request.
const (
	keyOriginal   = "server.original"   // string: the request URI as it came
	keyBody       = "server.body"       // *bodyReader of a streamed body
	keyNoCompress = "server.nocompress" // any value: see NoCompress
)

const (
	// compressFrom is the size in bytes from which answers are compressed.
	compressFrom = 1024
	// drainLimit and drainTimeout bound what is read of a body that the handler left behind, for the sake of the
	// connection. What is longer ends the connection, after lingerTimeout.
	drainLimit    = 256 << 10
	drainTimeout  = time.Second
	lingerTimeout = time.Second
)

// guard wraps the application's handler. It stands below fiber, so that it sees each request once, whatever the routes.
func (rt *runtime) guard(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(rc *fasthttp.RequestCtx) {
		rt.busy(rc.Conn())
		rt.rewrite(rc)
		if failure := rt.admit(rc); failure != nil {
			rt.refuse(rc, failure)
		} else {
			rt.run(next, rc)
		}
		compress(rc)
		if stream := rc.RequestBodyStream(); stream != nil && !rc.Hijacked() {
			rt.drain(rc, stream)
		}
	}
}

// run calls the handler and answers for it when it panics.
func (rt *runtime) run(next fasthttp.RequestHandler, rc *fasthttp.RequestCtx) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		id := shortID()
		rt.Log.Error("handler panicked", "request_id", id, "method", string(rc.Method()),
			"path", string(rc.Path()), "reason", p, "stack", string(debug.Stack()))
		rc.Response.Reset()
		rc.HijackSetNoResponse(false)
		rc.Hijack(nil)
		rt.refuse(rc, fiber.NewError(fiber.StatusInternalServerError, internalText(id)))
	}()
	next(rc)
}

// refuse answers without a handler.
func (rt *runtime) refuse(rc *fasthttp.RequestCtx, failure *fiber.Error) {
	c := rt.app.AcquireCtx(rc)
	defer rt.app.ReleaseCtx(c)
	if err := rt.handleError(c, failure); err != nil {
		rt.Log.Error("cannot write error", "err", err)
		rc.SetStatusCode(fiber.StatusInternalServerError)
	}
}

// rewrite gives the path the form that routes are written in.
func (rt *runtime) rewrite(rc *fasthttp.RequestCtx) {
	if rt.Process == "" && len(rt.JSONAliases) == 0 {
		return
	}
	original := string(rc.RequestURI())
	path, query, hasQuery := strings.Cut(original, "?")
	if rest, ok := cutProcess(path, rt.Process); ok {
		path = rest
	}
	if base, ok := strings.CutSuffix(path, ".json"); ok && slices.ContainsFunc(rt.JSONAliases, func(p string) bool {
		if below, ok := strings.CutSuffix(p, "*"); ok {
			return strings.HasPrefix(base, below)
		}
		return base == p
	}) {
		path = base
	}
	if hasQuery {
		path += "?" + query
	}
	if path != original {
		rc.SetUserValue(keyOriginal, original)
		rc.Request.SetRequestURI(path)
	}
}

// cutProcess takes the first segment off a path when it is the name of the process.
func cutProcess(path, process string) (string, bool) {
	if process == "" || !strings.HasPrefix(path, "/") {
		return path, false
	}
	first, rest, _ := strings.Cut(path[1:], "/")
	if first != process {
		if decoded, err := url.PathUnescape(first); err != nil || decoded != process {
			return path, false
		}
	}
	return "/" + rest, true
}

// OriginalURI gives the path and query as the client sent them. The string is the caller's.
func OriginalURI(c *fiber.Ctx) string {
	if s, ok := c.Context().UserValue(keyOriginal).(string); ok {
		return s
	}
	return string(c.Request().RequestURI())
}

// admit checks what can be checked before the handler, and makes the body ready for it.
func (rt *runtime) admit(rc *fasthttp.RequestCtx) *fiber.Error {
	path := rc.RequestURI()
	if at := bytes.IndexByte(path, '?'); at >= 0 {
		path = path[:at]
	}
	if rt.Process != "" && bytes.Contains(path, []byte("/..")) {
		return fiber.ErrNotFound
	}
	req := &rc.Request
	if stream := rc.RequestBodyStream(); stream != nil {
		body := &bodyReader{r: stream}
		rc.SetUserValue(keyBody, body)
		if rt.StreamBody != nil && rt.StreamBody(&req.Header) {
			return nil
		}
		data, err := readBody(body, req.Header.ContentLength(), rt.BodyLimit)
		if err != nil {
			return bodyError(err)
		}
		req.SetBodyRaw(data)
	}
	encoding := req.Header.ContentEncoding()
	switch {
	case len(encoding) == 0:
		return nil
	case bytes.EqualFold(encoding, []byte("identity")):
	case bytes.EqualFold(encoding, []byte("gzip")), bytes.EqualFold(encoding, []byte("x-gzip")):
		data, err := unzip(req.Body(), rt.BodyLimit)
		if err != nil {
			return bodyError(err)
		}
		req.SetBodyRaw(data)
	default:
		return fiber.NewError(fiber.StatusUnsupportedMediaType, "Expecting 'Content-Encoding' of gzip, or none")
	}
	// fiber would unpack once more, and without limit.
	req.Header.Del(fiber.HeaderContentEncoding)
	return nil
}

var errBodyTooLarge = errors.New("body too large")

func bodyError(err error) *fiber.Error {
	if errors.Is(err, errBodyTooLarge) {
		return fiber.ErrRequestEntityTooLarge
	}
	return fiber.NewError(fiber.StatusBadRequest, "Failed to read body: "+err.Error())
}

// readBody reads a body of a known length, or of an unknown one (negative).
func readBody(r io.Reader, length, limit int) ([]byte, error) {
	switch {
	case length > limit:
		return nil, errBodyTooLarge
	case length < 0:
		return readLimited(r, limit)
	}
	data := make([]byte, length)
	_, err := io.ReadFull(r, data)
	return data, err
}

func readLimited(r io.Reader, limit int) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err == nil && len(data) > limit {
		err = errBodyTooLarge
	}
	return data, err
}

func unzip(data []byte, limit int) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return readLimited(z, limit)
}

// bodyReader remembers that the body has ended: fasthttp 1.60 waits for another chunk when it is read once more.
type bodyReader struct {
	r   io.Reader
	err error
}

func (b *bodyReader) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.r.Read(p)
	b.err = err
	return n, err
}

// Body gives the body of a request that Options.StreamBody picked, as it arrives, valid until the handler returns; of
// any other request it gives what c.Body() gives. There is no limit and no deadline but ReadTimeout: the handler sets
// its own, on c.Context().Conn().
func Body(c *fiber.Ctx) io.Reader {
	if c.Context().RequestBodyStream() != nil {
		if b, ok := c.Context().UserValue(keyBody).(*bodyReader); ok {
			return b
		}
	}
	return bytes.NewReader(c.Body())
}

// drain reads what the handler left of a streamed body. Without it the rest would be taken for the next request on the
// connection: a way to smuggle requests past the one who refused this one.
func (rt *runtime) drain(rc *fasthttp.RequestCtx, stream io.Reader) {
	body, ok := rc.UserValue(keyBody).(*bodyReader)
	if !ok {
		body = &bodyReader{r: stream}
	}
	if errors.Is(body.err, io.EOF) {
		return
	}
	if body.err == nil && rc.Request.Header.ContentLength() <= drainLimit {
		conn := rc.Conn()
		_ = conn.SetReadDeadline(time.Now().Add(drainTimeout))
		if _, err := io.CopyN(io.Discard, body, drainLimit); errors.Is(err, io.EOF) {
			_ = conn.SetReadDeadline(time.Time{})
			return
		}
	}
	rt.linger(rc)
}

// linger answers, and closes the connection while the client may still be sending. A plain close would answer what
// arrives later with a reset, and that takes the answer away from a client that has not read it yet.
func (rt *runtime) linger(rc *fasthttp.RequestCtx) {
	rc.Response.Header.SetConnectionClose()
	var answer bytes.Buffer
	if _, err := rc.Response.WriteTo(&answer); err != nil {
		rc.SetConnectionClose()
		return
	}
	writer, _ := rc.Conn().(interface{ CloseWrite() error })
	rc.HijackSetNoResponse(true)
	rc.Hijack(func(conn net.Conn) {
		if !rt.beginStream() {
			return
		}
		defer rt.streams.Done()
		_ = conn.SetWriteDeadline(time.Now().Add(rt.StreamWriteTimeout))
		if _, err := conn.Write(answer.Bytes()); err != nil || writer == nil || writer.CloseWrite() != nil {
			return
		}
		_ = conn.SetReadDeadline(time.Now().Add(lingerTimeout))
		_, _ = io.Copy(io.Discard, conn)
	})
}

// NoCompress keeps the answer of this request from being compressed: file downloads are not.
func NoCompress(c *fiber.Ctx) { c.Context().SetUserValue(keyNoCompress, true) }

// compress packs the answer if the client takes it and it is worth it.
func compress(rc *fasthttp.RequestCtx) {
	resp := &rc.Response
	if rc.Hijacked() || resp.IsBodyStream() || len(resp.Body()) < compressFrom || rc.UserValue(keyNoCompress) != nil ||
		len(resp.Header.ContentEncoding()) > 0 || resp.StatusCode() == fiber.StatusPartialContent {
		return
	}
	resp.Header.Add(fiber.HeaderVary, fiber.HeaderAcceptEncoding)
	if !acceptsGzip(string(rc.Request.Header.Peek(fiber.HeaderAcceptEncoding))) {
		return
	}
	packed := fasthttp.AppendGzipBytesLevel(nil, resp.Body(), fasthttp.CompressBestSpeed)
	resp.SetBodyRaw(packed)
	resp.Header.Set(fiber.HeaderContentEncoding, "gzip")
}

// acceptsGzip reads an Accept-Encoding header. None means no.
func acceptsGzip(header string) bool {
	star := false
	for one := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(one, ";")
		_, q, _ := strings.Cut(params, "=")
		zero := strings.TrimSpace(params) != "" && strings.Trim(strings.TrimSpace(q), "0.") == ""
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "gzip", "x-gzip":
			return !zero
		case "*":
			star = !zero
		}
	}
	return star
}

// shortID names an answer in the log. Chance is enough: it need not be unique for long.
func shortID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
