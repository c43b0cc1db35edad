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
	ends := make(map[string]time.Time) // of the first filter
	for _, ag := range a.list {
		text, filter := a.why(c, ag)
		counts[text]++
		if first, has := ends[text]; filter != nil && (!has || filter.until.Before(first)) {
			ends[text] = filter.until
		}
	}
	reasons := make([]Reason, 0, len(counts))
	for text, n := range counts {
		if end, has := ends[text]; has {
			text = fmt.Sprintf("%s, for another %v", text, max(end.Sub(now), 0).Round(time.Millisecond))
			if n > 1 {
				text += " or more"
			}
		}
		reasons = append(reasons, Reason{n, text})
	}
	slices.SortFunc(reasons, func(x, y Reason) int {
		return cmp.Or(cmp.Compare(y.Agents, x.Agents), cmp.Compare(x.Text, y.Text))
	})
	return reasons
}

// why says of one agent why a client is not offered it now, with the filter where there is one.
func (a *Allocator) why(c *client, ag *agent) (string, *filter) {
	if _, ok := ag.offers[c]; ok {
		return "it holds an offer", nil
	}
	_, v := a.peek(c, ag)
	switch v.reason {
	case inactive:
		return "deactivated, draining or unreachable", nil
	case farRegion:
		return "in another region than the master, and the framework is not REGION_AWARE", nil
	case gpuWanted:
		return "has GPUs, and the framework has not the capability GPU_RESOURCES", nil
	case notAdmitted:
		return "excluded by the framework's offer constraints", nil
	case nothing:
		return "nothing is available, all is used or offered", nil
	case notForRole:
		return fmt.Sprintf("what is available is not for role %q and the framework's capabilities", c.role), nil
	case quotaReached, tooLittle:
		switch {
		case v.limited && v.kept:
			return fmt.Sprintf("the limit of role %q, or of one above it, leaves little, and the rest is kept for the guarantees of other roles", c.role), nil
		case v.limited:
			return fmt.Sprintf("the limit of role %q, or of one above it, is reached, or leaves less than the least that is offered", c.role), nil
		case v.kept:
			return "what is left is kept for the guarantees of other roles", nil
		}
		return "less is available than the least that is offered, " + alternatives(c.min), nil
	case refused:
		if v.limited || v.kept {
			return "the framework declined what quotas leave of it", v.filter
		}
		return "the framework declined it", v.filter
	}
	if ag.queued || c.eager || a.all {
		return "to be offered next", nil
	}
	return "may be offered, but is not", nil // a fault of Allocate: Check reports it too
}

func alternatives(qs []Quantities) string {
	out := make([]string, len(qs))
	for i, q := range qs {
		out[i] = q.String()
	}
	return strings.Join(out, " or ")
}
