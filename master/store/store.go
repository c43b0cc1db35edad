// Package store keeps small documents that must survive, with conditional writes.
//
// It is the one interface between what must be kept (frameworks, weights, quota, maintenance, agents gone for good; the
// state of a framework such as Marathon) and where: a bbolt file on one machine, or ZooKeeper for several. A document
// is a few kilobytes; a write that returned nil survives any single failure, power loss included.
package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	// ErrNotFound is returned for a document that does not exist.
	ErrNotFound = errors.New("no such document")
	// ErrConflict is returned by a conditional write whose version is not the stored one.
	ErrConflict = errors.New("document was changed by somebody else")
	// ErrTooLarge is returned for a document above MaxSize, or a transaction above MaxTransaction; nothing was written.
	ErrTooLarge = errors.New("document is too large")
	// ErrInvalid is returned for a key that is none, and for a transaction that names one twice.
	ErrInvalid = errors.New("operation is invalid")
	// ErrDamaged is returned for a document that is there and cannot be read: its disk or somebody else made something of it
	// that the store did not write. The text names the key.
	ErrDamaged = errors.New("document is damaged")
	// ErrClosed is returned by a store that was closed.
	ErrClosed = errors.New("store is closed")
)

// MaxSize is the largest document, in bytes: what ZooKeeper takes with its default settings, less a margin.
const MaxSize = 1<<20 - 64<<10

// MaxTransaction is the largest transaction, keys and data together, in bytes. It bounds what one write costs in memory, and
// is far above what callers come to, who batch and have to bound that themselves. Where a store can take less at once
// (ZooKeeper: about MaxSize), its adapter splits a transaction, and sees to it that a reader finds all of it or nothing.
const MaxTransaction = 64 << 20

// MaxKey is the longest key, in bytes.
const MaxKey = 1024

// Document is one stored document.
type Document struct {
	// Key is a path of one or more segments divided by slashes, without a leading one: "frameworks/0a6d-0000".
	Key string
	// Version grows with every write of this key, also over a delete, by one or more; 0 is no version: it stands for "does
	// not exist".
	Version uint64
	// Data belongs to the caller.
	Data []byte
	// Damage is set in lists alone, and is an ErrDamaged then: the document has no data, and a version that was made up, which a
	// write can name to replace what is there. Versions grow again from that write on.
	Damage error
}

// Damages joins the errors of the documents that are damaged; nil where none is.
func Damages(docs []Document) error {
	var errs []error
	for _, d := range docs {
		if d.Damage != nil {
			errs = append(errs, d.Damage)
		}
	}
	return errors.Join(errs...)
}

// DamagedVersion returns the version of a document that is damaged, made up from a number that is another one once somebody has
// replaced it. It is like no version that a store gives.
func DamagedVersion(n uint64) uint64 { return 1<<63 | n%(1<<63-1) }

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
	// Get returns ErrNotFound where there is no such document, ErrInvalid where there can't be one, ErrDamaged where it cannot
	// be read.
	Get(ctx context.Context, key string) (Document, error)
	// List returns the documents whose keys begin with prefix, in order of keys. Where some are damaged it returns all of them
	// all the same, with their Damage, beside an ErrDamaged that names them: whoever does not know what to do without them
	// fails, and does not take them for lost.
	List(ctx context.Context, prefix string) ([]Document, error)
	// Write does all of the operations or none, and returns the new versions in order (0 for a delete). It returns
	// ErrConflict when a condition does not hold, ErrTooLarge or ErrInvalid as they say; nothing was written then. Any other
	// error, that of an ended ctx above all, leaves open whether all was written or nothing. Deleting a document that does
	// not exist with Any is no error. It keeps nothing of what it is given.
	Write(ctx context.Context, ops ...Op) ([]uint64, error)
	// Close waits for what is under way. Closing again is no error.
	Close() error
}

// CheckKey returns an ErrInvalid for what is no key: segments divided by slashes, none of them empty, "." or "..", without
// control characters, MaxKey bytes at most.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKey {
		return fmt.Errorf("%w: key has %d bytes, 1 to %d are allowed", ErrInvalid, len(key), MaxKey)
	}
	if !utf8.ValidString(key) || strings.ContainsFunc(key, unicode.IsControl) {
		return fmt.Errorf("%w: key %q has a control character", ErrInvalid, key)
	}
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return fmt.Errorf("%w: key %q has the segment %q", ErrInvalid, key, segment)
		}
	}
	return nil
}

// CheckOps returns what every store refuses of a transaction, whatever it holds: ErrInvalid or ErrTooLarge.
func CheckOps(ops []Op) error {
	seen := make(map[string]bool, len(ops))
	total := 0
	for _, op := range ops {
		if err := CheckKey(op.Key); err != nil {
			return err
		}
		if seen[op.Key] {
			return fmt.Errorf("%w: key %q is written twice", ErrInvalid, op.Key)
		}
		seen[op.Key] = true
		total += len(op.Key)
		if op.Delete {
			continue
		}
		if len(op.Data) > MaxSize {
			return fmt.Errorf("%w: %q has %d bytes, %d are allowed", ErrTooLarge, op.Key, len(op.Data), MaxSize)
		}
		total += len(op.Data)
	}
	if total > MaxTransaction {
		return fmt.Errorf("%w: the transaction has %d bytes, %d are allowed", ErrTooLarge, total, MaxTransaction)
	}
	return nil
}

// Holds tells whether an operation's condition holds for the version that is stored, 0 for none.
func (op Op) Holds(stored uint64) bool { return op.Version == Any || op.Version == stored }
