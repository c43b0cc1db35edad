package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"starling/cmd/internal/clusterkey"
	"starling/gossip/api"
	"starling/gossip/keyring"
)

// rotator answers as a node does that holds a key, and goes through the steps of a rotation, one for each question.
type rotator struct {
	t     *testing.T
	addr  string
	ring  keyring.Ring
	steps []api.Rotation

	mu    sync.Mutex
	asked keyring.Request // what was asked for; its Next is nil before
	posts int
}

var challenge = bytes.Repeat([]byte{9}, keyring.ChallengeSize)

func newRotator(t *testing.T, key keyring.Secret, steps ...api.Rotation) *rotator {
	t.Helper()
	r := &rotator{t: t, ring: keyring.Ring{Secrets: []keyring.Secret{key}}, steps: steps}
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	r.addr = s.Listener.Addr().String()
	return r
}

func (r *rotator) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := api.Keys{Encrypted: true, Challenge: challenge, Nodes: []api.NodeKeys{
		{Name: "a", State: "alive", Serial: 1, Primary: "aa", Installed: []string{"aa", "bb"}}, {Name: "b\x1b", State: "dead"},
	}}
	if req.Method == http.MethodPost {
		r.posts++
		var q api.RotationRequest
		if err := json.NewDecoder(req.Body).Decode(&q); err != nil || req.Header.Get("Content-Type") != "application/json" {
			r.t.Errorf("POST of %q: %v", req.Header.Get("Content-Type"), err)
		}
		got, err := r.ring.Open("edge", q.Request)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		r.asked = got
		w.WriteHeader(http.StatusAccepted)
		return
	}
	if r.asked.Next != nil && len(r.steps) > 0 {
		step := r.steps[0]
		if step.Target == "" {
			step.Target = r.asked.Next.Fingerprint()
		}
		k.Rotation = &step
		if len(r.steps) > 1 {
			r.steps = r.steps[1:]
		}
	}
	_ = json.NewEncoder(w).Encode(k)
}

