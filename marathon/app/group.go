package app

import (
	"encoding/json"
	"iter"
	"maps"
	"slices"
)

// Group is a node of the tree of definitions; the tree is named by its root group. It is never changed: the With methods
// return a new root that shares with the old one whatever did not change. The zero maps and slices are empty ones.
type Group struct {
	ID PathID
	// Apps, Pods and Groups hold the direct children by their absolute ids.
	Apps   map[PathID]*App
	Pods   map[PathID]*App
	Groups map[PathID]*Group
	// Dependencies name apps or groups that every app of this group waits for.
	Dependencies []PathID
	// EnforceRole is set on top-level groups only: apps below run under the role named as the group.
	EnforceRole *bool
	// Version is the time of the last change in or below this group.
	Version Timestamp
}

// EmptyRoot returns a tree without anything in it.
func EmptyRoot() *Group { return &Group{ID: Root} }

// App returns the app of that id, or nil. The receiver is the root.
func (g *Group) App(id PathID) *App {
	parent := g.Group(id.Parent())
	if parent == nil {
		return nil
	}
	return parent.Apps[id]
}

// Pod returns the pod of that id, or nil. The receiver is the root.
func (g *Group) Pod(id PathID) *App {
	parent := g.Group(id.Parent())
	if parent == nil {
		return nil
	}
	return parent.Pods[id]
}

// Spec returns the app or pod of that id, or nil. The receiver is the root.
func (g *Group) Spec(id PathID) *App {
	if a := g.App(id); a != nil {
		return a
	}
	return g.Pod(id)
}

// Group returns the group of that id, or nil; the root is found as Root. The receiver is the root.
func (g *Group) Group(id PathID) *Group {
	at := g
	for path := range id.lineage() {
		if at = at.Groups[path]; at == nil {
			return nil
		}
	}
	return at
}

// All yields every app in and below the group, in the order of ids.
func (g *Group) All() iter.Seq[*App] { return g.sorted(true, false) }

// AllPods yields every pod in and below the group, in the order of ids.
func (g *Group) AllPods() iter.Seq[*App] { return g.sorted(false, true) }

// Specs yields every app and pod in and below the group, in the order of ids.
func (g *Group) Specs() iter.Seq[*App] { return g.sorted(true, true) }

func (g *Group) sorted(apps, pods bool) iter.Seq[*App] {
	return func(yield func(*App) bool) {
		all := g.collect(make([]*App, 0, len(g.Apps)), apps, pods)
		slices.SortFunc(all, func(a, b *App) int { return a.ID.Compare(b.ID) })
		for _, a := range all {
			if !yield(a) {
				return
			}
		}
	}
}

func (g *Group) collect(all []*App, apps, pods bool) []*App {
	if apps {
		all = slices.AppendSeq(all, maps.Values(g.Apps))
	}
	if pods {
		all = slices.AppendSeq(all, maps.Values(g.Pods))
	}
	for _, child := range g.Groups {
		all = child.collect(all, apps, pods)
	}
	return all
}

// Len is the number of apps in and below the group.
func (g *Group) Len() int {
	n := len(g.Apps)
	for _, child := range g.Groups {
		n += child.Len()
	}
	return n
}

// AllGroups yields the group and every group below it, parents before children, children in the order of ids.
func (g *Group) AllGroups() iter.Seq[*Group] {
	return func(yield func(*Group) bool) { g.walk(yield) }
}

func (g *Group) walk(yield func(*Group) bool) bool {
	if !yield(g) {
		return false
	}
	for _, id := range slices.Sorted(maps.Keys(g.Groups)) {
		if !g.Groups[id].walk(yield) {
			return false
		}
	}
	return true
}

// LenPods is the number of pods in and below the group.
func (g *Group) LenPods() int {
	n := len(g.Pods)
	for _, child := range g.Groups {
		n += child.LenPods()
	}
	return n
}

// Empty tells that there is no app, no pod and no group in the group.
func (g *Group) Empty() bool { return len(g.Apps) == 0 && len(g.Pods) == 0 && len(g.Groups) == 0 }

// WithApp returns the tree with the app or pod added, or put in the place of the one of its id. Missing groups are made. An
// empty group of the app's id gives way; anything else that stands in the way is found by Validate.
func (g *Group) WithApp(a *App) *Group {
	return g.edit(a.ID.Parent(), func(parent *Group) {
		if child := parent.Groups[a.ID]; child != nil && child.Empty() {
			parent.Groups = maps.Clone(parent.Groups)
			delete(parent.Groups, a.ID)
		}
		in := &parent.Apps
		if a.Pod != nil {
			in = &parent.Pods
		}
		*in = maps.Clone(*in)
		if *in == nil {
			*in = make(map[PathID]*App, 1)
		}
		(*in)[a.ID] = a
	})
}

