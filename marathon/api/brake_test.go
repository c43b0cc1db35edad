package api_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"starling/marathon"
	"starling/marathon/mastertest"
)

// TestBrake has most agents die, and an operator who lifts the brake that follows.
func TestBrake(t *testing.T) {
	// What is lost in one round is held back, and the losses come one after the other: so nothing is replaced before ten minutes have passed,
	// which takes no time here.
	var later atomic.Int64
	r := newMarathonRig(t, func(c *marathon.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	add := func(ids ...string) {
		for n, id := range ids {
			r.cluster.Add(mastertest.Agent{ID: id, Host: fmt.Sprintf("127.0.0.%d", n+2), CPUs: 200, Mem: 1 << 20, Disk: 1 << 20, FirstPort: 32000, LastPort: 32999})
		}
	}
	add("b0", "b1", "b2")
	r.want(404, "DELETE", "/v2/brake", "")
	if got := r.want(200, "GET", "/v2/brake", "").body; got != `{"engaged":false,"heldBack":0}` {
		t.Errorf("without any loss: %s", got)
	}
	r.want(201, "POST", "/v2/apps", `{"id":"/a","cmd":"sleep 100","cpus":0.1,"instances":8,"constraints":[["hostname","MAX_PER","2"]],
		"unreachableStrategy":{"inactiveAfterSeconds":600,"expungeAfterSeconds":600}}`)
	r.settled()
	for n := range 3 {
		r.cluster.Lose(fmt.Sprintf("b%d", n))
	}
	brake := func(heldBack float64) func() bool {
		return func() bool {
			b := r.want(200, "GET", "/v2/brake", "").json(t)
			return b["engaged"] == true && len(b["lostAgents"].([]any)) == 3 && b["agents"] == 4.0 && b["heldBack"] == heldBack && b["since"] != nil
		}
	}
	r.eventually("the brake is on", brake(0))
	later.Store(int64(10 * time.Minute))
	r.eventually("it holds back", brake(6))
	queue := r.want(200, "GET", "/v2/queue?embed=heldBack", "").body
	if !strings.Contains(queue, `"heldBack":{"count":6,"why":"3 of 4 nodes with instances seem dead at once`) || !strings.Contains(queue, `"count":0`) {
		t.Errorf("queue: %s", queue)
	}
	if got := r.want(200, "GET", "/v2/queue", "").body; got != `{"queue":[]}` {
		t.Errorf("queue of those who know nothing of a brake: %s", got)
	}
	metrics := r.want(200, "GET", "/metrics", "").json(t)["gauges"].(map[string]any)
	for name, want := range map[string]float64{"marathon.replacement-brake.engaged.gauge": 1, "marathon.instances.held-back.gauge": 6, "marathon.replacement-brake.lost-agents.gauge": 3} {
		if got, _ := metrics[name].(map[string]any); got["value"] != want {
			t.Errorf("metric %s is %v, want %v", name, got, want)
		}
	}
	r.want(204, "DELETE", "/v2/brake", "")
	add("c0", "c1", "c2")
	r.eventually("all are replaced", func() bool { return r.cluster.Alive()["a"] == 8 })
	if got := r.want(200, "GET", "/v2/brake", "").body; got != `{"engaged":false,"heldBack":0}` {
		t.Errorf("lifted: %s", got)
	}
}
