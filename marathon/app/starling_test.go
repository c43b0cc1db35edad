package app

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestStarlingRules(t *testing.T) {
	near := func(fields string) string {
		return `{"id":"/a","cmd":"x","starling":{"maxLatencyMs":{` + fields + `}}}`
	}
	daemon := func(rest string) string { return `{"id":"/a","cmd":"x","starling":{"daemon":true}` + rest + `}` }
	tests := []struct{ name, body, message, path, text string }{
		{"unknown field", `{"id":"/a","cmd":"x","starling":{"deamon":true}}`, MessageJSON, "/starling/deamon", "is not known here: the fields are daemon, deployment"},
		{"unknown field that is null", `{"id":"/a","cmd":"x","starling":{"deamon":null}}`, MessageJSON, "/starling/deamon", "is not known here"},
		{"unknown field of the latency", near(`"to":"/b","ms":1,"from":"x"`), MessageJSON, "/starling/maxLatencyMs/from", "the fields are ms, to"},
		{"no object", `{"id":"/a","cmd":"x","starling":true}`, MessageJSON, "/starling", codeObject},
		{"latency to nothing", near(`"ms":1`), MessageJSON, "/starling/maxLatencyMs/to", codeMissing},
		{"latency to an empty name", near(`"to":"","ms":1`), MessageJSON, "/starling/maxLatencyMs/to", codeMinLength},
		{"latency without a number", near(`"to":"/b"`), MessageJSON, "/starling/maxLatencyMs/ms", codeMissing},
		{"latency as a text", near(`"to":"/b","ms":"1"`), MessageJSON, "/starling/maxLatencyMs/ms", codeNumber},
		{"latency of nothing", near(`"to":"/b","ms":0`), MessageObject, "/starling/maxLatencyMs/ms", "must be above 0, got 0.0"},
		{"negative latency", near(`"to":"/b","ms":-1`), MessageJSON, "/starling/maxLatencyMs/ms", codeMin},
		{"latency without end", near(`"to":"/b","ms":60001`), MessageJSON, "/starling/maxLatencyMs/ms", codeMax},
		{"latency to itself", near(`"to":"/a","ms":1`), MessageObject, "/starling/maxLatencyMs/to", "must be another app"},
		{"latency to the root", near(`"to":"/","ms":1`), MessageObject, "/starling/maxLatencyMs/to", "/ is the root group"},
		{"latency to no id", near(`"to":"/B","ms":1`), MessageObject, "/starling/maxLatencyMs/to", `segment "B"`},
		{"latency to a relative id", near(`"to":"shop/db","ms":1`), MessageObject, "/starling/maxLatencyMs/to", "must be the absolute id of an app"},
		{"daemon with a number", daemon(`,"instances":3`), MessageObject, "/instances", "a daemon app cannot be scaled: it has one instance on every node that fits"},
		{"daemon that is no switch", `{"id":"/a","cmd":"x","starling":{"daemon":1}}`, MessageJSON, "/starling/daemon", codeBoolean},
		{"daemon that is replaced", daemon(`,"unreachableStrategy":{"inactiveAfterSeconds":1,"expungeAfterSeconds":2}`), MessageObject, "/unreachableStrategy", `must be "disabled" for a daemon app`},
		{"daemon with a volume", daemon(`,"role":"r","container":{"type":"MESOS","volumes":[{"containerPath":"p","mode":"RW","persistent":{"size":1}}]}`), MessageObject, "/starling/daemon", "cannot have persistent volumes"},
		{"daemon that is single", daemon(`,"labels":{"MARATHON_SINGLE_INSTANCE_APP":"true"}`), MessageObject, "/starling/daemon", "MARATHON_SINGLE_INSTANCE_APP"},
		{"negative deadline", `{"id":"/a","cmd":"x","starling":{"deploymentDeadlineSeconds":-1}}`, MessageJSON, "/starling/deploymentDeadlineSeconds", codeMin},
		{"deadline in fractions", `{"id":"/a","cmd":"x","starling":{"deploymentDeadlineSeconds":1.5}}`, MessageJSON, "/starling/deploymentDeadlineSeconds", codeNumberFormat},
		{"deadline next year", `{"id":"/a","cmd":"x","starling":{"deploymentDeadlineSeconds":99999999}}`, MessageJSON, "/starling/deploymentDeadlineSeconds", codeMax},
		{"labels that are no switch", `{"id":"/a","cmd":"x","starling":{"labelsWithoutRestart":"yes"}}`, MessageJSON, "/starling/labelsWithoutRestart", codeBoolean},
		{"index that is no switch", `{"id":"/a","cmd":"x","starling":{"instanceIndex":0}}`, MessageJSON, "/starling/instanceIndex", codeBoolean},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := create(tt.body, allFeatures())
			checkRefused(t, err, tt.message, tt.path, tt.text)
		})
	}
}

