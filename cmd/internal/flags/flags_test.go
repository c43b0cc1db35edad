package flags

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

type config struct {
	dir      Path
	name     string
	wait     Duration
	join     List
	discover bool
	port     Port
}

func newSet() (*Set, *config) {
	c := &config{wait: Duration(time.Second), discover: true, port: 5050}
	s := New("starling test", "STARLING_", "MESOS_")
	s.EnvIgnore = []string{"MESOS_TASK"}
	s.Var(&c.dir, "work-dir", "state")
	s.StringVar(&c.name, "name", "", "a name")
	s.Var(&c.wait, "wait", "how long")
	s.Var(&c.join, "join", "seeds")
	s.BoolVar(&c.discover, "discover", true, "look around")
	s.Var(&c.port, "port", "listen there")
	s.String("config-dir", "", "files")
	s.Alias("work-dir", "data_dir")
	s.Ignore("hadoop_home", "strict")
	return s, c
}

func TestParseAcceptsEveryWayOfWritingAFlag(t *testing.T) {
	for _, args := range [][]string{
		{"--work-dir=/x", "--no-discover"},
		{"--work_dir", "/x", "--discover=false"},
		{"-WORK_DIR=/x", "--disable_discover"},
		{"--data-dir", "file:///x", "--DISCOVER=false"},
	} {
		s, c := newSet()
		if err := s.Parse(args, nil); err != nil {
			t.Errorf("Parse(%q): %v", args, err)
		}
		if c.dir != "/x" || c.discover {
			t.Errorf("Parse(%q): dir %q, discover %v; want /x, false", args, c.dir, c.discover)
		}
	}
}

func TestParseRefusesWithAUsefulSentence(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--work-dri=/x"}, "did you mean --work-dir?"},
		{[]string{"--completely-unknown"}, "unknown flag --completely-unknown"},
		{[]string{"--name"}, "--name needs a value"},
		{[]string{"--wait=soon"}, `not a duration: "soon"`},
		{[]string{"--port=70000"}, `not a port: "70000"`},
		{[]string{"--name=file:///does/not/exist"}, "cannot read the value"},
	} {
		s, _ := newSet()
		err := s.Parse(tc.args, nil)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("Parse(%q) = %v, want an error with %q", tc.args, err, tc.want)
		}
	}
}

func TestParseTellsAllFaultsAtOnce(t *testing.T) {
	s, _ := newSet()
	err := s.Parse([]string{"--nmae=x", "--wait=soon", "--port=x"}, nil)
	for _, want := range []string{"--name", "--wait", "--port"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse = %v, want it to speak of %s", err, want)
		}
	}
}

func TestOrderIsFlagEnvironmentFileDefault(t *testing.T) {
	dir := t.TempDir()
	for name, value := range map[string]string{"name": "file\n", "wait": "10mins", "port": "1", "?no-discover": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, c := newSet()
	env := []string{"MESOS_NAME=mesos", "STARLING_NAME=starling", "STARLING_PORT=2", "MESOS_TASK_NAME=no", "MESOS_NOBODY=1"}
	if err := s.Parse([]string{"--port=3", "--config-dir", dir, "left", "over"}, env); err != nil {
		t.Fatal(err)
	}
	if c.name != "starling" || c.wait != Duration(10*time.Minute) || c.port != 3 || c.discover {
		t.Errorf("got %+v, want name from the environment, wait and discover from files, port from the command line", c)
	}
	if got := s.Args(); !slices.Equal(got, []string{"left", "over"}) {
		t.Errorf("Args() = %q", got)
	}
	for name, want := range map[string]string{"port": "command line", "name": "STARLING_NAME", "wait": dir, "join": "default"} {
		if got := s.Source(name); !strings.Contains(string(got), want) {
			t.Errorf("Source(%s) = %q, want %q in it", name, got, want)
		}
	}
}

func TestKnownFlagsThatChangeNothingWarnOnce(t *testing.T) {
	s, c := newSet()
	if err := s.Parse([]string{"--hadoop_home", "/opt/h", "--no-strict", "--name=x"}, nil); err != nil {
		t.Fatal(err)
	}
	if c.name != "x" || len(s.Warnings) != 2 || len(s.Args()) != 0 {
		t.Errorf("name %q, warnings %q, args %q; want x, two warnings, none", c.name, s.Warnings, s.Args())
	}
}

func TestUnusedFlags(t *testing.T) {
	number := func(v string) error {
		if v != "2" {
			return errors.New("not two")
		}
		return nil
	}
	dir := t.TempDir()
	for name, value := range map[string]string{"quorum": "2\n", "?no-audit": "", "sorter": "drf"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		args, env []string
		warn      []string // a part of each warning
		err       string
		name      string
	}{
		{args: []string{"--quorum=2", "--quorum", "2", "--name=x"}, warn: []string{"--quorum is accepted and changes nothing here: use three"}, name: "x"},
		{args: []string{"--old_quorum=2"}, warn: []string{"--old_quorum is"}},
		{args: []string{"--quorum=3"}, err: `--quorum: bad value "3": not two`},
		{args: []string{"--quorum"}, err: `--quorum: bad value ""`},
		{args: []string{"--quorum=file:///a/secret"}, warn: []string{"--quorum"}},
		{args: []string{"--audit", "left"}, warn: []string{"--audit"}},
		{args: []string{"--no-audit", "--sorter=drf"}, warn: []string{"--no-audit"}},
		{args: []string{"--audit=perhaps"}, err: "neither true nor false"},
		{args: []string{"--sorter=random"}, warn: []string{"--sorter"}},
		{env: []string{"MESOS_QUORUM=2", "STARLING_SORTER=drf"}, warn: []string{"MESOS_QUORUM is accepted"}},
		{env: []string{"MESOS_QUORUM=x"}, err: "MESOS_QUORUM: bad value"},
		{env: []string{"MESOS_QUORUM="}},
		{args: []string{"--config-dir=" + dir + ",/does/not/exist"}, warn: []string{"quorum (file " + dir, "no-audit (file"}},
	} {
		s, c := newSet()
		s.Unused(Unused{Name: "quorum", Advice: "use three", Check: number}, Unused{Name: "audit", Switch: true}, Unused{Name: "sorter", Usual: "drf"})
		s.Alias("quorum", "old_quorum")
		err := s.Parse(tc.args, tc.env)
		if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("Parse(%q, %q) = %v, want %q", tc.args, tc.env, err, tc.err)
			continue
		}
		slices.Sort(s.Warnings)
		slices.Sort(tc.warn)
		if !slices.EqualFunc(s.Warnings, tc.warn, strings.Contains) || c.name != tc.name {
			t.Errorf("Parse(%q, %q): warnings %q and name %q, want %q and %q", tc.args, tc.env, s.Warnings, c.name, tc.warn, tc.name)
		}
	}
}

