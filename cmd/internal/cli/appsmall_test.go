package cli

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLogsWaitForTheMeshToTell(t *testing.T) {
	c := newCluster(t, nil)
	if err := os.WriteFile(filepath.Join(c.sandbox, "stdout"), []byte("one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFakeMarathon(t)
	looks := 0
	f.answer("GET /v2/apps/web/tasks", func(string) (int, string) {
		if looks++; looks == 1 { // the mesh does not tell of this one, and Marathon has another one the next time
			return http.StatusOK, `{"tasks":[{"id":"web-9"}]}`
		}
		return http.StatusOK, `{"tasks":[{"id":"web-1"}]}`
	})
	environ := []string{"STARLING_MARATHON=" + f.URL, "STARLING_AGENT=" + c.mesh.addr}
	out, errs, code := runWith(t.Context(), App, environ, "", "logs", "web")
	if code != 0 || out != "web-1 | one\n" || errs != "" || looks != 2 {
		t.Errorf("code %d, %d looks, %q %q", code, looks, out, errs)
	}
}

func TestWrongNumbersAreTold(t *testing.T) {
	f := newFakeMarathon(t)
	f.want(App, 2, "", "starling app scale: -1 is less than 0\n", "scale", "web", "-1")
	f.set("PATCH /v2/apps/web", http.StatusUnprocessableEntity,
		`{"message":"Invalid JSON","details":[{"path":"/instances","errors":["error.expected.jsnumberformatexception"]}]}`)
	f.want(App, 1, "", "/instances: is no number of the kind and size that is wanted (", "scale", "web", "2147483647")
	f.set("GET /v2/apps/dm", http.StatusOK, `{"app":{"id":"/dm","instances":1,"tasksRunning":3,"starling":{"daemon":true}}}`)
	f.set("PATCH /v2/apps/dm", http.StatusOK, `{"version":"v","deploymentId":"d1"}`)
	ends := f.stream()
	ends <- `{"eventType":"deployment_success","id":"d1"}`
	if out, errs, code := f.run(App, "", "scale", "dm", "1"); code != 0 || !strings.Contains(out, "/dm runs on every node that fits, after ") {
		t.Errorf("code %d, %q %q", code, out, errs)
	}
}

func TestImportSaysWhatIsInTheWay(t *testing.T) {
	f := twoApps(t)
	from := writeSource(t, `[{"id":"/web","cmd":"other"},{"id":"/new","cmd":"x","cpus":0.1,"color":"red"}]`)
	const refused = "some are there already with another definition; --replace changes them, --keep leaves them as they are (nothing was changed):\n"
	out, errs, code := f.run(App, "", "import", from, "--dry-run", "--drop-unknown", "-o", "json")
	var todo importPlan
	if err := json.Unmarshal([]byte(out), &todo); err != nil || code != 1 || !strings.Contains(errs, refused) || len(todo.Problems) == 0 {
		t.Errorf("JSON: code %d, %v, %q\n%s", code, err, errs, out)
	}
	f.want(App, 0, "note: /new: /color is left out: it means nothing here\nnote: /web: is there already with another definition, and is left as it is\n"+
		"/new  new: 1 instance, 0.1 cpus, 128 MiB each\n1 to take over, 1 there already, 0 groups to set\n", "", "import", from, "--dry-run", "--drop-unknown", "--keep")
	f.want(App, 2, "", "--keep and --replace exclude each other", "import", from, "--keep", "--replace")
	f.want(App, 1, "", "the Marathon to take over from: cannot reach 127.0.0.1:1", "import", "http://127.0.0.1:1")
}
