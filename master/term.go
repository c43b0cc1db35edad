package master

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/election"
	"starling/master/mesos"
	"starling/master/mesos/metrics"
	"starling/master/nodeapi"
)

// errSteppedDown ends a term from within.
var errSteppedDown = errors.New("an agent has obeyed a higher epoch")

// term is one period of leadership. Its context ends when the lease does, or when the master steps down; wg counts the
// goroutines that work under it.
type term struct {
	epoch    uint64
	holds    func() error // by the clock, see election.Term
	ctx      context.Context
	stop     context.CancelCauseFunc
	wg       sync.WaitGroup
	keeper   *keeper
	offerSeq uint64
	idSeq    uint64        // the number of the next new framework
	calls    chan struct{} // bounds the calls to agents that are under way at once
}

// maxCalls is how many calls to agents may be under way at once.
const maxCalls = 256

// start runs f under the term; the term does not end before f has returned.
func (t *term) start(f func(ctx context.Context)) {
	t.wg.Go(func() { f(t.ctx) })
}

// Leader is where the leading master is.
type Leader struct {
	Epoch    uint64
	ID       string
	Hostname string
	Address  string
	Port     int
}

// Standing is how this master stands now.
type Standing struct {
	// Leading is set once this master leads and has read its documents; Recovering is set between the two.
	Leading, Recovering bool
	// Led is set when this master has led before: it can still show what it knew.
	Led bool
	// Epoch is that of this master's term; 0 while it does not lead.
	Epoch uint64
	// Leader is the leader as far as this master knows, itself included; nil when it knows of none. Its epoch is 0 where only
	// the election tells of it.
	Leader *Leader
}

// Standing returns how this master stands now. It never waits.
func (m *Master) Standing() Standing { return *m.standing.Load() }

// Ready tells whether this master knows what the mesh says, whether it leads or not.
func (m *Master) Ready() bool { return m.follows.Load() }

// EpochFloor returns the highest epoch that anyone has heard of, as far as this master knows: in the records of the mesh, now
// or since it started, in its own terms, and in what agents refused. Whoever wins an election takes a higher one.
func (m *Master) EpochFloor() uint64 {
	return max(m.knownEpoch.Load(), HighestEpoch(m.cfg.Mesh))
}

// HighestEpoch returns the highest epoch in the records of the mesh.
func HighestEpoch(r record.Reader) uint64 {
	var highest uint64
	for s := range r.Snapshots() {
		if l := decodeLeader(s); l != nil && l.Epoch <= election.MaxHeard {
			highest = max(highest, l.Epoch)
		}
	}
	return highest
}

// heardOf remembers an epoch. A leader withdraws its claim from the mesh at the end of its term, so that nobody else may be
// left to know of it when ZooKeeper has lost the count.
func (m *Master) heardOf(epoch uint64) {
	if epoch > election.MaxHeard {
		return
	}
	for old := m.knownEpoch.Load(); epoch > old && !m.knownEpoch.CompareAndSwap(old, epoch); old = m.knownEpoch.Load() {
	}
}

// decodeLeader returns what a record says of leadership, nil where it says nothing that can be read.
func decodeLeader(s *record.Snapshot) *catalog.Leader {
	value, ok := s.Get(catalog.KeyLeader)
	if !ok {
		return nil
	}
	l := new(catalog.Leader)
	if proto.Unmarshal(value, l) != nil {
		return nil
	}
	return l
}

// lead is the whole of a term, from the view of the contender.
func (m *Master) lead(ctx context.Context, won election.Term) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	t := &term{
		epoch: won.Epoch, holds: won.Holds, ctx: ctx, stop: stop,
		offerSeq: won.Epoch * 1_000_000_000, // ids of offers are never used again, not even in another term
		calls:    make(chan struct{}, maxCalls),
	}
	log := m.log.With("epoch", won.Epoch)
	log.Debug("elected")
	m.heardOf(won.Epoch)
	m.post(func() {
		m.setStanding(func(s *Standing) { s.Recovering, s.Epoch, s.Leader = true, won.Epoch, m.self(won.Epoch) })
	})

	t.keeper = newKeeper(m.cfg.Store, log,
		func(d time.Duration) { m.post(func() { m.counters.observe(stateStore, d) }) },
		func(err error) { stop(fmt.Errorf("cannot keep documents: %w", err)) })
	if docs, err := m.recover(ctx, t); err != nil {
		stop(fmt.Errorf("cannot read documents: %w", err))
	} else {
		t.start(t.keeper.run)
		m.publishLeader(t)
		if err := m.do(ctx, func() { m.begin(t, docs) }); err != nil {
			// Others may do better. Where the term has ended meanwhile that says nothing new.
			stop(fmt.Errorf("cannot begin to lead: %w", err))
		}
		<-ctx.Done()
	}
	// Orders stop with the context, before anything else is tidied up.
	m.cfg.Mesh.Set(record.Assignment{Key: catalog.KeyLeader})
	// Waited for, as a master that stops ends its loop next: streams would stay open.
	if err := m.do(context.WithoutCancel(ctx), func() { m.end(t) }); err != nil {
		log.Error("term not ended properly", "err", err)
	}
	stop(nil)
	t.wg.Wait()
	log.Info("no longer leading", "reason", context.Cause(ctx))
	return nil
}

