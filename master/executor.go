package master

import (
	"bytes"
	"maps"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

type executorKey struct{ framework, executor string }

// executor is one that is not a command task's own. The agent's record says whether there is one and what it holds; what else
// it is, the launch or the agent's description told.
type executor struct {
	// info is nil until it is told.
	info *mesos.ExecutorInfo
	// rec is the record's entry, nil while the record does not show it: a launch is on its way, or has come to nothing.
	rec []byte
	// held is what it holds besides its tasks, allocated to role.
	held resources.Resources
	role string
}

func parseExecutorKey(key string) (executorKey, bool) {
	f, e, ok := catalog.ParseExecutorKey(key)
	return executorKey{f, e}, ok
}

// readNodeExecutors reads all executors of a record.
func (m *Master) readNodeExecutors(a *agent, s *record.Snapshot) {
	found := make(map[executorKey]bool)
	for name := range s.Prefix(catalog.PrefixExecutor) {
		if key, ok := parseExecutorKey(name); ok {
			found[key] = true
			m.readExecutor(a, s, key)
		}
	}
	for key := range a.executors {
		if !found[key] {
			m.readExecutor(a, s, key)
		}
	}
}

// readExecutor reads one executor's entry of an agent's record again.
func (m *Master) readExecutor(a *agent, s *record.Snapshot, key executorKey) {
	name := catalog.ExecutorKey(key.framework, key.executor)
	value, ok := s.Get(name)
	e := a.executors[key]
	switch {
	case ok && e != nil && bytes.Equal(e.rec, value):
		return
	case ok && m.term != nil && m.isCompleted(key.framework):
		m.endFramework(a, key.framework)
		return
	}
	rec := new(catalog.Executor)
	if ok {
		if err := proto.Unmarshal(value, rec); err != nil {
			m.unreadable(a, name, err)
			ok = false
		}
	}
	if !ok {
		if e != nil && e.rec != nil {
			e.rec = nil
			m.holdExecutor(a, key, resources.Resources{}, e.role)
			m.sweepExecutors(a)
		}
		return
	}
	if e == nil {
		e = new(executor)
		a.executors[key] = e
		m.showExecutor(a, key)
	}
	e.rec = value
	held := resources.Resources{}
	if a.unreachable.IsZero() {
		held = nodeapi.ResourcesFromCatalog(rec.GetResources())
	}
	m.holdExecutor(a, key, held, rec.GetRole())
	if e.info == nil {
		a.described = false
		m.wantDescription(a)
	}
}

// holdExecutor notes what an executor holds now.
func (m *Master) holdExecutor(a *agent, key executorKey, held resources.Resources, role string) {
	e := a.executors[key]
	m.use(a, share{key.framework, e.role}, e.held, resources.Resources{})
	e.role, e.held = role, held.AllocatedTo(role)
	m.use(a, share{key.framework, role}, resources.Resources{}, e.held)
}

// setExecutor notes what an executor of an agent is. Its tasks are shown with it from then on.
func (m *Master) setExecutor(a *agent, key executorKey, info *mesos.ExecutorInfo) {
	if e := a.executors[key]; e != nil {
		e.info = info
		return
	}
	a.executors[key] = &executor{info: info}
	m.showExecutor(a, key)
}

// showExecutor has the tasks of an executor shown anew.
func (m *Master) showExecutor(a *agent, key executorKey) {
	for k, t := range a.tasks {
		if k.framework == key.framework && t.executor == key.executor {
			m.changed(t)
		}
	}
}

// dropExecutor forgets an executor.
func (m *Master) dropExecutor(a *agent, key executorKey) {
	if a.executors[key] == nil {
		return
	}
	m.holdExecutor(a, key, resources.Resources{}, a.executors[key].role)
	delete(a.executors, key)
}

// sweepExecutors forgets the executors that the record does not show, and that no launch is about to bring.
func (m *Master) sweepExecutors(a *agent) {
	maps.DeleteFunc(a.executors, func(key executorKey, e *executor) bool {
		if e.rec != nil {
			return false
		}
		for l := range a.launches {
			if l.framework == key.framework && l.executors[key.executor] && !l.over {
				return false
			}
		}
		return true
	})
}

// refreshExecutors reads, after the answer to a launch, what it is sure to have told of executors.
func (m *Master) refreshExecutors(a *agent, l *launch) {
	if s := m.cfg.Mesh.Snapshot(a.id); s != nil {
		for id := range l.executors {
			m.readExecutor(a, s, executorKey{l.framework, id})
		}
	}
	m.sweepExecutors(a)
}

// loseExecutors notes that the executors of an agent hold nothing as long as it can't be reached.
func (m *Master) loseExecutors(a *agent) {
	for key, e := range a.executors {
		m.holdExecutor(a, key, resources.Resources{}, e.role)
	}
}

// regainExecutors takes that back.
func (m *Master) regainExecutors(a *agent) {
	s := m.cfg.Mesh.Snapshot(a.id)
	if s == nil || len(a.executors) == 0 {
		return
	}
	for _, e := range a.executors {
		if e.rec != nil {
			e.rec = []byte{} // it is read anew
		}
	}
	m.readNodeExecutors(a, s)
}
