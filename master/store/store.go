// Package store keeps small documents that must survive, with conditional writes.
//
// It is the one interface between what must be kept (frameworks, weights, quota, maintenance, agents gone for good; the
// state of a framework such as Marathon) and where: a bbolt file on one machine, or ZooKeeper for several. A document
// is a few kilobytes; a write that returned nil survives any single failure, power loss included.
package store

import (
	"context"
	"errors"
)

var (
	// ErrNotFound is returned for a document that does not exist.
	ErrNotFound = errors.New("no such document")
	// ErrConflict is returned by a conditional write whose version is not the stored one.
	ErrConflict = errors.New("document was changed by somebody else")
	// ErrTooLarge is returned for a document above MaxSize; nothing was written.
	ErrTooLarge = errors.New("document is too large")
)

// MaxSize is the largest document, in bytes: what ZooKeeper takes with its default settings, less a margin.
const MaxSize = 1<<20 - 64<<10

// Document is one stored document.
type Document struct {
	// Key is a path of one or more segments divided by slashes, without a leading one: "frameworks/0a6d-0000".
	Key string
	// Version grows with every write of this key; 0 is no version: it stands for "does not exist".
	Version uint64
	// Data belongs to the caller.
	Data []byte
}

// Any as a version makes a write unconditional.
const Any = ^uint64(0)

// Op is one write of a transaction. With Delete set, Data is ignored.
type Op struct {
	Key string
	// Version is the one that must be stored now: 0 for a document that must not exist yet, Any for no condition.
	Version uint64
	Data    []byte
	Delete  bool
}

// Store is safe for use by several goroutines.
type Store interface {
	// Get returns ErrNotFound where there is no such document.
	Get(ctx context.Context, key string) (Document, error)
	// List returns the documents whose keys begin with prefix, in order of keys.
	List(ctx context.Context, prefix string) ([]Document, error)
	// Write does all of the operations or none, and returns the new versions in order (0 for a delete). It returns
	// ErrConflict when a condition does not hold, ErrTooLarge when a document is too large. Deleting a document that does
	// not exist with Any is no error.
	Write(ctx context.Context, ops ...Op) ([]uint64, error)
	Close() error
}
