package api

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"starling/master/mesos/codec"
	"starling/master/mesos/server"
)

// The headers of streams of records. Spec: mesos-api.md section 5.3.
const (
	headerMessageContentType = "Message-Content-Type"
	headerMessageAccept      = "Message-Accept"
)

// accepted is how a client wants to be answered.
type accepted struct {
	codec codec.Codec
	// recordio tells that it asked for a stream of records by that name, and not by the older one of the records' own type.
	recordio bool
}

// header is that of a stream. It ends with the connection, which a client must not take for one to use again.
func (a accepted) header() map[string]string {
	out := map[string]string{fiber.HeaderContentType: a.codec.ContentType(), fiber.HeaderConnection: "close"}
	if a.recordio {
		out[fiber.HeaderContentType], out[headerMessageContentType] = codec.TypeRecordIO, a.codec.ContentType()
	}
	return out
}

const acceptText = "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'"

// accept reads how the client wants to be answered; records tells that the answer is a stream of them.
func accept(c *fiber.Ctx, records bool) (accepted, error) {
	header := c.Get(fiber.HeaderAccept)
	if cd, ok := codec.Accept(header); ok {
		if c.Get(headerMessageAccept) != "" {
			return accepted{}, server.Errorf(fiber.StatusNotAcceptable, "Expecting 'Accept' to be %s when '%s' is set", codec.TypeRecordIO, headerMessageAccept)
		}
		return accepted{codec: cd}, nil
	}
	switch {
	case !codec.Accepts(header, codec.TypeRecordIO):
		return accepted{}, server.Errorf(fiber.StatusNotAcceptable, acceptText)
	case !records:
		return accepted{}, server.Errorf(fiber.StatusNotAcceptable, "%s: this call is not answered with %s", acceptText, codec.TypeRecordIO)
	}
	cd, ok := codec.Accept(c.Get(headerMessageAccept))
	if !ok {
		return accepted{}, server.Errorf(fiber.StatusNotAcceptable, "Expecting '%s' to allow 'application/x-protobuf' or 'application/json'", headerMessageAccept)
	}
	return accepted{codec: cd, recordio: true}, nil
}

// streamed picks the requests whose bodies are read as they arrive.
func streamed(h *fasthttp.RequestHeader) bool {
	media, _, _ := strings.Cut(string(h.ContentType()), ";")
	return strings.EqualFold(strings.TrimSpace(media), codec.TypeRecordIO)
}

// streamedCodec is that of the records of a request.
func streamedCodec(c *fiber.Ctx) (codec.Codec, error) {
	if c.Get(fiber.HeaderContentEncoding) != "" {
		return nil, server.Errorf(fiber.StatusUnsupportedMediaType, "Expecting no 'Content-Encoding' for streaming requests")
	}
	header := c.Get(headerMessageContentType)
	if header == "" {
		return nil, server.Errorf(fiber.StatusBadRequest, "Expecting '%s' to be set for streaming requests", headerMessageContentType)
	}
	cd, ok := codec.ByContentType(header)
	if !ok {
		return nil, server.Errorf(fiber.StatusUnsupportedMediaType, "Expecting '%s' of %s or %s", headerMessageContentType, codec.TypeJSON, codec.TypeProtobuf)
	}
	return cd, nil
}

// arriving is the body of a request as it arrives, until ctx ends. Its client may say nothing for as long as it likes: one that is
// gone is found by the keep-alive of its connection. The function given back stops the watch over ctx.
func arriving(ctx context.Context, c *fiber.Ctx) (body io.Reader, stop func() bool) {
	conn := c.Context().Conn()
	_ = conn.SetReadDeadline(time.Time{})
	return server.Body(c), context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
}
