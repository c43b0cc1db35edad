// Package boltstore keeps documents in one file of this machine (bbolt). One process has it open at a time.
//
// A write is in the file, synced, before it returns. What a torn write or a dying disk made of the file is found when it is
// opened: every document is read and its checksum compared, and a file that is not whole is refused with the reason. It is
// never repaired, emptied or replaced: what it held may still be saved, and a cluster that forgot its frameworks harms
// them more than one that does not start.
package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"starling/master/store"
)

// lockTimeout is how long Open waits for another process to close the file.
const lockTimeout = 5 * time.Second

var (
	// ErrLocked is returned by Open while another process has the file open.
	ErrLocked = errors.New("file is in use by another process")
	// ErrDamaged is returned by Open for a file that is not a store, or not a whole one.
	ErrDamaged = errors.New("file is not a whole store")
)

// Store is an open file. It is safe for use by several goroutines.
type Store struct {
	db   *bbolt.DB
	path string

	mu     sync.Mutex // guards closed, and that no write begins behind it
	closed bool
	writes sync.WaitGroup
}

var _ store.Store = (*Store)(nil)

// Open opens the store in the file at path, and makes both the file and its folder where they lack.
func Open(path string) (*Store, error) { return open(path, lockTimeout) }

func open(path string, timeout time.Duration) (*Store, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := create(path); err != nil {
			return nil, fmt.Errorf("cannot make store %q: %w", path, err)
		}
		info, err = os.Stat(path)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot open store: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("cannot open store %q: it is no file", path)
	case info.Size() == 0:
		// Ours are never empty: a new one gets its name when it is whole.
		return nil, fmt.Errorf("cannot open store %q: %w: it is empty", path, ErrDamaged)
	}
	s := &Store{path: path}
	err = guard(func() (err error) {
		s.db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: timeout, FreelistType: bbolt.FreelistMapType})
		return err
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("cannot open store %q: %w", path, ErrLocked)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("cannot open store: %w", err)
	case err != nil:
		return nil, fmt.Errorf("cannot open store %q: %w: %w", path, ErrDamaged, err)
	}
	if err := guard(func() error { return s.db.View(s.check) }); err != nil {
		s.db.Close()
		return nil, fmt.Errorf("cannot open store %q: %w: %w", path, ErrDamaged, err)
	}
	return s, nil
}

// create makes a new store under another name and gives it its own when it is whole and synced, so that neither a crash
// nor a second process that does the same leaves half of one.
func create(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := f.Close(); err != nil {
		return err
	}
	db, err := bbolt.Open(f.Name(), 0o600, &bbolt.Options{Timeout: lockTimeout})
	if err != nil {
		return err
	}
	if err := errors.Join(db.Update(format), db.Close()); err != nil {
		return err
	}
	// A link fails where the name is taken by then, a rename would put a living store away.
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		if err := os.Rename(f.Name(), path); err != nil { // a file system without links
			return err
		}
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// guard turns what goes wrong in a mapped file into an error: a page that is garbage makes bbolt panic, one that can't be
// read makes the processor fault.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("cannot read a page: %v", r)
		}
	}()
	return f()
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Document, error) {
	d := store.Document{Key: key}
	if err := store.CheckKey(key); err != nil {
		return d, err
	}
	err := s.view(ctx, func(b *bbolt.Bucket) error {
		value := b.Get([]byte(key))
		if value == nil {
			return fmt.Errorf("%w: %q", store.ErrNotFound, key)
		}
		d = document([]byte(key), value)
		return d.Damage
	})
	if err != nil {
		return store.Document{Key: key}, err
	}
	return d, nil
}

// document reads one that may have been damaged since the file was opened.
func document(key, value []byte) store.Document {
	d := store.Document{Key: string(key)}
	var err error
	if d.Version, d.Data, err = decode(key, value); err != nil {
		d.Version, d.Damage = store.DamagedVersion(uint64(crc32.Checksum(value, castagnoli))), fmt.Errorf("%w: %w", store.ErrDamaged, err)
	}
	return d
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Document, error) {
	var out []store.Document
	err := s.view(ctx, func(b *bbolt.Bucket) error {
		c := b.Cursor()
		for key, value := c.Seek([]byte(prefix)); key != nil && bytes.HasPrefix(key, []byte(prefix)); key, value = c.Next() {
			out = append(out, document(key, value))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, s.say(store.Damages(out))
}

func (s *Store) view(ctx context.Context, f func(*bbolt.Bucket) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return s.say(guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error { return f(tx.Bucket(bucketDocuments)) })
	}))
}

// Write implements store.Store. Where ctx ends while the disk is slow, the write goes on behind its back.
func (s *Store) Write(ctx context.Context, ops ...store.Op) ([]uint64, error) {
	if err := store.CheckOps(ops); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, store.ErrClosed
	}
	s.writes.Add(1)
	s.mu.Unlock()

	// The caller may change its data as soon as we return, which may be before the write is done.
	own := make([]store.Op, len(ops))
	for i, op := range ops {
		op.Data = bytes.Clone(op.Data)
		own[i] = op
	}
	type outcome struct {
		versions []uint64
		err      error
	}
	done := make(chan outcome, 1) // so that the writer never waits for somebody who left
	go func() {
		defer s.writes.Done()
		var o outcome
		o.err = guard(func() error {
			return s.db.Update(func(tx *bbolt.Tx) (err error) {
				o.versions, err = apply(tx.Bucket(bucketDocuments), own)
				return err
			})
		})
		done <- o
	}()
	select {
	case o := <-done:
		if o.err != nil {
			return nil, s.say(o.err)
		}
		return o.versions, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("store %q does not answer: %w", s.path, context.Cause(ctx))
	}
}

func apply(b *bbolt.Bucket, ops []store.Op) ([]uint64, error) {
	for _, op := range ops {
		var stored uint64
		if value := b.Get([]byte(op.Key)); value != nil {
			stored = document([]byte(op.Key), value).Version
		}
		if !op.Holds(stored) {
			return nil, fmt.Errorf("%w: %q", store.ErrConflict, op.Key)
		}
	}
	versions := make([]uint64, len(ops))
	for i, op := range ops {
		if op.Delete {
			if err := b.Delete([]byte(op.Key)); err != nil {
				return nil, err
			}
			continue
		}
		// One count for all keys, so that a key's versions grow over its deletion too.
		next, err := b.NextSequence()
		if err != nil {
			return nil, err
		}
		versions[i] = next
		if err := b.Put([]byte(op.Key), encode([]byte(op.Key), next, op.Data)); err != nil {
			return nil, err
		}
	}
	return versions, nil
}

// say puts an error of the database into words of a store.
func (s *Store) say(err error) error {
	switch {
	case err == nil, errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrConflict):
		return err
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		return store.ErrClosed
	}
	return fmt.Errorf("store %q: %w", s.path, err)
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.writes.Wait()
	return s.db.Close()
}
