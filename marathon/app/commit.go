package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Change says how a tree is to be committed.
type Change struct {
	// Now is the time of the change; versions are made of it, and never repeat.
	Now      time.Time
	Settings Settings
	// Restart names apps that count as changed though they are not.
	Restart []PathID
}

// Commit turns a tree that was edited into one that can take the place of old: service ports are assigned, apps and
// groups that changed get the version of the change, those that did not are the ones of old, and the rules for whole
// trees are applied. If nothing changed, old itself is returned. Neither tree is touched. The error is an *Invalid.
func Commit(old, edited *Group, c Change) (*Group, error) {
	work := commit{
		Change: c, version: NextVersion(c.Now, old.Version), old: old, edited: edited, restart: make(map[PathID]bool, len(c.Restart)),
	}
	for _, id := range c.Restart {
		if a := edited.Spec(id); a != nil {
			work.restart[id] = true
			again := *a
			edited = edited.WithApp(&again)
		}
	}
	work.edited = edited
	root := work.group(old, edited)
	if work.err != nil {
		return nil, work.err
	}
	if root == old {
		return old, nil
	}
	return root, root.Validate(c.Settings)
}

type commit struct {
	Change
	version     Timestamp
	old, edited *Group
	restart     map[PathID]bool
	used        map[int]bool // service ports in either tree; made when first needed
	next        int          // no port of the range below this one is free
	err         error
}

// group commits one group; old is nil for a new one.
func (c *commit) group(old, edited *Group) *Group {
	if old == edited {
		return old
	}
	before := old
	if before == nil {
		before = &Group{}
	}
	out := &Group{ID: edited.ID, Dependencies: edited.Dependencies, EnforceRole: edited.EnforceRole, Version: c.version}
	if edited.ID.Depth() == 1 && out.EnforceRole == nil {
		out.EnforceRole = before.EnforceRole
		if out.EnforceRole == nil {
			out.EnforceRole = &c.Settings.NewGroupEnforceRole
		}
	}
	if len(edited.Apps) > 0 {
		out.Apps = make(map[PathID]*App, len(edited.Apps))
	}
	for _, id := range slices.Sorted(maps.Keys(edited.Apps)) {
		out.Apps[id] = c.app(before.Apps[id], edited.Apps[id])
	}
	if len(edited.Pods) > 0 {
		out.Pods = make(map[PathID]*App, len(edited.Pods))
	}
	for _, id := range slices.Sorted(maps.Keys(edited.Pods)) {
		out.Pods[id] = c.app(before.Pods[id], edited.Pods[id])
	}
	if len(edited.Groups) > 0 {
		out.Groups = make(map[PathID]*Group, len(edited.Groups))
	}
	for _, id := range slices.Sorted(maps.Keys(edited.Groups)) {
		out.Groups[id] = c.group(before.Groups[id], edited.Groups[id])
	}
	if old != nil && sameGroup(old, out) {
		return old
	}
	return out
}

func sameGroup(a, b *Group) bool {
	return maps.Equal(a.Apps, b.Apps) && maps.Equal(a.Pods, b.Pods) && maps.Equal(a.Groups, b.Groups) && slices.Equal(a.Dependencies, b.Dependencies) &&
		(a.EnforceRole == nil) == (b.EnforceRole == nil) && (a.EnforceRole == nil || *a.EnforceRole == *b.EnforceRole)
}

// app commits one app; old is nil for a new one.
func (c *commit) app(old, edited *App) *App {
	if old == edited {
		return old
	}
	out := c.assignPorts(old, edited)
	switch {
	case old == nil:
		out.VersionInfo = VersionInfo{LastScalingAt: c.version, LastConfigChangeAt: c.version}
	case c.restart[out.ID] || !SameConfig(old, out):
		out.VersionInfo = VersionInfo{LastScalingAt: old.VersionInfo.LastScalingAt, LastConfigChangeAt: c.version}
		if old.Instances != out.Instances {
			out.VersionInfo.LastScalingAt = c.version
		}
	case old.Instances != out.Instances:
		out.VersionInfo = VersionInfo{LastScalingAt: c.version, LastConfigChangeAt: old.VersionInfo.LastConfigChangeAt}
	case !bytes.Equal(fingerprint(old), fingerprint(out)):
		out.VersionInfo = old.VersionInfo // what has changed needs no restart
	default:
		return old
	}
	out.Version = c.version
	return out
}

