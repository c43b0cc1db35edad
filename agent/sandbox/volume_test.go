package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"starling/agent/testenv"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestTheLifeOfAVolume(t *testing.T) {
	root := t.TempDir()
	v := Volume{Root: root, Role: "eng/web", ID: "v1"}
	if got, want := v.Dir(), filepath.Join(root, "volumes", "roles", "eng web", "v1"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if v.Exists() {
		t.Error("it is there before it was made")
	}
	for range 2 { // a repeated call finds it empty
		if kept, err := v.Make(time.Now()); kept != "" || err != nil {
			t.Fatalf("make: %q, %v", kept, err)
		}
	}
	write(t, filepath.Join(v.Dir(), "a", "file"), "data")
	kept, err := v.Make(time.Unix(0, 7))
	if want := filepath.Join(root, "volumes", "kept", "eng web", "v1.7"); kept != want || err != nil {
		t.Fatalf("make where something lies: %q, %v; want %q", kept, err, want)
	}
	if read(t, filepath.Join(kept, "a", "file")) != "data" {
		t.Error("what was kept is not what lay there")
	}
	write(t, filepath.Join(v.Dir(), "file"), "more")
	for range 2 {
		if err := v.Discard("op.0"); err != nil || v.Exists() {
			t.Fatalf("discard: %v, there: %v", err, v.Exists())
		}
	}
	if names, err := Discarded(root); err != nil || len(names) != 1 || names[0] != "op.0" {
		t.Errorf("discarded: %v, %v", names, err)
	}
	if err := RemoveDiscarded(root, "op.0"); err != nil {
		t.Error(err)
	}
	if names, err := Discarded(root); err != nil || len(names) != 0 {
		t.Errorf("left: %v, %v", names, err)
	}
	if read(t, filepath.Join(kept, "a", "file")) != "data" {
		t.Error("what was kept went with the volume")
	}
}

// A role and one below it have volumes in different folders, whatever the ids.
func TestVolumesOfRolesDoNotMeet(t *testing.T) {
	root := t.TempDir()
	above, below := Volume{Root: root, Role: "eng", ID: "web"}, Volume{Root: root, Role: "eng/web", ID: "v"}
	if strings.HasPrefix(below.Dir(), above.Dir()+"/") {
		t.Errorf("%q lies in %q", below.Dir(), above.Dir())
	}
}

func TestAVolumeOnADiskOfItsOwn(t *testing.T) {
	root := t.TempDir()
	v := Volume{Root: root, Role: "web", ID: "v1", Mount: true}
	if err := os.Mkdir(filepath.Join(root, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Make(time.Now()); err != nil || v.Dir() != root {
		t.Errorf("make: %v, folder %q", err, v.Dir())
	}
	write(t, filepath.Join(root, "file"), "data")
	if _, err := v.Make(time.Now()); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("make where something lies: %v", err)
	}
	if err := v.Discard("op.0"); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) != 1 || left[0].Name() != "lost+found" {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestVolumesThatClimbAreRefused(t *testing.T) {
	root := t.TempDir()
	for _, v := range []Volume{{Root: root, Role: "web", ID: ".."}, {Root: root, Role: "..", ID: "v"}, {Root: root, Role: "web", ID: "a/b"}, {Root: root}} {
		if _, err := v.Make(time.Now()); err == nil || !strings.Contains(err.Error(), "is no path segment") {
			t.Errorf("make %+v: %v", v, err)
		}
		if err := v.Discard("op.0"); err == nil {
			t.Errorf("discard %+v: done", v)
		}
	}
	if left, err := os.ReadDir(root); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestLink(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	v := Volume{Root: root, Role: "web", ID: "v1"}
	if err := v.Link(dir, "data", ""); err == nil || !strings.Contains(err.Error(), "is not there") {
		t.Errorf("a volume without folder: %v", err)
	}
	if _, err := v.Make(time.Now()); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(v.Dir(), "file"), "data")
	for range 2 {
		for _, path := range []string{"data", "a/b/data"} {
			if err := v.Link(dir, path, ""); err != nil {
				t.Fatal(err)
			}
			if got := read(t, filepath.Join(dir, path, "file")); got != "data" {
				t.Errorf("%s: got %q", path, got)
			}
		}
	}
	for path, want := range map[string]string{
		"": "does not lie below the sandbox", ".": "does not lie below the sandbox", "..": "does not lie below the sandbox",
		"../x": "does not lie below the sandbox", "/data": "does not lie below the sandbox", "a/../../x": "does not lie below the sandbox",
		"data/x": "is no folder", // not into another volume
		"a":      "exists",
	} {
		if err := v.Link(dir, path, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("at %q: got %v, want %q", path, err, want)
		}
	}
	if left, err := os.ReadDir(v.Dir()); err != nil || len(left) != 1 {
		t.Errorf("in the volume: %v, %v", left, err)
	}
}

// A task may change the sandbox of another one of its user while volumes are linked into it: that gives away nothing outside.
func TestLinkInASandboxThatChanges(t *testing.T) {
	testenv.NeedRoot(t, "to give folders away")
	v := Volume{Root: t.TempDir(), Role: "eng", ID: "v"}
	if _, err := v.Make(time.Now()); err != nil {
		t.Fatal(err)
	}
	victim := t.TempDir()
	for range 200 {
		dir := t.TempDir()
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")) == nil {
					_ = os.Symlink(victim, filepath.Join(dir, "a"))
				}
			}
		}()
		_ = v.Link(dir, "a/c/data", "nobody") // it may fail
		close(stop)
		<-stopped
	}
	info, err := os.Stat(victim)
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 0 {
		t.Errorf("a folder outside of the sandbox was given to user %d", uid)
	}
	if entries, err := os.ReadDir(victim); err != nil || len(entries) > 0 {
		t.Errorf("%d entries were made in a folder outside of the sandbox, error %v", len(entries), err)
	}
}