// recoverPatience is how long a leader tries to read its documents. Who cannot do it for so long lets another try: some of them
// are of each master's own.
const recoverPatience = time.Minute

// recover reads the documents, again and again until that succeeds, or the term or patience ends.
func (m *Master) recover(ctx context.Context, t *term) (*documents, error) {
	ctx, cancel := context.WithTimeout(ctx, recoverPatience)
	defer cancel()
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		begun := time.Now()
		docs, err := t.keeper.load(ctx, m.cfg.ID, t.epoch)
		if err == nil {
			docs.took = time.Since(begun)
			t.idSeq = docs.nextID
			return docs, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		m.log.Warn("cannot read documents, trying again", "err", err, "dur", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (m *Master) publishLeader(t *term) {
	value, err := proto.Marshal(&catalog.Leader{
		Epoch: t.epoch, Hostname: m.cfg.Hostname, Address: m.cfg.Address, Port: uint32(m.cfg.Port), MasterId: m.cfg.ID,
	})
	if err != nil {
		m.log.Error("cannot encode the leader's record", "err", err)
		return
	}
	m.cfg.Mesh.Set(record.Assignment{Key: catalog.KeyLeader, Value: value})
}

// begin starts to lead: frameworks come from documents, agents and tasks are there already.
func (m *Master) begin(t *term, docs *documents) {
	if t.ctx.Err() != nil {
		return
	}
	m.term = t
	m.elected = m.now()
	m.counters.values["registrar/state_fetch_ms"] = metrics.Milliseconds(docs.took)
	m.recoverWeights(docs.others)
	m.recoverQuota(docs.others)
	m.recoverMaintenance(docs.others)
	m.recoverRestrictions(docs.others)
	m.recoverGone(docs.others)
	m.alloc = m.newAllocator()
	m.frameworks = make(map[string]*framework)
	m.completed = nil
	m.offers = make(map[string]*offer)
	clear(m.operations)
	for _, doc := range docs.frameworks {
		m.recoverFramework(doc)
	}
	for _, a := range m.agents {
		a.reset()
		a.window, a.restriction = nil, m.restrictions[a.id]
		m.regainExecutors(a)
		m.seatAgent(a)
	}
	for _, task := range m.tasks {
		a := m.agents[task.agent]
		if a == nil {
			// The last term gave it up with its agent, which the mesh has forgotten since. Another leader knows nothing of it.
			m.remove(task)
			continue
		}
		if !task.unreachable.IsZero() {
			task.unreachable = time.Time{} // its agent, if away, is given its time anew
			task.shown = nil
			m.hold(a, task, nodeapi.ResourcesFromCatalog(task.rec.decode().GetResources()))
		}
		m.adopt(task)
	}
	m.watchDeaths()
	for _, a := range m.agents {
		m.wantDescription(a)
		m.watch(a)
	}
	m.setStanding(func(s *Standing) {
		s.Leading, s.Recovering, s.Led, s.Epoch = true, false, true, t.epoch
		s.Leader = m.self(t.epoch)
	})
	m.log.Info("leading", "epoch", t.epoch, "agents", len(m.agents), "frameworks", len(m.frameworks), "tasks", len(m.tasks))
	m.seatDecisions()
	m.told.anew = true
}

// end stops to lead: streams end, offers vanish, launches that no record shows are forgotten; the rest stays to be read.
func (m *Master) end(t *term) {
	if m.term == t {
		m.dismissAll()
		for _, f := range m.frameworks {
			f.stopTimer()
			if f.stream != nil {
				f.stream.end()
				f.dropStream()
			}
			f.connected, f.active = false, false
			clear(f.offers)
			f.look = nil
			clear(f.kills)
			clear(f.inverse)
			f.forgetAllInverse()
		}
		clear(m.offers)
		clear(m.operations)
		clear(m.inverse)
		clear(m.askAbout)
		for key, task := range m.tasks {
			if task.rec == nil && !task.gone() {
				m.forget(task)
				delete(m.tasks, key)
			}
			// No answer to its launch comes any more, and the allocator that holds what it takes ends with the term: the next one
			// has never held it.
			task.launch, task.batch = nil, nil
		}
		for _, a := range m.agents {
			a.reset()
		}
		for _, o := range m.outcasts {
			o.calling = false
		}
		m.describes.clear()
		m.probe = probe{}
		m.alloc, m.term = nil, nil
		for _, a := range m.agents {
			m.regainExecutors(a)
		}
	}
	if m.term == nil {
		m.setStanding(func(s *Standing) {
			s.Leading, s.Recovering, s.Epoch = false, false, 0
			s.Leader = m.knownLeader()
		})
	}
}

// stepDown ends the term from within, when somebody else is known to have a later one.
func (m *Master) stepDown(known uint64) {
	m.heardOf(known)
	if m.term == nil {
		return
	}
	m.log.Error("stepping down: an agent has obeyed a higher epoch", "epoch", m.term.epoch, "known", known)
	m.term.stop(errSteppedDown)
}

func (m *Master) setStanding(change func(*Standing)) {
	s := *m.standing.Load()
	change(&s)
	m.standing.Store(&s)
}

// leaderEntry is what one record claims.
type leaderEntry struct {
	leader *catalog.Leader
	alive  bool
}

// self is this master as a leader.
func (m *Master) self(epoch uint64) *Leader {
	return &Leader{Epoch: epoch, ID: m.cfg.ID, Hostname: m.cfg.Hostname, Address: m.cfg.Address, Port: m.cfg.Port}
}

// knownLeader is whom others are sent to while this master does not lead. The detector decides: it drops a dead leader, and
// has the next one, as soon as the election does. But while ZooKeeper is away it stays with what it knew. So whom the mesh
// holds for dead, or who has withdrawn its claim there, is not named; the live claim with the highest epoch in the mesh is,
// if there is one. A master that is about to lead, or has just stopped to, is nobody to be sent to yet.
func (m *Master) knownLeader() *Leader {
	if d := m.detected; d != nil {
		if d.ID == m.cfg.ID {
			return nil
		}
		l := &Leader{ID: d.ID, Hostname: d.Hostname, Address: d.Address, Port: d.Port}
		there := m.withdrawn != d.ID
		for _, e := range m.leaders {
			if e.leader.MasterId == d.ID {
				l.Epoch, there = e.leader.Epoch, there && e.alive
			}
		}
		if there {
			return l
		}
	}
	var best *catalog.Leader
	for _, e := range m.leaders {
		if e.alive && e.leader.MasterId != m.cfg.ID && (best == nil || e.leader.Epoch > best.Epoch) {
			best = e.leader
		}
	}
	if best == nil {
		return nil
	}
	return &Leader{Epoch: best.Epoch, ID: best.MasterId, Hostname: best.Hostname, Address: best.Address, Port: int(best.Port)}
}

// noteLeader takes up what a record says of leadership.
func (m *Master) noteLeader(s *record.Snapshot) {
	if l := decodeLeader(s); l != nil {
		live := s.Liveness()
		m.heardOf(l.Epoch)
		m.leaders[s.Node()] = leaderEntry{leader: l, alive: live == record.Alive || live == record.Suspect}
		if m.withdrawn == l.MasterId {
			m.withdrawn = ""
		}
	} else if old, ok := m.leaders[s.Node()]; ok {
		delete(m.leaders, s.Node())
		if m.detected != nil && m.detected.ID == old.leader.MasterId {
			m.withdrawn = m.detected.ID
		}
	}
	m.lookForLeader()
}

func (m *Master) lookForLeader() {
	if m.term != nil || m.Standing().Recovering {
		return
	}
	m.setStanding(func(s *Standing) { s.Leader = m.knownLeader() })
}

// detect brings what the detector says to the loop.
func (m *Master) detect(ctx context.Context) {
	var known *election.Candidate
	for pause := 100 * time.Millisecond; ; {
		leader, err := m.cfg.Detector.Leader(ctx, known)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			m.log.Warn("cannot tell who leads, trying again", "err", err, "dur", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			pause = min(2*pause, 5*time.Second)
			continue
		}
		pause = 100 * time.Millisecond
		known = leader
		m.post(func() {
			m.detected, m.withdrawn = leader, ""
			m.lookForLeader()
		})
	}
}

// candidate is this master as the election knows it.
func (m *Master) candidate() election.Candidate {
	return election.Candidate{
		ID: m.cfg.ID, Hostname: m.cfg.Hostname, Address: m.cfg.Address, Port: m.cfg.Port, Version: MesosVersion,
		Region: m.cfg.Region, Zone: m.cfg.Zone,
	}
}

// Info describes this master as Mesos does.
func (m *Master) Info() *mesos.MasterInfo { return m.candidate().MasterInfo() }
