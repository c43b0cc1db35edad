// Package testenv says what a test needs of the machine that it runs on. What lacks skips the test with the reason; with
// CI=true in the environment, where everything is to be there, it fails the test instead, so that none is lost unseen.
// Only tests, and packages for tests, use it.
package testenv

import (
	"os"
	"os/exec"
	"testing"
)

// Lacks ends a test for want of something, which the format names.
func Lacks(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// NeedRoot ends a test that is not run by root. why is what it takes root for, such as "to unpack layers".
func NeedRoot(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		Lacks(t, "needs root %s", why)
	}
}

// NeedProgram ends a test where one of some programs is not in the path.
func NeedProgram(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			Lacks(t, "needs the program %s", name)
		}
	}
}
