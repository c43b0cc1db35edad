package marathon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"time"

	"starling/master/election"
)

// abdicationDelay is between the answer to whoever asks for an abdication and the abdication: the answer has to get there.
const abdicationDelay = 500 * time.Millisecond

// mostSuperseded is how often in a row a leader takes its framework back from another scheduler that uses its id.
const mostSuperseded = 3

// Standing is what a Marathon is among those that share its state.
type Standing struct {
	// Alone is set where there are no others.
	Alone bool
	// Leads is set while this one leads and has loaded the state.
	Leads bool
	// Leader is the host:port of the one that leads, as far as is known; empty where none is, or where it is not ready.
	Leader string
	// Clash is set while another one leads that goes by the address of this one: nobody can tell them apart.
	Clash bool
}

// Standing tells who leads.
func (m *Marathon) Standing() Standing {
	s := Standing{Alone: m.office == nil, Leads: m.Loaded()}
	switch {
	case s.Leads:
		s.Leader = m.cfg.Address
	case s.Alone:
	default:
		leader := m.office.leader()
		switch {
		case leader == nil || leader.ID == m.cfg.Candidate.ID:
		case identity(leader) == m.cfg.Address:
			s.Clash = true
		default:
			s.Leader = identity(leader)
		}
	}
	return s
}

// tellLeader writes down who leads by now.
func tellLeader(log *slog.Logger, cfg *Config, leader *election.Candidate) {
	switch {
	case leader == nil:
		log.Info("nobody leads")
	case leader.ID != cfg.Candidate.ID && identity(leader) == cfg.Address:
		log.Error("another one goes by the address of this one; give each a hostname and port of its own", "addr", cfg.Address)
	default:
		log.Info("leader found", "addr", identity(leader))
	}
}

// identity is the host:port that a candidate goes by.
func identity(c *election.Candidate) string {
	return net.JoinHostPort(c.Hostname, strconv.Itoa(c.Port))
}

// stand holds office for as long as ctx lasts: leads at once and again where there are no others, else stands for election
// and leads whenever it is elected. The error says why going on would do harm.
func (m *Marathon) stand(ctx context.Context) error {
	if m.cfg.Contender != nil {
		return m.cfg.Contender.Run(ctx, m.cfg.Candidate, m.lead)
	}
	for ctx.Err() == nil {
		if err := m.lead(ctx, election.Term{}); err != nil {
			return err
		}
	}
	return nil
}

// lead leads until ctx ends, as it does with the lease, or until this Marathon gives leadership up: that is no error. Nothing
// of it is left in memory then, and whoever listened to events is told to look for another leader.
func (m *Marathon) lead(ctx context.Context, won election.Term) error {
	defer m.events.Drop()
	pause := newPause(m.cfg)
	superseded := 0 // times in a row
	for {
		begun := time.Now()
		err := m.term(ctx, won)
		if time.Since(begun) > goodTerm {
			pause.reset()
			superseded = 0
		}
		switch {
		case ctx.Err() != nil:
			if errors.Is(context.Cause(ctx), election.ErrLeaseLost) {
				m.log.Warn("leadership lost; tasks are left as they are", "epoch", won.Epoch)
			}
			return nil
		case errors.Is(err, errAbdicated):
			m.log.Info("leadership given up", "epoch", won.Epoch)
			return nil
		case errors.Is(err, errFenced):
			m.log.Warn("another one leads; tasks are left as they are", "epoch", won.Epoch, "err", err)
			return nil
		case errors.Is(err, ErrSuperseded) && m.office != nil && superseded < mostSuperseded:
			// It may be the last leader, awake again for a moment: who holds the lease and the fence is right. If it is somebody
			// else, who does not ask for either, to go on for ever would be a war.
			superseded++
			if won.Holds() != nil {
				m.log.Warn("another one leads; tasks are left as they are", "epoch", won.Epoch, "err", err)
				return nil
			}
			m.log.Warn("another one has subscribed as this framework though leadership lasts; subscribing again", "epoch", won.Epoch)
		case errors.Is(err, ErrNotStored):
			m.log.Error("the store refuses what was decided; beginning again from what is stored", "err", err)
		default:
			return err
		}
		if !pause.wait(ctx) {
			return nil
		}
	}
}

// farewell ends the term some time after it was asked to.
func (m *Marathon) farewell(ctx context.Context, asked <-chan struct{}) {
	select {
	case <-asked:
	case <-ctx.Done():
		return
	}
	timer := time.NewTimer(abdicationDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
		m.enter(ctx, func(time.Time) { m.failed = errAbdicated })
	case <-ctx.Done():
	}
}
