package api_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"starling/marathon/api"
)

// levels is a log with one level.
type levels struct {
	set      string
	duration time.Duration
}

func (l *levels) Levels() map[string]string { return map[string]string{"ROOT": "INFO"} }

func (l *levels) SetLevel(name, level string, d time.Duration) error {
	if name == "" || level == "loud" {
		return errors.New("no such thing")
	}
	l.set, l.duration = name+"="+level, d
	return nil
}

func TestLoggingAndConfig(t *testing.T) {
	l := new(levels)
	r := newRig(t, func(c *api.Config) { c.Logging, c.Flags = l, map[string]string{"mesos_role": "*"} })
	if got := r.want(200, "GET", "/logging", "").body; got != `{"ROOT":"INFO"}` {
		t.Errorf("levels %s", got)
	}
	const body = `{"logger":"ROOT","level":"debug","durationSeconds":60}`
	if got := r.want(200, "POST", "/logging", body).body; got != body || l.set != "ROOT=debug" || l.duration != time.Minute {
		t.Errorf("set: %s, %+v", got, l)
	}
	if got := r.want(200, "POST", "/logging", `{"logger":"x","level":"info"}`).body; got != `{"logger":"x","level":"info"}` || l.duration != 0 {
		t.Errorf("set for good: %s, %+v", got, l)
	}
	r.want(400, "POST", "/logging", `{`)
	r.want(422, "POST", "/logging", `{"level":"info"}`)
	r.want(422, "POST", "/logging", `{"logger":"x","level":"loud"}`)
	r.want(422, "POST", "/logging", `{"logger":"x","level":"info","durationSeconds":-1}`)
	r.want(422, "POST", "/logging", `{"logger":"x","level":"info","durationSeconds":9223372036854775807}`)
	if got := r.want(200, "GET", "/config", "").json(t); got["flags"].(map[string]any)["mesos_role"] != "*" {
		t.Errorf("config %v", got)
	}
	newRig(t).want(404, "GET", "/logging", "")
}

// Everything that the help page names is there, under the method that it names.
func TestHelp(t *testing.T) {
	r := newRig(t, func(c *api.Config) { c.Logging = new(levels) })
	if got := r.want(302, "GET", "/help", "").header.Get("Location"); got != "api-console/index.html" {
		t.Errorf("help leads to %q", got)
	}
	r.want(200, "GET", "/api-console", "")
	page := r.want(200, "GET", "/api-console/index.html", "")
	if got := page.header.Get("Content-Type"); !strings.HasPrefix(got, "text/html") {
		t.Errorf("page of type %q", got)
	}
	named := regexp.MustCompile(`<td><code>([A-Z]+) (/[^<]*)</code></td>`).FindAllStringSubmatch(page.body, -1)
	if len(named) < 35 {
		t.Errorf("%d calls are named", len(named))
	}
	for _, call := range named {
		path := strings.NewReplacer("{id}", "x", "{task}", "y", "{kind}", "app").Replace(call[2])
		allow := r.want(200, "OPTIONS", path, "").header.Get("Allow")
		if !strings.Contains(", "+allow+",", ", "+call[1]+",") {
			t.Errorf("%s %s: it allows %s", call[1], path, allow)
		}
		r.want(405, "TRACE", path, "")
	}
}
