// Package zkstore keeps documents in ZooKeeper, one node each.
//
// The model: a head node counts the transactions, and every transaction changes it, on condition that nobody else did
// meanwhile; so transactions follow one another, whoever writes, and a document's version is the count of the transaction that
// wrote it, which no delete sets back. One that fits into a packet is a single transaction of ZooKeeper. A larger one is
// written in parts where nobody looks first; a change of the head, which names the parts, makes it valid as a whole; then it
// is carried out piece by piece, by its writer or by whoever comes along: nobody reads or writes before that is done.
//
// A store remembers the versions of the documents that it met, which the condition on the head keeps true: writing what was
// read or written before takes one round trip. Writes of one store wait for each other.
//
// How it fails: an answer that got lost is looked for by the transaction's id, as long as the context lasts. Everything waits
// for a connection until the context ends, or for five minutes at most.
package zkstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"starling/master/store"
	"starling/master/zookeeper"
)

const (
	// patience bounds calls whose context doesn't.
	patience = 5 * time.Minute
	// atOnce is how many documents are read at once.
	atOnce = 16
	// maxKnown bounds the versions that are remembered.
	maxKnown = 100_000
)

// Store is a place in ZooKeeper. It is safe for use by several goroutines.
type Store struct {
	client *zookeeper.Client

	mu     sync.Mutex // guards closed, and that no call begins behind it
	closed bool
	calls  sync.WaitGroup

	// turn holds a token while somebody writes or lists, who owns what follows.
	turn chan struct{}
	// head is as it was last seen, at node version at; nil where it has to be read.
	head *head
	at   int32
	// known are the versions of documents as of head; 0 is that of one that is not there.
	known map[string]uint64
}

var _ store.Store = (*Store)(nil)

// New returns a store below the path of the client's URL. The client runs for longer than the store.
func New(client *zookeeper.Client) *Store {
	return &Store{client: client, turn: make(chan struct{}, 1), known: make(map[string]uint64)}
}

// enter begins a call; the function returned ends it.
func (s *Store) enter(ctx context.Context) (context.Context, func(), error) {
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, store.ErrClosed
	}
	s.calls.Add(1)
	ctx, cancel := context.WithTimeout(ctx, patience)
	return ctx, func() { cancel(); s.calls.Done() }, nil
}

// lock waits for the turn.
func (s *Store) lock(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("store waits for another write: %w", context.Cause(ctx))
	}
}

func (s *Store) unlock() { <-s.turn }

// say puts an error of the client into words of a store.
func say(err error) error {
	if errors.Is(err, zookeeper.ErrClosed) {
		return fmt.Errorf("%w: %w", store.ErrClosed, err)
	}
	return err
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Document, error) {
	d := store.Document{Key: key}
	if err := store.CheckKey(key); err != nil {
		return d, err
	}
	ctx, leave, err := s.enter(ctx)
	if err != nil {
		return d, err
	}
	defer leave()
	for try := 0; ; try++ {
		err := s.client.Sync(ctx)
		if err == nil {
			err = s.settled(ctx)
		}
		if err == nil {
			d, err = s.read(ctx, key)
		}
		if !s.again(ctx, err, try) {
			switch {
			case err != nil:
			case d.Damage != nil:
				return store.Document{Key: key}, d.Damage
			case d.Version == 0:
				err = fmt.Errorf("%w: %q", store.ErrNotFound, key)
			}
			return d, say(err)
		}
	}
}

