package agent

import (
	"context"
	"errors"
	"net"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
)

// leader is who leads as far as the agent knows: from calls, which are authenticated, and from the mesh, which is a hint
// where to look. Nobody is obeyed because of it.
type leader struct {
	epoch uint64
	addr  string // "host:port"; empty for none
	// name is the hostname, where it is known.
	name string
	// called is set for one that has called under its epoch; all others are hints.
	called bool
}

// is tells whether two are the same.
func (l leader) is(other leader) bool { return l.epoch == other.epoch && l.addr == other.addr }

// heardOf takes the word of a leader. The highest epoch counts, but a call more than any hint: a record of the mesh can say
// what it likes. All updates are sent to another one at once.
func (a *Agent) heardOf(l leader) {
	switch known := a.leader; {
	case l.addr == "" || l.epoch < a.epoch.obeyed:
		return
	case l.is(known):
		if l.name != "" {
			a.leader.name = l.name
		}
		a.leader.called = known.called || l.called
		return
	case !l.called && (l.epoch < known.epoch || l.epoch == known.epoch && known.called):
		return
	}
	a.turnTo(l)
}

// turnTo reports to another leader from now on. One that has called is not forgotten because of a hint.
func (a *Agent) turnTo(l leader) {
	switch {
	case l.called:
		a.otherLeader = leader{}
	case a.leader.called:
		a.otherLeader = a.leader
	}
	resend := l.epoch != a.leader.epoch
	a.leader = l
	a.reports.reached()
	// What the last one knew of the record says nothing of what this one does.
	a.reports.version, a.reports.taken = 0, false
	if resend {
		a.streams.Resend(time.Now())
		a.made.updates.Resend(time.Now())
	}
}

// swapLeaders reports to the other one from now on.
func (a *Agent) swapLeaders() {
	a.leader, a.otherLeader = a.otherLeader, a.leader
	a.reports.version, a.reports.taken = 0, false
}

// watchLeader follows the leaders' entries in the mesh until ctx ends.
func (a *Agent) watchLeader(ctx context.Context) {
	feed := a.cfg.Mesh.Feed()
	tell := func(l leader) {
		if l.addr != "" {
			a.post(func() { a.heardOf(l) })
		}
	}
	best := func() {
		var top leader
		for s := range a.cfg.Mesh.Snapshots() {
			if l := a.leaderOf(s); l.epoch > top.epoch {
				top = l
			}
		}
		tell(top)
	}
	best()
	for {
		changes, err := feed.Next(ctx)
		switch {
		case errors.Is(err, record.ErrLagged):
			best()
		case err != nil:
			return
		}
		for _, c := range changes {
			if c.Key == catalog.KeyLeader || c.Key == "" {
				tell(a.leaderOf(c.Snapshot))
			}
		}
	}
}

// leaderOf reads the leader's entry of a node that is there.
func (a *Agent) leaderOf(s *record.Snapshot) leader {
	if s == nil || s.Liveness() == record.Dead || s.Liveness() == record.Left {
		return leader{}
	}
	value, ok := s.Get(catalog.KeyLeader)
	if !ok {
		return leader{}
	}
	var l catalog.Leader
	if err := proto.Unmarshal(value, &l); err != nil || l.GetEpoch() == 0 || l.GetPort() == 0 {
		return leader{}
	}
	return leader{
		epoch: l.GetEpoch(), addr: net.JoinHostPort(l.GetAddress(), strconv.Itoa(int(l.GetPort()))), name: l.GetHostname(),
	}
}