// TestStarlingForms shows that what is asked for comes back as it was written, and nothing where nothing was.
func TestStarlingForms(t *testing.T) {
	const full = `{"maxLatencyMs":{"to":"/shop/db","ms":2.5},"daemon":true,"deploymentDeadlineSeconds":60,"labelsWithoutRestart":true,"instanceIndex":true}`
	a := mustCreate(t, `{"id":"/a","cmd":"x","starling":`+full+`}`)
	checkJSON(t, a.Starling, full)
	if a.Instances != 1 || !a.UnreachableStrategy.Disabled || !a.Daemon() || !a.Indexed() || a.DeploymentDeadline() != time.Minute {
		t.Errorf("the app is %+v with %+v", a, a.Starling)
	}
	if to, ok := a.MaxLatency().App(); to != "/shop/db" || !ok || a.MaxLatency().Duration() != 2500*time.Microsecond {
		t.Errorf("near is %+v", a.MaxLatency())
	}
	encoded, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	again := new(App)
	if err := json.Unmarshal(encoded, again); err != nil {
		t.Fatal(err)
	}
	checkJSON(t, again, string(encoded))

	for _, nothing := range []string{"", `,"starling":{}`, `,"starling":null`, `,"starling":{"daemon":false,"deploymentDeadlineSeconds":0}`} {
		a := mustCreate(t, `{"id":"/a","cmd":"x"`+nothing+`}`)
		encoded, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if a.Starling != nil || strings.Contains(string(encoded), "starling") {
			t.Errorf("%q gives %s", nothing, encoded)
		}
		if a.Daemon() || a.Indexed() || a.MaxLatency() != nil || a.DeploymentDeadline() != 0 {
			t.Errorf("%q asks for something", nothing)
		}
	}
}

// TestStarlingUpdates shows what a partial update has to spell out.
func TestStarlingUpdates(t *testing.T) {
	root := mustCommit(t, EmptyRoot(), mustCreate(t, `{"id":"/a","cmd":"x","instances":4,"starling":{"instanceIndex":true}}`))
	if a := mustUpdate(t, root, "/a", `{"mem":1}`); !a.Indexed() {
		t.Error("an update of something else drops what was asked for")
	}
	if a := mustUpdate(t, root, "/a", `{"starling":{}}`); a.Starling != nil || a.Instances != 4 {
		t.Errorf("an empty object leaves %+v", a.Starling)
	}
	made := mustUpdate(t, root, "/a", `{"starling":{"daemon":true}}`)
	if !made.Daemon() || made.Indexed() || made.Instances != 1 || !made.UnreachableStrategy.Disabled {
		t.Errorf("the daemon app is %+v", made)
	}
	root = mustCommit(t, root, made)
	if a := mustUpdate(t, root, "/a", `{"instances":0}`); !a.Daemon() || a.Instances != 0 {
		t.Errorf("suspended it is %+v", a)
	}
	d, err := ParseUpdate([]byte(`{"instances":5}`))
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Update(root.App("/a"), root.RulesFor("/a", allFeatures()))
	checkRefused(t, err, MessageObject, "/instances", "a daemon app cannot be scaled")
	if a := mustUpdate(t, root, "/a", `{"starling":{},"instances":3}`); a.Daemon() || a.Instances != 3 || a.UnreachableStrategy.Disabled {
		t.Errorf("no daemon any more, it is %+v", a)
	}
	scaled, err := root.scale(Root, 3)
	if err != nil || scaled.App("/a").Instances != 1 {
		t.Errorf("scaled with its group it is %+v, %v", scaled.App("/a"), err)
	}
	if scaled, err = root.scale(Root, 0); err != nil || scaled.App("/a").Instances != 0 {
		t.Errorf("suspended with its group it is %+v, %v", scaled.App("/a"), err)
	}
}

// TestChangesWithoutRestart looks at what a change does to the version and to the time of the last change of configuration.
func TestChangesWithoutRestart(t *testing.T) {
	const plain, free = `"starling":{"instanceIndex":true}`, `"starling":{"instanceIndex":true,"labelsWithoutRestart":true}`
	tests := []struct {
		name, from, to string
		version        bool // a new one is made
		restart        bool
	}{
		{"nothing", free, free, false, false},
		{"labels, not asked for", plain + `,"labels":{"a":"1"}`, plain + `,"labels":{"a":"2"}`, true, true},
		{"labels", free + `,"labels":{"a":"1"}`, free + `,"labels":{"a":"2"}`, true, false},
		{"all labels gone", free + `,"labels":{"a":"1"}`, free, true, false},
		{"labels and more", free + `,"labels":{"a":"1"}`, free + `,"mem":7`, true, true},
		{"labels and the number", free + `,"labels":{"a":"1"}`, free + `,"instances":3`, true, false},
		{"labels, and asking for it", plain + `,"labels":{"a":"1"}`, free, true, false},
		{"labels, and asking no more", free + `,"labels":{"a":"1"}`, plain, true, true},
		{"asking for it", plain, free, true, false},
		{"a deadline", plain, `"starling":{"instanceIndex":true,"deploymentDeadlineSeconds":9}`, true, false},
		{"the index", free, `"starling":{"labelsWithoutRestart":true}`, true, true},
		{"the latency", free, `"starling":{"instanceIndex":true,"labelsWithoutRestart":true,"maxLatencyMs":{"to":"n","ms":1}}`, true, true},
		{"a daemon", free, `"starling":{"instanceIndex":true,"labelsWithoutRestart":true,"daemon":true},"unreachableStrategy":"disabled"`, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			body := func(fields string) string { return `{"id":"/a","cmd":"x",` + fields + `}` }
			old := mustCommit(t, EmptyRoot(), mustCreate(t, body(tt.from)))
			root, err := Commit(old, old.WithApp(mustCreate(t, body(tt.to))), Change{Now: testNow.Add(time.Minute), Settings: allFeatures()})
			if err != nil {
				t.Fatal(err)
			}
			before, after := old.App("/a"), root.App("/a")
			if got := after.Version != before.Version; got != tt.version {
				t.Errorf("a new version is %v, want %v", got, tt.version)
			}
			if got := after.VersionInfo.LastConfigChangeAt != before.VersionInfo.LastConfigChangeAt; got != tt.restart {
				t.Errorf("a change of configuration is %v, want %v", got, tt.restart)
			}
			if tt.version && !maps.Equal(after.Labels, mustCreate(t, body(tt.to)).Labels) {
				t.Errorf("labels are %v", slices.Sorted(maps.Keys(after.Labels)))
			}
		})
	}
}
