package api

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"starling/gossip"
	"starling/gossip/keyring"
	"starling/gossip/record"
)

func post(t *testing.T, url, contentType, body string) (int, string) {
	t.Helper()
	res, err := http.Post(url, contentType, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func TestKeysAreNamedAndNeverShown(t *testing.T) {
	f := newFake(t, "self", record.Limits{})
	f.other(t, "edge", record.Dead)
	f.keyed = []gossip.NodeKeys{
		{Name: "edge", Liveness: record.Dead},
		{Name: "self", Liveness: record.Alive, Serial: 1, Primary: "aa", Installed: []string{"aa", "bb"}},
	}
	base, _ := serve(t, f)
	var k Keys
	if status, body := request(t, "GET", base+"/mesh/keys", &k); status != 200 || !k.Encrypted || len(k.Challenge) != keyring.ChallengeSize || k.Rotation != nil {
		t.Errorf("%d %s", status, body)
	}
	if len(k.Nodes) != 2 || k.Nodes[0].State != "dead" || k.Nodes[0].Installed == nil || k.Nodes[1].Serial != 1 || !slices.Equal(k.Nodes[1].Installed, []string{"aa", "bb"}) {
		t.Errorf("nodes %+v", k.Nodes)
	}
	f.rotation = gossip.Rotation{
		Target: "bb", Running: true, Started: time.Now(), Abandon: true, Err: errors.New("held up"),
		RotationProgress: gossip.RotationProgress{Phase: keyring.Use, Acknowledged: 1, Nodes: 2, Waiting: []string{"edge"}},
	}
	f.keyed = nil
	request(t, "GET", base+"/mesh/keys", &k)
	if r := k.Rotation; k.Encrypted || k.Nodes == nil || r == nil || r.Target != "bb" || !r.Running || !r.Abandon || r.Phase != "use" || r.Acknowledged != 1 || r.Nodes != 2 ||
		!slices.Equal(r.Waiting, []string{"edge"}) || r.Error != "held up" || r.Started.IsZero() || !r.Ended.IsZero() {
		t.Errorf("rotation %+v of %+v", r, k)
	}
}

func TestRotationIsBegunByASealedRequest(t *testing.T) {
	f := newFake(t, "self", record.Limits{})
	current, next := keyring.Secret(strings.Repeat("a", 32)), keyring.Secret(strings.Repeat("b", 32))
	var got []byte
	var fail error
	f.start = func(sealed []byte) error {
		got = bytes.Clone(sealed)
		if fail == nil {
			f.rotation = gossip.Rotation{Target: next.Fingerprint(), Running: true}
		}
		return fail
	}
	base, _ := serve(t, f)
	sealed := keyring.Seal(current, "c", f.RotationChallenge(), keyring.Request{Next: next})
	body := `{"request":"` + base64.StdEncoding.EncodeToString(sealed) + `"}`
	status, text := post(t, base+"/mesh/keys", "application/json; charset=utf-8", body)
	if status != 202 || !bytes.Equal(got, sealed) || !strings.Contains(text, `"target":"`+next.Fingerprint()+`"`) {
		t.Errorf("%d %s", status, text)
	}
	for _, tc := range []struct {
		name, contentType, body string
		fail                    error
		status                  int
	}{
		{"a form of a foreign page", "text/plain", body, nil, 415},
		{"no type", "", body, nil, 415},
		{"no JSON", "application/json", "{", nil, 400},
		{"no base64", "application/json", `{"request":"-"}`, nil, 400},
		{"far too much", "application/json", `{"request":"` + strings.Repeat("A", maxRequest) + `"}`, nil, 413},
		{"a request that does not open", "application/json", body, fmt.Errorf("%w: other key", keyring.ErrRequest), 403},
		{"a key that cannot be", "application/json", body, keyring.ErrRing, 400},
		{"between two keys", "application/json", body, keyring.ErrUnfinished, 409},
		{"one that goes on", "application/json", body, gossip.ErrRotating, 409},
		{"no key", "application/json", body, gossip.ErrNoKey, 409},
		{"too early", "application/json", body, gossip.ErrNotRunning, 503},
		{"something else", "application/json", body, errors.New("inside"), 500},
	} {
		fail, got = tc.fail, nil
		status, text := post(t, base+"/mesh/keys", tc.contentType, tc.body)
		if status != tc.status || tc.fail == nil && got != nil {
			t.Errorf("%s: %d %s, want %d", tc.name, status, text, tc.status)
		}
		if tc.fail != nil && strings.Contains(text, tc.fail.Error()) != (tc.status != 500) {
			t.Errorf("%s: the answer is %q", tc.name, text)
		}
	}
	if status, _ := request(t, "DELETE", base+"/mesh/keys", nil); status != 405 {
		t.Errorf("DELETE: %d, want 405", status)
	}
}
