package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// PutDrain writes that the agent is drained; nil ends that.
func PutDrain(d *Drain) Change {
	if d == nil {
		return Change{what: fileDrain, remove: []string{fileDrain}}
	}
	return Change{what: fileDrain, puts: []put{{fileDrain, kindDrain, d}}}
}

// PutGone writes that this agent is gone for good: it ends everything, and its id is used no more.
func PutGone(agentID string) Change {
	return Change{what: fileGone, puts: []put{{fileGone, kindGone, &Gone{AgentId: agentID}}}}
}

// loadStanding reads what leaders have made of the agent.
func (s *Store) loadStanding(l *Loaded) error {
	drain, gone := &Drain{}, &Gone{}
	if ok, err := s.read(l, fileDrain, kindDrain, drain); err != nil {
		return err
	} else if ok {
		l.Drain = drain
	}
	ok, err := s.read(l, fileGone, kindGone, gone)
	if err != nil {
		return err
	}
	if !ok {
		return nil
	}
	if l.Gone = gone.AgentId == s.opts.AgentID; l.Gone {
		return nil
	}
	// The agent of that id has become this one, and was cut off while it tidied up. What it was told is not for this one.
	l.Drain = nil
	return s.forgetStanding()
}

// forgetStanding removes what was told to an agent that is gone.
func (s *Store) forgetStanding() error {
	for _, name := range []string{fileDrain, fileGone} { // in this order: the latter says that the former means nothing
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cannot remove checkpoint: %w", err)
		}
	}
	return syncDir(s.dir)
}

// Renew makes the folder that of an agent with another id, once nothing is left of the one that it belonged to. The epoch and
// the ids of tasks that ended stay. It must not run together with Commit.
func (s *Store) Renew(agentID string) error {
	mine := &Identity{AgentId: agentID, BootId: s.opts.BootID}
	if err := s.writeAll([]put{{fileIdentity, kindIdentity, mine}})[0]; err != nil {
		return fmt.Errorf("cannot write identity: %w", err)
	}
	s.opts.AgentID = agentID
	return s.forgetStanding()
}
