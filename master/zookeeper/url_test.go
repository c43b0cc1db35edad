package zookeeper

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestURLsAreRead(t *testing.T) {
	for value, want := range map[string]URL{
		"zk://h1/mesos":                               {Hosts: []string{"h1:2181"}, Path: "/mesos"},
		" \tzk://h1:2182,10.0.0.1/mesos/\n":           {Hosts: []string{"h1:2182", "10.0.0.1:2181"}, Path: "/mesos"},
		"zk://u:p@h1/a/b":                             {Hosts: []string{"h1:2181"}, Path: "/a/b", User: "u", password: "p"},
		"zk://u:p:q@r@h1,h2:1/a":                      {Hosts: []string{"h1:2181", "h2:1"}, Path: "/a", User: "u", password: "p:q@r"},
		"zk://[::1]:2183,[fd77::2]/mesos":             {Hosts: []string{"[::1]:2183", "[fd77::2]:2181"}, Path: "/mesos"},
		"zk://zk_1.example.com:65535/m\u00e9sos/x@y/": {Hosts: []string{"zk_1.example.com:65535"}, Path: "/m\u00e9sos/x@y"},
	} {
		got, err := Parse(value)
		if err != nil {
			t.Errorf("%q: %v", value, err)
			continue
		}
		if diff := cmp.Diff(fields(want), fields(got)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", value, diff)
		}
	}
}

func fields(u URL) []string {
	return append([]string{u.Path, u.User, u.password}, u.Hosts...)
}

func TestWrongURLsAreRefusedWithTheReason(t *testing.T) {
	for value, want := range map[string]string{
		"":                           "begins with zk://",
		"h1:2181/mesos":              "begins with zk://",
		"http://u:hunter2@h1/mesos":  "begins with zk://",
		"ZK://h1/mesos":              "begins with zk://",
		"zk://h1:2181":               "no path",
		"zk://u:hunter2@h1":          "no path",
		"zk://h1/":                   `just "/"`,
		"zk://h1//":                  `segment ""`,
		"zk:///mesos":                "empty host",
		"zk://h1,/mesos":             "empty host",
		"zk://,h1/mesos":             "empty host",
		"zk://u@h1/mesos":            "not user:password",
		"zk://u:hunter2/x@h1/mesos":  "behind its first slash",
		"zk://:hunter2@h1/mesos":     "not user:password",
		"zk://u:@h1/mesos":           "not user:password",
		"zk://u:hunter2\x00@h/mesos": "control character",
		"zk://h1:/mesos":             `port "" of host "h1:"`,
		"zk://h1:0/mesos":            `port "0"`,
		"zk://h1:65536/mesos":        `port "65536"`,
		"zk://h1:+1/mesos":           `port "+1"`,
		"zk://h1:x/mesos":            `port "x"`,
		"zk://fd77::2/mesos":         "brackets",
		"zk://[fd77::2/mesos":        "closing bracket",
		"zk://[h1]/mesos":            "not an IPv6 address",
		"zk://[::1]2181/mesos":       "[address]:port",
		"zk://h 1/mesos":             "neither a name nor",
		"zk://h1/a//b":               `segment ""`,
		"zk://h1/a/../b":             `segment ".."`,
		"zk://h1/a\u0001":            "does not take",
		"file:///does/not/exist":     "no such file",
	} {
		_, err := Parse(value)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: want an error with %q, got %v", value, want, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error shows the password: %v", value, err)
		}
	}
}

func TestAURLMayComeFromAFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "zk")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(" zk://u:p@h1/mesos\n")
	if u, err := Parse("file://" + name); err != nil || u.Path != "/mesos" || u.password != "p" {
		t.Errorf("got %v (%v)", u, err)
	}
	for _, content := range []string{"file://" + name, "", strings.Repeat("x", maxURLFile+1)} {
		write(content)
		if _, err := Parse("file://" + name); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error that names the file, got %v", err)
		}
	}
}

func TestAPasswordIsNeverShown(t *testing.T) {
	u, err := Parse("zk://u:hunter2@h1/mesos")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "url", u, "pointer", &u, "in", struct{ U URL }{u})
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "url", u)
	fmt.Fprintf(&b, "%v %+v %#v %s %q %v", u, u, u, u, u, []any{u, &u})
	if strings.Contains(b.String(), "hunter2") || !strings.Contains(b.String(), "zk://***@h1:2181/mesos") {
		t.Errorf("shown: %s", b.String())
	}
}

func FuzzParse(f *testing.F) {
	for _, value := range []string{
		"zk://u:p@h1:2181,[::1]:1/mesos/", "zk://h1/a/b", "zk://@/", "zk://u:p@/x", "zk://h:99999/", "zk://[/]", "zk://h1/\u0080",
	} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if strings.HasPrefix(strings.TrimSpace(value), fileScheme) {
			return
		}
		u, err := Parse(value)
		if err != nil {
			return
		}
		auth := ""
		if u.User != "" {
			auth = u.User + ":" + u.password + "@"
		}
		again, err := Parse(scheme + auth + strings.Join(u.Hosts, ",") + u.Path)
		if err != nil {
			t.Fatalf("%q is read as %v, which is refused: %v", value, u, err)
		}
		if diff := cmp.Diff(fields(u), fields(again)); diff != "" {
			t.Errorf("%q is read differently the second time (-first +second):\n%s", value, diff)
		}
	})
}
