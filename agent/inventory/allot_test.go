package inventory

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestAllotter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gpus")
	gpus := []GPU{{0, "/dev/nvidia0"}, {2, "/dev/nvidia2"}, {10, "/dev/nvidia10"}}
	a, err := NewAllotter(path, gpus, []string{"/dev/nvidiactl"})
	if err != nil {
		t.Fatal(err)
	}
	alive := map[string]bool{"one": true, "two": true}
	lives := func(id string) bool { return alive[id] }
	take := func(id string, count int, want string) {
		t.Helper()
		got, err := a.Take(id, count, lives)
		if text, bad := strings.CutPrefix(want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: got %q, %v, want %q", id, got, err, text)
			}
			return
		}
		if err != nil || !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: got %q, %v, want %q", id, got, err, want)
		}
	}
	take("none", 0, "")
	take("one", 1, "/dev/nvidia0 /dev/nvidiactl")
	take("two", 1, "/dev/nvidia2 /dev/nvidiactl")
	take("three", 2, "!2 GPUs are asked for, and 1 of the 3")
	take("one", 1, "/dev/nvidia0 /dev/nvidiactl") // again, after a crash in the middle
	if err := a.Save(); err != nil {
		t.Fatal(err)
	}
	if a, err = NewAllotter(path, gpus, nil); err != nil {
		t.Fatal(err)
	}
	take("three", 1, "/dev/nvidia10")
	alive["three"] = true
	take("four", 1, "!0 of the 3")
	delete(alive, "two")
	take("four", 1, "/dev/nvidia2")
	if err := os.WriteFile(path, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if a, err = NewAllotter(path, gpus, nil); err == nil || a == nil {
		t.Errorf("torn: got %v, %v", a, err)
	}
}
