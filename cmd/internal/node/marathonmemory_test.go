package node

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"starling/cmd/internal/flags"
	"starling/marathon"
)

func TestFrameworkIsRemembered(t *testing.T) {
	f := frameworkFile(filepath.Join(t.TempDir(), "new", "marathon-framework"))
	for _, id := range []string{"", "a-0000", "b-0000", ""} {
		if err := f.Keep(id); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Recall(); err != nil || got != id {
			t.Errorf("kept %q, and got %q, %v", id, got, err)
		}
	}
	for _, torn := range []string{"", "{", `{"format":2,"framework":"a"}`} {
		if err := os.WriteFile(string(f), []byte(torn), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Recall(); err == nil || !strings.Contains(err.Error(), string(f)) {
			t.Errorf("%q gives %v", torn, err)
		}
	}
}

func TestLostStateAndTimesAreSet(t *testing.T) {
	for _, tc := range []struct {
		args, refused string
		want          func(c marathon.Config) bool
	}{
		{"", "", func(c marathon.Config) bool {
			return c.Lost == marathon.LostStop && c.PrepareTimeout == 180*time.Second && c.StoreTimeout == 10*time.Second
		}},
		{"--lost-state=new --on_elected_prepare_timeout 1000 --zk_timeout=2000", "", func(c marathon.Config) bool {
			return c.Lost == marathon.LostNew && c.PrepareTimeout == time.Second && c.StoreTimeout == 2*time.Second
		}},
		{"--lost-state=/b/x.tar", "", func(c marathon.Config) bool { return c.Lost == "file:///b/x.tar" }},
		{"--lost-state=old", "neither stop nor new", nil},
	} {
		var m marathonZK
		set := flags.New("test")
		m.register(set)
		if err := set.Parse(strings.Fields(tc.args), nil); err != nil {
			t.Fatal(err)
		}
		c := marathon.DefaultConfig()
		err := m.apply(&c)
		if tc.refused != "" {
			if err == nil || !strings.Contains(err.Error(), tc.refused) {
				t.Errorf("%s: got %v", tc.args, err)
			}
			continue
		}
		if err != nil || !tc.want(c) {
			t.Errorf("%s: %v, %+v", tc.args, err, c)
		}
	}
}

func TestStartHook(t *testing.T) {
	dir := t.TempDir()
	script := func(name, body string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var out bytes.Buffer
	io := Streams{Out: &out, Err: &out}
	if err := startHook(t.Context(), io, []string{"A=b"}); err != nil || out.Len() > 0 {
		t.Errorf("without one: %v, %q", err, out.String())
	}
	if err := startHook(t.Context(), io, []string{"A=b", "HOOK_MARATHON_START=" + script("good", "echo $A")}); err != nil || out.String() != "b\n" {
		t.Errorf("it runs with %v, %q", err, out.String())
	}
	if err := startHook(t.Context(), io, []string{"HOOK_MARATHON_START=" + script("bad", "exit 3")}); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("one that fails: %v", err)
	}
}

// All levels of the programs that this one stands in for are known.
func TestLevelsOfOthers(t *testing.T) {
	for name, want := range map[string]slog.Level{
		"off": slog.LevelError + 8, "fatal": slog.LevelError + 4, "error": slog.LevelError, "WARN": slog.LevelWarn, "WARNING": slog.LevelWarn,
		"info": slog.LevelInfo, "debug": slog.LevelDebug, "trace": slog.LevelDebug - 4, "all": slog.LevelDebug - 4,
	} {
		c := common{logLevel: name, logFormat: "text", stderr: new(bytes.Buffer)}
		_, levels, err := c.logger()
		if err != nil || levels.root.Level() != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := (&common{logLevel: "loud", logFormat: "text"}).logger(); err == nil {
		t.Error("loud is a level")
	}
}
