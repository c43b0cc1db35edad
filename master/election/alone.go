package election

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"starling/master/store"
)

// epochKey is the document that counts the terms. Its format: an epochDoc as JSON.
//
// History of the format: 1, 2026-11, first version.
const (
	epochKey    = "election/epoch"
	epochFormat = 1
)

type epochDoc struct {
	Format int    `json:"format"`
	Epoch  uint64 `json:"epoch"`
}

const (
	// firstPause and lastPause are between attempts to raise the epoch, and between a term that was given up and the next.
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
	// patience is how long Alone tries to raise the epoch before it gives up.
	patience = time.Minute
	// MaxHeard is the highest epoch that is believed when it is only heard of. Records in the mesh are not proof: somebody
	// who wrote the highest number into one would otherwise end all elections.
	MaxHeard = 1 << 62
)

// Alone is the election of a single master: it leads at once, and for as long as it runs. The lease is the store, which
// only one process has open.
type Alone struct {
	// Log is told of attempts that failed; nil tells nobody. It is set before Run.
	Log *slog.Logger

	store store.Store
	heard func() uint64

	mu      sync.Mutex // guards what follows
	running bool
	leader  *Candidate
	changed chan struct{} // closed, and replaced, when leader changes
}

var (
	_ Contender = (*Alone)(nil)
	_ Detector  = (*Alone)(nil)
)

// NewAlone returns a contender without competition. It counts its terms in a document of the store, and each begins above
// what heard returns: the highest epoch that anyone is known to have heard of. So agents obey also a master whose store
// was lost. A nil heard has heard nothing.
func NewAlone(s store.Store, heard func() uint64) *Alone {
	if heard == nil {
		heard = func() uint64 { return 0 }
	}
	return &Alone{store: s, heard: heard, changed: make(chan struct{})}
}

// Run implements Contender. A lead that returns before its term ended has given it up, and gets another one with a higher
// epoch. Run fails when the epoch cannot be raised for a minute, at once when its document is unreadable: guessing could
// make an old leader's orders valid again.
func (a *Alone) Run(ctx context.Context, candidate Candidate, lead func(ctx context.Context, term Term) error) error {
	a.mu.Lock()
	if a.running {
		a.mu.Unlock()
		return errors.New("election is running already")
	}
	a.running = true
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.running = false
	}()
	for {
		epoch, err := a.raise(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		a.set(&candidate)
		err = a.term(ctx, epoch, lead)
		a.set(nil)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		// It gave up by itself; the pause keeps one that does so again and again from counting terms at full speed.
		if !sleep(ctx, firstPause) {
			return nil
		}
	}
}

// term runs lead under a context of its own, so that what lead leaves behind ends with it.
func (a *Alone) term(ctx context.Context, epoch uint64, lead func(ctx context.Context, term Term) error) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(ErrLeaseLost)
	return lead(ctx, Term{Epoch: epoch})
}

// raise writes an epoch that nobody has had or heard of, and returns it.
func (a *Alone) raise(ctx context.Context) (uint64, error) {
	give, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		epoch, err := Raise(give, a.store, a.heard(), a.Log)
		switch {
		case err == nil:
			return epoch, nil
		case errors.Is(err, ErrEpoch), errors.Is(err, store.ErrClosed):
			return 0, err
		}
		if a.Log != nil && ctx.Err() == nil {
			a.Log.Warn("epoch cannot be raised", "err", err, "dur", pause)
		}
		if !sleep(give, pause) {
			return 0, fmt.Errorf("cannot raise the epoch: %w", err)
		}
	}
}

// Leader implements Detector: the candidate while it leads.
func (a *Alone) Leader(ctx context.Context, known *Candidate) (*Candidate, error) {
	for {
		a.mu.Lock()
		leader, changed := a.leader, a.changed
		a.mu.Unlock()
		if !same(leader, known) {
			if leader != nil {
				own := *leader
				leader = &own
			}
			return leader, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (a *Alone) set(leader *Candidate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leader = leader
	close(a.changed)
	a.changed = make(chan struct{})
}

func same(x, y *Candidate) bool {
	return x == nil && y == nil || x != nil && y != nil && *x == *y
}

// ErrEpoch is returned when the document that counts the terms can't be read, or can't be counted up.
var ErrEpoch = errors.New("epoch is unusable")

// Raise takes the next epoch: one above that in the store and above the one heard of, whichever is higher. It is written
// by a conditional write, so that of two that raise it at once each gets one of its own. What was heard is a hint: a
// number that no count of terms can have reached is passed over. An error but ErrEpoch may be tried again. The log, which may
// be nil, is told of a store that has lost what it held.
func Raise(ctx context.Context, s store.Store, heard uint64, log *slog.Logger) (uint64, error) {
	if heard > MaxHeard {
		heard = 0
	}
	for {
		var version, stored uint64
		doc, err := s.Get(ctx, epochKey)
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return 0, err
		default:
			var e epochDoc
			if err := json.Unmarshal(doc.Data, &e); err != nil {
				return 0, fmt.Errorf("%w: document %q: %v", ErrEpoch, epochKey, err)
			}
			if e.Format != epochFormat {
				return 0, fmt.Errorf("%w: document %q has format %d, known is %d", ErrEpoch, epochKey, e.Format, epochFormat)
			}
			version, stored = doc.Version, e.Epoch
		}
		if stored == math.MaxUint64 {
			return 0, fmt.Errorf("%w: there is none above %d", ErrEpoch, stored)
		}
		next := max(stored, heard) + 1
		data, err := json.Marshal(epochDoc{Format: epochFormat, Epoch: next})
		if err != nil {
			return 0, err
		}
		_, err = s.Write(ctx, store.Op{Key: epochKey, Version: version, Data: data})
		if err == nil {
			if version == 0 && heard > 0 && log != nil {
				log.Warn("there were leaders before, and the store is empty: weights, quota, maintenance and agents that were gone are to be set anew",
					"epoch", next)
			}
			return next, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return 0, err
		}
	}
}

// sleep waits, and tells whether it was for all of d.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
