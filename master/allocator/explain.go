package allocator

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Reason is why a framework gets no offers for a role, or no more of them.
type Reason struct {
	// Agents is how many agents it concerns; 0 for one that concerns the framework itself.
	Agents int
	Text   string
}

// String is the reason as a sentence.
func (r Reason) String() string {
	switch r.Agents {
	case 0:
		return r.Text
	case 1:
		return "1 agent: " + r.Text
	}
	return fmt.Sprintf("%d agents: %s", r.Agents, r.Text)
}

// Explain says in words why a framework gets no offers for a role, or why it gets no more of them: one reason for the
// framework, or one for each kind of refusal, that of the most agents first. It changes nothing, and costs a look at every
// agent.
func (a *Allocator) Explain(id FrameworkID, role Role, now time.Time) []Reason {
	whole := func(format string, args ...any) []Reason { return []Reason{{Text: fmt.Sprintf(format, args...)}} }
	fw := a.frameworks[id]
	if fw == nil || !fw.known {
		return whole("framework %q is not subscribed", id)
	}
	c := fw.client(role)
	switch {
	case c == nil || !c.subscribed:
		return whole("framework %q does not subscribe to role %q", id, role)
	case !fw.active:
		return whole("framework %q is not connected or not active", id)
	case c.suppressed:
		return whole("framework %q has suppressed role %q", id, role)
	case len(a.list) == 0:
		return whole("there are no agents")
	}
	counts := make(map[string]int)
	for _, ag := range a.list {
		counts[a.why(c, ag, now)]++
	}
	reasons := make([]Reason, 0, len(counts))
	for text, n := range counts {
		reasons = append(reasons, Reason{n, text})
	}
	slices.SortFunc(reasons, func(x, y Reason) int {
		return cmp.Or(cmp.Compare(y.Agents, x.Agents), cmp.Compare(x.Text, y.Text))
	})
	return reasons
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
	case quotaReached, tooLittle:
		switch {
		case v.limited && v.kept:
			return fmt.Sprintf("the limit of role %q, or of one above it, leaves little, and the rest is kept for the guarantees of other roles", c.role)
		case v.limited:
			return fmt.Sprintf("the limit of role %q, or of one above it, is reached, or leaves less than the least that is offered", c.role)
		case v.kept:
			return "what is left is kept for the guarantees of other roles"
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
