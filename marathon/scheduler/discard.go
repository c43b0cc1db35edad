package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/task"
)

const (
	// discardLook is for how long offers are asked for that may hold what is to be released. It is looked for when that
	// begins, with each session, and with each reconciliation.
	discardLook = time.Minute
	// discardSettle is how long after its release an offer without a reservation shows that it is gone.
	discardSettle = 2 * time.Second
	// discardMisses is after how many searches what was never seen is taken not to exist: it may never have been reserved.
	// If it does, its labels still tell.
	discardMisses = 3
	// discardTrust is after what time a release is taken to have worked though no offer of that agent has come.
	discardTrust = 10 * time.Minute
	// discardMemory is for how long an agent that does not come back is remembered for its reservations.
	discardMemory = 30 * 24 * time.Hour
)

// Discard is what is reserved on an agent for an instance that is no more, or has another place: it is to be released.
// Reservations of unknown instances are released wherever they are seen; a Discard is kept so that they are looked for, and
// the framework keeps their role.
type Discard struct {
	Instance app.InstanceID `json:"instance"`
	AgentID  string         `json:"agentId"`
	Role     string         `json:"role"`
}

// Key is the key of the document.
func (d *Discard) Key() string { return d.Instance.String() + "/" + d.AgentID }

type discardKey struct {
	instance app.InstanceID
	agent    string
}

type discard struct {
	*Discard
	sent   time.Time // when it was released; zero before
	looked time.Time // since when offers are asked for; zero is from now on
	since  time.Time // when it was first looked for by this process
	// missed tells that the agent has offered something else since it was looked for last, misses how often that was so.
	missed bool
	misses int
}

// discard has an instance's reservation released.
func (s *Scheduler) discard(i *Instance) {
	d := &Discard{Instance: i.ID, AgentID: i.Reservation.AgentID, Role: i.Reservation.Role}
	s.keep(d)
	s.out.write(Write{Kind: KindDiscard, Key: d.Key(), Discard: d})
}

func (s *Scheduler) keep(d *Discard) {
	key := discardKey{d.Instance, d.AgentID}
	if s.discards[key] == nil {
		s.keepRole(d.Role, 1)
	}
	s.discards[key] = &discard{Discard: d}
}

func (s *Scheduler) dropDiscard(key discardKey) {
	d := s.discards[key]
	if d == nil {
		return
	}
	delete(s.discards, key)
	s.out.write(Write{Kind: KindDiscard, Key: d.Key()})
	s.keepRole(d.Role, -1)
}

// releaseHolding destroys the volumes of a reservation and ends it.
func (s *Scheduler) releaseHolding(now time.Time, t *table, id app.InstanceID, h task.Holding) {
	operations := task.Release(h, s.cfg.Task)
	if len(operations) == 0 {
		return
	}
	t.left.Resources = t.left.Resources.Sub(h.Resources)
	t.accept.Prepare = append(t.accept.Prepare, operations...)
	t.more = true
	if d := s.discards[discardKey{id, t.accept.AgentID}]; d != nil {
		d.sent = now
		s.timers.set(timer{at: now.Add(discardSettle), kind: timerDiscard})
	}
}

// discardsByAgent finds, once a round, what is to be released where: there may be thousands of both.
func (s *Scheduler) discardsByAgent() map[string][]discardKey {
	out := make(map[string][]discardKey)
	for key := range s.discards {
		out[key.agent] = append(out[key.agent], key)
	}
	return out
}

// settleDiscards forgets what an offer shows to be released; keys are what is to be on its agent, or was before this round.
func (s *Scheduler) settleDiscards(now time.Time, t *table, held []task.Holding, keys []discardKey) {
	if len(keys) == 0 {
		return
	}
	sortDiscards(keys)
	still := make(map[string]struct{}, len(held))
	for _, h := range held {
		still[h.Owner.Instance] = struct{}{}
	}
	role := s.offerRole(t.offer)
	for _, key := range keys {
		d := s.discards[key]
		if d == nil {
			continue
		}
		if _, there := still[d.Instance.String()]; there || d.Role != role {
			continue
		}
		switch {
		case d.sent.IsZero() && !d.missed:
			d.missed, d.misses = true, d.misses+1
		case !d.sent.IsZero() && now.Sub(d.sent) < discardSettle:
			continue
		}
		if !d.sent.IsZero() || d.misses >= discardMisses {
			s.dropDiscard(key)
		}
	}
}

// discardKeys are in order, so that a run can be replayed.
func (s *Scheduler) discardKeys() []discardKey {
	keys := slices.Collect(maps.Keys(s.discards))
	sortDiscards(keys)
	return keys
}

func sortDiscards(keys []discardKey) {
	slices.SortFunc(keys, func(a, b discardKey) int {
		return cmp.Or(cmp.Compare(a.instance.String(), b.instance.String()), cmp.Compare(a.agent, b.agent))
	})
}

// lookForDiscards has offers asked for that may hold what is to be released.
func (s *Scheduler) lookForDiscards() {
	for _, d := range s.discards {
		d.looked, d.missed = time.Time{}, false
	}
}

// askForDiscards asks for the offers that show whether what was released is gone.
func (s *Scheduler) askForDiscards() {
	for _, d := range s.discards {
		if !d.sent.IsZero() {
			s.role(d.Role).again = true
		}
	}
}

// sweepDiscards forgets what was released long ago or will not come back, and looks for the others again.
func (s *Scheduler) sweepDiscards(now time.Time) {
	for _, key := range s.discardKeys() {
		d := s.discards[key]
		if !d.sent.IsZero() && now.Sub(d.sent) > discardTrust || !d.since.IsZero() && now.Sub(d.since) > discardMemory {
			s.dropDiscard(key)
		}
	}
	s.lookForDiscards()
}

// wishReserved adds what is to be offered beyond what waiting apps need: places that nobody has seen yet or that are in
// another role than their app, and what is to be released.
func (s *Scheduler) wishReserved(now time.Time, demand wishes) {
	if len(s.keeps) == 0 {
		return
	}
	for id := range s.waiting {
		sp := s.specs[id]
		if sp.def == nil || !sp.def.Resident() {
			continue
		}
		for _, i := range sp.instances {
			if r := i.Reservation; r != nil && i.waits() && (!r.Confirmed || r.Role != s.specRole(sp)) {
				demand.want(r.Role, id, 1)
			}
		}
	}
	for _, d := range s.discards {
		if d.looked.IsZero() {
			d.looked = now
		}
		if d.since.IsZero() {
			d.since = now
		}
		if now.Sub(d.looked) < discardLook {
			demand.want(d.Role, d.Instance.App, 1)
		}
	}
}
