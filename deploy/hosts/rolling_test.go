package hosts

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// rollingApp is one row of the table of marathon-runtime.md 4.4 under way.
type rollingApp struct {
	id          string
	from, to    int
	min, over   float64
	least, most int
	// resident has a volume; ill is how many are unhealthy when the upgrade begins.
	resident bool
	ill      int
	// by instance, as events tell
	alive, healthy map[string]bool
	// of the upgrade, what was seen
	fewest, highest         int
	fewestReal, highestReal int
	events, looks           int
}

// definition is the app's, with tasks that are ill while there is a file of their name in a folder.
func (a *rollingApp) definition(cmd, hospital string, instances int) map[string]any {
	def := map[string]any{
		"id": a.id, "cmd": cmd, "cpus": 0.02, "mem": 8, "instances": instances, "backoffSeconds": 1, "portDefinitions": []any{},
		"upgradeStrategy": map[string]any{"minimumHealthCapacity": a.min, "maximumOverCapacity": a.over},
		"healthChecks": []any{map[string]any{
			"protocol": "COMMAND", "command": map[string]any{"value": "test ! -e " + hospital + "/$MESOS_TASK_ID"},
			"intervalSeconds": 1, "delaySeconds": 0, "gracePeriodSeconds": 20, "maxConsecutiveFailures": 0,
		}},
	}
	if a.resident {
		def["role"] = "rolling" // that of its group: nothing can be reserved for the role of all
		def["container"] = map[string]any{"type": "MESOS", "volumes": []any{
			map[string]any{"containerPath": "data", "mode": "RW", "persistent": map[string]any{"size": 1}},
		}}
	}
	return def
}

// well is how many of the instances are healthy.
func (a *rollingApp) well() int {
	healthy := 0
	for id := range a.alive {
		if a.healthy[id] {
			healthy++
		}
	}
	return healthy
}

