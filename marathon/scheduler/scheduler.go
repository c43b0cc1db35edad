package scheduler

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/constraint"
	"starling/marathon/event"
	"starling/master/mesos"
)

// Scheduler is the state of one Marathon. It is owned by one goroutine at a time; reading it needs no more than that
// nobody is inside a method that changes it.
type Scheduler struct {
	cfg Config
	rng *rand.Rand
	ids *app.UUIDs

	root      *app.Group
	specs     map[app.PathID]*spec
	instances map[app.InstanceID]*Instance
	failures  map[app.PathID]*Failure
	callbacks []string // never changed in place
	// doubt is set when something that was stored could not be read: then nothing is killed for being unknown.
	doubt bool
	// restoredAt is when the state of a backup was restored, zero for never: in doubt for the same reason.
	restoredAt time.Time
	// newest is the newest moment that what was loaded tells of; firstTerm that there was no framework before this term.
	newest    time.Time
	mark      time.Time // the newest of what was given up, as Stored.Mark
	firstTerm bool

	orphans map[string]Orphan
	// orphaned counts the orphans of an instance; seen is the latest launch that an orphan was.
	orphaned  map[app.InstanceID]int
	seen      map[app.InstanceID]int
	dismissed map[string]struct{} // orphans that somebody wants to be gone
	demanded  bool                // what is done now somebody has asked for

	deployments []*running // in the order in which they began
	history     []*Ended   // of those that have ended, the newest last; never changed in place

	connected   bool
	frameworkID string
	registered  bool // a master was seen since the start
	started     time.Time

	offers     []*mesos.Offer
	waiting    map[app.PathID]struct{} // apps with waiting instances
	waits      int                     // waiting instances of all apps
	roles      map[string]*role
	names      []string // of the roles that the framework has, sorted
	launched   int      // tasks, since the start
	tokens     int
	starved    bool // tokens ran out, and have not come back in numbers worth a new round
	refreshing bool // a timer gives all tokens back

	// session is when the present session began.
	session time.Time
	// keeps counts reservations and discards by role.
	keeps    map[string]int
	discards map[discardKey]*discard

	kills  map[app.InstanceID]*kill
	killQ  []app.InstanceID // the keys of kills, oldest first
	asked  map[string]TaskRef
	asking time.Duration // pause before the next question
	// holdUntil is until when apps of whose tasks the master has not yet said anything are not launched.
	holdUntil time.Time
	health    map[app.InstanceID]*health
	agents    map[string]*agentView
	// daemons are the apps that have one instance on every node; distances is nil while nothing is known.
	daemons   map[app.PathID]struct{}
	distances Between
	lost      int // of the agents, those that can't be reached
	// returned are agents that are back, and whose tasks are yet to be asked for.
	returned map[string]struct{}
	brake    brake

	timers timers
	dirty  map[app.PathID]struct{}
	out    output
}

// spec is one app with all that exists of it. An app that was removed stays as long as instances of it do.
type spec struct {
	id app.PathID
	// def is the definition of the tree; nil when the app was removed, or when it could not be read.
	def *app.App
	// versions are the definitions that instances were launched with.
	versions map[app.Timestamp]*app.App
	// instances are in the order in which they were made.
	instances []*Instance
	backoff   backoff
	// deployment is the running deployment that this app belongs to, nil for none.
	deployment *running
	// quarantined is set when the definition could not be read: then it is left alone.
	quarantined bool
	// terminated is set once the end of the removed app's last instance was told.
	terminated bool
	waits      int       // instances that wait for an offer
	owed       int       // instances that are wanted, and not made yet since enough wait; see create
	wake       time.Time // a timer is set for the end of the backoff at this time
	queue      queue
	daemon     daemon
	numbers    numbers           // of its instances
	rules      *constraint.Rules // compiled from the constraints of rulesOf
	rulesOf    *app.App
}

// New returns a scheduler that knows nothing; Load gives it its state. All chance comes from rng.
func New(cfg Config, rng *rand.Rand) *Scheduler {
	cfg = cfg.withDefaults()
	return &Scheduler{
		cfg: cfg, rng: rng, ids: app.NewUUIDs(rng), root: app.EmptyRoot(),
		specs: make(map[app.PathID]*spec), instances: make(map[app.InstanceID]*Instance),
		failures: make(map[app.PathID]*Failure), roles: make(map[string]*role), tokens: cfg.LaunchTokens,
		waiting: make(map[app.PathID]struct{}), names: []string{cfg.Role},
		kills: make(map[app.InstanceID]*kill), asked: make(map[string]TaskRef),
		health: make(map[app.InstanceID]*health), agents: make(map[string]*agentView), returned: make(map[string]struct{}),
		keeps: make(map[string]int), discards: make(map[discardKey]*discard),
		orphaned: make(map[app.InstanceID]int), seen: make(map[app.InstanceID]int),
		orphans: make(map[string]Orphan), dismissed: make(map[string]struct{}),
		daemons: make(map[app.PathID]struct{}), dirty: make(map[app.PathID]struct{}), out: newOutput(),
	}
}

