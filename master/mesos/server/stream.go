package server

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

	"starling/master/mesos/codec"
	"starling/master/mesos/recordio"
)

// ErrClientGone is the cause of a stream's context when the client has closed the connection.
var ErrClientGone = errors.New("client has closed the connection")

// Stream answers with status 200, the headers given, and whatever serve writes, for as long as serve runs. The handler
// has to return at once after it, with its result; serve runs later and on another goroutine, so it must not use c nor
// anything got from it that was not copied.
//
// serve's context ends, with a cause, when the client leaves ([ErrClientGone]; noticed without writing anything) or the
// application stops ([ErrStopping]); serve then has to return soon. When it returns, the stream is ended properly and
// the connection closed. Its error is only logged: a client has no way to see one.
func Stream(c *fiber.Ctx, header map[string]string, serve func(ctx context.Context, w *StreamWriter) error) error {
	rt, err := runtimeOf(c.App())
	if err != nil {
		return err
	}
	if rt.base.Err() != nil {
		return fiber.ErrServiceUnavailable
	}
	chunked := c.Request().Header.IsHTTP11()
	w := &StreamWriter{chunked: chunked, timeout: rt.StreamWriteTimeout, buf: streamHead(header, chunked)}
	// Of the connection itself, which the handler below sees wrapped.
	setUserTimeout(c.Context().Conn(), rt.StreamWriteTimeout)
	c.Context().HijackSetNoResponse(true)
	c.Context().Hijack(func(conn net.Conn) {
		if !rt.beginStream() {
			return
		}
		defer rt.streams.Done()
		w.conn = conn
		rt.runStream(w, serve)
	})
	return nil
}

// Events is a stream of messages for one client.
type Events[E proto.Message] interface {
	// Next waits for the next one. io.EOF is the end of the stream, and no fault.
	Next(ctx context.Context) (E, error)
	// Close is called once, when the client gets no more of it.
	Close()
}

// StreamEvents answers with messages as they come, encoded by cd, as [Stream] does, until their end. header is what the answer
// has beside the type of its content; nil for nothing.
func StreamEvents[E proto.Message](c *fiber.Ctx, header map[string]string, cd codec.Codec, events Events[E]) error {
	all := map[string]string{fiber.HeaderContentType: cd.ContentType()}
	maps.Copy(all, header)
	err := Stream(c, all, func(ctx context.Context, w *StreamWriter) error {
		defer events.Close()
		for {
			event, err := events.Next(ctx)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := w.WriteMessage(cd, event); err != nil {
				return err
			}
		}
	})
	if err != nil {
		events.Close()
	}
	return err
}

// streamHead writes the head of the answer. No answer lasts beyond its connection.
func streamHead(header map[string]string, chunked bool) []byte {
	head := []byte("HTTP/1.1 200 OK\r\n")
	if !chunked {
		head = []byte("HTTP/1.0 200 OK\r\nConnection: close\r\n")
	}
	head = time.Now().UTC().AppendFormat(head, "Date: Mon, 02 Jan 2006 15:04:05 GMT\r\n")
	for _, k := range slices.Sorted(maps.Keys(header)) {
		head = append(head, k+": "+strings.NewReplacer("\r", " ", "\n", " ").Replace(header[k])+"\r\n"...)
	}
	if chunked {
		head = append(head, "Transfer-Encoding: chunked\r\n"...)
	}
	return append(head, "\r\n"...)
}

// beginStream counts a stream, unless the application stops.
func (rt *runtime) beginStream() bool {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if !rt.stopping {
		rt.streams.Add(1)
	}
	return !rt.stopping
}

func (rt *runtime) runStream(w *StreamWriter, serve func(context.Context, *StreamWriter) error) {
	ctx, cancel := context.WithCancelCause(rt.base)
	defer cancel(context.Canceled)
	gone := make(chan struct{}) // closed by the goroutine that reads
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, w.conn)
		cancel(ErrClientGone)
	}()
	// fasthttp takes the connection's reader back when this function returns.
	defer func() {
		_ = w.conn.SetReadDeadline(time.Unix(1, 0))
		<-gone
	}()
	defer func() {
		if p := recover(); p != nil {
			rt.Log.Error("stream panicked", "request_id", shortID(), "reason", p, "stack", string(debug.Stack()))
		}
	}()
	_ = w.send(w.buf) // serve runs all the same: it may have something to let go of
	if err := serve(ctx, w); err != nil && ctx.Err() == nil {
		rt.Log.Debug("stream ended", "err", err)
	}
	w.end()
}

// StreamWriter writes to a stream. Its methods may be called concurrently; each call is sent at once, and as a whole.
// After an error all further writes fail with the same.
type StreamWriter struct {
	conn    net.Conn
	chunked bool // false towards clients of HTTP/1.0
	timeout time.Duration

	mu  sync.Mutex
	buf []byte // the head before the stream begins, then scratch
	rec []byte // scratch for messages
	err error
}

// chunkHead is the room for the length of a chunk: 8 hex digits, CR, LF.
const chunkHead = 10

// Write sends p as one chunk. Nothing is sent for an empty p.
func (w *StreamWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin()
	w.buf = append(w.buf, p...)
	if err := w.finish(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteMessage sends a message as one record. An error of encoding leaves the stream as it was.
func (w *StreamWriter) WriteMessage(cd codec.Codec, m proto.Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	rec, err := cd.Append(w.rec[:0], m)
	if err != nil {
		return err
	}
	err = w.writeRecord(rec)
	if w.rec = rec; cap(rec) > keepScratch {
		w.rec = nil
	}
	return err
}

// WriteRecord sends bytes that are a message already as one record.
func (w *StreamWriter) WriteRecord(rec []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writeRecord(rec)
}

// keepScratch is how many bytes of scratch a stream keeps between writes: most events are smaller.
const keepScratch = 8 << 10

func (w *StreamWriter) writeRecord(rec []byte) error {
	w.begin()
	w.buf = recordio.Append(w.buf, rec)
	return w.finish()
}

// begin makes room for the head of a chunk.
func (w *StreamWriter) begin() { w.buf = append(w.buf[:0], make([]byte, chunkHead)...) }

// finish sends what was put behind begin.
func (w *StreamWriter) finish() error {
	out := w.buf[chunkHead:]
	if len(out) == 0 {
		return w.err
	}
	if w.chunked {
		var head [chunkHead]byte
		h := append(strconv.AppendInt(head[:0], int64(len(out)), 16), "\r\n"...)
		w.buf = append(w.buf, "\r\n"...)
		out = w.buf[chunkHead-len(h):]
		copy(out, h)
	}
	err := w.send(out)
	if cap(w.buf) > keepScratch {
		w.buf = nil
	}
	return err
}

// writeAtOnce is how many bytes a client must take within the timeout: a snapshot may be long, and a link slow.
const writeAtOnce = 256 << 10

func (w *StreamWriter) send(p []byte) error {
	for len(p) > 0 && w.err == nil {
		part := p[:min(len(p), writeAtOnce)]
		_ = w.conn.SetWriteDeadline(time.Now().Add(w.timeout))
		_, w.err = w.conn.Write(part)
		p = p[len(part):]
	}
	return w.err
}

// end says that nothing follows.
func (w *StreamWriter) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.chunked {
		_ = w.send([]byte("0\r\n\r\n"))
	}
}
