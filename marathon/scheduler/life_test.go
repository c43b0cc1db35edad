package scheduler_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"math/rand/v2"
	"runtime/debug"
	"testing"
	"time"

	"starling/marathon/app"
	"starling/marathon/deployment"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
	"starling/marathon/state"
	"starling/master/store"
)

var (
	lives    = flag.Int("lives", 1000, "how many definitions TestLives makes")
	lifeSeed = flag.Uint64("lifeseed", 0, "the seed of TestLives; 0 is one by the clock")
)

// The kinds of definitions.
const (
	anApp = iota
	aGroup
	aPod
	kinds
)

// seeds of lives, by kind.
var definitions = [kinds][]string{
	anApp: {
		`{"id":"/w","instances":2,"container":{"type":"DOCKER","docker":{"image":"nginx","network":"BRIDGE","portMappings":[{"containerPort":80,"hostPort":0,"servicePort":9000}]}},"uris":["http://x/cfg.tgz"]}`,
		`{"id":"i","cmd":"./s","ipAddress":{"networkName":"edge","discovery":{"ports":[{"number":80,"name":"http","protocol":"tcp"}]}}}`,
		`{"id":"/a","cmd":"x","cpus":0.1,"instances":3,"healthChecks":[{"path":"ok","portIndex":0},{"protocol":"COMMAND","command":{"value":"true"}}],"check":{"tcp":{"port":1}},"readinessChecks":[{"portName":"default"}]}`,
		`{"id":"/a","role":"r","container":{"type":"MESOS","docker":{"image":"i"},"volumes":[{"containerPath":"h","hostPath":"/h","mode":"RO"},{"containerPath":"s","secret":"s"},
		 {"containerPath":"d","mode":"RW","persistent":{"size":1,"constraints":[]}}]},"secrets":{"s":{"source":"x"}},"unreachableStrategy":"disabled"}`,
		`{"id":"/g/a","args":["x"],"role":"g","networks":[{"name":"n","labels":{"a":"b"}},{"name":"m"}],"unreachableStrategy":{"expungeAfterSeconds":1},"upgradeStrategy":{"minimumHealthCapacity":0.5,"maximumOverCapacity":1},
		 "constraints":[["hostname","UNIQUE"],["x","LIKE","y"],["rack","GROUP_BY","2"],["rack","MAX_PER","3"],["@zone","IS","z"]],"env":{"A":"b","S":{"secret":"s"}},"secrets":{"s":{"source":"x"}},"labels":{"c":"d"},"resourceLimits":{"cpus":"unlimited","mem":512}}`,
		`{"id":"/s","cmd":"x","portDefinitions":[{"port":8080,"name":"a","protocol":"udp,tcp","labels":{"VIP_0":"x"}},{"port":0}],"requirePorts":true,"backoffSeconds":1,"backoffFactor":2,"maxLaunchDelaySeconds":3,
		 "killSelection":"OLDEST_FIRST","taskKillGracePeriodSeconds":3,"acceptedResourceRoles":["*"],"fetch":[{"uri":"http://x/y","destPath":"z"}],"dependencies":["/w"],"executor":"/e","executorResources":{"cpus":1},"tty":true,"gpus":1,
		 "starling":{"daemon":true,"deploymentDeadlineSeconds":10,"labelsWithoutRestart":true,"instanceIndex":true,"maxLatencyMs":{"to":"/w","ms":5}}}`,
	},
	aGroup: {
		`{"id":"/g","dependencies":["/h"],"apps":[{"id":"a","cmd":"x","cpus":0.1},{"id":"/g/b","cmd":"y","dependencies":["a"],"instances":2}],"groups":[{"id":"n","apps":[{"id":"c","cmd":"z"}],"enforceRole":false}]}`,
		`{"groups":[{"id":"g","enforceRole":true,"apps":[{"id":"a","cmd":"x","cpus":0.1}]},{"id":"h","groups":[{"id":"i","dependencies":["/g"],"apps":[{"id":"b","cmd":"x"}]}]}]}`,
	},
	aPod: {
		`{"id":"/p","scaling":{"kind":"fixed","instances":2},"containers":[{"name":"a","resources":{"cpus":0.1,"mem":32},"exec":{"command":{"shell":"x"}},"endpoints":[{"name":"http","hostPort":0,"protocol":["tcp"]}],
		 "healthCheck":{"http":{"endpoint":"http","path":"/"}},"volumeMounts":[{"name":"v","mountPath":"v"}]},{"name":"b","resources":{"cpus":0.1,"mem":32},"image":{"kind":"DOCKER","id":"i"}}],"volumes":[{"name":"v"}],
		 "networks":[{"mode":"host"}],"environment":{"A":"b"},"labels":{"c":"d"},"scheduling":{"backoff":{"backoff":1,"backoffFactor":2,"maxLaunchDelay":3},"upgrade":{"minimumHealthCapacity":1,"maximumOverCapacity":0},
		 "placement":{"constraints":[{"fieldName":"hostname","operator":"UNIQUE"}],"acceptedResourceRoles":["*"]},"killSelection":"YOUNGEST_FIRST","unreachableStrategy":{"inactiveAfterSeconds":1,"expungeAfterSeconds":2}}}`,
		`{"id":"/g/q","containers":[{"name":"a","resources":{"cpus":1,"mem":32,"disk":1},"exec":{"command":{"argv":["x","y"]}},"lifecycle":{"killGracePeriodSeconds":1},"artifacts":[{"uri":"http://x/y"}]}],
		 "networks":[{"mode":"container","name":"n"}],"secrets":{"s":{"source":"x"}},"user":"u","executorResources":{"cpus":0.1,"mem":32}}`,
	},
}

