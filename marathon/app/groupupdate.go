package app

import (
	"math"
)

// GroupUpdate is what a user wants of a group: a structure, or a factor, or a version to go back to.
type GroupUpdate struct {
	definition groupDefinition
	// Force lets resident apps change their roles.
	Force bool
}

type groupDefinition struct {
	ID           *string            `json:"id"`
	Apps         *[]definition      `json:"apps"`
	Groups       *[]groupDefinition `json:"groups"`
	Dependencies *[]string          `json:"dependencies"`
	ScaleBy      *float64           `json:"scaleBy"`
	Version      *Timestamp         `json:"version"`
	EnforceRole  *bool              `json:"enforceRole"`
}

// ParseGroup reads a group update. The outermost group may lack its id; those inside may not. Errors are as those of
// ParseApp.
func ParseGroup(body []byte) (*GroupUpdate, error) {
	u := new(GroupUpdate)
	if err := decode(body, groupShape, &u.definition); err != nil {
		return nil, err
	}
	return u, nil
}

// ID resolves the id that the update gives itself against the one of the request; without one it is that of the request.
// The error is an *Invalid at /id.
func (u *GroupUpdate) ID(request PathID) (PathID, error) {
	if u.definition.ID == nil {
		return request, nil
	}
	id, err := ParseID(*u.definition.ID, request)
	if err != nil {
		return "", refuse("/id", "%v", err)
	}
	return id, nil
}

// alone is the text for fields that stand alone.
const alone = "not allowed in conjunction with other properties."

// Rollback returns the version that the update asks to go back to, if it does. It is refused beside other fields than id.
func (u *GroupUpdate) Rollback() (Timestamp, bool, error) {
	d := u.definition
	if d.Version == nil {
		return 0, false, nil
	}
	if d.ScaleBy != nil || d.structure() {
		return 0, false, refuse("/version", alone)
	}
	return *d.Version, true, nil
}

func (d *groupDefinition) structure() bool {
	return d.Apps != nil || d.Groups != nil || d.Dependencies != nil || d.EnforceRole != nil
}

// Apply returns the tree with the update done to the group of that id, which is made if it does not exist. Of apps,
// groups and dependencies each list that is given replaces the old one; apps in it are full definitions. With scaleBy
// every app below gets its instances multiplied, rounded up; pods are left as they are. An update that asks for a version changes nothing here. The
// error is an *Invalid. The result still has to be committed.
func (u *GroupUpdate) Apply(root *Group, id PathID, s Settings) (*Group, error) {
	d := u.definition
	f := faults{message: MessageObject}
	if d.ScaleBy != nil {
		if d.Version != nil || d.structure() {
			f.add(at("/scaleBy"), alone)
			return nil, f.err()
		}
		return root.scale(id, *d.ScaleBy)
	}
	if d.Version != nil {
		_, _, err := u.Rollback()
		return root, err
	}
	if d.EnforceRole != nil {
		d.checkEnforceRole(root.Group(id), id, nil, &f)
	}
	w := groupWork{root: root, settings: s, force: u.Force, faults: &f}
	group := w.apply(d, id, nil)
	if err := f.err(); err != nil {
		return nil, err
	}
	return root.WithGroup(group), nil
}

func (d *groupDefinition) checkEnforceRole(current *Group, id PathID, p *place, f *faults) {
	at := p.field("enforceRole")
	if id.Depth() != 1 {
		f.add(at, "only allowed for top-level groups")
		return
	}
	if current == nil {
		return
	}
	before := current.EnforceRole != nil && *current.EnforceRole
	if before != *d.EnforceRole && (d.Apps != nil || d.Groups != nil) {
		f.add(at, "may not change in a request that also changes services")
	}
}

// groupWork is one update under way. root is the tree before it, but for what roles depend on.
type groupWork struct {
	root     *Group
	settings Settings
	force    bool
	faults   *faults
}

func (w *groupWork) apply(d groupDefinition, id PathID, p *place) *Group {
	group := &Group{ID: id}
	if current := w.root.Group(id); current != nil {
		*group = *current
	}
	if d.EnforceRole != nil {
		group.EnforceRole = d.EnforceRole
		enforcing := *group
		w.root = w.root.WithGroup(&enforcing) // the roles of the apps below depend on it
	}
	if d.Dependencies != nil {
		group.Dependencies = (&definition{Dependencies: d.Dependencies}).resolveDependencies(id, p.field("dependencies"), w.faults)
	}
	if d.Apps != nil {
		group.Apps = w.apps(*d.Apps, group, p.field("apps"))
	}
	if d.Groups != nil {
		group.Groups = make(map[PathID]*Group, len(*d.Groups))
		for i, child := range *d.Groups {
			at := p.field("groups").index(i)
			childID, ok := w.childID(child.ID, id, at)
			if !ok {
				continue
			}
			if child.Version != nil {
				w.faults.add(at.field("version"), alone)
			}
			if child.ScaleBy != nil {
				w.faults.add(at.field("scaleBy"), alone)
			}
			if child.EnforceRole != nil {
				child.checkEnforceRole(w.root.Group(childID), childID, at, w.faults)
			}
			if group.Groups[childID] != nil {
				w.faults.add(at.field("id"), "Groups must have unique ids: %s", childID)
			}
			group.Groups[childID] = w.apply(child, childID, at)
		}
		w.keepPods(group)
	}
	return group
}

