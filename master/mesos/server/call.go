package server

import (
	"errors"
	"net"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

	"starling/master/mesos/codec"
)

// ReadCall reads the body of a POST to one of the v1 endpoints into call, and tells in which encoding it came. It
// checks the method, the content type and the body, in the order and with the texts of the specification's mesos-api.md,
// section 2, steps 4 to 7; what comes before (authentication, the leader) and after (validation) is the caller's.
// The handler returns the error as it is. call keeps nothing of the request.
func ReadCall(c *fiber.Ctx, call proto.Message) (codec.Codec, error) {
	if c.Method() != fiber.MethodPost {
		c.Set(fiber.HeaderAllow, fiber.MethodPost)
		return nil, fiber.NewError(fiber.StatusMethodNotAllowed, methodText(c.Method(), fiber.MethodPost))
	}
	contentType := c.Get(fiber.HeaderContentType)
	if contentType == "" {
		return nil, fiber.NewError(fiber.StatusBadRequest, "Expecting 'Content-Type' to be present")
	}
	cd, ok := codec.ByContentType(contentType)
	if !ok {
		return nil, fiber.NewError(fiber.StatusUnsupportedMediaType,
			"Expecting 'Content-Type' of application/json or application/x-protobuf")
	}
	err := cd.Unmarshal(c.Body(), call)
	if err == nil {
		return cd, nil
	}
	text := "Failed to convert JSON into Call protobuf: " + err.Error()
	if _, syntax := errors.AsType[*codec.SyntaxError](err); cd == codec.Protobuf {
		text = "Failed to parse body into Call protobuf"
	} else if syntax {
		text = "Failed to parse body into JSON: " + err.Error()
	}
	return nil, fiber.NewError(fiber.StatusBadRequest, text)
}

// AcceptCodec chooses the encoding of the answer by the Accept header, or fails with 406.
func AcceptCodec(c *fiber.Ctx) (codec.Codec, error) {
	cd, ok := codec.Accept(c.Get(fiber.HeaderAccept))
	if !ok {
		return nil, fiber.NewError(fiber.StatusNotAcceptable,
			"Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'")
	}
	return cd, nil
}

// WriteMessage answers with status 200 and a message. Its Content-Type has no parameters.
func WriteMessage(c *fiber.Ctx, cd codec.Codec, m proto.Message) error {
	body, err := cd.Marshal(m)
	if err != nil {
		return err
	}
	c.Set(fiber.HeaderContentType, cd.ContentType())
	c.Context().Response.SetBodyRaw(body)
	return nil
}

// Accepted answers that a call was taken and will be worked on: 202 without a body.
func Accepted(c *fiber.Ctx) error {
	c.Status(fiber.StatusAccepted)
	c.Context().Response.ResetBody()
	return nil
}

// Redirect answers 307 with the path and query of the request at another "host:port", as a master that does not lead
// does. The location has no scheme on purpose.
func Redirect(c *fiber.Ctx, address string) error {
	return redirect(c, "//"+address+OriginalURI(c))
}

// RedirectRoot is [Redirect] without a path.
func RedirectRoot(c *fiber.Ctx, address string) error { return redirect(c, "//"+address) }

func redirect(c *fiber.Ctx, location string) error {
	c.Set(fiber.HeaderLocation, location)
	c.Status(fiber.StatusTemporaryRedirect)
	c.Context().Response.ResetBody()
	return nil
}

// HostPort joins what Redirect takes.
func HostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// WriteJSON answers with status 200 and JSON text, which it takes over: as it is, or as a call of the function that the
// query parameter "jsonp" names.
func WriteJSON(c *fiber.Ctx, body []byte) error {
	name := c.Query("jsonp")
	if name == "" {
		c.Set(fiber.HeaderContentType, codec.TypeJSON)
		c.Context().Response.SetBodyRaw(body)
		return nil
	}
	// Else a link to us could run any script as ours.
	if len(name) > 128 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$.[]") != "" {
		return fiber.NewError(fiber.StatusBadRequest, "Expecting 'jsonp' to be the name of a function")
	}
	out := make([]byte, 0, len(name)+len(body)+2)
	out = append(append(append(out, name...), '('), body...)
	c.Set(fiber.HeaderContentType, "text/javascript")
	c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	c.Context().Response.SetBodyRaw(append(out, ')'))
	return nil
}
