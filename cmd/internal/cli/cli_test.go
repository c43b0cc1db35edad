package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"starling/agent/testenv"
)

var update = flag.Bool("update", false, "write the golden files anew")

// node answers as a node of the mesh does, with what the test gives it.
type node struct {
	*httptest.Server
	addr    string
	mu      sync.Mutex
	answers map[string]string // by path and query; set changes it while the node is asked
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{answers: map[string]string{}}
	n.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		answer, ok := n.answers[r.RequestURI]
		n.mu.Unlock()
		if !ok {
			http.Error(w, `no node "x" is known here`, http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(n.Close)
	n.addr = n.Listener.Addr().String()
	return n
}

// set changes an answer.
func (n *node) set(path, answer string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers[path] = answer
}

// mesh runs one command, and returns what it printed and its exit code.
func mesh(t *testing.T, environ []string, args ...string) (out, errs string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	code = Mesh(t.Context(), Streams{Out: &o, Err: &e}, args, environ)
	return o.String(), e.String(), code
}

const twoMembers = `[
 {"name":"b-S0","state":"suspect","seen":true,"self":false,"address":"10.0.0.2:7946","version":12,"generation":4194305,"age":75.2,
  "roles":["agent"],"hostname":"edge\u001b[2J\u202eb","free":{"cpus":1.5,"mem":2048,"disk":512,"ports":1001},"tasks":3,"draining":true,"damped":true,"damped_until":"2026-11-21T10:00:00Z","new":"kept"},
 {"name":"a","state":"alive","seen":true,"self":true,"address":"10.0.0.1:7946","version":2,"generation":1,"age":0.25,
  "roles":["master"],"hostname":"m","leader":{"epoch":3,"address":"10.0.0.1:5050"},"tasks":0}]`

func TestMembersAsATable(t *testing.T) {
	n := newNode(t)
	n.answers["/mesh/members"] = twoMembers
	out, errs, code := mesh(t, nil, "members", "--agent", n.addr)
	want := "" +
		"NAME  STATE    ADDRESS        VERSION  AGE   ROLES   HOST                CPUS  MEM    DISK     PORTS  TASKS  NOTES\n" +
		"a     alive    10.0.0.1:7946  2        0.2s  master  m                   -     -      -        -      0      asked, leads, epoch 3\n" +
		"b-S0  suspect  10.0.0.2:7946  12       75s   agent   edge\\x1b[2J\\u202eb  1.5   2 GiB  512 MiB  1001   3      draining, comes and goes, damped until 2026-11-21T10:00:00Z\n"
	if out != want || errs != "" || code != 0 {
		t.Errorf("code %d, %q\n%s\nwant\n%s", code, errs, out, want)
	}
}

func TestMembersAsJSONKeepWhatTheNodeSaid(t *testing.T) {
	n := newNode(t)
	n.answers["/mesh/members"] = strings.Replace(twoMembers, `"hostname":"m"`, "\"hostname\":\"m\u009b\U000e0001\"", 1)
	for _, args := range [][]string{
		{"members", "--agent", n.addr, "-o", "json"}, {"members", "-o=json", "--master=" + n.addr}, {"-o", "json", "--agent=" + n.addr, "members"},
	} {
		out, errs, code := mesh(t, nil, args...)
		var list []map[string]any
		if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || errs != "" {
			t.Fatalf("%q: code %d, %q, %v\n%s", args, code, errs, err, out)
		}
		if len(list) != 2 || list[0]["new"] != "kept" || list[0]["version"] != 12.0 || list[1]["hostname"] != "m\u009b\U000e0001" {
			t.Errorf("%q: %v", args, list)
		}
		if strings.IndexFunc(out, func(r rune) bool { return r != '\n' && unprintable(r) }) >= 0 {
			t.Errorf("%q prints control characters: %q", args, out)
		}
	}
}

func TestGetShowsARecord(t *testing.T) {
	n := newNode(t)
	n.answers["/mesh/nodes/b%2F1"] = `{"name":"b/1","state":"alive","seen":true,"address":"10.0.0.2:7946","version":3,"generation":9,"age":4000,
		"since":"2026-11-21T10:00:00Z","roles":["agent"],"zone":"cellar","problems":["disk is full"],
		"keys":[{"key":"node","version":1,"size":9,"summary":"agent edge1","value":{"roles":["agent"]}},{"key":"odd","version":3,"size":2,"bytes":"YWI="}]}`
	out, errs, code := mesh(t, []string{"STARLING_AGENT=" + n.addr}, "get", "b/1")
	want := "" +
		"NAME      b/1\n" +
		"STATE     alive, since 2026-11-21T10:00:00Z, 1 problem\n" +
		"MESH      10.0.0.2:7946\n" +
		"API       -\n" +
		"HOST      -\n" +
		"ROLES     agent\n" +
		"SOFTWARE  -\n" +
		"RECORD    version 3, generation 9, newest change 66m ago\n" +
		"PLACE     cellar\n" +
		"PROBLEM   disk is full\n" +
		"\n" +
		"KEY   VERSION  SIZE  SAYS\n" +
		"node  1        9 B   agent edge1\n" +
		"odd   3        2 B   -\n"
	if out != want || errs != "" || code != 0 {
		t.Errorf("code %d, %q\n%s\nwant\n%s", code, errs, out, want)
	}
}

func TestRTT(t *testing.T) {
	n := newNode(t)
	n.answers["/mesh/rtt?a=x%26&b=y"] = `{"a":"x&","b":"y","seconds":0.01234}`
	n.answers["/mesh/rtt?b=y"] = `{"a":"here","b":"y","seconds":0.0001239}`
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"rtt", "x&", "y"}, "12.3 ms\n"},
		{[]string{"rtt", "x&", "--output=table", "y"}, "12.3 ms\n"},
		{[]string{"rtt", "y"}, "0.124 ms\n"},
		{[]string{"rtt", "-o", "json", "y"}, "{\n  \"a\": \"here\",\n  \"b\": \"y\",\n  \"seconds\": 0.0001239\n}\n"},
	} {
		if out, errs, code := mesh(t, nil, append(tc.args, "--agent", n.addr)...); out != tc.want || code != 0 {
			t.Errorf("%q: code %d, %q %q, want %q", tc.args, code, out, errs, tc.want)
		}
	}
}