// Handle takes notice of something that has happened. What follows from it is found by the next Ready.
func (s *Scheduler) Handle(now time.Time, in Input) {
	switch in := in.(type) {
	case Subscribed:
		s.subscribed(now, in)
	case Disconnected:
		s.disconnected()
	case Offers:
		s.offers = append(s.offers, in.Offers...)
	case Rescinded:
		s.offers = slices.DeleteFunc(s.offers, func(o *mesos.Offer) bool { return o.GetId().GetValue() == in.OfferID })
	case Status:
		s.status(now, in.Status)
	case HealthResult:
		s.healthResult(now, in)
	case ReadinessResult:
		s.readinessResult(in)
	case Distances:
		s.learnDistances(in.Between)
	case Message:
		s.publish(event.FrameworkMessage{AgentID: in.AgentID, ExecutorID: in.ExecutorID, Message: in.Data})
	}
}

// Ready finds everything that has to be done by now and returns it; see Decision for what the caller owes. It is to be
// called after any Handle or request, and when Wake says so. Several inputs may be handled before one Ready.
func (s *Scheduler) Ready(now time.Time) []Decision {
	s.askReturned(now)
	s.watchBrake(now)
	for {
		t, ok := s.timers.due(now)
		if !ok {
			break
		}
		s.fire(now, t)
	}
	s.settle(now)
	s.deadlines(now)
	s.settle(now)
	s.match(now)
	s.settle(now)
	s.sendKills(now)
	s.wish(now)
	return s.out.drain()
}

// Wake is when Ready has to be called at the latest even if nothing happens; false when there is nothing to wait for.
func (s *Scheduler) Wake() (time.Time, bool) { return s.timers.next() }

func (s *Scheduler) fire(now time.Time, t timer) {
	switch t.kind {
	case timerLaunch:
		s.checkLaunch(now, t.instance)
	case timerUnreachable:
		s.checkUnreachable(now, t.instance)
	case timerScale:
		s.forgetAgents(now)
		for id := range s.specs {
			s.touch(id)
		}
		s.timers.set(timer{at: now.Add(s.cfg.ScaleInterval), kind: timerScale})
	case timerReservation:
		s.checkReservation(now, t.instance)
	case timerDiscard:
		s.askForDiscards()
	case timerDaemon:
		s.touch(t.app)
	case timerTokens:
		s.tokens, s.starved, s.refreshing = s.cfg.LaunchTokens, false, false
	case timerReconcile:
		s.reconcileAll(now)
		s.sweepDiscards(now)
		s.timers.set(timer{at: now.Add(s.cfg.ReconcileInterval), kind: timerReconcile})
	case timerAsk:
		s.askAgain(now)
	case timerKill, timerBackoff, timerRevive, timerDeadline:
		// These have only to wake Ready: sendKills, match, wish and deadlines look at the state themselves.
	}
}

// settle lets every app that something happened to come to rest: its deployment goes on, or its number is put right.
func (s *Scheduler) settle(now time.Time) {
	for len(s.dirty) > 0 {
		ids := slices.SortedFunc(maps.Keys(s.dirty), func(a, b app.PathID) int { return cmp.Compare(a, b) })
		clear(s.dirty)
		moved := make(map[*running]struct{})
		for _, id := range ids {
			if sp := s.specs[id]; sp != nil && sp.deployment != nil {
				delete(sp.deployment.ended, id)
			}
		}
		for _, id := range ids {
			sp := s.specs[id]
			switch {
			case sp == nil || sp.quarantined:
			case sp.deployment != nil:
				if _, done := moved[sp.deployment]; !done {
					moved[sp.deployment] = struct{}{}
					s.onDemand(func() { s.advance(now, sp.deployment) })
				}
			default:
				s.scale(now, sp)
			}
			if sp != nil && sp.def == nil && len(sp.instances) == 0 && sp.deployment == nil && !sp.quarantined {
				s.dropSpec(id)
			}
		}
	}
}

// dropSpec forgets an app that was removed and of which nothing is left.
func (s *Scheduler) dropSpec(id app.PathID) {
	delete(s.specs, id)
	delete(s.daemons, id)
	delete(s.failures, id)
	s.out.write(Write{Kind: KindFailure, Key: string(id)})
	s.out.write(Write{Kind: KindApp, Key: string(id)})
}

// touch has an app looked at by the next settle.
func (s *Scheduler) touch(id app.PathID) { s.dirty[id] = struct{}{} }

// spec returns the app's state, making it where there is none.
func (s *Scheduler) spec(id app.PathID) *spec {
	sp := s.specs[id]
	if sp == nil {
		sp = &spec{id: id, versions: make(map[app.Timestamp]*app.App)}
		s.specs[id] = sp
	}
	return sp
}

