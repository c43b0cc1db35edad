package dns

import (
	"fmt"

	"starling/gossip/catalog"
)

// Health says which tasks are answered for, by what their health checks say.
type Health int

// The kinds of Health.
const (
	// HealthPassing leaves out tasks with a health check that have not passed it yet, or fail now. It is the default. Where that would leave
	// nothing of a name, its tasks that were healthy once are answered: aged hope beats none.
	HealthPassing Health = iota
	// HealthNotFailing leaves out those that fail now, and all of them come back where nothing else is left of a name.
	HealthNotFailing
	// HealthOff looks at nothing but the state, as Mesos-DNS does.
	HealthOff
)

// String returns the word that ParseHealth reads.
func (h Health) String() string {
	switch h {
	case HealthPassing:
		return "passing"
	case HealthNotFailing:
		return "not-failing"
	case HealthOff:
		return "off"
	default:
		return fmt.Sprintf("Health(%d)", int(h))
	}
}

// ParseHealth reads the word for a Health.
func ParseHealth(word string) (Health, error) {
	for h := HealthPassing; h <= HealthOff; h++ {
		if h.String() == word {
			return h, nil
		}
	}
	return 0, fmt.Errorf("%q is none of passing, not-failing and off", word)
}

// tier is how good a task is. The best tier that a name has any task of is answered, and no other.
type tier uint8

const (
	// tierLive tasks run on a live node, and their health is in order.
	tierLive tier = iota
	// tierSick tasks run on a live node, and fail.
	tierSick
	// tierLost tasks ran on a node that is out of sight, as all others are, or that said goodbye a moment ago.
	tierLost
	// tierNone tasks are never answered for.
	tierNone
)

// taskRunning is the number of mesos.v1.TASK_RUNNING: only tasks in this state have names.
const taskRunning = 1

// tierOf judges a task of a live node.
func (h Health) tierOf(t *catalog.Task) tier {
	switch {
	case t.GetState() != taskRunning:
		return tierNone
	case h == HealthOff || t.Healthy == nil && !t.GetChecked() || t.GetHealthy():
		return tierLive
	case h == HealthNotFailing && t.Healthy == nil:
		return tierLive
	case h == HealthNotFailing || t.GetWasHealthy():
		return tierSick
	}
	return tierNone
}

// group is the tasks of one name, running ones alone.
type group struct {
	name    string
	members []*running
	counts  [tierNone]int
	// shown is the tier that is answered now.
	shown tier
}

// best is the tier that should be answered.
func (g *group) best() tier {
	for t := range tierNone {
		if g.counts[t] > 0 {
			return t
		}
	}
	return tierLive
}

func (g *group) add(t *running) {
	t.index = len(g.members)
	g.members = append(g.members, t)
	g.counts[t.tier]++
}

func (g *group) remove(t *running) {
	last := len(g.members) - 1
	g.members[t.index], g.members[last].index = g.members[last], t.index
	g.members[last] = nil
	g.members = g.members[:last]
	g.counts[t.tier]--
}
