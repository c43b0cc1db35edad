package record

import (
	"iter"
	"strings"
	"time"
)

// Snapshot is one state of one node's record. It never changes, and is cheap to keep.
type Snapshot struct {
	node       string
	generation uint64
	version    uint64
	floor      uint64
	liveness   Liveness
	since      time.Time
	updated    time.Time
	table      table
}

// Node returns the name of the record's owner.
func (s *Snapshot) Node() string { return s.node }

// Generation returns which start of its owner wrote the record; 0 where nothing but the node's name is known.
func (s *Snapshot) Generation() uint64 { return s.generation }

// Version returns the version up to which the copy is complete. It may hold newer entries too, which arrived early.
func (s *Snapshot) Version() uint64 { return s.version }

// Liveness returns what this node thinks of the owner.
func (s *Snapshot) Liveness() Liveness { return s.liveness }

// Since returns when Liveness last changed, by the clock of this node.
func (s *Snapshot) Since() time.Time { return s.since }

// Updated returns when the newest news of the record arrived here, by the clock of this node; zero where nothing but the name is known.
// Of the own record it is when it was last changed.
func (s *Snapshot) Updated() time.Time { return s.updated }

// Len returns the number of keys, without deleted ones.
func (s *Snapshot) Len() int { return s.table.live }

// Size returns the sum of the lengths of keys and values in bytes, tombstones included.
func (s *Snapshot) Size() int { return s.table.bytes }

// Get returns the value of a key, which must not be modified.
func (s *Snapshot) Get(key string) ([]byte, bool) {
	it := s.table.get(key)
	if it == nil || it.deleted {
		return nil, false
	}
	return it.value, true
}

// All iterates over keys and values in order of keys. Values must not be modified.
func (s *Snapshot) All() iter.Seq2[string, []byte] { return s.Prefix("") }

// Prefix iterates over the keys that begin with prefix, and their values, in order of keys. Values must not be modified.
func (s *Snapshot) Prefix(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		s.table.ascend(prefix, func(it *item) bool {
			if !strings.HasPrefix(it.key, prefix) {
				return false
			}
			return it.deleted || yield(it.key, it.value)
		})
	}
}
