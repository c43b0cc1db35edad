package master

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	"starling/master/mesos"
)

// The documents "gone/<n>", n from 0 to 63, are goneDocs: the ids of agents that are gone for good, by a hash of the id. There
// may be too many of them for one document.
//
// History of the format: 1, 2026-11, first version.
const (
	prefixGone  = "gone/"
	goneBuckets = 64
	// maxGone is how many ids are remembered; the oldest go first.
	maxGone = 100_000
)

type goneDoc struct {
	Format int `json:"format"`
	// Agents holds when each was marked, in Unix seconds.
	Agents map[string]int64 `json:"agents"`
}

// goneAgents are the agents that operators have marked gone. Their ids are refused for ever.
type goneAgents struct {
	buckets [goneBuckets]map[string]int64
	// faults are why a document cannot be replaced, nil for those that can.
	faults [goneBuckets]error
	count  int
	// marking are those whose document is not safe yet.
	marking map[string]bool
	// most is maxGone, but for tests.
	most int
}

func goneBucket(id string) int {
	h := fnv.New32a()
	h.Write([]byte(id))
	return int(h.Sum32() % goneBuckets)
}

// has tells whether an agent is known to be gone, and will be known to every later leader.
func (g *goneAgents) has(id string) bool {
	_, ok := g.buckets[goneBucket(id)][id]
	return ok && !g.marking[id]
}

// add notes an id, forgets the oldest where there are too many, and returns which documents changed, and what takes that back.
func (g *goneAgents) add(id string, now int64) (changed []int, undo func()) {
	bucket := goneBucket(id)
	changed = []int{bucket}
	forgotten, since := "", int64(0)
	if g.count >= g.most {
		if oldest, ok := g.oldest(); ok {
			from := goneBucket(oldest)
			forgotten, since = oldest, g.buckets[from][oldest]
			delete(g.buckets[from], oldest)
			g.count--
			if from != bucket {
				changed = append(changed, from)
			}
		}
	}
	if g.buckets[bucket] == nil {
		g.buckets[bucket] = make(map[string]int64)
	}
	g.buckets[bucket][id] = now
	g.count++
	return changed, func() {
		delete(g.buckets[bucket], id)
		g.count--
		if forgotten != "" {
			g.buckets[goneBucket(forgotten)][forgotten] = since
			g.count++
		}
	}
}

// oldest returns the id that was marked first, of those whose documents can be replaced.
func (g *goneAgents) oldest() (id string, ok bool) {
	var since int64
	for i, bucket := range g.buckets {
		if g.faults[i] != nil {
			continue
		}
		for other, at := range bucket {
			if !g.marking[other] && (!ok || at < since || at == since && other < id) {
				id, since, ok = other, at, true
			}
		}
	}
	return id, ok
}

// recoverGone takes the ids that earlier leaders kept.
func (m *Master) recoverGone(others map[string][]byte) {
	m.gone = goneAgents{marking: make(map[string]bool), most: maxGone}
	for key, data := range others {
		name, ok := strings.CutPrefix(key, prefixGone)
		if !ok {
			continue
		}
		bucket, err := strconv.Atoi(name)
		if err != nil || bucket < 0 || bucket >= goneBuckets {
			m.log.Error("document is unreadable, left alone", "key", key, "err", err)
			continue
		}
		doc := new(goneDoc)
		if err = json.Unmarshal(data, doc); err == nil && doc.Format != docFormat {
			err = fmt.Errorf("format %d is not known", doc.Format)
		}
		if err != nil {
			m.gone.faults[bucket] = unreadable(key, err)
			m.log.Error("document is unreadable, its agents are not known to be gone", "key", key, "err", err)
			continue
		}
		m.gone.buckets[bucket] = doc.Agents
		m.gone.count += len(doc.Agents)
	}
}

// MarkAgentGone gives up an agent for ever: its tasks are told to be gone, the agent ends them as soon as it can be reached, and
// its id is refused from then on. Marking one that is marked already is no error. The error may be a Refusal.
func (m *Master) MarkAgentGone(ctx context.Context, id string) error {
	return m.commitThen(ctx, func() ([]keptDoc, func(), error) {
		switch {
		case m.gone.marking[id]:
			return nil, nil, refuse(Unavailable, "Agent '%s' is currently being marked gone", id)
		case m.gone.has(id):
			return nil, nil, nil
		case m.agents[id] == nil && m.outcasts[id] == nil && !m.remembered(id):
			return nil, nil, refuse(NotFound, "Agent '%s' not found", id)
		}
		return m.markGone(id)
	})
}

// remembered tells whether an agent that the mesh has forgotten is known by tasks that were given up with it, or because an
// operator has restricted it.
func (m *Master) remembered(id string) bool {
	if _, freed := m.freed[id]; freed || m.restrictions[id] != nil {
		return true
	}
	for _, t := range m.tasks {
		if t.agent == id {
			return true
		}
	}
	return false
}

// markGone returns what has to be kept for an agent to be gone, and what follows from that once it is safe.
func (m *Master) markGone(id string) ([]keptDoc, func(), error) {
	if err := m.gone.faults[goneBucket(id)]; err != nil {
		return nil, nil, err
	}
	var docs []keptDoc
	changed, undo := m.gone.add(id, m.now().Unix())
	for _, bucket := range changed {
		doc, err := encodeDoc(prefixGone+strconv.Itoa(bucket), goneDoc{Format: docFormat, Agents: m.gone.buckets[bucket]})
		if err != nil {
			undo()
			return nil, nil, err
		}
		docs = append(docs, doc)
	}
	_, freed := m.freed[id]
	if r := m.restrictions[id]; freed || r != nil && r.fault == nil {
		docs = append(docs, keptDoc{key: prefixAgents + id})
	}
	m.gone.marking[id] = true
	if a := m.agents[id]; a != nil {
		a.marked = true
		m.rescindAgent(a)
		m.seatAgent(a)
	}
	return docs, func() {
		delete(m.gone.marking, id)
		delete(m.restrictions, id)
		delete(m.freed, id)
		m.log.Warn("agent is gone for good", "agent_id", id)
		if a := m.agents[id]; a != nil {
			m.removeAgent(a, goneByOperator)
		} else {
			m.removeTasks(id)
			m.releaseKills(id)
		}
		if s := m.cfg.Mesh.Snapshot(id); s != nil {
			m.readNode(s) // to tell it
		}
	}, nil
}

// removeTasks ends the tasks of an agent that is gone for good, those too that were given up with it when the mesh had forgotten
// it: these are on the list of their framework alone.
func (m *Master) removeTasks(id string) {
	for _, t := range m.tasks {
		if t.agent == id {
			m.taskRemoved(t, goneByOperator)
		}
	}
}

// goneState is what tasks of an agent that is gone for good are told to be.
func (f *framework) goneState() (mesos.TaskState, mesos.TaskStatus_Reason) {
	if f.partitionAware() {
		return mesos.TaskState_TASK_GONE_BY_OPERATOR, mesos.TaskStatus_REASON_AGENT_REMOVED_BY_OPERATOR
	}
	return mesos.TaskState_TASK_LOST, mesos.TaskStatus_REASON_AGENT_REMOVED
}