// keyFile writes a new key, and returns it and its file.
func keyFile(t *testing.T, name string) (keyring.Secret, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(clusterkey.New()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := clusterkey.Read("x", path)
	if err != nil {
		t.Fatal(err)
	}
	return key, path
}

func TestKeys(t *testing.T) {
	key, _ := keyFile(t, "old")
	r := newRotator(t, key, api.Rotation{Target: "bb", Running: true, Phase: "use", Acknowledged: 1, Nodes: 2, Waiting: []string{"b\x1b"}})
	r.asked.Next = key
	out, errs, code := mesh(t, nil, "keys", "--agent", r.addr)
	want := "" +
		"NAME   STATE  STEP  SENDS WITH  ALSO ACCEPTS\n" +
		"a      alive  1     aa          bb\n" +
		"b\\x1b  dead   0     -           -\n" +
		"\n" +
		"The last rotation from this node, to bb: use: 1 of 2 nodes, waiting for b\\x1b\n"
	if out != want || errs != "" || code != 0 {
		t.Errorf("code %d, %q\n%s\nwant\n%s", code, errs, out, want)
	}
	if out, _, code := mesh(t, nil, "keys", "--agent", r.addr, "-o", "json"); code != 0 || !json.Valid([]byte(out)) || !strings.Contains(out, `"primary": "aa"`) {
		t.Errorf("code %d, %s", code, out)
	}
	n := newNode(t)
	n.answers["/mesh/keys"] = `{"encrypted":false,"nodes":[]}`
	if out, _, _ := mesh(t, nil, "keys", "--agent", n.addr); !strings.Contains(out, "has no key") {
		t.Errorf("without a key: %s", out)
	}
}

func TestRotateKeyShowsEachPhase(t *testing.T) {
	old, oldFile := keyFile(t, "old")
	next, newFile := keyFile(t, "new")
	r := newRotator(
		t, old, api.Rotation{Running: true},
		api.Rotation{Running: true, Phase: "install", Acknowledged: 1, Nodes: 7, Waiting: []string{"b", "c", "d", "e", "f", "g"}},
		api.Rotation{Running: true, Phase: "use", Acknowledged: 7, Nodes: 7}, api.Rotation{Running: true, Phase: "use", Acknowledged: 7, Nodes: 7},
		api.Rotation{Phase: "remove", Acknowledged: 7, Nodes: 7},
	)
	out, errs, code := mesh(t, []string{"STARLING_CLUSTER_KEY_FILE=" + oldFile}, "rotate-key", "--new-key-file", newFile, "--agent", r.addr, "--cluster=edge", "--abandon")
	want := "begins\ninstall: 1 of 7 nodes, waiting for b, c, d, e, f and 1 others\nuse: 7 of 7 nodes\n" +
		fmt.Sprintf("remove: 7 of 7 nodes; done: all nodes use %s alone; nodes that join from now on need %s\n", next.Fingerprint(), newFile)
	if out != want || errs != "" || code != 0 {
		t.Errorf("code %d, %q\n%s\nwant\n%s", code, errs, out, want)
	}
	if !bytes.Equal(r.asked.Next, next) || !r.asked.Abandon {
		t.Error("the node was asked for another rotation than was meant")
	}
	for _, secret := range []keyring.Secret{old, next} {
		if strings.Contains(out, string(secret)) {
			t.Error("a key is printed")
		}
	}
}

func TestRotateKeyFinishesWhatAnEarlierRunBegan(t *testing.T) {
	_, oldFile := keyFile(t, "old")
	next, newFile := keyFile(t, "new")
	r := newRotator(t, next, api.Rotation{Phase: "remove", Acknowledged: 2, Nodes: 2})
	out, errs, code := mesh(t, nil, "rotate-key", "--cluster-key-file", oldFile, "--new-key-file", newFile, "--agent", r.addr, "--cluster=edge", "-o", "json")
	if code != 0 || errs != "" || !strings.HasPrefix(out, `{"running":false,"target":"`+next.Fingerprint()) || strings.Count(out, "\n") != 1 {
		t.Errorf("code %d, %q %q", code, out, errs)
	}
}

func TestRotateKeySaysWhyItStops(t *testing.T) {
	old, oldFile := keyFile(t, "old")
	_, newFile := keyFile(t, "new")
	_, otherFile := keyFile(t, "other")
	_, looseFile := keyFile(t, "loose")
	if err := os.Chmod(looseFile, 0o644); err != nil {
		t.Fatal(err)
	}
	both := []string{"--cluster-key-file", oldFile, "--new-key-file", newFile, "--cluster=edge"}
	for _, tc := range []struct {
		name  string
		steps []api.Rotation
		args  []string
		code  int
		want  string
	}{
		{"nodes that cannot be reached", []api.Rotation{{Phase: "install", Error: "these nodes cannot be reached: b\x1b", Waiting: []string{"b"}}}, both, 1, `these nodes cannot be reached: b\x1b; the same command goes on when they are back, with --abandon`},
		{"a node that started anew", nil, both, 1, "knows nothing of the rotation any more"},
		{"a node that rotates to another key", []api.Rotation{{Target: "else"}}, both, 1, "knows nothing of the rotation any more"},
		{"another key", nil, []string{"--cluster-key-file", otherFile, "--new-key-file", newFile, "--cluster=edge"}, 1, "answers 403"},
		{"the same key", nil, []string{"--cluster-key-file", oldFile, "--new-key-file", oldFile, "--cluster=edge"}, 2, "hold the same key"},
		{"a file that others can read", nil, []string{"--cluster-key-file", oldFile, "--new-key-file", looseFile}, 1, looseFile + " can be read or written by others (-rw-r--r--): chmod 600"},
		{"another cluster", nil, []string{"--cluster-key-file", oldFile, "--new-key-file", newFile}, 1, "for another cluster"},
		{"no file", nil, []string{"--new-key-file", newFile}, 2, "are both needed; see starling mesh rotate-key --help"},
		{"a file that is not there", nil, []string{"--cluster-key-file", oldFile + "x", "--new-key-file", newFile}, 1, "--cluster-key-file"},
		{"a file with something else", nil, []string{"--cluster-key-file", oldFile, "--new-key-file", "keys_test.go"}, 1, "does not hold a cluster key"},
	} {
		r := newRotator(t, old, tc.steps...)
		_, errs, code := mesh(t, nil, append([]string{"rotate-key", "--agent", r.addr}, tc.args...)...)
		if code != tc.code || !strings.Contains(errs, tc.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: code %d, %q; want %d with %q", tc.name, code, errs, tc.code, tc.want)
		}
	}
}

func TestInterruptedRotateKeySaysThatItGoesOn(t *testing.T) {
	old, oldFile := keyFile(t, "old")
	_, newFile := keyFile(t, "new")
	r := newRotator(t, old, api.Rotation{Running: true, Phase: "install", Nodes: 2, Waiting: []string{"b"}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, errs := &untilLines{n: 1, end: cancel}, &bytes.Buffer{}
	code := Mesh(ctx, Streams{Out: out, Err: errs}, []string{"rotate-key", "--agent", r.addr, "--cluster-key-file", oldFile, "--new-key-file", newFile, "--cluster=edge"}, nil)
	if code != 1 || !strings.Contains(errs.String(), "the node goes on with the rotation") {
		t.Errorf("code %d, %q", code, errs)
	}
}
