package master

import (
	"context"
	"slices"
	"time"

	"starling/master/allocator"
)

// Explanation says why a framework gets no offers for a role, or no more of them.
type Explanation struct {
	Role    string
	Reasons []allocator.Reason
}

// Explain says for each role of a framework, in order, why no more is offered to it at this moment; for one role alone where
// one is given. The error may be a Refusal.
func (m *Master) Explain(ctx context.Context, framework, role string) ([]Explanation, error) {
	var out []Explanation
	var err error
	if e := m.look(ctx, func() {
		f := m.frameworks[framework]
		switch {
		case m.term == nil:
			err = m.notLeading()
			return
		case f == nil:
			err = refuse(NotFound, "No framework found with specified ID")
			return
		}
		roles := []string{role}
		if role == "" {
			roles = slices.Sorted(slices.Values(f.roles))
		}
		now := time.Now()
		for _, r := range roles {
			out = append(out, Explanation{r, m.alloc.Explain(f.id, r, now)})
		}
	}); e != nil {
		return nil, e
	}
	return out, err
}
