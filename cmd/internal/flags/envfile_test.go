package flags

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestEnvFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "marathon")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	environ := []string{"HOME=/root", "MARATHON_HA=x"}
	if got, err := EnvFile(path, environ); err != nil || !slices.Equal(got, environ) {
		t.Errorf("without a file: %q, %v", got, err)
	}
	write("# all of it\n\nMARATHON_MASTER=zk://h:1/m # where\nexport A=\"b c\\\"d\\n\"\n\texport\tB='$x\\' \r\nMARATHON_HA=no\nC=1\nC=2\nD=\nE=a\\ b\nF=\"x\"'y'z\n")
	want := []string{"HOME=/root", "MARATHON_HA=x", "MARATHON_MASTER=zk://h:1/m", `A=b c"d\n`, `B=$x\`, "C=2", "D=", "E=a b", "F=xyz"}
	if got, err := EnvFile(path, environ); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v\nwant %q", got, err, want)
	}
	for _, bad := range []string{"x", "=1", "a b=1", "A=\"x", "A='x"} {
		write(bad)
		if got, err := EnvFile(path, environ); err == nil {
			t.Errorf("%q gives %q", bad, got)
		}
	}
}

func TestTogglesOfTheEnvironment(t *testing.T) {
	for _, tc := range []struct {
		variable string
		want     bool
	}{
		{"X_FAST=false", false},
		{"X_FAST=", true},
		{"X_DISABLE_FAST=", false},
		{"X_DISABLE_FAST=true", false},
		{"X_NO_FAST=1", false},
		{"X_DISABLE_FAST=0", true},
		{"X_DISABLE_OTHER=1", true},
	} {
		s := New("x", "X_")
		fast := s.Bool("fast", true, "")
		if err := s.Parse(nil, []string{tc.variable}); err != nil || *fast != tc.want {
			t.Errorf("%s: %t, %v; want %t", tc.variable, *fast, err, tc.want)
		}
	}
	s := New("x", "X_")
	s.Bool("fast", true, "")
	if err := s.Parse(nil, []string{"X_DISABLE_FAST=maybe"}); err == nil {
		t.Error("maybe is taken for a switch")
	}
}
