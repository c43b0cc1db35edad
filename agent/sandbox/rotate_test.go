package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"starling/agent/testenv"
)

func rotator(t *testing.T, most int64, files int) *Rotator {
	t.Helper()
	r := NewRotator(RotatorConfig{MaxBytes: most, Files: files, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return r
}

// cuts skips a test where the file system can't cut a file at its head.
func cuts(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := errors.Join(f.Truncate(3*rotateAlign), collapse(f, rotateAlign)); err != nil {
		testenv.Lacks(t, "this file system can't cut a file at its head: %v", err)
	}
}

func appendTo(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// A container that writes as fast as it can, to a file that it holds open: no byte is lost, and none is there twice.
func TestRotationLosesNothing(t *testing.T) {
	dir := t.TempDir()
	cuts(t, dir)
	const most, files = 256 << 10, 2000
	r := rotator(t, most, files)
	out := appendTo(t, filepath.Join(dir, "stdout"))
	r.Watch("c", dir)
	var stop atomic.Bool
	time.AfterFunc(time.Second, func() { stop.Store(true) })
	lines := 0
	for ; (!stop.Load() || !there(oldName(out.Name(), 3))) && lines < 300_000; lines++ {
		// Lines of all lengths, so that cuts fall anywhere.
		if _, err := fmt.Fprintf(out, "%d %s\n", lines, strings.Repeat("x", lines%97)); err != nil {
			t.Fatal(err)
		}
	}
	calm(t, dir, most)
	var all strings.Builder
	rotated := 0
	for n := files; n > 0; n-- {
		if data, err := os.ReadFile(fmt.Sprintf("%s.%d", out.Name(), n)); err == nil {
			rotated++
			all.Write(data)
		}
	}
	all.WriteString(read(t, out.Name()))
	at := 0
	for line := range strings.Lines(all.String()) {
		if want := fmt.Sprintf("%d %s\n", at, strings.Repeat("x", at%97)); line != want {
			t.Fatalf("line %d is %.40q, want %.40q", at, line, want)
		}
		at++
	}
	if at != lines || rotated < 3 {
		t.Errorf("%d of %d lines are there, in %d files put aside", at, lines, rotated)
	}
	t.Logf("%d lines, %d bytes, %d files put aside", lines, all.Len(), rotated)
}

func until(t *testing.T, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to that")
		}
		<-time.NewTimer(5 * time.Millisecond).C
	}
}

// calm waits until a file that nobody writes to is small, and all that was put aside has its name.
func calm(t *testing.T, dir string, most int64) {
	t.Helper()
	until(t, func() bool {
		info, err := os.Stat(filepath.Join(dir, "stdout"))
		return err == nil && info.Size() <= most && !there(filepath.Join(dir, copyName("stdout")))
	})
}

func TestRotationIsBounded(t *testing.T) {
	dir := t.TempDir()
	cuts(t, dir)
	const most, files = 1 << 20, 4
	r := rotator(t, most, files)
	out, errs := appendTo(t, filepath.Join(dir, "stdout")), appendTo(t, filepath.Join(dir, "stderr"))
	r.Watch("c", dir)
	for i := range 40 << 4 {
		if _, err := out.WriteString(strings.Repeat(string(rune('a'+i%26)), 64<<10)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := errs.WriteString("few"); err != nil {
		t.Fatal(err)
	}
	calm(t, dir, most)
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != files+1 {
		t.Errorf("files: %v, %v", left, err)
	}
	for n := 1; n < files; n++ {
		if info, err := os.Stat(fmt.Sprintf("%s.%d", out.Name(), n)); err != nil || info.Size() > most {
			t.Errorf("file %d: %v %v", n, info, err)
		}
	}
	if read(t, errs.Name()) != "few" {
		t.Error("the other file was touched")
	}
	r.Unwatch("c", dir)
	before, _ := os.Stat(out.Name())
	if _, err := out.WriteString(strings.Repeat("z", 2<<20)); err != nil {
		t.Fatal(err)
	}
	r.look(t.Context())
	if info, err := os.Stat(out.Name()); err != nil || info.Size() != before.Size()+2<<20 {
		t.Errorf("a file that nobody watches was cut: %v", info.Size())
	}
}

// Where a file can't be cut at its head it is copied and emptied; a writer that pauses loses nothing.
func TestRotationElsewhere(t *testing.T) {
	dir := "/dev/shm"
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		testenv.Lacks(t, "no tmpfs here")
	}
	dir, err := os.MkdirTemp(dir, "rotate-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := rotator(t, 128<<10, 3)
	out := appendTo(t, filepath.Join(dir, "stdout"))
	r.Watch("c", dir)
	for i := range 4 {
		if _, err := out.WriteString(strings.Repeat(fmt.Sprint(i), 200<<10)); err != nil {
			t.Fatal(err)
		}
		calm(t, dir, 128<<10)
	}
	first, second := read(t, out.Name()+".1"), read(t, out.Name()+".2")
	if first != strings.Repeat("3", 200<<10) || second != strings.Repeat("2", 200<<10) {
		t.Errorf("put aside: %d and %d bytes", len(first), len(second))
	}
}

// An earlier life was ended between the copy and the cut, or right behind the cut.
func TestRotationAfterACrash(t *testing.T) {
	for name, cut := range map[string]bool{"before the cut": false, "behind the cut": true} {
		dir := t.TempDir()
		head, rest := strings.Repeat("a", 128<<10), "rest"
		write(t, filepath.Join(dir, copyName("stdout")), head)
		write(t, filepath.Join(dir, "stdout.1"), "older")
		if cut {
			write(t, filepath.Join(dir, "stdout"), rest)
		} else {
			write(t, filepath.Join(dir, "stdout"), head+rest)
		}
		r := NewRotator(RotatorConfig{MaxBytes: 1 << 20, Files: 10, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		r.Watch("c", dir)
		r.look(t.Context())
		all := ""
		for n := 9; n > 0; n-- {
			if there(filepath.Join(dir, oldName("stdout", n))) {
				all += read(t, filepath.Join(dir, oldName("stdout", n)))
			}
		}
		if all += read(t, filepath.Join(dir, "stdout")); all != "older"+head+rest {
			t.Errorf("%s: %d bytes, want %d", name, len(all), len("older"+head+rest))
		}
		if there(filepath.Join(dir, copyName("stdout"))) {
			t.Errorf("%s: the copy is left", name)
		}
	}
}

// What a task puts in the place of its output is not cut, whosever it is.
func TestRotationOfWhatIsNoOutput(t *testing.T) {
	dir, other := t.TempDir(), filepath.Join(t.TempDir(), "victim")
	write(t, other, strings.Repeat("x", 300<<10))
	if err := errors.Join(os.Symlink(other, filepath.Join(dir, "stdout")), os.Link(other, filepath.Join(dir, "stderr"))); err != nil {
		t.Fatal(err)
	}
	r := NewRotator(RotatorConfig{MaxBytes: 128 << 10, Files: 3, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	r.Watch("c", dir)
	r.look(t.Context())
	if len(read(t, other)) != 300<<10 {
		t.Error("a file of somebody else was cut")
	}
	// Neither do copies go through links.
	dir = t.TempDir()
	write(t, filepath.Join(dir, "stdout"), strings.Repeat("y", 300<<10))
	if err := errors.Join(os.Symlink(other, filepath.Join(dir, "stdout.1")), syscall.Mkfifo(filepath.Join(dir, "stderr"), 0o600)); err != nil {
		t.Fatal(err)
	}
	r.Watch("d", dir)
	r.look(t.Context())
	if got := read(t, other); got != strings.Repeat("x", 300<<10) {
		t.Error("a file of somebody else was written to")
	}
	if info, err := os.Lstat(filepath.Join(dir, "stdout.1")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("what was put aside: %v, %v", info, err)
	}
}

// The sandbox of a nested container lies in one that is a task's: what the task puts in its place neither stops the rotation
// of all others, nor has a file elsewhere cut.
func TestRotationWhereTheSandboxIsExchanged(t *testing.T) {
	top, elsewhere := t.TempDir(), t.TempDir()
	out := strings.Repeat("x", 300<<10)
	write(t, filepath.Join(elsewhere, "stdout"), out)
	piped, linked, good := filepath.Join(top, "piped"), filepath.Join(top, "containers", "c"), t.TempDir()
	if err := errors.Join(
		syscall.Mkfifo(piped, 0o600), os.Mkdir(filepath.Join(elsewhere, "c"), 0o755), os.Symlink(elsewhere, filepath.Join(top, "containers")),
	); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(elsewhere, "c", "stdout"), out)
	write(t, filepath.Join(good, "stdout"), out)
	r := NewRotator(RotatorConfig{MaxBytes: 128 << 10, Files: 3, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	r.Watch("piped", piped)
	r.Watch("linked", linked)
	r.Watch("good", good)
	done := make(chan struct{})
	go func() { defer close(done); r.look(t.Context()) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("a pipe stops all rotation")
	}
	if read(t, filepath.Join(elsewhere, "c", "stdout")) != out {
		t.Error("a file elsewhere was cut")
	}
	if info, err := os.Stat(filepath.Join(good, "stdout")); err != nil || info.Size() > 200<<10 {
		t.Errorf("the output of another container was not rotated: %v, %v", info, err)
	}
}

// A container of root may put a device in the place of its output, which must not even be opened.
func TestRotationOpensNoDevice(t *testing.T) {
	dir := t.TempDir()
	// There is no such device: to open it would fail otherwise.
	if err := syscall.Mknod(filepath.Join(dir, "stdout"), syscall.S_IFCHR|0o600, 511<<8|200); err != nil {
		testenv.Lacks(t, "no device can be made here: %v", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, _, err := openOutput(root, "stdout"); err == nil || !strings.Contains(err.Error(), "no file of the sandbox") {
		t.Errorf("got %v", err)
	}
}
