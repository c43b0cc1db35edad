package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// withVersions gives the fake an app with versions, the oldest first: each is a command and a number of instances. They are of
// 01:00, 02:00 and so on, and the last one is present.
func withVersions(f *fakeMarathon, versions ...string) {
	names := []string{}
	for i, text := range versions {
		var cmd string
		var n int
		_, _ = fmt.Sscanf(text, "%s %d", &cmd, &n)
		name := fmt.Sprintf("2026-11-21T%02d:00:00.000Z", i+1)
		names = append(names, name)
		body := strings.ReplaceAll(definition("/web", fmt.Sprintf(`"cmd":%q,"instances":%d,`, cmd, n)), "2026-11-21T09:00:00.000Z", name)
		f.set("GET /v2/apps/web/versions/"+name, http.StatusOK, body)
		f.set("GET /v2/apps/web", http.StatusOK, `{"app":`+body+`}`)
		f.set("GET /v2/groups", http.StatusOK, `{"id":"/","apps":[`+body+`],"groups":[]}`)
	}
	list, _ := json.Marshal(map[string]any{"versions": names})
	f.set("GET /v2/apps/web/versions", http.StatusOK, string(list))
	f.set("PUT /v2/apps/web", http.StatusOK, `{"version":"v","deploymentId":"d1"}`)
}

func TestRollbackGoesToTheNewestThatWasNotUndone(t *testing.T) {
	for name, tt := range map[string]struct {
		versions []string // command and instances
		cmd      string   // what is sent; empty where it is refused
		hour     int
		n        int
	}{
		"the one before":                     {[]string{"a 1", "b 1", "c 1"}, "b", 2, 1},
		"keeps the number":                   {[]string{"a 5", "b 2"}, "a", 1, 2},
		"past scaling":                       {[]string{"a 3", "b 3", "b 0", "b 1"}, "a", 1, 1},
		"past restarts":                      {[]string{"a 3", "b 3", "b 3"}, "a", 1, 3},
		"a second time":                      {[]string{"a 1", "b 1", "bad 1", "b 1"}, "a", 1, 1},
		"after what was cancelled":           {[]string{"a 1", "bad 1", "a 1"}, "", 0, 0},
		"after what was cancelled, further":  {[]string{"z 1", "a 1", "bad 1", "worse 1", "a 2"}, "z", 1, 2},
		"the newest of those that are equal": {[]string{"a 1", "a 2", "a 3", "b 4"}, "a", 3, 4},
		"scaled alone":                       {[]string{"a 1", "a 2"}, "", 0, 0},
		"the only one":                       {[]string{"a 1"}, "", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeMarathon(t)
			withVersions(f, tt.versions...)
			out, errs, code := f.run(App, "", "rollback", "web", "--detach")
			if tt.cmd == "" {
				if code != 1 || !strings.Contains(errs, "/web has no version before 2026-11-21T") || len(f.changes()) > 0 {
					t.Errorf("code %d, %q %q, asked %q", code, out, errs, f.changes())
				}
				return
			}
			asked := strings.Join(f.changes(), "\n")
			if code != 0 || !strings.HasPrefix(out, fmt.Sprintf("/web goes back to version 2026-11-21T%02d:00:00.000Z\n/web  restarts", tt.hour)) {
				t.Errorf("code %d, %q %q", code, out, errs)
			}
			body, found := strings.CutPrefix(asked, "PUT /v2/apps/web?force=false&partialUpdate=false ")
			var sent map[string]any
			if err := json.Unmarshal([]byte(body), &sent); err != nil || !found || sent["cmd"] != tt.cmd || sent["instances"] != float64(tt.n) ||
				sent["version"] != nil || sent["versionInfo"] != nil {
				t.Errorf("asked %s: %v", asked, err)
			}
		})
	}
}

func TestRollbackSaysWhatChanges(t *testing.T) {
	f := newFakeMarathon(t)
	withVersions(f, "a 1", "b 2", "c 3")
	const plan = "    /cmd: \"c\" -> \"b\"\nstep 1: restart /web\n"
	f.want(App, 0, "/web goes back to version 2026-11-21T02:00:00.000Z\n/web  restarts its 3 instances\n"+plan, "", "rollback", "web", "--dry-run")
	f.want(App, 0, "/web goes back to version 2026-11-21T01:00:00.000Z\n/web  restarts its 3 instances\n"+strings.Replace(plan, `"b"`, `"a"`, 1), "",
		"rollback", "web", "2026-11-21T01:00:00.000Z", "--dry-run")
	f.want(App, 1, "", "/web has no version \"2020\"; starling app history /web lists them\n", "rollback", "web", "2020")
	out, _, code := f.run(App, "", "rollback", "web", "--dry-run", "-o", "json")
	var said struct {
		Version string
		Changes []plannedChange
	}
	if err := json.Unmarshal([]byte(out), &said); err != nil || code != 0 || said.Version != "2026-11-21T02:00:00.000Z" || len(said.Changes) != 1 || said.Changes[0].To != 3 {
		t.Errorf("JSON: %d, %v, %s", code, err, out)
	}
	if got := f.changes(); len(got) > 0 {
		t.Errorf("dry runs asked %q", got)
	}
	f.want(App, 0, "/web goes back to version 2026-11-21T01:00:00.000Z\n/web  restarts its 3 instances\n"+strings.Replace(plan, `"b"`, `"a"`, 1)+
		"deployment d1 has begun; starling deployment watch d1 shows it\n", "", "rollback", "web", "2026-11-21T01:00:00.000Z", "--detach", "--force")
	if got := f.changes(); len(got) != 1 || !strings.HasPrefix(got[0], "PUT /v2/apps/web?force=true&partialUpdate=false {") {
		t.Errorf("asked %q", got)
	}
}
