package app

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"testing"

	"starling/marathon/mastertest"
)

// Whatever comes in either is refused with an *Invalid or makes an app that can be written, stored, read, posted again and
// updated. The corpus lies in testdata/fuzz.
func FuzzApp(f *testing.F) {
	f.Add([]byte(`{"id":"/a","cmd":"x"}`), []byte(`{"instances":2}`))
	f.Fuzz(func(t *testing.T, body, update []byte) {
		settings := allFeatures()
		a, err := create(string(body), settings)
		if err != nil {
			if _, ok := errors.AsType[*Invalid](err); !ok {
				t.Fatalf("refused with %T: %v", err, err)
			}
			return
		}
		root, err := Commit(EmptyRoot(), EmptyRoot().WithApp(a), Change{Now: testNow, Settings: settings})
		if err != nil {
			return // a cycle, or no port left
		}
		a = root.App(a.ID)
		encoded, err := json.Marshal(a)
		if err != nil {
			t.Fatalf("cannot be written: %v", err)
		}
		stored := new(App)
		if err := json.Unmarshal(encoded, stored); err != nil {
			t.Fatalf("cannot be read back: %v in %s", err, encoded)
		}
		if !SameConfig(a, stored) {
			t.Fatalf("is another one after the store: %s", encoded)
		}
		again, err := create(string(encoded), settings)
		if err != nil {
			t.Fatalf("is refused when it comes back: %v: %s", err, encoded)
		}
		if !SameConfig(a, again) {
			t.Fatalf("is another one when it comes back: %s and %s", encoded, mustJSON(again))
		}
		d, err := ParseUpdate(update)
		if err != nil {
			return
		}
		if updated, err := d.Update(a, root.RulesFor(a.ID, settings)); err == nil {
			if _, err := Commit(root, root.WithApp(updated), Change{Now: testNow, Settings: settings}); err != nil {
				if _, ok := errors.AsType[*Invalid](err); !ok {
					t.Fatalf("refused with %T: %v", err, err)
				}
			}
		}
	})
}

func FuzzGroup(f *testing.F) {
	f.Add([]byte(`{"id":"/g","apps":[{"id":"a","cmd":"x"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		root, err := applyGroup(EmptyRoot(), Root, string(body), allFeatures())
		if err != nil {
			if _, ok := errors.AsType[*Invalid](err); !ok {
				t.Fatalf("refused with %T: %v", err, err)
			}
			return
		}
		encoded, err := json.Marshal(root)
		if err != nil {
			t.Fatalf("cannot be written: %v", err)
		}
		if err := json.Unmarshal(encoded, new(Group)); err != nil {
			t.Fatalf("cannot be read back: %v in %s", err, encoded)
		}
	})
}

func FuzzTaskID(f *testing.F) {
	f.Add("shop_web.instance-5a0e8c51-0a01-11ef-8b3c-0242ac110002._app.1")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseTaskID(text)
		if err != nil {
			return
		}
		if id.String() != text {
			t.Fatalf("%q is written %q", text, id)
		}
		if instance, err := ParseInstanceID(id.Instance.String()); err != nil || instance != id.Instance {
			t.Fatalf("the instance of %q is %v, %v", text, instance, err)
		}
	})
}

// Definitions with one or a few values swapped for others: what a fuzzer of bytes takes long to reach.
func TestMutatedDefinitions(t *testing.T) {
	const seed = 7
	rng := rand.New(rand.NewPCG(seed, seed))
	bodies := []string{
		`{"id":"/w","container":{"type":"DOCKER","docker":{"image":"nginx","network":"BRIDGE","portMappings":[{"containerPort":80,"hostPort":0,"servicePort":9000}]}},"uris":["http://x/cfg.tgz"]}`,
		`{"id":"i","cmd":"./s","ipAddress":{"networkName":"edge","discovery":{"ports":[{"number":80,"name":"http","protocol":"tcp"}]}}}`,
		`{"id":"/a","cmd":"x","healthChecks":[{"path":"ok","portIndex":0},{"protocol":"COMMAND","command":{"value":"true"}}],"check":{"tcp":{"port":1}},"readinessChecks":[{"portName":"default"}]}`,
		`{"id":"/a","container":{"type":"MESOS","docker":{"image":"i"},"volumes":[{"containerPath":"h","hostPath":"/h","mode":"RO"},{"containerPath":"s","secret":"s"},
		 {"containerPath":"d","mode":"RW","persistent":{"size":1,"constraints":[]}},{"containerPath":"e","mode":"RW","external":{"name":"v","provider":"dvdi","options":{"dvdi/driver":"d"}}}]},"secrets":{"s":{"source":"x"}}}`,
		`{"id":"/g/a","args":["x"],"role":"g","networks":[{"name":"n","labels":{"a":"b"}},{"name":"m"}],"unreachableStrategy":{"expungeAfterSeconds":1},"upgradeStrategy":{"minimumHealthCapacity":0.5,"maximumOverCapacity":1},
		 "constraints":[["hostname","UNIQUE"],["x","LIKE","y"]],"env":{"A":"b","S":{"secret":"s"}},"labels":{"c":"d"},"ports":[0,1],"resourceLimits":{"cpus":"unlimited","mem":512}}`,
	}
	accepted := 0
	for range 4000 {
		tree, err := parseJSON([]byte(bodies[rng.IntN(len(bodies))]))
		if err != nil {
			t.Fatal(err)
		}
		for range 1 + rng.IntN(3) {
			tree = mastertest.Mutate(tree, rng)
		}
		body, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		a, err := create(string(body), allFeatures())
		if err != nil {
			if _, ok := errors.AsType[*Invalid](err); !ok {
				t.Fatalf("seed %d: %s is refused with %T: %v", seed, body, err, err)
			}
			continue
		}
		accepted++
		again, err := create(string(mustJSON(a)), allFeatures())
		if err != nil {
			t.Fatalf("seed %d: %s is accepted and, when it comes back, refused: %v", seed, body, err)
		}
		if !SameConfig(a, again) {
			t.Fatalf("seed %d: %s is another one when it comes back: %s and %s", seed, body, mustJSON(a), mustJSON(again))
		}
	}
	if accepted < 100 {
		t.Errorf("only %d were accepted: the mutations are too hard", accepted)
	}
}
