package api_test

import (
	"strings"
	"testing"
	"time"

	"starling/marathon"
	"starling/master/store"
)

// TestStoreTroubles has the store refuse a write for good, and then take none at all.
func TestStoreTroubles(t *testing.T) {
	r := newMarathonRig(t, func(c *marathon.Config) { c.StorePatience = time.Second })
	r.want(201, "POST", "/v2/apps", `{"id":"/web","cmd":"sleep 1","cpus":0.1}`)
	r.settled()
	r.store.Fail(func(ops []store.Op) error {
		for _, op := range ops {
			if strings.HasPrefix(op.Key, "marathon/apps/bad/") {
				return store.ErrInvalid
			}
		}
		return nil
	})
	if a := r.want(503, "POST", "/v2/apps", `{"id":"/bad","cmd":"x"}`); !strings.Contains(a.body, "nothing was changed") {
		t.Errorf("got %s", a.body)
	}
	r.eventually("healthy again", func() bool { return r.do("GET", "/health", "").status == 200 })
	r.want(404, "GET", "/v2/apps/bad", "")
	r.breakStore("marathon/apps/web/") // so that it is the change that waits
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		r.do("PUT", "/v2/apps/web", `{"instances":2}`)
	}()
	r.eventually("unhealthy", func() bool { return r.do("GET", "/health", "").status == 503 })
	if a := r.want(503, "PUT", "/v2/apps/web", `{"instances":3}`); !strings.Contains(a.body, "has not taken a write") {
		t.Errorf("got %s", a.body)
	}
	r.want(200, "GET", "/v2/apps/web", "")
	r.store.Fail(nil)
	<-answered
	r.want(200, "GET", "/health", "")
	r.settled()
	if got := r.running("web"); got != 2 {
		t.Errorf("%d tasks run, want 2", got)
	}
}

// TestLimitsOfChanges has one change wait for the store, and one deployment for its tasks, where more may not.
func TestLimitsOfChanges(t *testing.T) {
	r := newMarathonRig(t, func(c *marathon.Config) {
		c.MaxChanges, c.StorePatience, c.Scheduler.MaxRunningDeployments = 1, patience, 1
	})
	broken := r.breakStore("marathon/apps/big/")
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		r.do("POST", "/v2/apps", `{"id":"/big","cmd":"x","cpus":1000}`)
	}()
	r.given("a change waits", broken)
	if got := r.want(200, "GET", "/metrics", "").body; !strings.Contains(got, `"marathon.debug.root-group.updates.active.gauge":{"value":1}`) {
		t.Errorf("metrics: %s", got)
	}
	if a := r.want(503, "POST", "/v2/apps", `{"id":"/more","cmd":"x"}`); !strings.Contains(a.body, "Too many changes are waiting") {
		t.Errorf("got %s", a.body)
	}
	r.store.Fail(nil)
	<-answered
	if a := r.want(403, "POST", "/v2/apps", `{"id":"/more","cmd":"x"}`); !strings.Contains(a.body, "Max number (1) of running deployments is achieved.") {
		t.Errorf("got %s", a.body)
	}
	r.want(200, "PUT", "/v2/apps/big?force=true", `{"instances":0}`) // takes the place of the one that runs
	r.settled()
	r.want(201, "POST", "/v2/apps", `{"id":"/more","cmd":"x","cpus":0.1}`)
}
