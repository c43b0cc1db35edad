package node

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLevels(t *testing.T) {
	root := new(slog.LevelVar)
	l := newLevels(root)
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	l.now = func() time.Time { return now }
	var out strings.Builder
	log := slog.New(l.handler(slog.NewTextHandler(&out, nil)))
	whole, part, other := log.With("component", "marathon"), log.WithGroup("g").With("component", "marathon/api"), log.With("component", "dns")
	check := func(when string, want string) {
		t.Helper()
		got := ""
		for _, one := range []*slog.Logger{log, whole, part, other} {
			out.Reset()
			one.Debug("x")
			one.Info("x")
			one.Warn("x")
			got += fmt.Sprint(strings.Count(out.String(), "\n"))
		}
		if got != want {
			t.Errorf("%s: %s lines, want %s", when, got, want)
		}
	}
	set := func(name, level string, d time.Duration) {
		t.Helper()
		if err := l.SetLevel(name, level, d); err != nil {
			t.Fatal(err)
		}
	}
	check("at first", "2222")
	set("marathon", "Debug", time.Minute)
	check("marathon tells all", "2332")
	set("marathon/api", "error", 0)
	check("but not its API", "2302")
	got := l.Levels()
	if got["ROOT"] != "INFO" || got["marathon"] != "DEBUG" || got["marathon/api"] != "ERROR" || got["dns"] != "INFO (inherited)" {
		t.Errorf("levels %v", got)
	}
	now = now.Add(time.Minute)
	check("a minute later", "2202")
	root.Set(slog.LevelWarn)
	check("the process is quiet", "1101")
	set("ROOT", "trace", time.Minute)
	check("it is asked for everything", "3303")
	if got := l.Levels(); got["ROOT"] != "TRACE" || got["marathon"] != "TRACE (inherited)" {
		t.Errorf("levels %v", got)
	}
	for _, bad := range [][2]string{{"", "info"}, {"x", "loud"}, {"x", ""}} {
		if l.SetLevel(bad[0], bad[1], 0) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	for i := range 2 * mostLevels {
		_ = l.SetLevel(fmt.Sprint("n", i), "info", 0)
	}
	if n := len(*l.asked.Load()); n > mostLevels {
		t.Errorf("%d levels are kept", n)
	}
	set("n0", "Inherited", 0)
	set("one more", "info", 0)
	if got := l.Levels(); got["n0"] != "" || got["one more"] != "INFO" {
		t.Errorf("after one was taken back: %v, %v", got["n0"], got["one more"])
	}
}