// WithoutApp returns the tree without the app or pod of that id; its group stays, even if it is empty now.
func (g *Group) WithoutApp(id PathID) *Group {
	if g.Spec(id) == nil {
		return g
	}
	return g.edit(id.Parent(), func(parent *Group) {
		parent.Apps, parent.Pods = maps.Clone(parent.Apps), maps.Clone(parent.Pods)
		delete(parent.Apps, id)
		delete(parent.Pods, id)
	})
}

// WithGroup returns the tree with the group, and all that is below it, put in the place of the one of its id. Missing
// parents are made. For the root it is the group itself.
func (g *Group) WithGroup(child *Group) *Group {
	if child.ID == Root {
		return child
	}
	return g.edit(child.ID.Parent(), func(parent *Group) {
		parent.Groups = maps.Clone(parent.Groups)
		if parent.Groups == nil {
			parent.Groups = make(map[PathID]*Group, 1)
		}
		parent.Groups[child.ID] = child
	})
}

// WithoutGroup returns the tree without the group and all below it; for Root an empty tree.
func (g *Group) WithoutGroup(id PathID) *Group {
	if id == Root {
		return &Group{ID: Root, Version: g.Version}
	}
	if g.Group(id) == nil {
		return g
	}
	return g.edit(id.Parent(), func(parent *Group) {
		parent.Groups = maps.Clone(parent.Groups)
		delete(parent.Groups, id)
	})
}

// edit copies the groups from the root down to id, making what is missing, and hands the last copy to change. The maps
// of a copy are still shared: change clones the one that it writes.
func (g *Group) edit(id PathID, change func(*Group)) *Group {
	root := *g
	at := &root
	for path := range id.lineage() {
		var child Group
		if old := at.Groups[path]; old != nil {
			child = *old
		} else {
			child = Group{ID: path}
		}
		at.Groups = maps.Clone(at.Groups)
		if at.Groups == nil {
			at.Groups = make(map[PathID]*Group, 1)
		}
		at.Groups[path] = &child
		at = &child
	}
	change(at)
	return &root
}

// groupJSON is the form of the API, without status.
type groupJSON struct {
	ID           PathID    `json:"id"`
	Apps         []*App    `json:"apps"`
	Pods         []podJSON `json:"pods"`
	Groups       []*Group  `json:"groups"`
	Dependencies []PathID  `json:"dependencies"`
	Version      Timestamp `json:"version"`
	EnforceRole  *bool     `json:"enforceRole,omitempty"`
}

// podJSON is a pod, or its status, in which the definition is the spec.
type podJSON struct {
	*PodDefinition
	Spec *PodDefinition `json:"spec,omitempty"`
}

// MarshalJSON writes the whole group as the API shows it, without status; UnmarshalJSON reads it back.
func (g *Group) MarshalJSON() ([]byte, error) {
	out := groupJSON{
		ID: g.ID, Apps: []*App{}, Pods: []podJSON{}, Groups: []*Group{}, Dependencies: g.Dependencies,
		Version: g.Version, EnforceRole: g.EnforceRole,
	}
	if out.Dependencies == nil {
		out.Dependencies = []PathID{}
	}
	for _, id := range slices.Sorted(maps.Keys(g.Apps)) {
		out.Apps = append(out.Apps, g.Apps[id])
	}
	for _, id := range slices.Sorted(maps.Keys(g.Pods)) {
		out.Pods = append(out.Pods, podJSON{PodDefinition: g.Pods[id].PodDefinition()})
	}
	for _, id := range slices.Sorted(maps.Keys(g.Groups)) {
		out.Groups = append(out.Groups, g.Groups[id])
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote, or the API shows. It trusts it: users' bodies go through ParseGroup.
func (g *Group) UnmarshalJSON(data []byte) error {
	var in groupJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	*g = Group{ID: in.ID, EnforceRole: in.EnforceRole, Version: in.Version}
	if len(in.Dependencies) > 0 {
		g.Dependencies = in.Dependencies
	}
	if len(in.Apps) > 0 {
		g.Apps = make(map[PathID]*App, len(in.Apps))
	}
	for _, a := range in.Apps {
		g.Apps[a.ID] = a
	}
	if len(in.Pods) > 0 {
		g.Pods = make(map[PathID]*App, len(in.Pods))
	}
	for _, one := range in.Pods {
		if one.Spec != nil {
			one.PodDefinition = one.Spec
		}
		if one.PodDefinition != nil {
			g.Pods[one.PodDefinition.ID] = one.App()
		}
	}
	if len(in.Groups) > 0 {
		g.Groups = make(map[PathID]*Group, len(in.Groups))
	}
	for _, child := range in.Groups {
		g.Groups[child.ID] = child
	}
	return nil
}
