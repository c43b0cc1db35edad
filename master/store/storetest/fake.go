package storetest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"starling/master/store"
)

// Fake is a store in memory that keeps the promises of a real one, until its process ends. The zero value is empty and
// ready.
type Fake struct {
	mu     sync.Mutex
	docs   map[string]store.Document
	next   uint64
	err    error
	closed bool
}

var _ store.Store = (*Fake)(nil)

// Fail makes every call return err, and change nothing, until Fail(nil): what a store that can't be reached does.
func (f *Fake) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// Damage makes a document unreadable.
func (f *Fake) Damage(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	f.docs[key] = Damaged(key, f.next)
}

// Damaged is what a List has of a damaged document. n tells one damage from another.
func Damaged(key string, n uint64) store.Document {
	return store.Document{
		Key: key, Version: store.DamagedVersion(n), Damage: fmt.Errorf("%w: %q: it was damaged by a test", store.ErrDamaged, key),
	}
}

// enter is what all calls begin with; f.mu is held.
func (f *Fake) enter(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case f.closed:
		return store.ErrClosed
	}
	return f.err
}

// Get implements store.Store.
func (f *Fake) Get(ctx context.Context, key string) (store.Document, error) {
	if err := store.CheckKey(key); err != nil {
		return store.Document{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(ctx); err != nil {
		return store.Document{}, err
	}
	d, ok := f.docs[key]
	if !ok {
		return store.Document{}, fmt.Errorf("%w: %q", store.ErrNotFound, key)
	}
	if d.Damage != nil {
		return store.Document{}, d.Damage
	}
	d.Data = bytes.Clone(d.Data)
	return d, nil
}

// List implements store.Store.
func (f *Fake) List(ctx context.Context, prefix string) ([]store.Document, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	var out []store.Document
	for key, d := range f.docs {
		if strings.HasPrefix(key, prefix) {
			d.Data = bytes.Clone(d.Data)
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b store.Document) int { return strings.Compare(a.Key, b.Key) })
	return out, store.Damages(out)
}

// Write implements store.Store.
func (f *Fake) Write(ctx context.Context, ops ...store.Op) ([]uint64, error) {
	if err := store.CheckOps(ops); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	for _, op := range ops {
		if !op.Holds(f.docs[op.Key].Version) {
			return nil, fmt.Errorf("%w: %q", store.ErrConflict, op.Key)
		}
	}
	if f.docs == nil {
		f.docs = make(map[string]store.Document)
	}
	versions := make([]uint64, len(ops))
	for i, op := range ops {
		if op.Delete {
			delete(f.docs, op.Key)
			continue
		}
		f.next++
		versions[i] = f.next
		f.docs[op.Key] = store.Document{Key: op.Key, Version: f.next, Data: append([]byte{}, op.Data...)}
	}
	return versions, nil
}

// Close implements store.Store.
func (f *Fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}
