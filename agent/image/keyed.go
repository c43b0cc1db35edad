package image

import (
	"context"
	"sync"
)

// keyed lets one goroutine at a time do what bears a name. Its zero value is ready.
type keyed struct {
	mu   sync.Mutex
	held map[string]*turn // guarded by mu; gone when nobody holds or waits
}

type turn struct {
	free  chan struct{} // holds one token while nobody has the name
	users int           // guarded by keyed.mu
}

// take waits for a name, at most as long as ctx. done gives it back.
func (k *keyed) take(ctx context.Context, name string) (done func(), err error) {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*turn{}
	}
	t := k.held[name]
	if t == nil {
		t = &turn{free: make(chan struct{}, 1)}
		t.free <- struct{}{}
		k.held[name] = t
	}
	t.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(k.held, name)
		}
	}
	select {
	case <-t.free:
		return func() {
			t.free <- struct{}{}
			leave()
		}, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
