package cli

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestAppBrake(t *testing.T) {
	f := newFakeMarathon(t)
	f.set("GET /v2/brake", http.StatusOK, `{"engaged":false,"heldBack":0}`)
	f.want(App, 0, "the brake is off: what can't be reached is replaced when its app says so\n", "", "brake")
	f.want(App, 0, "the brake is off: what can't be reached is replaced when its app says so\n", "", "brake", "--lift")
	if asked := f.changes(); len(asked) > 0 {
		t.Errorf("a brake that is off was lifted by %q", asked)
	}
	f.set("GET /v2/brake", http.StatusOK, `{"engaged":true,"since":"2026-11-21T10:00:00.000Z","agents":4,"lostAgents":["S1","S2","S3"],"heldBack":6,"reason":"3 of 4 seem dead"}`)
	out, _, code := f.run(App, "", "brake")
	if code != 0 || !strings.Contains(out, "3 of 4 seem dead") || !strings.Contains(out, "6 instances") || !strings.Contains(out, "S1, S2, S3") {
		t.Errorf("code %d\n%s", code, out)
	}
	f.set("DELETE /v2/brake", http.StatusNoContent, "")
	f.want(App, 0, "the brake is lifted: 6 instances are replaced\n", "", "brake", "--lift")
	if asked := f.changes(); !slices.Equal(asked, []string{"DELETE /v2/brake"}) {
		t.Errorf("asked for %q", asked)
	}
	f.set("DELETE /v2/brake", http.StatusNotFound, `{"message":"The brake on mass replacement is not on."}`)
	f.want(App, 0, "the brake is lifted: 6 instances are replaced\n", "", "brake", "--lift")
	f.set("GET /v2/brake", http.StatusNotFound, `{"message":"URI not found"}`)
	if _, _, code := f.run(App, "", "brake"); code != 1 {
		t.Errorf("a Marathon without a brake: code %d", code)
	}
	f.set("GET /v2/apps/web", http.StatusOK, `{"app":{"id":"/web","instances":8,"tasksRunning":2}}`)
	f.set("GET /v2/queue", http.StatusOK, `{"queue":[{"app":{"id":"/web"},"count":0,"heldBack":{"count":6,"why":"3 of 4 seem dead"}}]}`)
	f.want(App, 0, "6 of its instances can't be reached and are not replaced: 3 of 4 seem dead.\nSee starling app brake; with --lift they are replaced at once.\n", "", "why", "/web")
}
