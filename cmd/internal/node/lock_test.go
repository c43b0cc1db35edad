package node

import (
	"strings"
	"testing"
)

func TestMastersDoNotShareAFolder(t *testing.T) {
	here := place{dir: t.TempDir()}
	first, second := &role{name: "master", place: here}, &role{name: "master", place: here}
	if err := first.lock(0); err != nil {
		t.Fatal(err)
	}
	if err := second.lock(0); err == nil || !strings.Contains(err.Error(), here.dir) || !strings.Contains(err.Error(), "another master") {
		t.Errorf("the second was told %v", err)
	}
	other := &role{name: "master"}
	other.place.dir = t.TempDir()
	defer other.abandon()
	if err := other.lock(0); err != nil {
		t.Errorf("another folder: %v", err)
	}
	first.abandon()
	if err := second.lock(0); err != nil {
		t.Errorf("after the first has ended: %v", err)
	}
	second.abandon()
}