// again tells whether what failed is to be tried again, after a pause that it makes: a connection was lost, and nothing was
// written; or others were faster.
func (s *Store) again(ctx context.Context, err error, try int) bool {
	if !errors.Is(err, zookeeper.ErrUncertain) && !errors.Is(err, errMoved) {
		return false
	}
	t := time.NewTimer(rand.N(time.Millisecond << min(try, 8)))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errMoved says that somebody else has written meanwhile.
var errMoved = errors.New("others write at the same time")

// settled makes sure that no transaction is being carried out.
func (s *Store) settled(ctx context.Context) error {
	h, _, err := s.readHead(ctx)
	if err != nil || h.Pending == nil {
		return err
	}
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	s.forget()
	return s.load(ctx)
}

// readHead reads the head, and the version of its node; one that does not exist is empty.
func (s *Store) readHead(ctx context.Context) (head, int32, error) {
	data, stat, err := s.client.Get(ctx, nodeHead)
	if errors.Is(err, zookeeper.ErrNoNode) {
		return head{Format: format}, -1, nil
	}
	if err != nil {
		return head{}, 0, err
	}
	h, err := decodeHead(data)
	return h, stat.Version, err
}

// read reads a document; the version is 0 where there is none.
func (s *Store) read(ctx context.Context, key string) (store.Document, error) {
	d := store.Document{Key: key}
	node, stat, err := s.client.Get(ctx, docNode(key))
	if errors.Is(err, zookeeper.ErrNoNode) {
		return d, nil
	}
	if err != nil {
		return d, err
	}
	d.Version, d.Data, err = decodeDoc(node)
	if err != nil {
		d.Version, d.Data = store.DamagedVersion(uint64(stat.Mzxid)), nil
		d.Damage = fmt.Errorf("%w: %q: %w", store.ErrDamaged, key, err)
	}
	return d, nil
}

// List implements store.Store. It is a picture of one moment: it is taken again when somebody else wrote meanwhile.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Document, error) {
	ctx, leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := s.lock(ctx); err != nil { // our own writes wait
		return nil, err
	}
	defer s.unlock()
	for try := 0; ; try++ {
		docs, err := s.list(ctx, prefix)
		if !s.again(ctx, err, try) {
			if err != nil {
				return nil, say(err)
			}
			return docs, store.Damages(docs)
		}
	}
}

func (s *Store) list(ctx context.Context, prefix string) ([]store.Document, error) {
	s.forget()
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	names, err := s.client.Children(ctx, dirDocuments)
	if errors.Is(err, zookeeper.ErrNoNode) {
		return nil, errors.Join(errMoved, s.found(ctx)) // somebody took it away
	}
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, name := range names {
		if key, ok := docKey(name); ok && strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	docs, err := s.readAll(ctx, keys)
	if err != nil {
		return nil, err
	}
	if err := s.client.Sync(ctx); err != nil {
		return nil, err
	}
	_, at, err := s.readHead(ctx)
	if err == nil && at != s.at || slices.ContainsFunc(docs, func(d store.Document) bool { return d.Version == 0 }) {
		err = errMoved
	}
	if err != nil {
		return nil, err
	}
	for _, d := range docs {
		s.learn(d.Key, d.Version)
	}
	return docs, nil
}

// readAll reads documents, several at once; those that are not there have version 0. None gives nil.
func (s *Store) readAll(ctx context.Context, keys []string) ([]store.Document, error) {
	var docs []store.Document
	for _, key := range keys {
		docs = append(docs, store.Document{Key: key})
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i := range docs {
		group.Go(func() (err error) {
			docs[i], err = s.read(ctx, docs[i].Key)
			return err
		})
	}
	return docs, group.Wait()
}

// All below is called by whoever has the turn.

// forget drops what is remembered.
func (s *Store) forget() {
	s.head = nil
	clear(s.known)
}

func (s *Store) learn(key string, version uint64) {
	if len(s.known) >= maxKnown {
		clear(s.known)
	}
	s.known[key] = version
}

// load reads the head as it is now, makes it where it lacks, and carries out what is pending.
func (s *Store) load(ctx context.Context) error {
	for {
		if err := s.client.Sync(ctx); err != nil && !errors.Is(err, zookeeper.ErrNoNode) {
			return err
		}
		h, at, err := s.readHead(ctx)
		if err != nil {
			return err
		}
		if at < 0 {
			if err := s.found(ctx); err != nil {
				return err
			}
			continue
		}
		s.head, s.at = &h, at
		if h.Pending == nil {
			return nil
		}
		if err := s.finish(ctx, nil); err != nil {
			s.forget()
			return err
		}
	}
}

// found makes an empty store.
func (s *Store) found(ctx context.Context) error {
	if err := s.client.MakePath(ctx, zookeeper.Private, dirRoot, dirDocuments, dirStaged); err != nil {
		return err
	}
	data, err := json.Marshal(head{Format: format})
	if err != nil {
		return err
	}
	_, err = s.client.Create(ctx, nodeHead, data, zookeeper.Persistent, zookeeper.Private)
	if errors.Is(err, zookeeper.ErrNodeExists) {
		return nil
	}
	return err
}

// Close implements store.Store. The client goes on.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.calls.Wait()
	return nil
}
