package server

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/utils"
)

// Errorf makes the error that a handler returns to refuse a request with a status and a text for people.
func Errorf(status int, format string, args ...any) error {
	return fiber.NewError(status, fmt.Sprintf(format, args...))
}

// Text gives what the API says with a status when there is no more to say: "404 Not Found.".
func Text(status int) string {
	return strconv.Itoa(status) + " " + utils.StatusMessage(status) + "."
}

// WriteText answers with plain text; an empty text stands for [Text]. It is the default of Options.WriteError.
func WriteText(c *fiber.Ctx, status int, text string) error {
	if text == "" {
		text = Text(status)
	}
	c.Set(fiber.HeaderContentType, fiber.MIMETextPlainCharsetUTF8)
	return c.Status(status).SendString(text)
}

func internalText(id string) string {
	return "Internal error; the log has more under " + id
}

// handleError is fiber's way back from a handler that failed.
func (rt *runtime) handleError(c *fiber.Ctx, err error) error {
	c.Context().Response.ResetBody()
	failure, ok := errors.AsType[*fiber.Error](err)
	if !ok {
		id := shortID()
		rt.Log.Error("request failed", "request_id", id, "method", c.Method(), "path", c.Path(), "err", err)
		return rt.WriteError(c, fiber.StatusInternalServerError, internalText(id))
	}
	return rt.WriteError(c, failure.Code, plainText(c, failure))
}

// plainText replaces fiber's own texts by those of the API.
func plainText(c *fiber.Ctx, failure *fiber.Error) string {
	switch {
	case failure.Code == fiber.StatusMethodNotAllowed && failure.Message == fiber.ErrMethodNotAllowed.Message:
		return methodText(c.Method(), strings.Split(c.GetRespHeader(fiber.HeaderAllow), ", ")...)
	case failure.Message == utils.StatusMessage(failure.Code),
		failure.Code == fiber.StatusNotFound && strings.HasPrefix(failure.Message, "Cannot "+c.Method()+" "):
		return Text(failure.Code)
	}
	return failure.Message
}

func methodText(got string, want ...string) string {
	return fmt.Sprintf("405 Method Not Allowed. Expecting one of { '%s' }, but received '%s'.",
		strings.Join(want, "', '"), got)
}
