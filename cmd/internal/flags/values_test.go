package flags

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBytes(t *testing.T) {
	for in, want := range map[string]struct {
		n    Bytes
		text string
	}{
		"2GB": {2 << 30, "2GB"}, "512MB": {512 << 20, "512MB"}, "1024KB": {1 << 20, "1MB"}, "10B": {10, "10B"}, "1536": {1536, "1536B"},
		"0": {0, "0B"}, " 3 mb ": {3 << 20, "3MB"}, "1TB": {1 << 40, "1TB"},
	} {
		var b Bytes
		if err := b.Set(in); err != nil || b != want.n || b.String() != want.text {
			t.Errorf("%q: got %d %q, %v; want %d %q", in, b, b.String(), err, want.n, want.text)
		}
	}
	for _, in := range []string{"", "MB", "-1GB", "1.5GB", "9999999999TB", "2 XB"} {
		if err := new(Bytes).Set(in); err == nil {
			t.Errorf("%q was accepted", in)
		}
	}
}

func TestFoldersOfItems(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"attributes/rack": "r1\n", "attributes/disks": " 2 ", "attributes/empty": "\n", "attributes/.hidden": "x", "attributes/folder/x": "y",
		"other/x": "y",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	parse := func(args ...string) (string, error) {
		s := New("test", "TEST_")
		value := s.String("attributes", "", "")
		s.String("config-dir", "", "")
		s.Folder("attributes")
		err := s.Parse(append(args, "--config-dir="+dir), nil)
		return *value, err
	}
	if got, err := parse(); err != nil || got != "disks:2;rack:r1" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := parse("--attributes=a:b"); err != nil || got != "a:b" {
		t.Errorf("the command line wins: got %q, %v", got, err)
	}
	if err := os.Symlink(filepath.Join(dir, "nowhere"), filepath.Join(dir, "attributes", "zone")); err != nil {
		t.Fatal(err)
	}
	if _, err := parse(); err == nil || !strings.Contains(err.Error(), "zone") {
		t.Errorf("an item that does not read: got %v", err)
	}
}
