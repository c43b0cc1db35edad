package libct

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runc/libcontainer/configs"
)

func TestSearchThatLeadsToTheProgram(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"usr/bin", "opt/a", "opt/b/cat"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{"usr/bin/cat": 0o755, "usr/bin/data": 0o644, "opt/a/other": 0o755} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"bin": "usr/bin", "usr/bin/tac": "cat", "usr/bin/far": "/usr/bin/cat", "opt/a/cat": "../../usr/bin/cat", "lib": "/usr/bin", "usr/bin/out": "../../../../etc/passwd",
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		path, name, search, mount string
		want                      bool
	}{
		{"/bin/cat", "cat", "/bin", "", true},
		{"/usr/bin/cat", "cat", "/none:/opt/b:/bin", "", true},
		{"/bin/cat", "tac", "/usr/bin", "", true},
		{"tac", "cat", "/usr/bin", "", true},
		{"../bin/cat", "cat", "/usr/bin", "", true},
		{"/bin/cat", "cat", "/opt/a", "", true},
		{"/bin/cat", "dog", "/bin", "", false},
		{"/opt/a/other", "cat", "/bin", "", false},
		{"/bin/cat", "data", "/bin", "", false},
		// Not to be sure is enough.
		{"/bin/cat", "far", "/bin", "", false},
		{"/bin/cat", "out", "/bin", "", false},
		{"/bin/cat", "cat", "/lib:/bin", "", false},
		{"/bin/cat", "cat", "bin", "", false},
		{"/bin/cat", "./cat", "/bin", "", false},
		{"/bin/cat", "", "/bin", "", false},
		{"/bin/cat", "cat", "/bin", "/usr/bin", false},
		{"/bin/cat", "cat", "/bin", "/bin/cat", false},
		{"/bin/cat", "cat", "/none:/bin", "/none", false},
		{"/bin/cat", "cat", "/bin", "/opt", true},
	} {
		b := &bundle{Path: tt.path, Args: []string{tt.name, "x"}, Env: []string{"PATH=" + tt.search}, Dir: "/opt", Config: &configs.Config{}}
		if tt.path == "../bin/cat" {
			b.Dir = "/usr/bin"
		}
		if tt.mount != "" {
			b.Config.Mounts = []*configs.Mount{{Destination: tt.mount}}
		}
		want := tt.path
		if tt.want {
			want = tt.name
		}
		if got := b.argv(root); got[0] != want || got[1] != "x" {
			t.Errorf("%+v: got %q, want %q", tt, got, want)
		}
	}
}
