// Package deployment plans how a cluster gets from one tree of definitions to the next.
//
// It is pure. Diff compares two committed trees and yields a Plan: steps that run one after the other, each with actions
// that run side by side. Whoever carries a plan out asks Restart and Scale, again and again as instances come and go, what
// to do next; they remember nothing. A plan holds the definitions before and after of whatever it changes, so that it can
// be resumed by another leader, and undone.
package deployment

import (
	"encoding/json"
	"fmt"
	"slices"

	"starling/marathon/app"
)

// Kind says what an action does. Its text is that of the API.
type Kind string

// The kinds.
const (
	// Start is a formality before a new app is scaled.
	Start   Kind = "StartApplication"
	Stop    Kind = "StopApplication"
	Scale   Kind = "ScaleApplication"
	Restart Kind = "RestartApplication"
)

// podKinds is how the API calls the kinds where a pod is concerned.
var podKinds = map[Kind]string{Start: "StartPod", Stop: "StopPod", Scale: "ScalePod", Restart: "RestartPod"}

// Action is what a step does to one app, or pod.
type Action struct {
	Kind Kind
	App  app.PathID
	// Pod tells that it is a pod.
	Pod bool
	// Kill names instances that a Scale ends first. It is kept by the store and not shown by the API.
	Kill []app.InstanceID
}

// MarshalJSON writes the form of the API.
func (a Action) MarshalJSON() ([]byte, error) {
	return json.Marshal(a.Shown())
}

// String names the action for people.
func (a Action) String() string {
	s := a.Shown()
	return fmt.Sprintf("{%s %s %v}", s.Action, a.App, a.Kill)
}

// Shown is an action in the form of the API.
type Shown struct {
	Action string     `json:"action"`
	App    app.PathID `json:"app,omitempty"`
	Pod    app.PathID `json:"pod,omitempty"`
}

// Shown returns the form of the API.
func (a Action) Shown() Shown {
	if a.Pod {
		return Shown{Action: podKinds[a.Kind], Pod: a.App}
	}
	return Shown{Action: string(a.Kind), App: a.App}
}

// Step is a set of actions that run side by side; it ends when all of them have.
type Step struct {
	Actions []Action `json:"actions"`
}

// Change is what a plan does to one app or pod: Old is nil for a new one, New for one that is removed.
type Change struct {
	ID  app.PathID `json:"id"`
	Old *app.App   `json:"old,omitempty"`
	New *app.App   `json:"new,omitempty"`
}

// GroupChange is what a plan does to one group beside its apps.
type GroupChange struct {
	ID app.PathID `json:"id"`
	// Added and Removed tell that the group is new, or gone.
	Added   bool `json:"added,omitempty"`
	Removed bool `json:"removed,omitempty"`
	// Before holds the dependencies that the group had, After those that it has now.
	Before []app.PathID `json:"before,omitempty"`
	After  []app.PathID `json:"after,omitempty"`
	// EnforceRole is that of a group that was removed.
	EnforceRole *bool `json:"enforceRole,omitempty"`
}

// Plan is a deployment. It is not changed once it was made.
type Plan struct {
	// ID is a random uuid.
	ID string
	// Version is that of the tree that the plan leads to.
	Version app.Timestamp
	Steps   []Step
	// Changes and Groups are in the order of ids.
	Changes []Change
	Groups  []GroupChange
	Origin
}

// Diff plans the way from one committed tree to another. kill names, by app, instances that scaling it down ends first;
// nil is none. A plan without steps has nothing to do.
func Diff(id string, from, to *app.Group, kill map[app.PathID][]app.InstanceID) *Plan {
	p := &Plan{ID: id, Version: to.Version, Changes: changes(from, to), Groups: groupChanges(from, to)}
	p.Steps = steps(p.Changes, to, kill)
	return p
}

func changes(from, to *app.Group) []Change {
	var out []Change
	if from == to {
		return nil
	}
	for old := range from.Specs() {
		switch updated := to.Spec(old.ID); {
		case updated == nil:
			out = append(out, Change{ID: old.ID, Old: old})
		case updated != old && updated.Version != old.Version:
			out = append(out, Change{ID: old.ID, Old: old, New: updated})
		}
	}
	for added := range to.Specs() {
		if from.Spec(added.ID) == nil {
			out = append(out, Change{ID: added.ID, New: added})
		}
	}
	slices.SortFunc(out, func(a, b Change) int { return a.ID.Compare(b.ID) })
	return out
}

func groupChanges(from, to *app.Group) []GroupChange {
	var out []GroupChange
	if from == to {
		return nil
	}
	for old := range from.AllGroups() {
		updated := to.Group(old.ID)
		switch {
		case updated == nil:
			out = append(out, GroupChange{ID: old.ID, Removed: true, Before: old.Dependencies, EnforceRole: old.EnforceRole})
		case !slices.Equal(old.Dependencies, updated.Dependencies):
			out = append(out, GroupChange{ID: old.ID, Before: old.Dependencies, After: updated.Dependencies})
		}
	}
	for added := range to.AllGroups() {
		if from.Group(added.ID) == nil {
			out = append(out, GroupChange{ID: added.ID, Added: true, After: added.Dependencies})
		}
	}
	slices.SortFunc(out, func(a, b GroupChange) int { return a.ID.Compare(b.ID) })
	return out
}

