package image

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"starling/agent/image/imagetest"
	"starling/agent/testenv"
	"starling/master/mesos"
)

func TestTornFilesCostWhatTheyDescribe(t *testing.T) {
	s := store(t)
	reg := imagetest.Registry(t)
	name := reg.Push(t, small(t, 2), "x:1")
	p, err := s.Prepare(t.Context(), "c1", docker(name), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for what, file := range map[string]string{
		"record": s.recordPath(p.Name), "layer": filepath.Join(filepath.Dir(p.Layers[0]), "layer.json"),
	} {
		for how, b := range map[string][]byte{"empty": {}, "zeroed": make([]byte, 100), "cut": []byte(`{"sum":"sha256:00","bo`)} {
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			again := open(t, s.config)
			if _, err := again.Prepare(t.Context(), "c2", docker(name), t.TempDir()); err != nil {
				t.Errorf("%s %s: %v", what, how, err)
			}
		}
	}
	if n := left(t, s, "quarantine"); len(n) != 6 {
		t.Errorf("set aside: %v, want 6", n)
	}
	// A torn pin holds everything until its container has ended.
	if err := os.WriteFile(s.pinPath("c1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, s.config)
	if held, err := again.Held(t.Context()); err != nil || !slices.Contains(held, "c1") {
		t.Errorf("held by %v, %v; want c1 among them", held, err)
	}
	if err := again.Prune(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "torn") {
		t.Errorf("pruned beside a torn pin: %v", err)
	}
	if err := again.Release(t.Context(), "c1"); err != nil {
		t.Error(err)
	}
	if err := again.Prune(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

func TestLeftoversOfACrashGo(t *testing.T) {
	testenv.NeedRoot(t, "to unpack images")
	c := configFor(t, filepath.Join(t.TempDir(), "store"))
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(s.tmp.Name(), "layer1", "fs")
	if err := os.MkdirAll(half, 0o700); err != nil {
		t.Fatal(err)
	}
	if other := open(t, c); true {
		if _, err := os.Stat(half); err != nil {
			t.Errorf("a store in use was emptied by another: %v", err)
		}
		_ = other
	}
	s.tmp.Close() // as the end of the process would
	again := open(t, c)
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the half layer is still there: %v", err)
	}
	_ = again
}

func TestCollectorLeavesWhatIsUsed(t *testing.T) {
	s := store(t)
	reg := imagetest.Registry(t)
	base := []imagetest.File{{Name: "base", Body: "base", Mode: 0o644}}
	a := reg.Push(t, imagetest.New(t, base, []imagetest.File{{Name: "a", Body: "a", Mode: 0o644}}), "a:1")
	b := reg.Push(t, imagetest.New(t, base, []imagetest.File{{Name: "b", Body: "b", Mode: 0o644}}), "b:1")
	other := reg.Push(t, imagetest.New(t, []imagetest.File{{Name: "c", Body: "c", Mode: 0o644}}), "c:1")
	p, err := s.Prepare(t.Context(), "c1", docker(a), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{b, other} {
		if _, err := s.Pull(t.Context(), docker(name)); err != nil {
			t.Fatal(err)
		}
	}
	if n := left(t, s, "layers"); len(n) != 4 {
		t.Fatalf("%d layers, want 4: the base is shared", len(n))
	}
	// Another agent with the same store has a container too; a third one is gone.
	c := s.config
	c.Owner = t.TempDir()
	second := open(t, c)
	if _, err := second.Prepare(t.Context(), "c1", docker(b), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if err := s.Prune(t.Context(), []*mesos.Image{docker(other)}); err != nil {
		t.Fatal(err)
	}
	if n := left(t, s, "layers"); len(n) != 4 {
		t.Errorf("%d layers after a prune that may take none", len(n))
	}
	if err := os.RemoveAll(c.Owner); err != nil {
		t.Fatal(err)
	}
	if err := s.Prune(t.Context(), []*mesos.Image{docker(other)}); err != nil {
		t.Fatal(err)
	}
	if n := left(t, s, "layers"); len(n) != 3 {
		t.Errorf("%d layers, want 3: the agent that is gone held one alone", len(n))
	}
	if err := s.Prune(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if n := left(t, s, "layers"); len(n) != 2 || content(t, p, "a") != "a" || content(t, p, "base") != "base" {
		t.Errorf("%d layers, want the 2 of the container", len(n))
	}
	if n := left(t, s, "images"); len(n) != 1 {
		t.Errorf("%d names are known, want 1", len(n))
	}
	if err := s.Release(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	// By age: just released, so still wanted; later not.
	if _, err := s.collect(t.Context(), want{unusedSince: time.Now().Add(-time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if n := left(t, s, "layers"); len(n) != 2 {
		t.Errorf("%d layers, want 2: they were used a moment ago", len(n))
	}
	if freed, err := s.collect(t.Context(), want{unusedSince: time.Now().Add(time.Hour)}); err != nil || freed != 5 {
		t.Errorf("freed %d, %v; want 5 bytes", freed, err)
	}
	if n := left(t, s, "layers"); len(n) != 0 {
		t.Errorf("%d layers are left", len(n))
	}
}

func TestDiskPressureTakesTheOldestFirst(t *testing.T) {
	s := store(t)
	reg := imagetest.Registry(t)
	for _, n := range []string{"old", "new"} {
		p, err := s.Prepare(t.Context(), n, docker(reg.Push(t, imagetest.New(t, []imagetest.File{{Name: n, Body: n, Mode: 0o644}}), n+":1")), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Release(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		if n == "old" {
			then := time.Now().Add(-time.Hour)
			if err := os.Chtimes(filepath.Join(filepath.Dir(p.Layers[0]), "layer.json"), then, then); err != nil {
				t.Fatal(err)
			}
		}
	}
	used, err := s.used(nil)
	if err != nil {
		t.Fatal(err)
	}
	order, err := s.candidates(used)
	if err != nil || len(order) != 2 || !order[0].used.Before(order[1].used) {
		t.Fatalf("order %+v, %v", order, err)
	}
	if freed, err := s.collect(t.Context(), want{free: 1 << 62}); err != nil || freed != 6 {
		t.Errorf("freed %d, %v; want 6: all, since it is never enough", freed, err)
	}
}
