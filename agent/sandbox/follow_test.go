package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"starling/agent/testenv"
)

// follow reads what is appended to a file from now on, as often as it is told to. What it returns reads what there is left, and
// tells all.
func follow(t *testing.T, l Layout, path string, head *Head, every time.Duration) (finish func() string) {
	t.Helper()
	f, err := l.Follow(t.Context(), path, head)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	buf := make([]byte, 10_000)
	drain := func() {
		for {
			n, err := f.Read(t.Context(), buf)
			all.Write(buf[:n])
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				return
			}
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				drain()
			case <-ctx.Done():
				drain()
				return
			}
		}
	}()
	return func() string { stop(); <-done; return all.String() }
}

// outputIn is a sandbox with some output in a folder, and its rotator.
func outputIn(t *testing.T, dir string, most int64, files int) (Layout, *Rotator, *os.File) {
	t.Helper()
	l := New(dir, "a-S0")
	if err := l.Init(); err != nil {
		t.Fatal(err)
	}
	box := create(t, l, "e1", "c1")
	out := appendTo(t, filepath.Join(box, "stdout"))
	if _, err := out.WriteString("before\n"); err != nil {
		t.Fatal(err)
	}
	r := rotator(t, most, files)
	r.Watch("c1", box)
	return l, r, out
}

// Whoever follows the output of a container that writes as fast as it can gets each byte once: when he is quick, and when most
// of it was put aside before he looks.
func TestFollowingOverRotation(t *testing.T) {
	dir := t.TempDir()
	cuts(t, dir)
	l, r, out := outputIn(t, dir, 256<<10, 2000)
	head := r.Head("c1", out.Name())
	if head == nil {
		t.Fatal("nobody watches the file")
	}
	quick := follow(t, l, out.Name(), head, time.Millisecond)
	slow := follow(t, l, out.Name(), head, 300*time.Millisecond)
	var want strings.Builder
	enough := func() bool { return there(oldName(out.Name(), 3)) }
	for end := time.Now().Add(time.Second); (time.Now().Before(end) || !enough()) && want.Len() < 20<<20; {
		line := fmt.Sprintf("%d %s\n", want.Len(), strings.Repeat("x", want.Len()%97))
		want.WriteString(line)
		if _, err := out.WriteString(line); err != nil {
			t.Fatal(err)
		}
	}
	until(t, enough)
	r.Unwatch("c1", filepath.Dir(out.Name())) // the container has ended
	for name, finish := range map[string]func() string{"quick": quick, "slow": slow} {
		if got := finish(); got != want.String() {
			t.Errorf("%s: %d bytes, want %d; they part at %d", name, len(got), want.Len(), parting(got, want.String()))
		}
	}
}

func parting(a, b string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// The same where files are emptied, for a container that pauses.
func TestFollowingOverRotationElsewhere(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "follow-test-")
	if err != nil {
		testenv.Lacks(t, "no tmpfs here: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, r, out := outputIn(t, dir, 128<<10, 9)
	quick := follow(t, l, out.Name(), r.Head("c1", out.Name()), time.Millisecond)
	slow := follow(t, l, out.Name(), r.Head("c1", out.Name()), time.Hour)
	want := ""
	for i := range 4 {
		part := strings.Repeat(fmt.Sprint(i), 200<<10)
		if _, err := out.WriteString(part); err != nil {
			t.Fatal(err)
		}
		want += part
		calm(t, filepath.Dir(out.Name()), 128<<10)
	}
	for name, finish := range map[string]func() string{"quick": quick, "slow": slow} {
		if got := finish(); got != want {
			t.Errorf("%s: %d bytes, want %d; they part at %d", name, len(got), len(want), parting(got, want))
		}
	}
}

// What is in no file any more is passed over, and what the container does to its own file is no rotation.
func TestFollowingWhatIsGone(t *testing.T) {
	dir := t.TempDir()
	cuts(t, dir)
	l, r, out := outputIn(t, dir, 128<<10, 2)
	slow := follow(t, l, out.Name(), r.Head("c1", out.Name()), time.Hour)
	for i := range 4 {
		if _, err := out.WriteString(strings.Repeat(fmt.Sprint(i), 150<<10)); err != nil {
			t.Fatal(err)
		}
		calm(t, filepath.Dir(out.Name()), 128<<10)
	}
	if got, want := slow(), read(t, oldName(out.Name(), 1))+read(t, out.Name()); got != want {
		t.Errorf("%d bytes, want the newest %d", len(got), len(want))
	}
	f, err := l.Follow(t.Context(), out.Name(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if _, err := out.WriteString("anew"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if n, err := f.Read(t.Context(), buf); err != nil || string(buf[:n]) != "anew" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	if n, err := f.Read(t.Context(), buf); !errors.Is(err, io.EOF) {
		t.Errorf("%q, %v; want nothing more", buf[:n], err)
	}
}