// definition returns what an instance was launched with, or the present definition when that is not known any more.
func (sp *spec) definition(version app.Timestamp) *app.App {
	if d := sp.versions[version]; d != nil {
		return d
	}
	return sp.def
}

// put stores a new state of an instance, which may be a new instance.
func (s *Scheduler) put(next *Instance) {
	id := next.ID
	sp := s.spec(id.App)
	old := s.instances[id]
	s.instances[id] = next
	if old == nil {
		sp.instances = append(sp.instances, next)
	} else {
		sp.instances[slices.Index(sp.instances, old)] = next
	}
	s.tally(sp, old, next)
	s.out.write(Write{Kind: KindInstance, Key: id.String(), Instance: next})
	if old == nil || old.Condition != next.Condition || old.Goal != next.Goal {
		s.publishChange(next)
	}
	s.touch(id.App)
}

// forget removes an instance for good. Its ids are never used again.
func (s *Scheduler) forget(i *Instance) {
	sp := s.spec(i.ID.App)
	sp.instances = slices.DeleteFunc(sp.instances, func(o *Instance) bool { return o.ID == i.ID })
	if i.Reservation != nil {
		s.discard(i) // before it is counted out, so that its role is kept
	}
	s.tally(sp, s.instances[i.ID], nil)
	delete(s.instances, i.ID)
	s.markForgotten(i)
	sp.daemon.asks++
	s.dropTask(i)
	s.out.write(Write{Kind: KindInstance, Key: i.ID.String()})
	sp.trimVersions()
	s.touch(i.ID.App)
}

// tally keeps the numbers that are derived from instances as one of them changes; nil is before it was there, and after.
func (s *Scheduler) tally(sp *spec, old, next *Instance) {
	s.countWaiting(sp, old, next)
	s.countReserved(old, next)
	s.countHeld(old, next)
	sp.numbers.count(old, next)
}

// countWaiting keeps the numbers of waiting instances.
func (s *Scheduler) countWaiting(sp *spec, old, next *Instance) {
	if old != nil && old.waits() {
		sp.waits--
		s.waits--
	}
	if next != nil && next.waits() {
		if sp.waits == 0 {
			sp.queue = queue{}
		}
		sp.waits++
		s.waits++
	}
	if sp.waits > 0 {
		s.waiting[sp.id] = struct{}{}
	} else {
		delete(s.waiting, sp.id)
	}
}

// dropTask forgets what belongs to the present task of an instance alone.
func (s *Scheduler) dropTask(i *Instance) {
	delete(s.kills, i.ID)
	for _, id := range i.Tasks() {
		delete(s.asked, id)
	}
	if h := s.health[i.ID]; h != nil {
		delete(s.health, i.ID)
		if h.probed {
			s.out.act(Unprobe{Instance: i.ID})
		}
	}
}

// trimVersions drops definitions that nothing was launched with.
func (sp *spec) trimVersions() {
	if len(sp.versions) <= 1 {
		return
	}
	used := make(map[app.Timestamp]struct{}, 2)
	for _, i := range sp.instances {
		used[i.Version] = struct{}{}
	}
	maps.DeleteFunc(sp.versions, func(v app.Timestamp, _ *app.App) bool {
		_, ok := used[v]
		return !ok && (sp.def == nil || sp.def.Version != v)
	})
}

// SetCallbacks replaces the URLs that events are posted to. The list must not be changed afterwards.
func (s *Scheduler) SetCallbacks(urls []string) {
	s.callbacks = urls
	s.out.write(Write{Kind: KindCallbacks, Callbacks: urls})
}

func (s *Scheduler) publish(p event.Payload) { s.out.act(Publish{Payload: p}) }

func (s *Scheduler) publishChange(i *Instance) {
	p := event.InstanceChanged{
		InstanceID: i.ID.String(), Condition: string(i.Condition), AppID: string(i.ID.App), Version: i.Version.String(),
	}
	if i.AgentID != "" {
		p.AgentID, p.Host = &i.AgentID, &i.Host
	}
	s.publish(p)
}

// output collects decisions. Writes of the same document in one round are one write, that of its last state: a document
// on disk may be ahead of the decisions behind it, never behind them.
type output struct {
	writes []Write
	index  map[writeKey]int
	acts   []Decision
}

type writeKey struct {
	kind Kind
	key  string
}

func newOutput() output { return output{index: make(map[writeKey]int)} }

func (o *output) write(w Write) {
	key := writeKey{w.Kind, w.Key}
	if i, ok := o.index[key]; ok && w.Kind != KindTree && w.Kind != KindApp { // these two depend on each other's order
		o.writes[i] = w
		return
	}
	o.index[key] = len(o.writes)
	o.writes = append(o.writes, w)
}

func (o *output) act(d Decision) { o.acts = append(o.acts, d) }

func (o *output) drain() []Decision {
	var decisions []Decision
	if len(o.writes) > 0 {
		decisions = append(decisions, Persist{Writes: o.writes})
	}
	decisions = append(decisions, o.acts...)
	*o = newOutput()
	return decisions
}