// life takes one definition the whole way: it is parsed, validated, planned, stored, launched, loaded by the next process and
// removed. It tells whether it was accepted; what is refused must be refused with an *app.Invalid.
func life(t *testing.T, kind int, body []byte) (accepted bool) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			t.Fatalf("panic: %v\nof kind %d: %s\n%s", p, kind, body, debug.Stack())
		}
	}()
	settings := app.DefaultSettings()
	settings.Secrets, settings.ExternalVolumes, settings.GPUResources = true, true, true
	m := newSimOf(t, 1, scheduler.Config{MaxWaiting: 5, LaunchTokens: 20})
	m.cluster.Add(mastertest.Agent{ID: "a1", Host: "h1", CPUs: 8, Mem: 4096, Disk: 4096, FirstPort: 31000, LastPort: 31099, Attributes: map[string]string{"x": "y", "rack": "r"}})
	m.subscribe()
	m.pump()
	err := m.deploy(settings, func(root *app.Group) (*app.Group, error) { return edit(root, kind, body, settings) })
	if err != nil {
		if _, ok := errors.AsType[*app.Invalid](err); !ok {
			t.Fatalf("refused with %T: %v\nof kind %d: %s", err, err, kind, body)
		}
		return false
	}
	m.pump()
	m.advance(2 * time.Second)
	before := rootJSON(t, m.s.View().Root())
	m.cluster.Disconnect()
	m.start() // which fails where something can't be read
	if after := rootJSON(t, m.s.View().Root()); !bytes.Equal(before, after) {
		t.Fatalf("is another one after the store:\n%s\nof kind %d: %s", diff(string(before), string(after)), kind, body)
	}
	m.subscribe()
	m.advance(2 * time.Second)
	if err := m.deploy(settings, func(*app.Group) (*app.Group, error) { return app.EmptyRoot(), nil }); err != nil {
		t.Fatalf("cannot be removed: %v\nof kind %d: %s", err, kind, body)
	}
	m.advance(10 * time.Second)
	if tasks := m.cluster.Tasks(); len(tasks) > 0 {
		t.Fatalf("%d tasks are left\nof kind %d: %s", len(tasks), kind, body)
	}
	if twice := m.cluster.Duplicates(); len(twice) > 0 {
		t.Fatalf("launched twice: %v\nof kind %d: %s", twice, kind, body)
	}
	return true
}

// edit puts a definition into a tree, as the API does.
func edit(root *app.Group, kind int, body []byte, settings app.Settings) (*app.Group, error) {
	switch kind {
	case aGroup:
		update, err := app.ParseGroup(body)
		if err != nil {
			return nil, err
		}
		return update.Apply(root, app.Root, settings)
	case aPod:
		draft, err := app.ParsePod(body)
		if err != nil {
			return nil, err
		}
		id, err := draft.ID()
		if err != nil {
			return nil, err
		}
		a, err := draft.Create(id, nil, root.RulesFor(id, settings))
		if err != nil {
			return nil, err
		}
		return root.WithApp(a), nil
	default:
		draft, err := app.ParseApp(body)
		if err != nil {
			return nil, err
		}
		id, err := draft.ID(app.Root)
		if err != nil {
			return nil, err
		}
		rules := root.RulesFor(id, settings)
		rules.Roles.Allowed = append(rules.Roles.Allowed, "r")
		a, err := draft.Create(id, rules)
		if err != nil {
			return nil, err
		}
		return root.WithApp(a), nil
	}
}

func (m *sim) deploy(settings app.Settings, edit func(*app.Group) (*app.Group, error)) error {
	old := m.s.View().Root()
	edited, err := edit(old)
	if err != nil {
		return err
	}
	root, err := app.Commit(old, edited, app.Change{Now: m.now, Settings: settings})
	if err != nil {
		return err
	}
	plan := deployment.Diff("life-"+m.now.String(), old, root, nil)
	if _, err := m.state.Check(root, plan); err != nil {
		return &app.Invalid{Message: err.Error()}
	}
	return m.s.Deploy(m.now, scheduler.Change{Root: root, Plan: plan, Force: true, Group: app.Root})
}

