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
	"testing"
	"time"
)

func TestMeasure(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	write(t, filepath.Join(elsewhere, "big"), strings.Repeat("x", 10<<20))
	empty, err := measure(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "a", "b", "file"), strings.Repeat("x", 1<<20))
	if err := errors.Join(
		os.Link(filepath.Join(dir, "a", "b", "file"), filepath.Join(dir, "again")), os.Symlink(elsewhere, filepath.Join(dir, "link")),
		os.Truncate(filepath.Join(dir, "a", "b", "file"), 1<<30), // what was never written takes no room
	); err != nil {
		t.Fatal(err)
	}
	got, err := measure(t.Context(), dir)
	if grown := got - empty; err != nil || grown < 1<<20 || grown > 1<<20+100<<10 {
		t.Errorf("got %d bytes more, %v; want a MiB and a little", grown, err)
	}
	if _, err := measure(t.Context(), filepath.Join(dir, "link")); err == nil {
		t.Error("a link in the place of the folder was followed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range 2 * measureBatch {
		write(t, filepath.Join(dir, fmt.Sprint("f", i)), "")
	}
	if _, err := measure(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("a measurement that nobody wants: %v", err)
	}
}

func TestMeter(t *testing.T) {
	small, large := t.TempDir(), t.TempDir()
	write(t, filepath.Join(large, "file"), strings.Repeat("x", 1<<20))
	over := make(chan string, 100)
	m := NewMeter(MeterConfig{
		Interval: 40 * time.Millisecond, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Over: func(id string, used, limit int64) {
			select {
			case over <- fmt.Sprint(id, " ", used >= 1<<20, " ", limit):
			default: // it was said often enough
			}
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { m.Run(ctx) })
	defer running.Wait()
	defer cancel()
	m.Watch("small", small, 1<<20)
	m.Watch("unlimited", large, -1)
	m.Watch("gone", filepath.Join(small, "nothing"), 0)
	m.Watch("large", small, 100<<10, large, filepath.Join(small, "nothing")) // with what counts with it
	for range 2 {                                                            // each measurement says it
		if got := <-over; got != "large true 102400" {
			t.Errorf("got %q", got)
		}
	}
	for _, id := range []string{"small", "unlimited"} {
		until(t, func() bool { _, _, ok := m.Used(id); return ok })
	}
	if used, _, ok := m.Used("unlimited"); !ok || used < 1<<20 {
		t.Errorf("used %d %v", used, ok)
	}
	if used, _, ok := m.Used("gone"); ok {
		t.Errorf("a folder that is not there holds %d", used)
	}
	m.Unwatch("large")
	if _, _, ok := m.Used("large"); ok {
		t.Error("it is still measured")
	}
}