// steps are: stop what is gone, start what is new, then bring the apps to their targets, level by level of the
// dependencies in the new tree.
func steps(changes []Change, to *app.Group, kill map[app.PathID][]app.InstanceID) []Step {
	var stop, start Step
	byLevel := make(map[int]*Step)
	var levels map[app.PathID]int
	highest := 0
	for _, c := range changes {
		if c.New == nil {
			stop.Actions = append(stop.Actions, Action{Kind: Stop, App: c.ID, Pod: c.pod()})
			continue
		}
		if c.Old == nil {
			start.Actions = append(start.Actions, Action{Kind: Start, App: c.ID, Pod: c.pod()})
		}
		if levels == nil {
			levels = to.Levels()
		}
		level := levels[c.ID]
		highest = max(highest, level)
		if byLevel[level] == nil {
			byLevel[level] = new(Step)
		}
		byLevel[level].Actions = append(byLevel[level].Actions, Action{Kind: c.kind(), App: c.ID, Pod: c.pod(), Kill: kill[c.ID]})
	}
	var out []Step
	add := func(s *Step) {
		if s != nil && len(s.Actions) > 0 {
			out = append(out, *s)
		}
	}
	add(&stop)
	add(&start)
	for level := 1; level <= highest; level++ {
		add(byLevel[level])
	}
	return out
}

// pod tells whether the change is one of a pod.
func (c Change) pod() bool {
	if c.New != nil {
		return c.New.Pod != nil
	}
	return c.Old != nil && c.Old.Pod != nil
}

// kind says how an app that stays gets to its target.
func (c Change) kind() Kind {
	if c.Old == nil || c.New.Instances == 0 || c.Old.VersionInfo.LastConfigChangeAt == c.New.VersionInfo.LastConfigChangeAt {
		return Scale
	}
	return Restart
}

// Empty tells that there is nothing to do.
func (p *Plan) Empty() bool { return len(p.Steps) == 0 }

// Affected lists the apps and pods that the plan changes, in order. The slice is the caller's.
func (p *Plan) Affected() []app.PathID {
	ids := make([]app.PathID, len(p.Changes))
	for i, c := range p.Changes {
		ids[i] = c.ID
	}
	return ids
}

// Affects tells whether the plan changes the app.
func (p *Plan) Affects(id app.PathID) bool { return p.Change(id) != nil }

// Change returns what the plan does to the app, nil if nothing. It must not be modified.
func (p *Plan) Change(id app.PathID) *Change {
	i, found := slices.BinarySearchFunc(p.Changes, id, func(c Change, id app.PathID) int { return c.ID.Compare(id) })
	if !found {
		return nil
	}
	return &p.Changes[i]
}

// Conflicts returns, of the running plans, those that change an app that p changes too, in their order.
func (p *Plan) Conflicts(running []*Plan) []*Plan {
	var out []*Plan
	for _, other := range running {
		if other.ID != p.ID && slices.ContainsFunc(p.Changes, func(c Change) bool { return other.Affects(c.ID) }) {
			out = append(out, other)
		}
	}
	return out
}

// stored is the form of a plan in a store: the API's action loses who is to be killed, so it is spelled out here.
type stored struct {
	ID      string         `json:"id"`
	Version app.Timestamp  `json:"version"`
	Steps   [][]storedStep `json:"steps"`
	Changes []Change       `json:"changes,omitempty"`
	Groups  []GroupChange  `json:"groups,omitempty"`
	Origin
}

type storedStep struct {
	Kind Kind             `json:"kind"`
	App  app.PathID       `json:"app"`
	Pod  bool             `json:"pod,omitempty"`
	Kill []app.InstanceID `json:"kill,omitempty"`
}

// MarshalJSON writes everything, for a store. What the API shows is made by View.
func (p *Plan) MarshalJSON() ([]byte, error) {
	out := stored{ID: p.ID, Version: p.Version, Changes: p.Changes, Groups: p.Groups, Steps: [][]storedStep{}, Origin: p.Origin}
	for _, step := range p.Steps {
		actions := make([]storedStep, len(step.Actions))
		for i, a := range step.Actions {
			actions[i] = storedStep(a)
		}
		out.Steps = append(out.Steps, actions)
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (p *Plan) UnmarshalJSON(data []byte) error {
	var in stored
	if err := json.Unmarshal(data, &in); err != nil {
		return fmt.Errorf("cannot read a deployment: %w", err)
	}
	*p = Plan{ID: in.ID, Version: in.Version, Changes: in.Changes, Groups: in.Groups, Origin: in.Origin}
	for _, actions := range in.Steps {
		step := Step{Actions: make([]Action, len(actions))}
		for i, a := range actions {
			step.Actions[i] = Action(a)
		}
		p.Steps = append(p.Steps, step)
	}
	return nil
}