func TestWrongCommandsAreExplained(t *testing.T) {
	dead := unusedAddress(t)
	n := newNode(t)
	n.answers["/mesh/members"] = "hello"
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "usage: starling mesh COMMAND"},
		{[]string{"membrs"}, 2, `unknown command "membrs"; did you mean members?`},
		{[]string{"zzzzzzzzz"}, 2, "see starling mesh --help"},
		{[]string{"help", "gte"}, 2, "did you mean get?"},
		{[]string{"members", "--agnt", "x"}, 2, "did you mean --agent?"},
		{[]string{"members", "--agnt", "x", "--outptu=json"}, 2, "did you mean --agent?; unknown flag --outptu; did you mean --output?"},
		{[]string{"members", "x"}, 2, `unexpected argument "x"`},
		{[]string{"get"}, 2, "expecting NODE"},
		{[]string{"members", "-o", "xml"}, 2, `unknown form "xml"`},
		{[]string{"members", "-o"}, 2, "needs a value"},
		{[]string{"members", "--agent", "a:1", "--master", "b:2"}, 2, "give one of them"},
		{[]string{"members", "--agent", "https://x"}, 2, "--agent: "},
		{[]string{"members", "--agent", dead}, 1, "cannot reach " + dead + " (connection refused)"},
		{[]string{"members", "--agent", n.addr}, 1, "does not answer as a node of the mesh does"},
		{[]string{"get", "x", "--agent", n.addr}, 1, `answers 404: no node "x" is known here`},
	} {
		out, errs, code := mesh(t, nil, tc.args...)
		if code != tc.code || out != "" || !strings.Contains(errs, tc.want) {
			t.Errorf("%q: code %d, %q %q; want %d with %q", tc.args, code, out, errs, tc.code, tc.want)
		}
	}
}

// unusedAddress is one at which nobody listens.
func unusedAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprint("127.0.0.1:", testenv.UnusedPort(t))
}

