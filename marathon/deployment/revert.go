package deployment

import (
	"slices"

	"starling/marathon/app"
)

// Revert returns the tree that undoes the plan: each app that it changed gets the definition that it had before, apps that
// it added go, apps that it removed come back, groups that it added go if nothing is left in them, and changed
// dependencies of groups are as they were. What others changed since stays. The result still has to be committed, and Diff
// of the two is the plan for the way back. Apps in suspend do not go, but are suspended.
func (p *Plan) Revert(tree *app.Group, suspend ...app.PathID) *app.Group {
	for _, c := range p.Changes {
		switch def := tree.Spec(c.ID); {
		case c.Old != nil || def == nil:
		case slices.Contains(suspend, c.ID):
			tree = tree.WithApp(def.WithInstances(0))
		default:
			tree = tree.WithoutApp(c.ID)
		}
	}
	for i := len(p.Groups) - 1; i >= 0; i-- { // children before their parents
		if g := p.Groups[i]; g.Added {
			if group := tree.Group(g.ID); group != nil && group.Empty() {
				tree = tree.WithoutGroup(g.ID)
			}
		}
	}
	for _, g := range p.Groups {
		switch group := tree.Group(g.ID); {
		case g.Added:
		case g.Removed && group == nil && tree.Spec(g.ID) == nil:
			tree = tree.WithGroup(&app.Group{ID: g.ID, Dependencies: g.Before, EnforceRole: g.EnforceRole})
		case group != nil:
			changed := *group
			changed.Dependencies = g.Before
			tree = tree.WithGroup(&changed)
		}
	}
	for _, c := range p.Changes {
		if c.Old != nil {
			if c.New != nil && c.pod() != (c.Old.Pod != nil) {
				tree = tree.WithoutApp(c.ID) // an app has become a pod, or the other way round
			}
			tree = tree.WithApp(c.Old)
		}
	}
	return tree
}
