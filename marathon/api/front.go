package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"starling/master/mesos/server"
)

// HTTP are the settings of the front. The zero value lets everybody in.
type HTTP struct {
	// User and Password are asked for by basic authentication, on all paths, unless User is empty. Realm is told to those who
	// have none ("Mesosphere").
	User, Password, Realm string
	// MaxRequests is how many requests are answered at a time, event streams left out; 0 is no limit.
	MaxRequests int
	// NoCompression sends all answers as they are.
	NoCompression bool
	// Origins are those whose pages may read answers; "*" is all of them, and none nobody.
	Origins []string
}

// keyUnpacked is the size of an answer before it was compressed, kept with the request.
const keyUnpacked = "api.unpacked"

// front stands around everything else: it counts requests, and refuses those that are too many.
func (a *api) front(fapp *fiber.App) {
	srv := fapp.Server()
	next := srv.Handler
	srv.Handler = func(rc *fasthttp.RequestCtx) {
		active := a.m.ActiveRequests.Add(1)
		defer a.m.ActiveRequests.Add(-1)
		begun := time.Now()
		if limit := a.http.MaxRequests; limit > 0 && active > int64(limit) {
			tooMany(rc, limit)
		} else {
			next(rc)
		}
		unpacked, ok := rc.UserValue(keyUnpacked).(int)
		if !ok {
			unpacked = sizeOf(&rc.Response)
		}
		observe(a.m.Registry(), rc, unpacked, time.Since(begun))
	}
}

// sizeOf is the size of an answer's body, as far as it is known: one that is passed on as it arrives is not read for that.
func sizeOf(r *fasthttp.Response) int {
	if r.IsBodyStream() {
		return max(0, r.Header.ContentLength())
	}
	return len(r.Body())
}

// tooMany refuses a request without looking at it. What is left of its body ends the connection.
func tooMany(rc *fasthttp.RequestCtx, limit int) {
	rc.SetConnectionClose()
	rc.SetContentType(fiber.MIMEApplicationJSON)
	rc.SetStatusCode(fiber.StatusServiceUnavailable)
	rc.SetBodyString(fmt.Sprintf(`{"message":"Too many concurrent requests! Allowed: %d."}`, limit))
}

// guard comes before all routes: it lets in those who may come in, and says who may read the answer.
func (a *api) guard(c *fiber.Ctx) error {
	if a.http.NoCompression {
		server.NoCompress(c)
	}
	a.allowOrigin(c)
	if a.preflight(c) {
		return c.SendStatus(fiber.StatusOK) // what is allowed is in the headers
	}
	var err error
	if a.http.User != "" && !a.knows(c.Get(fiber.HeaderAuthorization)) {
		realm := a.http.Realm
		if realm == "" {
			realm = "Mesosphere"
		}
		c.Set(fiber.HeaderWWWAuthenticate, fmt.Sprintf("Basic realm=%q", realm))
		err = a.fail(c, refusal(fiber.StatusUnauthorized, "Invalid username or password."))
	} else {
		err = c.Next()
	}
	if err == nil && !c.Context().Hijacked() {
		c.Context().SetUserValue(keyUnpacked, sizeOf(c.Response()))
	}
	return err
}

// preflight tells of a browser that asks whether a page of another origin may make a request, which it does without credentials.
func (a *api) preflight(c *fiber.Ctx) bool {
	return len(a.http.Origins) > 0 && c.Method() == fiber.MethodOptions && c.Get(fiber.HeaderOrigin) != "" &&
		c.Get(fiber.HeaderAccessControlRequestMethod) != ""
}

// knows checks an Authorization header, in a time that does not tell how much of it is right.
func (a *api) knows(header string) bool {
	scheme, encoded, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return false
	}
	given, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return false
	}
	want, got := sha256.Sum256([]byte(a.http.User+":"+a.http.Password)), sha256.Sum256(given)
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1
}

// allowOrigin tells a browser that a page of another origin may read the answer.
func (a *api) allowOrigin(c *fiber.Ctx) {
	if len(a.http.Origins) == 0 {
		return
	}
	// Without an Origin it is no browser, and any entry will do; the original sends one always.
	origin := c.Get(fiber.HeaderOrigin)
	allowed := a.http.Origins[len(a.http.Origins)-1]
	switch {
	case slices.Contains(a.http.Origins, "*"):
		allowed = "*"
	case slices.Contains(a.http.Origins, origin):
		allowed = origin
	}
	if allowed != "*" {
		c.Vary(fiber.HeaderOrigin)
	}
	c.Set(fiber.HeaderAccessControlAllowOrigin, strings.Clone(allowed))
	c.Set(fiber.HeaderAccessControlAllowMethods, "GET, HEAD, OPTIONS")
	c.Set(fiber.HeaderAccessControlMaxAge, "86400")
	if wanted := c.Get(fiber.HeaderAccessControlRequestHeaders); wanted != "" {
		c.Set(fiber.HeaderAccessControlAllowHeaders, wanted)
	}
}
