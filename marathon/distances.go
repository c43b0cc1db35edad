package marathon

import (
	"context"
	"time"

	"starling/marathon/scheduler"
)

const (
	// distancesEvery is how old what is known of distances gets, and distancesNeeded how often is looked whether an app asks for them.
	distancesEvery  = 10 * time.Second
	distancesNeeded = time.Second
	// distancesTimeout bounds one question.
	distancesTimeout = 5 * time.Second
)

// Distances asks the master at host:port how far nodes are from each other.
type Distances func(ctx context.Context, master string) (scheduler.Between, error)

// measure keeps the core informed of distances while a session lasts, and while there is an app that asks for them. What was known
// before stays known when the master does not answer.
func (m *Marathon) measure(ctx context.Context, master string) {
	ticker := time.NewTicker(distancesNeeded)
	defer ticker.Stop()
	var asked time.Time
	failed := false
	for {
		if now := time.Now(); now.Sub(asked) >= distancesEvery && m.needsDistances() {
			asked = now
			between, err := m.distances(ctx, master)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil && !failed:
				m.log.Warn("the master does not tell how far nodes are from each other, which an app wants to know", "addr", master, "err", err)
			case err == nil:
				m.enter(ctx, func(now time.Time) { m.core.Handle(now, scheduler.Distances{Between: between}) })
			}
			failed = err != nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (m *Marathon) distances(ctx context.Context, master string) (scheduler.Between, error) {
	ctx, cancel := context.WithTimeout(ctx, distancesTimeout)
	defer cancel()
	return m.cfg.Distances(ctx, master)
}

func (m *Marathon) needsDistances() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.core != nil && m.core.View().NeedsDistances()
}
