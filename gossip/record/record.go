// Package record is a replicated map of single-writer records, without network, goroutines or a clock of its own.
//
// The model is that of Scuttlebutt (van Renesse, Dumitriu, Gough, Thomas: Efficient Reconciliation and Flow Control for
// Anti-Entropy Protocols, 2008): each node owns one record, a map of keys to values in which every change takes the next
// version of that record. Everyone else holds copies. A copy is merged key by key, and the higher version wins; since
// there is only one writer, that is all the conflict resolution there is.
package record

import (
	"context"
	"errors"
	"iter"
	"time"
)

// Liveness is what this node thinks of another one. It is an opinion, not a part of the record, and is not replicated.
type Liveness uint8

// The values of Liveness.
const (
	// Unknown is a node of which only the record is known (heard of from others, or read from disk).
	Unknown Liveness = iota
	Alive
	Suspect
	Dead
	Left
)

// Reader is what the users of the mesh see of it. All methods may be called from any goroutine.
type Reader interface {
	// Snapshot returns the newest copy of a node's record, or nil where none is held.
	Snapshot(node string) *Snapshot
	// Snapshots iterates over the newest copies of all records held, in order of node names.
	Snapshots() iter.Seq[*Snapshot]
	// Feed returns a new feed of changes that begins now: take it first, then read the snapshots, then follow it.
	// It needs no closing; a feed that is dropped costs nothing.
	Feed() *Feed
}

// Change tells that something about a node changed. With an empty Key the node as a whole did (it is new, its liveness or
// its generation changed, or it was reaped): read all of it again.
type Change struct {
	Node string
	Key  string
	// Value is nil where the key was deleted. It must not be modified.
	Value []byte
	// Snapshot is the record after the change, nil once the node is reaped.
	Snapshot *Snapshot
}

// Assignment is one change that a node makes to its own record. A nil Value deletes the key.
type Assignment struct {
	Key   string
	Value []byte
}

// ErrLagged is returned by Feed.Next when the reader fell further behind than the bounded history of changes reaches:
// it has to read the snapshots again, and may then go on with the same feed.
var ErrLagged = errors.New("reader lags behind the feed")

var (
	_ = time.Time{}
	_ = context.Canceled
)