func TestTheNodeToAskIsChosen(t *testing.T) {
	one, two := newNode(t), newNode(t)
	one.answers["/mesh/members"], two.answers["/mesh/members"] = `[{"name":"one"}]`, `[{"name":"two"}]`
	env := []string{"STARLING_AGENT=" + one.addr}
	for _, tc := range []struct {
		environ, args []string
		want          string
	}{
		{env, nil, "one"},
		{env, []string{"--agent", two.addr}, "two"},
		{env, []string{"--master", two.addr}, "two"},
		{[]string{"STARLING_MASTER=" + one.addr}, nil, "one"},
		{append(env, "STARLING_MASTER="+two.addr), nil, "one"},
		{nil, []string{"--agent", "http://" + two.addr + "/"}, "two"},
	} {
		out, errs, code := mesh(t, tc.environ, append([]string{"members"}, tc.args...)...)
		if code != 0 || !strings.Contains(out, tc.want) {
			t.Errorf("%q %q: code %d, %q %q, want the answer of %s", tc.environ, tc.args, code, out, errs, tc.want)
		}
	}
	// Without a name, the first of this machine's that answers.
	out, _, code := func() (string, string, int) {
		old := localNodes
		localNodes = []string{unusedAddress(t), two.addr, one.addr}
		defer func() { localNodes = old }()
		return mesh(t, nil, "members")
	}()
	if code != 0 || !strings.Contains(out, "two") {
		t.Errorf("code %d, %q, want the answer of two", code, out)
	}
}

func TestNobodyOnThisMachineIsExplained(t *testing.T) {
	old := localNodes
	a, b := unusedAddress(t), unusedAddress(t)
	localNodes = []string{a, b}
	defer func() { localNodes = old }()
	_, errs, code := mesh(t, nil, "members")
	want := "starling mesh members: no node answers on this machine: tried " + a + " (connection refused), " + b + " (connection refused); name one with --agent HOST:PORT\n"
	if code != 1 || errs != want {
		t.Errorf("code %d, %q, want 1 and %q", code, errs, want)
	}
}

func TestHelp(t *testing.T) {
	for name, args := range map[string][]string{
		"mesh": {"--help"}, "members": {"members", "--help"}, "get": {"get", "x", "-h"}, "watch": {"watch", "--help"}, "rtt": {"rtt", "--help"}, "keys": {"keys", "--help"}, "rotate-key": {"rotate-key", "--help"},
	} {
		out, errs, code := mesh(t, nil, args...)
		if code != 0 || errs != "" {
			t.Errorf("%q: code %d, %q", args, code, errs)
		}
		path := filepath.Join("testdata", "help-"+name+".txt")
		if *update {
			if err := os.WriteFile(path, []byte(out), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || out != string(want) {
			t.Errorf("%q prints\n%s\nwant (%v)\n%s", args, out, err, want)
		}
	}
	for _, args := range [][]string{{"help"}, {"-h"}} {
		if out, _, code := mesh(t, nil, args...); code != 0 || !strings.Contains(out, "usage: starling mesh COMMAND") {
			t.Errorf("%q: code %d, %q", args, code, out)
		}
	}
	if out, _, _ := mesh(t, nil, "help", "get"); !strings.Contains(out, "usage: starling mesh get NODE [flags]") {
		t.Errorf("help get: %q", out)
	}
}

func TestUnits(t *testing.T) {
	for seconds, want := range map[float64]string{
		0: "0s", 0.04: "0s", 3.26: "3.3s", 75.2: "75s", 600: "10m", 10000: "2h", 360000: "4d", 1e30: "11574d",
	} {
		if got := ago(seconds); got != want {
			t.Errorf("ago(%v) = %q, want %q", seconds, got, want)
		}
	}
	for mib, want := range map[float64]string{0: "0 MiB", 512: "512 MiB", 1536: "1.5 GiB", 3 << 20: "3 TiB"} {
		if got := megabytes(mib); got != want {
			t.Errorf("megabytes(%v) = %q, want %q", mib, got, want)
		}
	}
	for text, want := range map[string]string{
		"plain é 漢": "plain é 漢", "a\nb\tc": `a\nb\tc`, "\xff\x00": `\xff\x00`, "\u009bm": `\u009bm`, "\uFFFD": "\uFFFD",
	} {
		if got := clean(text); got != want {
			t.Errorf("clean(%q) = %q, want %q", text, got, want)
		}
	}
}
