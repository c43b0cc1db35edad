// Package record is a replicated map of single-writer records, without network, goroutines or a clock of its own.
//
// The model is that of Scuttlebutt (van Renesse, Dumitriu, Gough, Thomas: Efficient Reconciliation and Flow Control for
// Anti-Entropy Protocols, 2008): each node owns one record, a map of keys to values in which every change takes the next
// version of that record. Everyone else holds copies. A copy is merged key by key, and the higher version wins; since
// there is only one writer, that is all the conflict resolution there is.
//
// What is particular here:
//
//   - A record has a generation, which its owner raises at every start. A higher generation replaces all of a lower one;
//     the lower one stays readable until the beginning of the higher one has arrived, so that a restart does not make
//     a node's keys blink.
//   - Every entry on the wire says which versions it covers: those since an older one that nothing live holds any
//     more. So deltas may arrive in any order, split or repeated; the contiguous version, which digests tell, moves only
//     over versions that are covered.
//   - A deleted key leaves a tombstone. Its owner drops old tombstones and raises the floor: a copy that is
//     older than the floor cannot be brought up to date by a delta and gets the whole record.
//   - Values are opaque, and keys that a reader does not know are kept and passed on.
//
// The format may grow without a new version of it: by keys, by fields of values, and by the extensions of the header and of entries,
// which nodes that do not know them keep and pass on. Flags and the version byte are for changes that an older node must not
// misread: it refuses the one delta, counts it, and goes on with all else from the same sender. So whoever wrote a new
// version to older nodes would not be heard by them. The rule is to read first and to write later: a release reads a
// new version at least two releases before any release writes it, as members of three successive releases may be in one
// mesh. Nothing is negotiated; key "node" of each record names its node's release, for people to see who is behind.
//
// A Map is safe for concurrent use; readers take immutable snapshots, or follow a Feed. Bad input is refused as a
// whole, with an error that wraps ErrFormat, ErrVersion or ErrLimit, and changes nothing.
package record

import (
	"errors"
	"iter"
)

// MaxGeneration is the highest generation that is accepted. Nobody gets there by starting anew.
const MaxGeneration = 1 << 62

// Liveness is what this node thinks of another one. It is an opinion, not a part of the record, and is not replicated.
type Liveness uint8

// The values of Liveness.
const (
	// Unknown is a node of which only the record is known (heard of from others, or read from disk).
	Unknown Liveness = iota
	// Alive is a node that answers.
	Alive
	// Suspect is a node that did not answer somebody, and has not objected yet.
	Suspect
	// Dead is a node that was given up.
	Dead
	// Left is a node that said goodbye.
	Left
)

// String returns the word for it, in lower case.
func (l Liveness) String() string {
	switch l {
	case Alive:
		return "alive"
	case Suspect:
		return "suspect"
	case Dead:
		return "dead"
	case Left:
		return "left"
	default:
		return "unknown"
	}
}

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
// its generation changed, many of its keys changed at once, or it was reaped): read all of it again.
type Change struct {
	Node string
	Key  string
	// Value is nil where the key was deleted. It must not be modified.
	Value []byte
	// Snapshot is the newest record at the time of reading, nil once the node is reaped. It may already hold changes
	// that the feed has yet to tell.
	Snapshot *Snapshot
}

// Assignment is one change that a node makes to its own record. A nil Value deletes the key; an empty one does not.
type Assignment struct {
	Key   string
	Value []byte
}

// Errors that callers may test for.
var (
	// ErrLagged is returned by Feed.Next when the reader fell further behind than the bounded history of changes
	// reaches: it has to read the snapshots again, and may then go on with the same feed.
	ErrLagged = errors.New("reader lags behind the feed")
	// ErrFormat is wrapped by the error for bytes that are not what they should be.
	ErrFormat = errors.New("malformed record")
	// ErrVersion is wrapped by the error for bytes of a format that this software does not know.
	ErrVersion = errors.New("unknown version of the record format")
	// ErrLimit is wrapped by the error for keys, values or records beyond the limits.
	ErrLimit = errors.New("record exceeds its limits")
)

// Limits bound what a record may hold, and all of them together. They have to be the same on all nodes: a record that its owner accepts
// and others refuse would never converge.
type Limits struct {
	// Keys is the number of keys of one record, tombstones included. Default 16,384.
	Keys int
	// KeySize is the length of a key in bytes. Default 1,024.
	KeySize int
	// ValueSize is the length of a value in bytes. Default 64 KiB.
	ValueSize int
	// RecordSize is the sum of the lengths of all keys and values of one record. Default 8 MiB.
	RecordSize int
	// Nodes is the number of records that are held. Default 65,536. Half of it is kept free for nodes that are known to be alive, so
	// that names which somebody made up push nobody out.
	Nodes int
	// Total is the memory that all copies may take together, in bytes, roughly. Default 256 MiB. Half of it is kept free for
	// nodes that are, or were, known to be alive. What is held stays; beyond the limit, copies do not grow.
	Total int
	// Tombstones is the number of deleted keys that an owner remembers before it raises its floor. Default 1,024.
	Tombstones int
	// Changes is the length of the history that feeds read from. Default 8,192.
	Changes int
}

// maxName bounds the length of a node's name.
const maxName = 255

// DefaultLimits returns the limits that all nodes use.
func DefaultLimits() Limits {
	return Limits{
		Keys: 16384, KeySize: 1024, ValueSize: 64 << 10, RecordSize: 8 << 20,
		Nodes: 65536, Total: 256 << 20, Tombstones: 1024, Changes: 8192,
	}
}
