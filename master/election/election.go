// Package election decides which master leads, and gives each term of office a number.
//
// The epoch grows with every term, and never falls below what anyone has heard of: agents refuse orders with a lower
// one, so an old leader that still believes in itself can hurt nobody. A term is a context: whatever only a leader may
// do runs under it, and it ends, with its cause, when the lease does.
package election

import (
	"context"
	"errors"
)

// ErrLeaseLost is the cause of a term that ended because the lease did.
var ErrLeaseLost = errors.New("leadership lease lost")

// Candidate is what a contender publishes of itself.
type Candidate struct {
	// ID is the Mesos master id.
	ID string
	// Hostname, Address (an IP, text form) and Port are where the HTTP API is reached.
	Hostname string
	Address  string
	Port     int
	// Version is that of Mesos whose interfaces are served, shown to tools.
	Version string
	// Region and Zone are where the master stands; both may be empty.
	Region, Zone string
}

// Term is one period of leadership.
type Term struct {
	Epoch uint64
	// Lease tells by the clock whether the lease holds, as an error where it does not; nil stands for one that can't run out.
	Lease func() error
}

// Holds returns nil while the lease holds, by the clock: ErrLeaseLost from the moment on at which it has run out. The context
// of a term ends by a timer; a process that was frozen runs on for a moment before its timers do. So whoever is about to give
// an order asks here last.
func (t Term) Holds() error {
	if t.Lease == nil {
		return nil
	}
	return t.Lease()
}

// Contender stands for election.
type Contender interface {
	// Run stands for election until ctx ends, again after each lost term. While this candidate leads, it runs lead under
	// a context that ends with the lease (its cause is ErrLeaseLost then), and does not contend again before lead has
	// returned. A lead that returns nil before that gives its term up: this candidate stands again, for a higher epoch. Run
	// returns nil when ctx ended, and an error when contending is impossible, or when lead returned one while its term held.
	Run(ctx context.Context, candidate Candidate, lead func(ctx context.Context, term Term) error) error
}

// Detector tells who leads. A master that contends learns of the others by it; frameworks use it to find the master.
type Detector interface {
	// Leader waits until the leader differs from the one given (nil: none known), and returns it; nil when there is none.
	Leader(ctx context.Context, known *Candidate) (*Candidate, error)
}
