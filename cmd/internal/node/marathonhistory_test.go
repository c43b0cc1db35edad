package node

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"starling/marathon"
	"starling/marathon/mastertest"
	"starling/master/store"
)

// The history of deployments is part of a backup, and what was launched after it is shown as orphans, from each real store; both
// also after another start.
func TestRestoreBringsHistoryBack(t *testing.T) {
	onStores(t, func(t *testing.T, open func() store.Store) {
		cluster := mastertest.New(nil)
		cluster.Add(mastertest.Agent{ID: "a1", Host: "127.0.0.1", CPUs: 10, Mem: 1 << 16, Disk: 1 << 16, FirstPort: 31000, LastPort: 31099})
		master := mastertest.NewServer(t, cluster)
		folder := t.TempDir()
		begin := func() (*marathon.Marathon, string, func()) {
			m, at, _, end := marathonOn(t, open(), master.Address(), func(c *marathon.Config) { c.Backups = folder })
			return m, at, end
		}
		m, at, end := begin()
		eventually := func(what string, is func() bool) {
			t.Helper()
			look := time.NewTicker(5 * time.Millisecond)
			defer look.Stop()
			for deadline := time.Now().Add(time.Minute); !is(); <-look.C {
				if time.Now().After(deadline) {
					t.Fatalf("not in time: %s", what)
				}
			}
		}
		get := func(path string, into any) {
			t.Helper()
			status, body := ask(t, "GET", at+path, "")
			if err := json.Unmarshal([]byte(body), into); err != nil || status != 200 {
				t.Fatalf("%s: %d %s", path, status, body)
			}
		}
		history := func() string { // the ids and outcomes, the newest first
			var all []struct{ ID, Outcome string }
			get("/v2/deployments/history", &all)
			return fmt.Sprint(all)
		}
		settled := func() {
			t.Helper()
			eventually("no deployment is left", func() bool {
				_, body := ask(t, "GET", at+"/v2/deployments", "")
				return body == "[]"
			})
		}
		put := func(app string) {
			t.Helper()
			if status, body := ask(t, "PUT", at+"/v2/apps/a", app); status != 200 && status != 201 {
				t.Fatalf("%d %s", status, body)
			}
			settled()
		}
		abdicate := func(query string) {
			t.Helper()
			if status, body := ask(t, "DELETE", at+"/v2/leader?"+query, ""); status != 200 {
				t.Fatalf("%s: %d %s", query, status, body)
			}
			eventually("it leads again", func() bool {
				var told struct {
					Last *struct{ Backup, Restore, Error string }
				}
				if !m.Ready() {
					return false
				}
				status, body := ask(t, "GET", at+"/v2/handover", "")
				if status != 200 {
					return false
				}
				if err := json.Unmarshal([]byte(body), &told); err != nil {
					t.Fatal(err)
				}
				if told.Last == nil {
					return false
				}
				if told.Last.Error != "" {
					t.Fatalf("%s: %s", query, told.Last.Error)
				}
				return "backup="+told.Last.Backup == query || "restore="+told.Last.Restore == query
			})
		}
		put(`{"cmd":"x","cpus":0.1,"instances":1}`)
		put(`{"instances":2}`)
		_, body := ask(t, "PUT", at+"/v2/apps/a", `{"cpus":1000}`) // never done, and so cancelled
		var begun struct{ DeploymentID string }
		if err := json.Unmarshal([]byte(body), &begun); err != nil || begun.DeploymentID == "" {
			t.Fatalf("%v: %s", err, body)
		}
		if status, body := ask(t, "DELETE", at+"/v2/deployments/"+begun.DeploymentID+"?force=true", ""); status != 202 {
			t.Fatalf("%d %s", status, body)
		}
		settled()
		put(`{"cpus":0.1}`)
		then := history()

		file := "file://" + filepath.Join(folder, "state.tar")
		abdicate("backup=" + file)
		if now := history(); now != then {
			t.Errorf("after the backup the history is %s, was %s", now, then)
		}
		put(`{"instances":4}`)
		if now := history(); now == then {
			t.Fatalf("the history stays at %s", now)
		}
		abdicate("restore=" + file)
		for _, again := range []bool{false, true} {
			if again {
				end()
				m, at, end = begin()
			}
			if now := history(); now != then {
				t.Errorf("restored (started again: %v), the history is %s, was %s", again, now, then)
			}
			eventually("two tasks are orphans", func() bool {
				var told struct{ Orphans []struct{ AppID string } }
				get("/v2/orphans", &told)
				return len(told.Orphans) == 2 && told.Orphans[0].AppID == "/a"
			})
			if n := len(cluster.Tasks()); n != 4 {
				t.Errorf("%d tasks run, of four", n)
			}
		}
		if status, body := ask(t, "POST", at+"/v2/orphans/adopt", `{"all":true}`); status != 200 {
			t.Errorf("%d %s", status, body)
		}
		put(`{"instances":4}`)
		if n := len(cluster.Tasks()); n != 4 {
			t.Errorf("%d tasks run once all are adopted", n)
		}
		end()
	})
}
