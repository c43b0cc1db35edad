package mastertest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"starling/master/store"
)

// Store is a store in memory, whose writes can be made to fail.
type Store struct {
	mu        sync.Mutex
	documents map[string]store.Document
	version   uint64
	writes    int
	// fail, if set, is asked before each write.
	fail func(ops []store.Op) error
	// failList, if set, is asked before each listing.
	failList func(prefix string) error
}

// NewStore returns an empty store.
func NewStore() *Store { return &Store{documents: make(map[string]store.Document)} }

// Fail has fn asked before each write; what it returns fails the write. nil switches that off.
func (s *Store) Fail(fn func(ops []store.Op) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fn
}

// FailLists has fn asked before each listing; what it returns fails it. nil switches that off.
func (s *Store) FailLists(fn func(prefix string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failList = fn
}

// Writes is the number of transactions so far.
func (s *Store) Writes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes
}

// Keys lists the keys that begin with prefix, in order.
func (s *Store) Keys(prefix string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for key := range s.documents {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Clone returns an independent copy, as a snapshot of a disk.
func (s *Store) Clone() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Store{documents: maps.Clone(s.documents), version: s.version}
}

// Get implements store.Store.
func (s *Store) Get(_ context.Context, key string) (store.Document, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.documents[key]
	if !ok {
		return store.Document{}, store.ErrNotFound
	}
	d.Data = slices.Clone(d.Data)
	return d, nil
}

// List implements store.Store.
func (s *Store) List(_ context.Context, prefix string) ([]store.Document, error) {
	s.mu.Lock()
	fail := s.failList
	s.mu.Unlock()
	if fail != nil {
		if err := fail(prefix); err != nil {
			return nil, err
		}
	}
	var documents []store.Document
	for _, key := range s.Keys(prefix) {
		d, err := s.Get(context.Background(), key)
		if err != nil {
			return nil, err
		}
		documents = append(documents, d)
	}
	return documents, nil
}

// Write implements store.Store.
func (s *Store) Write(ctx context.Context, ops ...store.Op) ([]uint64, error) {
	if err := store.CheckOps(ops); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		if err := s.fail(ops); err != nil {
			return nil, err
		}
	}
	for _, op := range ops {
		if op.Version != store.Any && op.Version != s.documents[op.Key].Version {
			return nil, store.ErrConflict
		}
	}
	s.writes++
	versions := make([]uint64, len(ops))
	for i, op := range ops {
		if op.Delete {
			delete(s.documents, op.Key)
			continue
		}
		s.version++
		versions[i] = s.version
		s.documents[op.Key] = store.Document{Key: op.Key, Version: s.version, Data: slices.Clone(op.Data)}
	}
	return versions, nil
}

// Close implements store.Store.
func (s *Store) Close() error { return nil }

var _ store.Store = (*Store)(nil)
