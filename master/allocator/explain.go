package allocator

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Explain says in words why a framework gets no offers for a role, or why it gets no more of them: one sentence for the
// framework, or one for each kind of refusal with the number of agents that it concerns, the most frequent first. It
// changes nothing, and costs a look at every agent.
func (a *Allocator) Explain(id FrameworkID, role Role, now time.Time) string {
	fw := a.frameworks[id]
	if fw == nil || !fw.known {
		return fmt.Sprintf("framework %q is not subscribed", id)
	}
	c := fw.client(role)
	switch {
	case c == nil || !c.subscribed:
		return fmt.Sprintf("framework %q does not subscribe to role %q", id, role)
	case !fw.active:
		return fmt.Sprintf("framework %q is not connected or not active", id)
	case c.suppressed:
		return fmt.Sprintf("framework %q has suppressed role %q", id, role)
	case len(a.list) == 0:
		return "there are no agents"
	}
	counts := make(map[string]int)
	for _, ag := range a.list {
		counts[a.why(c, ag, now)]++
	}
	lines := make([]string, 0, len(counts))
	for why := range counts {
		lines = append(lines, why)
	}
	slices.SortFunc(lines, func(x, y string) int {
		if d := counts[y] - counts[x]; d != 0 {
			return d
		}
		return strings.Compare(x, y)
	})
	for i, why := range lines {
		noun := "agents"
		if counts[why] == 1 {
			noun = "agent"
		}
		lines[i] = fmt.Sprintf("%d %s: %s", counts[why], noun, why)
	}
	return strings.Join(lines, "\n")
}

// why says of one agent why a client is not offered it now.
func (a *Allocator) why(c *client, ag *agent, now time.Time) string {
	if _, ok := ag.offers[c]; ok {
		return "it holds an offer"
	}
	_, v := a.peek(c, ag)
	switch v.reason {
	case inactive:
		return "deactivated, draining or unreachable"
	case farRegion:
		return "in another region than the master, and the framework is not REGION_AWARE"
	case gpuWanted:
		return "has GPUs, and the framework has not the capability GPU_RESOURCES"
	case notAdmitted:
		return "excluded by the framework's offer constraints"
	case nothing:
		return "nothing is available, all is used or offered"
	case notForRole:
		return fmt.Sprintf("what is available is not for role %q and the framework's capabilities", c.role)
	case quotaReached:
		return "the quota of the role is reached, or the rest is kept for the guarantees of others"
	case tooLittle:
		if v.bound {
			return "too little is left by the quota of the role, or by the guarantees of others"
		}
		return "less is available than the least that is offered, " + alternatives(c.min)
	case refused:
		left := max(v.filter.until.Sub(now), 0).Round(time.Millisecond)
		return fmt.Sprintf("the framework declined it, for another %v", left)
	}
	if ag.queued || c.eager || a.all {
		return "to be offered next"
	}
	return "may be offered, but is not" // a fault of Allocate: Check reports it too
}

func alternatives(qs []Quantities) string {
	out := make([]string, len(qs))
	for i, q := range qs {
		out[i] = q.String()
	}
	return strings.Join(out, " or ")
}
