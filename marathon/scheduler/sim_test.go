package scheduler_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/marathon/app"
	"starling/marathon/deployment"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
	"starling/marathon/state"
	"starling/master/mesos"
	call "starling/master/mesos/scheduler"
)

// sim drives a scheduler against a simulated cluster, in virtual time and in one goroutine: the same seed gives the same run.
type sim struct {
	t       testing.TB
	now     time.Time
	rng     *rand.Rand
	config  scheduler.Config
	cluster *mastertest.Cluster
	store   *mastertest.Store
	state   *state.State
	s       *scheduler.Scheduler
	runs    uint64
	roles   []string // that the session was asked for with
	plans   int
	agents  int

	// observe sees every decision before it is carried out; false is a crash just before it.
	observe func(scheduler.Decision) bool
	// tamper, if set, may change what comes from the master; cut is asked about each call to it: whether it gets there, and
	// whether the session ends with it.
	tamper func([]*call.Event) []*call.Event
	cut    func() (arrives, ends bool)
	// journal, if set, records what the scheduler is told and says.
	journal *journal
	crashed bool
	probes  map[app.InstanceID]scheduler.Probe
}

var begin = time.Date(2024, 5, 4, 10, 0, 0, 0, time.UTC)

func newSim(t testing.TB, seed uint64) *sim { return newSimOf(t, seed, scheduler.Config{}) }

func newSimOf(t testing.TB, seed uint64, config scheduler.Config) *sim {
	m := &sim{t: t, now: begin, rng: rand.New(rand.NewPCG(seed, 1)), store: mastertest.NewStore(), config: config}
	m.cluster = mastertest.New(func() time.Time { return m.now })
	m.start()
	return m
}

// start starts a scheduler on what is stored, as a new process does.
func (m *sim) start() {
	m.t.Helper()
	m.load(false)
}

