package allocator

// Numbers are those of one role.
type Numbers struct {
	// Filters counts pairs of a framework and an agent with refusals in force, once for each refusal.
	Filters int
	// Share is the dominant share of the role with all below it, not weighed.
	Share float64
}

// Numbers returns those of all roles that have a framework, resources, a weight or a quota.
func (a *Allocator) Numbers() map[Role]Numbers {
	out := make(map[Role]Numbers)
	for path, n := range a.nodes {
		if !n.isLeaf && n.parent != nil {
			out[path] = Numbers{Share: n.share(a)}
		}
	}
	for _, fw := range a.frameworks {
		for _, c := range fw.clients {
			n := out[c.role]
			n.Filters += c.refusals
			out[c.role] = n
		}
	}
	return out
}
