package marathon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"starling/marathon/scheduler"
	"starling/marathon/state"
	"starling/master/store"
)

// Memory keeps the framework id outside of the store, so that a store that was emptied is told from one that is new. One that
// remembers nothing cannot tell: over an emptied store it begins anew, whatever Lost says, and those that know better but do not
// lead only warn of that. It is used by one goroutine at a time.
type Memory interface {
	// Recall returns the id that was kept, empty for none.
	Recall() (string, error)
	// Keep keeps an id in place of the last one; an empty one is forgotten.
	Keep(id string) error
}

// Settings of what is done where the store has lost the state.
const (
	// LostStop ends Run with an ErrStateLost.
	LostStop = ""
	// LostNew begins anew, as another framework: the tasks of the one that was are strangers, which the master kills when
	// their failover timeout is over.
	LostNew = "new"
)

// ErrStateLost ends Run: the store is empty, and there was a framework before.
var ErrStateLost = errors.New("the stored state is lost")

// learnEvery is how often those that do not lead look up the framework id in the store.
const learnEvery = 30 * time.Second

// memory is what this process knows of the framework whatever becomes of the store.
type memory struct {
	keeper Memory // nil: for this process' life alone
	log    *slog.Logger

	mu sync.Mutex // also held while keeper works
	id string
}

func newMemory(keeper Memory, log *slog.Logger) (*memory, error) {
	m := &memory{keeper: keeper, log: log}
	if keeper == nil {
		return m, nil
	}
	var err error
	if m.id, err = keeper.Recall(); err != nil {
		return nil, fmt.Errorf("cannot tell which framework this is: %w", err)
	}
	return m, nil
}

func (m *memory) recall() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.id
}

// keep takes note of the framework id; where that does not get to the disk, this process still knows it.
func (m *memory) keep(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id == m.id {
		return
	}
	if m.id != "" && id != "" {
		m.log.Warn("the framework is another one than it was", "framework_id", id, "former", m.id)
	}
	m.id = id
	if m.keeper == nil {
		return
	}
	if err := m.keeper.Keep(id); err != nil {
		m.log.Error("cannot keep the framework id; should the store be emptied, that will go unnoticed", "err", err)
	}
}

// noteWrites keeps the framework id that a transaction has stored.
func (m *memory) noteWrites(writes []scheduler.Write) {
	for _, w := range writes {
		if w.Kind == scheduler.KindFramework {
			m.keep(w.Key)
		}
	}
}

// learn has a Marathon among others know the framework id though it has never led, until ctx ends.
func (m *Marathon) learn(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if !m.Loaded() {
			attempt, cancel := context.WithTimeout(ctx, m.cfg.StoreTimeout)
			id, err := state.FrameworkID(attempt, m.cfg.Store)
			cancel()
			if err == nil && id != "" {
				m.memory.keep(id)
			}
		}
		timer.Reset(learnEvery/2 + rand.N(learnEvery))
	}
}

// checkLost is asked after the state was read, and tells whether it has to be read again. A store without the framework that there
// was has lost everything: to begin anew would be to become another framework, whose tasks of before nobody looks after.
func (m *Marathon) checkLost(ctx context.Context, documents store.Store, stored *scheduler.Stored) (again bool, err error) {
	before := m.memory.recall()
	switch {
	case stored.FrameworkID != "":
		m.memory.keep(stored.FrameworkID)
		return false, nil
	case before == "":
		return false, nil
	case m.cfg.Lost == LostNew:
		m.log.Warn("the stored state is lost; beginning anew, as another framework, as --lost-state says", "former", before)
		m.memory.keep("")
		return false, nil
	case m.cfg.Lost != LostStop:
		c := Carried{At: m.cfg.Now().UTC(), Restore: m.cfg.Lost}
		ops, err := m.carry(ctx, documents, Handover{Restore: m.cfg.Lost}, &c)
		if errors.Is(err, errStoreReads) {
			return false, err
		}
		if err != nil {
			return false, fmt.Errorf("%w, and can't be restored: %w", ErrStateLost, err)
		}
		if ops, err = appendCarried(ops, c); err != nil {
			return false, err
		}
		if _, err := documents.Write(ctx, ops...); err != nil {
			return false, err
		}
		m.carried.Store(&c)
		return true, nil
	default:
		return false, fmt.Errorf("%w: it knows no framework, and this was %s; its tasks are left as they are. "+
			"Bring the store back, or start with --lost-state=/path to restore a backup in %s, or with --lost-state=new to begin as another framework",
			ErrStateLost, before, m.cfg.Backups)
	}
}