func (m *sim) load(restored bool) {
	m.t.Helper()
	st, stored, err := state.Open(context.Background(), m.store, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	if stored.Doubt != restored || len(stored.Problems) > 0 {
		m.t.Fatalf("stored state is in doubt: %v", stored.Problems)
	}
	m.runs++
	seed, run := m.rng.Uint64(), m.runs
	m.state, m.s, m.crashed = st, scheduler.New(m.config, rand.New(rand.NewPCG(seed, run))), false
	m.probes = make(map[app.InstanceID]scheduler.Probe)
	m.journal.begin(m.config, seed, run)
	now := m.now
	m.tell(func(s *scheduler.Scheduler) { s.Load(now, stored) })
}

// subscribe opens a session.
func (m *sim) subscribe() {
	m.t.Helper()
	m.roles = m.s.View().Roles()
	info := &mesos.FrameworkInfo{User: proto.String("u"), Name: proto.String("marathon"), Roles: m.s.View().Roles()}
	if id := m.s.View().FrameworkID(); id != "" {
		info.Id = &mesos.FrameworkID{Value: proto.String(id)}
	}
	if err := m.cluster.Subscribe(&call.Call{
		Type: call.Call_SUBSCRIBE.Enum(), Subscribe: &call.Call_Subscribe{FrameworkInfo: info},
	}); err != nil {
		m.t.Fatal(err)
	}
}

// pump hands over events and carries out decisions until nothing happens any more at this moment.
func (m *sim) pump() {
	m.t.Helper()
	for round := 0; !m.crashed; round++ {
		if round > 10000 {
			m.t.Fatal("no end of events")
		}
		events, connected, _ := m.cluster.Events()
		if m.tamper != nil {
			events = m.tamper(events)
		}
		for _, e := range events {
			m.handle(e)
		}
		if !connected && m.s.View().Connected() {
			m.handleInput(scheduler.Disconnected{})
		}
		decisions := m.s.Ready(m.now)
		m.journal.said(m.now, decisions)
		for _, d := range decisions {
			if m.observe != nil && !m.observe(d) {
				m.crashed = true
				return
			}
			m.carryOut(d)
		}
		if len(events) == 0 && len(decisions) == 0 {
			return
		}
	}
}

// tell has the scheduler take something in.
func (m *sim) tell(do func(s *scheduler.Scheduler)) {
	do(m.s)
	m.journal.told(do)
}

func (m *sim) handleInput(in scheduler.Input) {
	now := m.now
	m.tell(func(s *scheduler.Scheduler) { s.Handle(now, in) })
}

func (m *sim) handle(e *call.Event) {
	switch e.GetType() {
	case call.Event_SUBSCRIBED:
		m.handleInput(scheduler.Subscribed{
			FrameworkID: e.GetSubscribed().GetFrameworkId().GetValue(), Master: e.GetSubscribed().GetMasterInfo().GetHostname(), Roles: m.roles,
		})
	case call.Event_OFFERS:
		m.handleInput(scheduler.Offers{Offers: e.GetOffers().GetOffers()})
	case call.Event_RESCIND:
		m.handleInput(scheduler.Rescinded{OfferID: e.GetRescind().GetOfferId().GetValue()})
	case call.Event_UPDATE:
		m.handleInput(scheduler.Status{Status: e.GetUpdate().GetStatus()})
	}
}

func (m *sim) carryOut(d scheduler.Decision) {
	m.t.Helper()
	c := &call.Call{FrameworkId: &mesos.FrameworkID{Value: proto.String(m.s.View().FrameworkID())}}
	switch d := d.(type) {
	case scheduler.Persist:
		t, err := m.state.Prepare(d.Writes)
		if err == nil {
			err = m.state.Commit(context.Background(), t)
		}
		if err != nil {
			m.t.Fatal(err)
		}
		return
	case scheduler.Accept:
		c.Type, c.Accept = call.Call_ACCEPT.Enum(), &call.Call_Accept{
			OfferIds: []*mesos.OfferID{{Value: proto.String(d.OfferID)}}, Operations: d.Operations(),
			Filters: &mesos.Filters{RefuseSeconds: proto.Float64(d.Refuse.Seconds())},
		}
	case scheduler.Decline:
		c.Type, c.Decline = call.Call_DECLINE.Enum(), &call.Call_Decline{Filters: &mesos.Filters{RefuseSeconds: proto.Float64(d.Refuse.Seconds())}}
		for _, id := range d.OfferIDs {
			c.Decline.OfferIds = append(c.Decline.OfferIds, &mesos.OfferID{Value: proto.String(id)})
		}
	case scheduler.Revive:
		c.Type, c.Revive = call.Call_REVIVE.Enum(), &call.Call_Revive{Roles: d.Roles}
	case scheduler.Suppress:
		c.Type, c.Suppress = call.Call_SUPPRESS.Enum(), &call.Call_Suppress{Roles: d.Roles}
	case scheduler.Kill:
		c.Type, c.Kill = call.Call_KILL.Enum(), &call.Call_Kill{
			TaskId: &mesos.TaskID{Value: proto.String(d.TaskID)}, AgentId: &mesos.AgentID{Value: proto.String(d.AgentID)},
		}
	case scheduler.Acknowledge:
		c.Type, c.Acknowledge = call.Call_ACKNOWLEDGE.Enum(), &call.Call_Acknowledge{
			TaskId: &mesos.TaskID{Value: proto.String(d.TaskID)}, AgentId: &mesos.AgentID{Value: proto.String(d.AgentID)}, Uuid: d.UUID,
		}
	case scheduler.Reconcile:
		c.Type, c.Reconcile = call.Call_RECONCILE.Enum(), &call.Call_Reconcile{}
		for _, task := range d.Tasks {
			c.Reconcile.Tasks = append(c.Reconcile.Tasks, &call.Call_Reconcile_Task{
				TaskId: &mesos.TaskID{Value: proto.String(task.TaskID)}, AgentId: &mesos.AgentID{Value: proto.String(task.AgentID)},
			})
		}
	case scheduler.Subscription:
		c.Type, c.UpdateFramework = call.Call_UPDATE_FRAMEWORK.Enum(), &call.Call_UpdateFramework{
			FrameworkInfo: &mesos.FrameworkInfo{User: proto.String("u"), Name: proto.String("marathon"), Roles: d.Roles},
		}
	case scheduler.Probe:
		m.probes[d.Instance.ID] = d
		return
	case scheduler.Unprobe:
		delete(m.probes, d.Instance)
		return
	default:
		return
	}
	// A call that fails is as good as lost: the session ends, and the next one begins with questions.
	if m.cut != nil {
		arrives, ends := m.cut()
		if ends {
			defer m.cluster.Disconnect()
		}
		if !arrives {
			return
		}
	}
	if err := m.cluster.Call(c); err != nil && m.s.View().Connected() {
		m.handleInput(scheduler.Disconnected{})
	}
}

// advance lets time pass, doing what becomes due on the way.
func (m *sim) advance(d time.Duration) {
	m.t.Helper()
	end := m.now.Add(d)
	for !m.crashed {
		m.pump()
		next := end
		if wake, ok := m.s.Wake(); ok && wake.Before(next) {
			next = wake
		}
		if wake := m.cluster.NextOffer(); !wake.IsZero() && wake.After(m.now) && wake.Before(next) {
			next = wake
		}
		if !next.After(m.now) && !next.Before(end) {
			return
		}
		if next.After(m.now) {
			m.now = next
		}
		m.cluster.Wake()
	}
}

// change edits the tree and begins the deployment that follows from it.
func (m *sim) change(edit func(root *app.Group) (*app.Group, error), c app.Change, force bool) (string, error) {
	old := m.s.View().Root()
	edited, err := edit(old)
	if err != nil {
		return "", err
	}
	c.Now, c.Settings = m.now, app.DefaultSettings()
	root, err := app.Commit(old, edited, c)
	if err != nil {
		return "", err
	}
	m.plans++
	id := fmt.Sprintf("deployment-%d", m.plans)
	plan := deployment.Diff(id, old, root, nil)
	now := m.now
	m.tell(func(s *scheduler.Scheduler) {
		err = s.Deploy(now, scheduler.Change{Root: root, Plan: plan, Force: force, Group: app.Root})
	})
	return id, err
}

// put creates or updates an app from its JSON.
func (m *sim) put(body string, force bool) (string, error) {
	draft, err := app.ParseUpdate([]byte(body))
	if err != nil {
		return "", err
	}
	id, err := draft.ID(app.Root)
	if err != nil {
		return "", err
	}
	return m.change(func(root *app.Group) (*app.Group, error) {
		rules := root.RulesFor(id, app.DefaultSettings())
		var a *app.App
		var err error
		if old := root.App(id); old != nil {
			a, err = draft.Update(old, rules)
		} else {
			a, err = draft.Create(id, rules)
		}
		if err != nil {
			return nil, err
		}
		return root.WithApp(a), nil
	}, app.Change{}, force)
}

func (m *sim) remove(id app.PathID, force bool) (string, error) {
	return m.change(func(root *app.Group) (*app.Group, error) { return root.WithoutApp(id), nil }, app.Change{}, force)
}

func (m *sim) restart(id app.PathID, force bool) (string, error) {
	return m.change(func(root *app.Group) (*app.Group, error) { return root, nil }, app.Change{Restart: []app.PathID{id}}, force)
}
