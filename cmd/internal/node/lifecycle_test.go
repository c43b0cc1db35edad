package node

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// bubble runs a test in virtual time, on one processor: with more, the race detector of Go 1.26 breaks down now and then in the timers
// of a bubble (golang.org/issue/78156).
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, f)
}

func TestComponentsStopInReverseOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex
		var order []string
		wait := func(name string) component {
			return component{name, func(ctx context.Context) error {
				<-ctx.Done()
				mu.Lock()
				defer mu.Unlock()
				order = append(order, name)
				return ctx.Err()
			}, stopTimeout}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := runAll(ctx, slog.New(slog.DiscardHandler), []component{wait("a"), wait("b"), wait("c")}); err != nil {
			t.Errorf("runAll = %v, want nil when it was told to stop", err)
		}
		if !slices.Equal(order, []string{"c", "b", "a"}) {
			t.Errorf("stopped in order %v", order)
		}
	})
}

func TestOneFailureStopsAll(t *testing.T) {
	bubble(t, func(t *testing.T) {
		broken := errors.New("broken")
		stopped := false
		err := runAll(t.Context(), slog.New(slog.DiscardHandler), []component{
			{"good", func(ctx context.Context) error { <-ctx.Done(); stopped = true; return nil }, stopTimeout},
			{"bad", func(context.Context) error { time.Sleep(time.Second); return broken }, stopTimeout},
		})
		if !errors.Is(err, broken) || !stopped {
			t.Errorf("runAll = %v, the other stopped %v; want the failure and true", err, stopped)
		}
		if err := runAll(t.Context(), slog.New(slog.DiscardHandler), []component{{"short", func(context.Context) error { return nil }, stopTimeout}}); err == nil {
			t.Error("a component that ends by itself is no failure")
		}
	})
}

func TestStopIsBoundedInTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		release := make(chan struct{})
		begin := time.Now()
		err := runAll(ctx, slog.New(slog.DiscardHandler), []component{{"stuck", func(context.Context) error { <-release; return nil }, stopTimeout}})
		if d := time.Since(begin); err != nil || d != stopTimeout {
			t.Errorf("runAll = %v after %v, want nil after %v", err, d, stopTimeout)
		}
		close(release)
		synctest.Wait()
	})
}
