package containerizertest

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"starling/agent/containerizer"
)

func TestFakePassesTheSuite(t *testing.T) {
	Run(t, func(t *testing.T) Harness {
		current := NewFake()
		current.Behave = func(spec containerizer.Spec) Behaviour {
			code, _ := strconv.Atoi(spec.Args[1])
			return Behaviour{
				Ends: slices.Contains(spec.Args, "ends"), ExitCode: code,
				IgnoresTerm: slices.Contains(spec.Args, "ignores-term"), Missing: spec.Path == "missing",
			}
		}
		first := true
		return Harness{
			Open: func(*testing.T) containerizer.Containerizer {
				if !first {
					current = current.Restart()
				}
				first = false
				return current
			},
			Close: func(t *testing.T, c containerizer.Containerizer) {
				if err := current.Close(); err != nil {
					t.Error(err)
				}
			},
			Spec: func(_ *testing.T, id string, b Behaviour) containerizer.Spec {
				spec := containerizer.Spec{ID: id, Path: "program", Args: []string{"program", strconv.Itoa(b.ExitCode)}}
				for name, set := range map[string]bool{"ends": b.Ends, "ignores-term": b.IgnoresTerm} {
					if set {
						spec.Args = append(spec.Args, name)
					}
				}
				if b.Missing {
					spec.Path = "missing"
				}
				return spec
			},
		}
	})
}

func TestFakeObeysTheTest(t *testing.T) {
	f := NewFake()
	f.LaunchErr = func(spec containerizer.Spec) error {
		if strings.HasPrefix(spec.ID, "bad") {
			return containerizer.ErrExists
		}
		return nil
	}
	if _, err := f.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b", "c"} {
		if _, err := f.Launch(t.Context(), containerizer.Spec{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Launch(t.Context(), containerizer.Spec{ID: "bad"}); err == nil {
		t.Error("launch succeeds against LaunchErr")
	}
	for _, err := range []error{f.Exit("a", 5<<8), f.Lose("b"), f.OOM("c"), f.Exit("a", 6<<8)} {
		if err != nil {
			t.Error(err)
		}
	}
	if err := f.Exit("x", 0); err == nil {
		t.Error("an unknown container can exit")
	}
	for _, want := range []containerizer.Exit{{ID: "a", Known: true, Status: 5 << 8}, {ID: "b"}, {ID: "c", Known: true, Status: 9, OOM: true}} {
		got := <-f.Exits()
		got.At = want.At
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if got := f.Running(); len(got) != 0 {
		t.Errorf("still running: %v", got)
	}
}