// TestRollingKeepsItsBounds upgrades an app for each row of the worked examples, all at once on a whole cluster: at each event
// there are never fewer healthy instances than the minimum, and never more instances than the maximum, neither as Marathon
// tells nor as processes. A resident app ends one although that is below its minimum; of one where most are ill already none of the
// healthy ones is ended before there are others.
func TestRollingKeepsItsBounds(t *testing.T) {
	c, _ := Dev(t)
	rows := []*rollingApp{
		{from: 4, to: 4, min: 1, over: 1, least: 4, most: 8},
		{from: 4, to: 4, min: 0.5, over: 0, least: 2, most: 4},
		{from: 4, to: 4, min: 1, over: 0, least: 4, most: 5},
		{from: 4, to: 4, min: 0, over: 0, least: 0, most: 4},
		{from: 1, to: 1, min: 0, over: 0, least: 0, most: 1},
		{from: 1, to: 1, min: 1, over: 0, least: 1, most: 2},
		{from: 3, to: 3, min: 0.5, over: 0.2, least: 2, most: 3},
		{from: 10, to: 10, min: 0.8, over: 0.1, least: 8, most: 11},
		{from: 6, to: 4, min: 1, over: 1, least: 4, most: 8},
		{from: 4, to: 4, min: 1, over: 0, resident: true, least: 3, most: 4},
		{from: 4, to: 4, min: 1, over: 1, ill: 3, least: 1, most: 8},
	}
	hospital := t.TempDir()
	byID := make(map[string]*rollingApp)
	mark := 70000 + os.Getpid()%1000*10
	list := func(generation string, instances func(*rollingApp) int) string {
		var apps []any
		for n, a := range rows {
			a.id = fmt.Sprintf("/rolling/r%d", n)
			byID[a.id] = a
			apps = append(apps, a.definition(fmt.Sprintf("exec sleep %d.%s", mark+n, generation), hospital, instances(a)))
		}
		body, err := json.Marshal(map[string]any{"apps": apps})
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	for _, a := range rows {
		a.alive, a.healthy = make(map[string]bool), make(map[string]bool)
	}
	lines := c.Events("instance_changed_event", "instance_health_changed_event", "deployment_success", "deployment_info")
	put := func(body string) string {
		status, answer, err := Request("PUT", c.Marathon+"/v2/groups/rolling", body)
		if err != nil || status/100 != 2 {
			t.Fatalf("PUT: %d %s %v", status, answer, err)
		}
		var v struct{ DeploymentID string }
		if err := json.Unmarshal([]byte(answer), &v); err != nil || v.DeploymentID == "" {
			t.Fatalf("PUT: %s: %v", answer, err)
		}
		return v.DeploymentID
	}
	// follow takes events in until the deployment is done, or what is waited for has come, and looks at everything at each.
	follow := func(deployment string, upgrade bool, until func() bool) {
		deadline := time.After(5 * time.Minute)
		for !until() {
			var data string
			var ok bool
			select {
			case data, ok = <-lines:
			case <-deadline:
				for _, a := range rows {
					t.Logf("%s: %d instances of %d to %d, %d healthy; %d events", a.id, len(a.alive), a.from, a.to, a.well(), a.events)
				}
				t.Fatalf("deployment %s is not done in time; %d events wait", deployment, len(lines))
			}
			if !ok {
				t.Fatal("the stream of events has ended")
			}
			var e struct {
				EventType, InstanceID, Condition, RunSpecID, ID string
				Healthy                                         *bool
			}
			if err := json.Unmarshal([]byte(data), &e); err != nil {
				t.Fatal(err)
			}
			a := byID[e.RunSpecID]
			switch {
			case e.EventType == "deployment_success" && e.ID == deployment:
				return
			case a == nil:
			case e.EventType == "instance_health_changed_event":
				a.healthy[e.InstanceID] = e.Healthy != nil && *e.Healthy
			case e.EventType == "instance_changed_event":
				switch e.Condition {
				case "Provisioned", "Staging", "Starting", "Running", "Killing":
					a.alive[e.InstanceID] = true
				default:
					delete(a.alive, e.InstanceID)
					delete(a.healthy, e.InstanceID)
				}
			}
			if !upgrade {
				continue
			}
			for _, a := range rows {
				healthy := a.well()
				if a.events == 0 {
					a.fewest = healthy
				}
				a.events++
				a.fewest, a.highest = min(a.fewest, healthy), max(a.highest, len(a.alive))
			}
			if len(lines) > 0 {
				continue // a look takes long on a busy machine, and would come later after each event
			}
			real := processes(t, mark, len(rows))
			there := real
			for n, a := range rows {
				if len(real[n]) < a.least {
					// They are looked at one by one: of two that take turns meanwhile the first may be gone, and the second not in the list yet.
					there = processes(t, mark, len(rows))
					for n := range there {
						maps.Copy(there[n], real[n])
					}
					break
				}
			}
			for n, a := range rows {
				if a.looks == 0 {
					a.fewestReal = len(there[n])
				}
				a.looks++
				a.fewestReal, a.highestReal = min(a.fewestReal, len(there[n])), max(a.highestReal, len(real[n]))
			}
		}
	}
	never := func() bool { return false }
	follow(put(list("1", func(a *rollingApp) int { return a.from })), false, never)
	for _, a := range rows {
		if len(a.alive) != a.from || len(a.healthy) != a.from {
			t.Fatalf("%s: %d instances, %d healthy, want %d", a.id, len(a.alive), len(a.healthy), a.from)
		}
	}
	for _, a := range rows {
		for _, task := range c.Running(a.id, a.from)[:a.ill] {
			if err := os.WriteFile(filepath.Join(hospital, task.ID), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	follow("", false, func() bool {
		for _, a := range rows {
			if a.well() != a.from-a.ill {
				return false
			}
		}
		return true
	})
	follow(put(list("2", func(a *rollingApp) int { return a.to })), true, never)
	for _, a := range rows {
		what := fmt.Sprintf("%d instances of %d, at least %.1f and %.1f more", a.to, a.from, a.min, a.over)
		t.Logf("%s: %d to %d healthy or not at %d events, %d to %d processes at %d looks; allowed %d to %d", what, a.fewest, a.highest, a.events, a.fewestReal, a.highestReal, a.looks, a.least, a.most)
		if a.fewest < a.least || a.fewestReal < a.least {
			t.Errorf("%s: as few as %d were healthy and %d processes there, want %d", what, a.fewest, a.fewestReal, a.least)
		}
		if a.highest > a.most || a.highestReal > a.most {
			t.Errorf("%s: as many as %d instances and %d processes were there, want %d", what, a.highest, a.highestReal, a.most)
		}
		if min(a.events, a.looks) < 20 {
			t.Errorf("%s: %d events and looked at %d times only", what, a.events, a.looks)
		}
	}
	for n := range rows {
		c.Running(fmt.Sprintf("/rolling/r%d", n), rows[n].to)
	}
}

// processes lists those that sleep for mark, mark+1 and so on seconds, and the shells that are about to.
func processes(t *testing.T, mark, n int) []map[string]bool {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	found := make([]map[string]bool, n)
	for i := range found {
		found[i] = make(map[string]bool)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it has just ended
		}
		words := strings.FieldsFunc(string(data), func(r rune) bool { return r == 0 || r == ' ' })
		if len(words) < 2 || words[len(words)-2] != "sleep" {
			continue
		}
		number, _, _ := strings.Cut(words[len(words)-1], ".")
		if seconds, err := strconv.Atoi(number); err == nil && seconds >= mark && seconds < mark+n {
			found[seconds-mark][file] = true
		}
	}
	return found
}
