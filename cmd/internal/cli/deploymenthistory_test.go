package cli

import (
	"net/http"
	"strings"
	"testing"
)

func TestDeploymentHistory(t *testing.T) {
	f := newFakeMarathon(t)
	f.set("GET /v2/deployments/history", http.StatusOK, `[
	{"id":"d3","version":"2026-11-21T10:01:00.000Z","outcome":"deadline","reason":"it was not done within 60 seconds, the deploymentDeadlineSeconds of /web",
	 "startedAt":"2026-11-21T10:01:00.000Z","endedAt":"2026-11-21T10:02:00.000Z","startedBy":"10.0.0.7","undoneBy":"d4","currentStep":1,"totalSteps":1,
	 "actions":[{"action":"RestartApplication","app":"/web"}]},
	{"id":"d2","version":"2026-11-21T10:00:00.000Z","outcome":"cancelled","startedAt":"2026-11-21T10:00:00.000Z","endedAt":"2026-11-21T10:00:01.500Z",
	 "endedBy":"bob at 10.0.0.8","currentStep":1,"totalSteps":2,"actions":[{"action":"ScaleApplication","app":"/a\u001b[31m"}],"moreActions":7},
	{"id":"d1","version":"2026-11-21T09:00:00.000Z","outcome":"succeeded","startedAt":"2026-11-21T09:00:00.000Z","endedAt":"2026-11-21T09:00:03.000Z",
	 "undoes":"d0","currentStep":2,"totalSteps":2,"actions":[]}]`)
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{[]string{"history"}, []string{
			"d3  2026-11-21T10:02:00.000Z", "restart /web", "10.0.0.7", "past its deadline", "it was not done within 60 seconds", "undone by d4", "had come to step 1 of 1",
			`scale /a\x1b[31m, and 7 more`, "cancelled", "asked for by bob at 10.0.0.8", "it undid d0",
		}},
		{[]string{"history", "--limit", "1"}, []string{"d3", "2 more; --limit 0 shows all"}},
		{[]string{"history", "-o", "json", "--limit", "1"}, []string{`"outcome": "deadline"`, `"undoneBy": "d4"`}},
	} {
		out, errs, code := f.run(Deployment, "", tc.args...)
		if code != 0 {
			t.Fatalf("%v ends with %d: %s", tc.args, code, errs)
		}
		for _, want := range tc.want {
			if !strings.Contains(out, want) {
				t.Errorf("%v lacks %q:\n%s", tc.args, want, out)
			}
		}
	}
	if _, errs, code := f.run(Deployment, "", "history", "--limit", "-1"); code != 2 || !strings.Contains(errs, "-1 is negative") {
		t.Errorf("a negative limit: %d %s", code, errs)
	}
}