type secret string

func (s *secret) String() string   { return "***" }
func (s *secret) Set(string) error { return errors.New("too short") }
func (s *secret) Secret() bool     { return true }

func TestSecretValuesAreNotRepeated(t *testing.T) {
	s, _ := newSet()
	s.Var(new(secret), "key", "a key")
	err := s.Parse([]string{"--key=hunter2"}, nil)
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "--key: bad value: too short") {
		t.Errorf("Parse = %v, want the reason without the value", err)
	}
	if all := strings.Join(s.Effective(), " "); strings.Contains(all, "hunter2") {
		t.Errorf("Effective tells the value: %s", all)
	}
}

func TestUnknownFileNameIsAnError(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "nmae"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ := newSet()
	s.ConfigDirs = []string{dir, filepath.Join(dir, "lacks")}
	if err := s.Parse(nil, nil); err == nil || !strings.Contains(err.Error(), "did you mean --name?") {
		t.Errorf("Parse = %v, want the nearest match", err)
	}
}

func TestHelp(t *testing.T) {
	s, _ := newSet()
	if err := s.Parse([]string{"--help"}, nil); !errors.Is(err, ErrHelp) {
		t.Errorf("Parse(--help) = %v, want ErrHelp", err)
	}
	var b strings.Builder
	s.Usage(&b, "about")
	if !strings.Contains(b.String(), "--work-dir") || !strings.Contains(b.String(), "(default 5050)") {
		t.Errorf("usage lacks flags or defaults:\n%s", b.String())
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"2s": 2 * time.Second, "15secs": 15 * time.Second, "1.5hrs": 90 * time.Minute, "2weeks": 14 * 24 * time.Hour,
		"0ns": 0, "100ms": 100 * time.Millisecond, "10mins": 10 * time.Minute, "3days": 72 * time.Hour,
	} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "secs", "15", "1e300weeks", "NaNsecs", "5 secs"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", in, got)
		}
	}
}

func TestMillis(t *testing.T) {
	var m Millis
	for in, want := range map[string]time.Duration{"5000": 5 * time.Second, "2s": 2 * time.Second, "15secs": 15 * time.Second} {
		if err := m.Set(in); err != nil || time.Duration(m) != want {
			t.Errorf("Set(%q) = %v, %v; want %v", in, time.Duration(m), err, want)
		}
	}
	if err := m.Set("-1"); err == nil {
		t.Error("Set(-1) was accepted")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("--work-dir=/x", "left")
	f.Add("--no-", "-")
	f.Add("---=", "--")
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.Contains(a+b, "file:") || strings.Contains(a+b, "config") {
			t.Skip("reads files")
		}
		s, _ := newSet()
		_ = s.Parse([]string{a, b}, []string{a})
	})
}

func TestNetworks(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "10.0.0.0/8": "10.0.0.0/8", " 10.1.2.3/8 , fd00::1/8,": "10.0.0.0/8,fd00::/8", "10.1.2.3,fd00::1": "10.1.2.3/32,fd00::1/128",
	} {
		var n Networks
		if err := n.Set(in); err != nil || n.String() != want {
			t.Errorf("%q is %q (%v), want %q", in, n.String(), err, want)
		}
	}
	for _, in := range []string{"10.0.0.0/33", "host", "10.0.0.0/8,x", "fe80::1%eth0"} {
		n := Networks{netip.MustParsePrefix("10.0.0.0/8")}
		if err := n.Set(in); err == nil || n.String() != "10.0.0.0/8" {
			t.Errorf("%q: %v and %q, want an error and what was there before", in, err, n.String())
		}
	}
}

// What a role's own file says counts where nothing else does.
func TestOffer(t *testing.T) {
	s := New("x", "X_")
	port, ttl := s.Int("port", 1, "a number"), s.Int("ttl", 2, "a number")
	if err := s.Parse([]string{"--port=3"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Offer("port", "4", "file f"); err != nil || *port != 3 || s.Source("port") != CommandLine {
		t.Errorf("port is %d from %s, %v; want that of the command line", *port, s.Source("port"), err)
	}
	if err := s.Offer("ttl", "5", "file f"); err != nil || *ttl != 5 || s.Source("ttl") != "file f" {
		t.Errorf("ttl is %d from %s, %v; want that of the file", *ttl, s.Source("ttl"), err)
	}
	if err := s.Offer("ttl", "x", "file g"); err != nil {
		t.Errorf("a value that is not asked for: %v", err)
	}
}