// SameConfig tells whether two finished definitions of an app, the older one first, differ in nothing but the number of
// instances, their versions, the order of health checks, constraints and dependencies, and what is asked for to need no
// restart. Only then are running tasks kept.
func SameConfig(a, b *App) bool {
	if a == b {
		return true
	}
	labels := b.labelsAlone()
	return bytes.Equal(fingerprint(a.quiet(labels)), fingerprint(b.quiet(labels)))
}

func fingerprint(a *App) []byte {
	plain := *a
	plain.Instances, plain.Version, plain.VersionInfo = 0, 0, VersionInfo{}
	plain.Constraints = slices.Clone(plain.Constraints)
	slices.SortFunc(plain.Constraints, func(x, y Constraint) int { return strings.Compare(x.String(), y.String()) })
	plain.Dependencies = slices.Clone(plain.Dependencies)
	slices.Sort(plain.Dependencies)
	checks := make([]string, len(plain.HealthChecks))
	for i, check := range plain.HealthChecks {
		checks[i] = string(mustJSON(check))
	}
	slices.Sort(checks)
	plain.HealthChecks = nil
	return append(mustJSON(&plain), mustJSON(checks)...)
}

// mustJSON encodes what can always be encoded: definitions have passed through JSON before. What cannot (a number that is
// infinite, put in by hand) counts as different from everything else.
func mustJSON(v any) []byte {
	encoded, err := json.Marshal(v)
	if err != nil {
		return []byte(err.Error())
	}
	return encoded
}

// assignPorts returns a copy of the app in which every port has a service port: first those that the old definition had
// in the range and the new one does not name, in order, then the lowest that no app uses.
func (c *commit) assignPorts(old, edited *App) *App {
	out := *edited
	ports := edited.ServicePorts()
	if !slices.Contains(ports, 0) {
		return &out
	}
	var reuse []int
	if old != nil {
		for _, port := range old.ServicePorts() {
			if port >= c.Settings.ServicePortMin && port <= c.Settings.ServicePortMax && !slices.Contains(ports, port) {
				reuse = append(reuse, port)
			}
		}
	}
	for i, port := range ports {
		if port != 0 {
			continue
		}
		if len(reuse) > 0 {
			ports[i], reuse = reuse[0], reuse[1:]
		} else {
			ports[i] = c.freePort()
		}
	}
	if out.HostMode() {
		out.PortDefinitions = slices.Clone(out.PortDefinitions)
		for i := range out.PortDefinitions {
			out.PortDefinitions[i].Port = ports[i]
		}
		return &out
	}
	container := *out.Container
	container.PortMappings = slices.Clone(container.PortMappings)
	for i := range container.PortMappings {
		container.PortMappings[i].ServicePort = ports[i]
	}
	out.Container = &container
	return &out
}

func (c *commit) freePort() int {
	if c.used == nil {
		c.used = make(map[int]bool)
		c.next = c.Settings.ServicePortMin
		for _, tree := range []*Group{c.old, c.edited} {
			for a := range tree.All() {
				for _, port := range a.ServicePorts() {
					c.used[port] = true
				}
			}
		}
	}
	for ; c.next <= c.Settings.ServicePortMax; c.next++ {
		if !c.used[c.next] {
			c.used[c.next] = true
			return c.next
		}
	}
	c.err = &Invalid{Message: fmt.Sprintf("All ports in the range [%d-%d) are already in use",
		c.Settings.ServicePortMin, c.Settings.ServicePortMax)}
	return 0
}
