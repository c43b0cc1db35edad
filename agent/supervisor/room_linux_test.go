package supervisor

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRoomForMore(t *testing.T) {
	for name, tt := range map[string]struct {
		inner, outer [2]string // pids.max and pids.current; an empty one lacks
		want         bool
	}{
		"no limit":                   {inner: [2]string{"max\n", "900\n"}, want: true},
		"no controller":              {want: true},
		"room":                       {inner: [2]string{"12\n", "10\n"}, want: true},
		"room for one alone":         {inner: [2]string{"11\n", "10\n"}},
		"far over a limit":           {inner: [2]string{"1\n", "10\n"}},
		"full above":                 {inner: [2]string{"max\n", "10\n"}, outer: [2]string{"20\n", "20\n"}},
		"what is used can't be read": {inner: [2]string{"1\n", ""}, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			mount := t.TempDir()
			for dir, values := range map[string][2]string{"a/b": tt.inner, "a": tt.outer} {
				if err := os.MkdirAll(filepath.Join(mount, dir), 0o755); err != nil {
					t.Fatal(err)
				}
				for i, file := range []string{"pids.max", "pids.current"} {
					if values[i] == "" {
						continue
					}
					if err := os.WriteFile(filepath.Join(mount, dir, file), []byte(values[i]), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got := room(mount, "/a/b"); got != tt.want {
				t.Errorf("got %t, want %t", got, tt.want)
			}
		})
	}
}
