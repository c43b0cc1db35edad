package hosts

import (
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"starling/master/store"
	"starling/master/store/boltstore"
)

// TestFaultsPoisonedApp (W1): definitions that could break things are refused with the path of the field, and one that was stored and does not
// read any more costs no task and no other app anything. Each document that may be stored is poisoned in a test of marathon/scheduler.
func TestFaultsPoisonedApp(t *testing.T) {
	if !*fullRows {
		t.Parallel()
	}
	f, r := NewFlockWithTasks(t, 1)
	r.ProbeApp("/good", 2)
	r.ProbeApp("/bad", 2)
	before := r.Answers(append(r.Running("/good", 2), r.Running("/bad", 2)...))
	deep := strings.Repeat(`{"a":`, 50_000) + "1" + strings.Repeat("}", 50_000)
	for name, body := range map[string]string{
		"too deep":                      `{"id":"/p","cmd":"x","labels":` + deep + `}`,
		"a number out of reach":         `{"id":"/p","cmd":"x","instances":1e400}`,
		"more than fits":                `{"id":"/p","cmd":"x","instances":9223372036854775808}`,
		"less than nothing":             `{"id":"/p","cmd":"x","cpus":-1}`,
		"an operator that is not known": `{"id":"/p","cmd":"x","constraints":[["hostname","NEAR","x"]]}`,
		"a constraint of one part":      `{"id":"/p","cmd":"x","constraints":[["hostname"]]}`,
		"a broken pattern":              `{"id":"/p","cmd":"x","constraints":[["hostname","LIKE","("]]}`,
		"a number that is none":         `{"id":"/p","cmd":"x","constraints":[["hostname","MAX_PER","many"]]}`,
		"ports beyond all":              `{"id":"/p","cmd":"x","ports":[70000]}`,
		"depends on itself":             `{"id":"/q","cmd":"x","dependencies":["/q"]}`,
		"a name of zeros":               "{\"id\":\"/p\\u0000\",\"cmd\":\"x\"}",
		"no text":                       "{\"id\":\"/p\",\"cmd\":\"\xff\xfe\"",
		"a check of nothing":            `{"id":"/p","cmd":"x","healthChecks":[{"protocol":"NONE"}]}`,
		"a strategy beyond 1":           `{"id":"/p","cmd":"x","upgradeStrategy":{"minimumHealthCapacity":7}}`,
		"a backoff that shrinks":        `{"id":"/p","cmd":"x","backoffFactor":0.1}`,
	} {
		status, answer, _ := r.request("POST", r.Marathon+"/v2/apps", body)
		var v struct {
			Message string
			Details json.RawMessage // a text, or a list of paths with texts
		}
		if err := json.Unmarshal([]byte(answer), &v); err != nil || v.Message == "" ||
			status != http.StatusBadRequest && (status != http.StatusUnprocessableEntity || !strings.Contains(string(v.Details), `"path":"/`)) {
			t.Errorf("%s: %d %.300s; want 400, or 422 with the path of the field", name, status, answer)
		}
	}
	// And now what was stored.
	p := f.MarathonProcess
	p.Kill()
	documents, err := boltstore.Open(filepath.Join(p.args[2], "marathon.db"))
	if err != nil {
		t.Fatal(err)
	}
	all, err := documents.List(t.Context(), "marathon/apps/bad/")
	if err != nil || len(all) != 1 {
		t.Fatalf("%d versions are stored, %v", len(all), err)
	}
	if _, err := documents.Write(t.Context(), store.Op{Key: all[0].Key, Version: store.Any, Data: []byte(`{"id":7,"constraints":"` + strings.Repeat("x", 1000) + `"}`)}); err != nil {
		t.Fatal(err)
	}
	if err := documents.Close(); err != nil {
		t.Fatal(err)
	}
	mark := len(p.out.String())
	p.run()
	p.Healthy(r.Marathon + "/health")
	Eventually(t, 10*time.Second, "the app that can't be read is told of", func() error {
		if said := p.out.String()[mark:]; !strings.Contains(said, "/bad") {
			return errors.New(said)
		}
		return nil
	})
	if _, _, err := r.request("PUT", r.Marathon+"/v2/apps/good", `{"instances":3}`); err != nil {
		t.Fatal(err)
	}
	r.Answers(r.Running("/good", 3)) // they leave their marks a moment after they were told to run
	if status, answer, _ := r.request("PUT", r.Marathon+"/v2/apps/bad", `{"cmd":"exit 1"}`); status != http.StatusUnprocessableEntity {
		t.Errorf("the app that can't be read is changed: %d %s", status, answer)
	}
	for id, pid := range before {
		if gone(pid) {
			t.Errorf("task %s ended", id)
		}
	}
	if after := r.pids(); len(after) != 5 {
		t.Errorf("%d tasks were started in all, want 5: %v", len(after), after)
	}
}
