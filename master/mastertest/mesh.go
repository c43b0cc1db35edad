package mastertest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"starling/gossip/record"
	"starling/master/election"
	"starling/master/store"
	"starling/master/store/storetest"
)

// Mesh is the mesh of one master: a map that tests write to in the name of everyone else.
type Mesh struct{ *record.Map }

// NewMesh returns the mesh of a node.
func NewMesh(self string) *Mesh { return &Mesh{record.NewMap(self, 1)} }

// Set changes the node's own record.
func (m *Mesh) Set(changes ...record.Assignment) uint64 { return m.Map.Set(time.Now(), changes...) }

// Apply merges what another node said.
func (m *Mesh) Apply(wire []byte) error {
	_, err := m.Map.Apply(time.Now(), wire)
	return err
}

// Contender is an election that tests decide.
type Contender struct {
	// terms hands over who is elected next; unbuffered, so that Elect returns when the candidate knows.
	terms chan seat
}

type seat struct {
	term election.Term
	ctx  context.Context
}

// NewContender returns a contender that has not won.
func NewContender() *Contender { return &Contender{terms: make(chan seat)} }

// Elect lets the candidate lead until the function it returns is called.
func (c *Contender) Elect(epoch uint64) (lose func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	c.terms <- seat{election.Term{Epoch: epoch}, ctx}
	return func() { cancel(election.ErrLeaseLost) }
}

// Run implements election.Contender.
func (c *Contender) Run(ctx context.Context, _ election.Candidate, lead func(context.Context, election.Term) error) error {
	for {
		select {
		case s := <-c.terms:
			leading, cancel := context.WithCancelCause(ctx)
			stop := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
			err := lead(leading, s.term)
			stop()
			cancel(nil)
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Store keeps documents in memory. Several masters may share one.
type Store struct {
	mu   sync.Mutex
	docs map[string]store.Document
	// Fail, where set, is asked before every operation; guarded by mu.
	fail func() error
}

// NewStore returns an empty store.
func NewStore() *Store { return &Store{docs: make(map[string]store.Document)} }

// SetFailure makes every operation ask fail first; nil ends that.
func (s *Store) SetFailure(fail func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

// Damage makes a document unreadable.
func (s *Store) Damage(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.docs[key] = storetest.Damaged(key, 1)
}

func (s *Store) begin() error {
	if s.fail != nil {
		return s.fail()
	}
	return nil
}

// Get implements store.Store.
func (s *Store) Get(_ context.Context, key string) (store.Document, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin(); err != nil {
		return store.Document{}, err
	}
	d, ok := s.docs[key]
	if !ok {
		return store.Document{}, store.ErrNotFound
	}
	if d.Damage != nil {
		return store.Document{}, d.Damage
	}
	d.Data = slices.Clone(d.Data)
	return d, nil
}

// List implements store.Store.
func (s *Store) List(_ context.Context, prefix string) ([]store.Document, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin(); err != nil {
		return nil, err
	}
	var out []store.Document
	for key, d := range s.docs {
		if strings.HasPrefix(key, prefix) {
			d.Data = slices.Clone(d.Data)
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b store.Document) int { return strings.Compare(a.Key, b.Key) })
	return out, store.Damages(out)
}

// Write implements store.Store.
func (s *Store) Write(_ context.Context, ops ...store.Op) ([]uint64, error) {
	if err := store.CheckOps(ops); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin(); err != nil {
		return nil, err
	}
	for _, op := range ops {
		if op.Version != store.Any && s.docs[op.Key].Version != op.Version {
			return nil, store.ErrConflict
		}
	}
	versions := make([]uint64, len(ops))
	for i, op := range ops {
		if op.Delete {
			delete(s.docs, op.Key)
			continue
		}
		versions[i] = s.docs[op.Key].Version + 1
		if s.docs[op.Key].Damage != nil {
			versions[i] = 1
		}
		s.docs[op.Key] = store.Document{Key: op.Key, Version: versions[i], Data: slices.Clone(op.Data)}
	}
	return versions, nil
}

// Close implements store.Store.
func (s *Store) Close() error { return nil }
