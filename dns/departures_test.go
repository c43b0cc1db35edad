package dns

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"starling/gossip/catalog"
	"starling/gossip/record"
)

// The log says when names of a node left, why, and when they came back; of many at once it tells the number.
func TestTheLogTellsWhenNamesLeaveAndComeBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var out bytes.Buffer
		m := newMesh(t)
		f := followed(t, m, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&out, nil)) })
		add := func(name string, tasks int) {
			m.set(name, catalog.KeyNode, &catalog.Node{Roles: []string{catalog.RoleAgent}, Address: "10.0.0.1", Hostname: "host-" + name, AgentId: name})
			for i := range tasks {
				m.set(name, catalog.TaskKey("f", fmt.Sprint(name, i)), task("web", taskRunning, 31000))
			}
		}
		lines := func() []string {
			f.catchUp(t)
			text := strings.TrimSpace(out.String())
			out.Reset()
			if text == "" {
				return nil
			}
			return strings.Split(text, "\n")
		}
		want := func(when string, words ...string) {
			t.Helper()
			got := lines()
			if len(words) == 0 && len(got) == 0 {
				return
			}
			if len(got) != 1 || len(words) == 0 {
				t.Fatalf("%s: %q", when, got)
			}
			for _, w := range words {
				if !strings.Contains(got[0], w) {
					t.Errorf("%s: %s, without %s", when, got[0], w)
				}
			}
		}
		add("a", 2)
		add("none", 0)
		want("a new node")
		m.SetLiveness(time.Now(), "a", record.Suspect)
		want("suspicion", "level=WARN", "names of a node left", "host=host-a", "peer=a", "tasks=2", "state=suspect")
		m.SetLiveness(time.Now(), "a", record.Dead)
		want("its death after that")
		time.Sleep(3 * time.Second)
		m.SetLiveness(time.Now(), "a", record.Alive)
		want("its return", "level=INFO", "are back", "host=host-a", "tasks=2", "state=alive", "dur=3s")
		m.SetLiveness(time.Now(), "none", record.Dead)
		want("the death of one without tasks")
		m.SetLiveness(time.Now(), "a", record.Left)
		want("its goodbye", "level=INFO", "state=left")

		time.Sleep(time.Hour)
		for i := range 50 {
			add(fmt.Sprint("n", i), 1)
		}
		want("new nodes")
		for i := range 49 {
			m.SetLiveness(time.Now(), fmt.Sprint("n", i), record.Dead)
		}
		if got := lines(); len(got) != departureLines {
			t.Errorf("%d lines for 49 nodes at once", len(got))
		}
		time.Sleep(departureWindow)
		f.take(nil)
		want("later", "level=WARN", "nodes=29")
	})
}
