package cli

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

const (
	residentApp = `{"id":"/pg","instances":2,"tasksRunning":2,"container":{"type":"MESOS","volumes":[{"containerPath":"data","persistent":{"size":100}},
		{"containerPath":"/tmp","hostPath":"/tmp"}]},"tasks":[{"id":"t","host":"edge1","state":"TASK_RUNNING","localVolumes":[{"containerPath":"data","persistenceId":"pg#data#1"}]}]}`
	residentPod = `{"id":"/pg","spec":{"scaling":{"instances":2},"containers":[{"name":"a"},{"name":"b"}],"volumes":[{"name":"data","persistent":{"size":100}},{"name":"scratch"}]},
		"instances":[{"agentHostname":"edge1","localVolumes":[{"containerPath":"data","persistenceId":"pg#data#1"}],"containers":[{"name":"a"},{"name":"b"}]}]}`
)

func TestDataIsShownAndAskedFor(t *testing.T) {
	for what, body := range map[string]string{"app": residentApp, "pod": residentPod} {
		f := newFakeMarathon(t)
		var a *appStatus
		if what == "app" {
			f.set("GET /v2/apps/pg", http.StatusOK, `{"app":`+body+`}`)
			a = new(appStatus)
			if err := json.Unmarshal([]byte(body), a); err != nil {
				t.Fatal(err)
			}
		} else {
			f.set("GET /v2/pods/pg::status", http.StatusOK, body)
			var p podView
			if err := json.Unmarshal([]byte(body), &p); err != nil {
				t.Fatal(err)
			}
			a = p.app()
		}
		out, errs, code := f.run(App, "", "show", "pg")
		for _, want := range []string{"data (100 MiB) of each instance\n", "data on edge1: pg#data#1\n"} {
			if code != 0 || strings.Count(out, want) != 1 {
				t.Errorf("%s: code %d, %q, lacks %q:\n%s", what, code, errs, want, out)
			}
		}
		if got := a.removeQuestion(); got != "Remove /pg, with its 2 instances, its history, and for good the data of all its instances: data (100 MiB)? [y/N] " {
			t.Errorf("%s: %s", what, got)
		}
	}
	if got := (&appStatus{ID: "/web", Instances: 1}).removeQuestion(); got != "Remove /web, with its 1 instance and its history? [y/N] " {
		t.Errorf("without data: %s", got)
	}
}

func TestADeploymentThatLeavesTooFewIsAnExitCode(t *testing.T) {
	const version = "2026-11-21T10:00:00.000Z"
	web := func(running string) string {
		return `{"apps":[{"id":"/other","instances":9,"version":"v"},{"id":"/web","instances":3,"version":"` + version + `","tasksRunning":` + running +
			`,"lastTaskFailure":{"host":"edge1","state":"TASK_FAILED","timestamp":"2026-11-21T10:00:00Z","message":"exit 1"}}]}`
	}
	for name, tt := range map[string]struct {
		first, then string
		pods        string
		code        int
		errs        string
	}{
		"all run":      {web("3"), web("3"), `[]`, 0, ""},
		"none runs":    {web("0"), web("0"), `[]`, exitShort, "the deployment is done, but only 0 of 3 instances of /web run (the last failure: failed on edge1, "},
		"not for long": {web("3"), web("1"), `[]`, exitShort, "but only 1 of 3 instances of /web run"},
		"a pod": {
			`{"apps":[]}`, `{"apps":[]}`, `[{"id":"/cam","spec":{"version":"` + version + `","scaling":{"instances":1}}}]`, exitShort,
			"but only 0 of 1 instances of /cam run; see starling app why /cam\n",
		},
	} {
		f := deploying(t)
		f.endOnLook(f.stream(), succeeded)
		looks := 0
		f.answer("GET /v2/apps", func(string) (int, string) {
			if looks++; looks == 1 {
				return http.StatusOK, tt.first
			}
			return http.StatusOK, tt.then
		})
		f.set("GET /v2/pods::status", http.StatusOK, tt.pods)
		out, errs, code := f.run(App, "", "restart", "web")
		if code != tt.code || !strings.Contains(errs, tt.errs) || tt.errs == "" && errs != "" || !strings.Contains(out, "/web is restarted, after") {
			t.Errorf("%s: code %d, %q\n%s", name, code, errs, out)
		}
	}
}

func TestAFailureWithoutANodeNamesNone(t *testing.T) {
	var p podView
	if err := json.Unmarshal([]byte(`{"id":"/a","terminationHistory":[{"terminatedAt":"2026-11-21T10:00:00Z","containers":[{"lastKnownState":"TASK_FAILED"}]}]}`), &p); err != nil {
		t.Fatal(err)
	}
	if got := p.app().LastFailure.text(p.History[0].TerminatedAt); strings.Contains(got, " on ") || !strings.HasPrefix(got, "failed, ") {
		t.Errorf("said %q", got)
	}
}
