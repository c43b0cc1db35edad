package api

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"

	"github.com/gofiber/fiber/v2"

	"starling/marathon/app"
)

// readBody reads a body of few fields, for which package app has no shape. What is no JSON and what has the wrong type is
// refused in the same words as a definition.
func readBody(c *fiber.Ctx, v any) error {
	err := json.Unmarshal(c.Body(), v)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		path := "/" + strings.ReplaceAll(wrong.Field, ".", "/")
		return &app.Invalid{Message: app.MessageJSON, Details: []app.Detail{{Path: path, Errors: []string{expected(wrong)}}}}
	}
	if err != nil {
		return &app.Invalid{Message: app.MessageJSON, Syntax: err.Error()}
	}
	return nil
}

// expected is the code for a value of another type than was wanted.
func expected(wrong *json.UnmarshalTypeError) string {
	switch wrong.Type.Kind() {
	case reflect.String:
		return "error.expected.jsstring"
	case reflect.Bool:
		return "error.expected.jsboolean"
	case reflect.Int:
		if strings.HasPrefix(wrong.Value, "number ") { // one with a fraction, or too large
			return "error.expected.jsnumberformatexception"
		}
		return "error.expected.jsnumber"
	case reflect.Slice:
		return "error.expected.jsarray"
	default:
		return "error.expected.jsobject"
	}
}
