package app

import (
	"slices"
	"strings"
)

// Validate applies the rules for a whole tree; the receiver is the root. The error is an *Invalid.
func (g *Group) Validate(s Settings) error {
	f := faults{message: MessageObject}
	apps := 0
	volumes := make(map[string]PathID)
	for group := range g.AllGroups() {
		for _, id := range sortedIDs(group.Apps) {
			apps++
			if group.Groups[id] != nil {
				f.add(at("/apps").field(string(id)), "Groups and Applications may not have the same identifier.")
			}
			checkVolumeNames(group.Apps[id], volumes, &f)
		}
		for _, id := range sortedIDs(group.Pods) {
			p := at("/pods").field(string(id))
			if group.Groups[id] != nil {
				f.add(p, "Groups and Pods may not have the same identifier.")
			}
			if group.Apps[id] != nil {
				f.add(p, "Applications and Pods may not share the same id")
			}
		}
	}
	if s.MaxApps > 0 && apps > s.MaxApps {
		f.add(nil, "There are %d apps, and at most %d are allowed", apps, s.MaxApps)
	}
	if _, cycle := g.levels(); cycle != nil {
		f.add(nil, "Dependency graph has cyclic dependencies.")
		f.add(nil, "%s", strings.Join(cycle, " -> "))
	}
	return f.err()
}

// checkVolumeNames refuses an external volume that another app uses, unless it is shared. seen holds the names so far.
func checkVolumeNames(a *App, seen map[string]PathID, f *faults) {
	if a.Container == nil {
		return
	}
	for i, v := range a.Container.Volumes {
		if v.External == nil || v.External.Shared || v.External.Name == "" {
			continue
		}
		if other, taken := seen[v.External.Name]; taken && other != a.ID {
			f.add(at("/apps").field(string(a.ID)).field("container").field("volumes").index(i).field("external").field("name"),
				"External volume names must be unique: %q is used by %s", v.External.Name, other)
		}
		seen[v.External.Name] = a.ID
	}
}

func sortedIDs[V any](m map[PathID]V) []PathID {
	ids := make([]PathID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Levels returns for each app and pod the number of them on its longest path of dependencies, itself included: 1 for one that
// waits for nobody. Pods depend on what their groups depend on. Dependencies on what does not exist do not count. In a tree with a cycle, which Validate refuses,
// the apps on it get a level as if one of the arrows were not there.
func (g *Group) Levels() map[PathID]int {
	levels, _ := g.levels()
	return levels
}

// levels walks the graph of dependencies. A dependency on a group is an arrow to a node that stands for the group, and
// from there to its members, so that the number of arrows stays proportional to what users wrote.
func (g *Group) levels() (map[PathID]int, []string) {
	w := levelWalk{root: g, levels: make(map[PathID]int), groups: make(map[PathID]int), open: make(map[string]bool)}
	for a := range g.Specs() {
		w.spec(a)
	}
	return w.levels, w.cycle
}

type levelWalk struct {
	root   *Group
	levels map[PathID]int // of apps and pods
	groups map[PathID]int // of the nodes that stand for groups: the highest level below
	open   map[string]bool
	path   []string // open, in order
	cycle  []string // the first that was found
}

// enter opens a node; it reports false if that closes a cycle.
func (w *levelWalk) enter(node string) bool {
	if w.open[node] {
		if w.cycle == nil {
			w.cycle = append(slices.Clone(w.path[slices.Index(w.path, node):]), node)
		}
		return false
	}
	w.open[node] = true
	w.path = append(w.path, node)
	return true
}

func (w *levelWalk) leave(node string) {
	delete(w.open, node)
	w.path = w.path[:len(w.path)-1]
}

func (w *levelWalk) spec(a *App) int {
	if level, done := w.levels[a.ID]; done {
		return level
	}
	node := string(a.ID)
	if !w.enter(node) {
		return 0
	}
	defer w.leave(node)
	below := w.targets(a.Dependencies)
	at := w.root
	below = max(below, w.targets(at.Dependencies))
	for path := range a.ID.Parent().lineage() {
		if at = at.Groups[path]; at == nil {
			break
		}
		below = max(below, w.targets(at.Dependencies))
	}
	w.levels[a.ID] = below + 1
	return below + 1
}

func (w *levelWalk) targets(ids []PathID) int {
	highest := 0
	for _, id := range ids {
		if a := w.root.Spec(id); a != nil {
			highest = max(highest, w.spec(a))
		}
		if group := w.root.Group(id); group != nil {
			highest = max(highest, w.group(group))
		}
	}
	return highest
}

func (w *levelWalk) group(group *Group) int {
	if level, done := w.groups[group.ID]; done {
		return level
	}
	node := string(group.ID) + "/*"
	if !w.enter(node) {
		return 0
	}
	defer w.leave(node)
	highest := 0
	for _, id := range sortedIDs(group.Apps) {
		highest = max(highest, w.spec(group.Apps[id]))
	}
	for _, id := range sortedIDs(group.Pods) {
		highest = max(highest, w.spec(group.Pods[id]))
	}
	for _, id := range sortedIDs(group.Groups) {
		highest = max(highest, w.group(group.Groups[id]))
	}
	w.groups[group.ID] = highest
	return highest
}