// keepPods brings back the pods below groups that an update does not name: it is about apps alone.
func (w *groupWork) keepPods(group *Group) {
	current := w.root.Group(group.ID)
	if current == nil {
		return
	}
	for id, child := range current.Groups {
		if group.Groups[id] == nil && child.LenPods() > 0 {
			group.Groups[id] = child.podsOnly()
		}
	}
}

// podsOnly returns the group with its pods, and those of the groups in it that have some, and no app.
func (g *Group) podsOnly() *Group {
	out := *g
	out.Apps, out.Groups = nil, nil
	for id, child := range g.Groups {
		if child.LenPods() > 0 {
			if out.Groups == nil {
				out.Groups = make(map[PathID]*Group)
			}
			out.Groups[id] = child.podsOnly()
		}
	}
	return &out
}

// childID resolves the id of a member, which must lie directly in its group.
func (w *groupWork) childID(text *string, group PathID, p *place) (PathID, bool) {
	if text == nil {
		w.faults.add(p.field("id"), codeMissing)
		return "", false
	}
	id, err := ParseID(*text, group)
	if err != nil {
		w.faults.add(p.field("id"), "%v", err)
		return "", false
	}
	if id == group || id.Parent() != group {
		w.faults.add(p.field("id"), "Identifier is not child of '%s'. Hint: use relative paths.", group)
		return "", false
	}
	return id, true
}

func (w *groupWork) apps(definitions []definition, group *Group, p *place) map[PathID]*App {
	apps := make(map[PathID]*App, len(definitions))
	for i, definition := range definitions {
		at := p.index(i)
		id, ok := w.childID(definition.ID, group.ID, at)
		if !ok {
			continue
		}
		checkID(id, *definition.ID, at, w.faults)
		if apps[id] != nil {
			w.faults.add(at.field("id"), "Applications must have unique ids: %s", id)
		}
		rules := w.root.RulesFor(id, w.settings)
		rules.Base, rules.Force = group.ID, w.force
		draft := Draft{definition: definition}
		if old := w.root.App(id); old != nil {
			apps[id] = draft.replace(old, rules, at, w.faults)
		} else {
			apps[id] = draft.create(id, rules, at, w.faults)
		}
	}
	return apps
}

// scale multiplies the instances of every app below the group.
func (g *Group) scale(id PathID, factor float64) (*Group, error) {
	group := g.Group(id)
	if group == nil {
		return g.WithGroup(&Group{ID: id}), nil
	}
	f := faults{message: MessageObject}
	scaled := group.scaled(factor, &f)
	return g.WithGroup(scaled), f.err()
}

func (g *Group) scaled(factor float64, f *faults) *Group {
	out := *g
	out.Apps = make(map[PathID]*App, len(g.Apps))
	for id, a := range g.Apps {
		instances := math.Ceil(float64(a.Instances)*factor - 1e-9)
		if a.Daemon() {
			instances = min(instances, 1) // it has one on every node, or is suspended
		}
		if instances > math.MaxInt32 {
			f.add(at("/scaleBy"), "%v times the %d instances of %s is more than an app can have", factor, a.Instances, id)
			return g
		}
		scaled := a.WithInstances(int(instances))
		scaled.checkInstances(at("/apps").field(string(id)), f)
		out.Apps[id] = scaled
	}
	out.Groups = make(map[PathID]*Group, len(g.Groups))
	for id, child := range g.Groups {
		out.Groups[id] = child.scaled(factor, f)
	}
	return &out
}

// Restored returns the tree with the group of that id as it was in an older tree. It reports false if it was not there.
func (g *Group) Restored(id PathID, older *Group) (*Group, bool) {
	group := older.Group(id)
	if group == nil {
		return g, false
	}
	return g.WithGroup(group), true
}

// WithEnforceRole returns the tree with that property of a top-level group set; other groups are refused.
func (g *Group) WithEnforceRole(id PathID, enforce bool) (*Group, error) {
	group := g.Group(id)
	if group == nil || id.Depth() != 1 {
		return nil, &Invalid{Message: "Path needs to be top-level"}
	}
	changed := *group
	changed.EnforceRole = &enforce
	return g.WithGroup(&changed), nil
}
