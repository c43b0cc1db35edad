package fetcher

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"http://h/x":                          "http://h/x",
		"http://u:p@h:80/x":                   "http://***@h:80/x",
		"https://token@h/x":                   "https://***@h/x",
		"http://h/x@1.2":                      "http://h/x@1.2",
		"http://h:80/x@1.2":                   "http://h:80/x@1.2",
		"http://[::1]:80/a@b":                 "http://[::1]:80/a@b",
		"http://u:p/q@h/x":                    "http://***@h/x",
		"http://h/x?X-Amz-Signature=abc&b=1#": "http://h/x?X-Amz-Signature=***&b=1#",
		"http://h/x?a=1;api_key=q":            "http://h/x?a=1;api_key=***",
		"/plain/path":                         "/plain/path",
		"ftp://u:a@b@h/x":                     "ftp://***@h/x",
	} {
		if got := Redact(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzURI(f *testing.F) {
	for _, s := range []string{
		"http://h/a/b.tgz", " file:///a/../../etc/passwd", "file://localhost/x", "hdfs://n/..", "a/../../b", "http://u:p@h/x?sig=1", "://", "http:///",
	} {
		f.Add(s, "")
		f.Add(s, "out/../../x")
	}
	f.Fuzz(func(t *testing.T, value, output string) {
		u := uri(value)
		if output != "" {
			u.OutputFile = &output
		}
		shown := Redact(value)
		if len(shown) > 310 {
			t.Errorf("%q is shown in %d bytes", value, len(shown))
		}
		if _, rest, ok := strings.Cut(value, "://"); ok {
			if user, _, ok := strings.Cut(rest, "@"); ok && len(user) > 3 && !strings.ContainsAny(user, "/?#*\uFFFD") &&
				strings.Contains(shown, "://"+user+"@") {
				t.Errorf("%q is shown as %q", value, shown)
			}
		}
		if _, err := parse(value); err != nil {
			return
		}
		name, err := target(u)
		if err == nil && (!filepath.IsLocal(name) || name == "." || filepath.Clean(name) != name) {
			t.Errorf("%q with output_file %q goes to %q", value, output, name)
		}
	})
}
