package testenv

import (
	"fmt"
	"testing"
)

// ending notes how a test was ended.
type ending struct {
	testing.TB
	how string
}

func (e *ending) Helper() {}

func (e *ending) Fatalf(format string, args ...any) { e.end("failed: "+format, args) }

func (e *ending) Skipf(format string, args ...any) { e.end("skipped: "+format, args) }

func (e *ending) end(format string, args []any) {
	e.how = fmt.Sprintf(format, args...)
	panic(e)
}

// ends tells how something ended a test, and nothing where it did not.
func ends(t *testing.T, f func(t testing.TB)) (how string) {
	e := &ending{TB: t}
	defer func() {
		if r := recover(); r != nil && r != any(e) {
			panic(r)
		}
		how = e.how
	}()
	f(e)
	return ""
}

func TestWhatLacksFailsInCIAlone(t *testing.T) {
	for ci, want := range map[string]string{"true": "failed: ", "": "skipped: ", "false": "skipped: "} {
		t.Setenv("CI", ci)
		want += "needs the program no-such-program"
		if how := ends(t, func(t testing.TB) { NeedProgram(t, "sh", "no-such-program") }); how != want {
			t.Errorf("CI=%q: %q, want %q", ci, how, want)
		}
	}
}

func TestWhatIsThereEndsNothing(t *testing.T) {
	t.Setenv("CI", "true")
	if how := ends(t, func(t testing.TB) { NeedProgram(t, "sh") }); how != "" {
		t.Error(how)
	}
}
