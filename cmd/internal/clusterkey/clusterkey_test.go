package clusterkey

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeysAreReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	text := New()
	if New() == text {
		t.Error("two new keys are the same")
	}
	for content, ok := range map[string]bool{
		text: true, text + "\n": true, " " + text + "\r\n": true, "": false, "garbage": false, text[:20]: false, text + text: false,
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		key, err := Read("some-flag", path)
		if ok && (err != nil || len(key) != length) {
			t.Errorf("Read %q = %d bytes, %v", content, len(key), err)
		}
		if !ok && (err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "starling keygen")) {
			t.Errorf("Read %q = %v, want an error with the path and what to do", content, err)
		}
	}
	if _, err := Read("some-flag", path+"x"); err == nil || !strings.Contains(err.Error(), "--some-flag") {
		t.Errorf("Read of no file = %v, want an error with the flag", err)
	}
}