func rootJSON(t *testing.T, root *app.Group) []byte {
	encoded, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

// TestLives takes many definitions, mutated at random, the whole way. A million of them:
//
//	go test ./marathon/scheduler -run TestLives -lives 1000000 -timeout 2h -v
func TestLives(t *testing.T) {
	seed := *lifeSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	var made, accepted [kinds]int
	for n := range *lives {
		kind := n % kinds
		body := mutant(t, kind, rng)
		made[kind]++
		if life(t, kind, body) {
			accepted[kind]++
		}
	}
	t.Logf("seed %d: made %v apps, groups and pods, of which %v were accepted", seed, made, accepted)
	for kind, n := range accepted {
		if n*50 < made[kind] {
			t.Errorf("only %d of %d of kind %d were accepted: the mutations are too hard", n, made[kind], kind)
		}
	}
}

// mutant is a definition with a few values changed.
func mutant(t *testing.T, kind int, rng *rand.Rand) []byte {
	seeds := definitions[kind]
	decoder := json.NewDecoder(bytes.NewReader([]byte(seeds[rng.IntN(len(seeds))])))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		t.Fatal(err)
	}
	for range rng.IntN(4) {
		tree = mastertest.Mutate(tree, rng)
	}
	body, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// FuzzLife is the same for bytes of any kind.
func FuzzLife(f *testing.F) {
	for kind, seeds := range definitions {
		for _, body := range seeds {
			f.Add(uint8(kind), []byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) { life(t, int(kind%kinds), body) })
}

// TestPoisonedStore has a stored definition changed behind Marathon's back, so that it says something else or can't be read at
// all. What can't be read is put in quarantine: its tasks are left alone, and all else goes on.
func TestPoisonedStore(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	quarantined, read := 0, 0
	for n := range *lives / 5 {
		m := newSim(t, 1)
		m.cluster.Add(mastertest.Agent{ID: "a1", Host: "h1", CPUs: 8, Mem: 4096, Disk: 4096, FirstPort: 31000, LastPort: 31099})
		m.subscribe()
		for _, body := range []string{definitions[anApp][2], `{"id":"/good","cmd":"x","cpus":0.1,"instances":2}`} {
			if _, err := m.put(body, false); err != nil {
				t.Fatal(err)
			}
		}
		m.advance(2 * time.Second)
		keys := m.store.Keys("marathon/apps/a/")
		document, err := m.store.Get(t.Context(), keys[0])
		if err != nil {
			t.Fatal(err)
		}
		data := poison(t, document.Data, rng)
		if _, err := m.store.Write(t.Context(), store.Op{Key: document.Key, Version: document.Version, Data: data}); err != nil {
			t.Fatal(err)
		}
		m.cluster.Disconnect()
		func() {
			defer func() {
				if p := recover(); p != nil {
					t.Fatalf("panic: %v\nof the stored definition: %s\n%s", p, data, debug.Stack())
				}
			}()
			m.restartOn(t)
			m.subscribe()
			m.advance(time.Minute)
			if n%2 == 0 { // a new definition is the way out, where it can be read; in quarantine it is left alone
				_, _ = m.remove("/a", true)
				m.advance(time.Minute)
			}
		}()
		if ids := m.s.View().Quarantined(); len(ids) > 0 {
			quarantined++
			if got := m.cluster.Alive()["a"]; got != 3 {
				t.Errorf("%d of 3 tasks are left of what is in quarantine: %s", got, data)
			}
		} else {
			read++
		}
		if _, err := m.put(`{"id":"/good","instances":3}`, false); err != nil {
			t.Fatal(err)
		}
		m.advance(time.Minute)
		if got := m.cluster.Alive()["good"]; got != 3 {
			t.Errorf("the other app has %d instances, want 3, beside %s", got, data)
		}
	}
	t.Logf("%d were put in quarantine, %d could be read", quarantined, read)
	if quarantined == 0 || read == 0 {
		t.Error("nothing was tried")
	}
}

// poison is a document that somebody has damaged.
func poison(t *testing.T, data []byte, rng *rand.Rand) []byte {
	if rng.IntN(4) == 0 {
		return data[:rng.IntN(len(data))]
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		t.Fatal(err)
	}
	for range 1 + rng.IntN(3) {
		tree = mastertest.Mutate(tree, rng)
	}
	out, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// restartOn starts a scheduler on what is stored, whatever state it is in.
func (m *sim) restartOn(t *testing.T) {
	st, stored, err := state.Open(t.Context(), m.store, 0)
	if err != nil {
		t.Fatal(err)
	}
	m.state, m.s = st, scheduler.New(m.config, rand.New(rand.NewPCG(1, 2)))
	m.s.Load(m.now, stored)
}
