package state

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"starling/marathon/app"
	"starling/marathon/deployment"
	"starling/marathon/scheduler"
	"starling/master/store"
)

// loading is the work of Open.
type loading struct {
	*State
	out         *scheduler.Stored
	current     *currentDocument
	trees       map[app.Timestamp]store.Document
	definitions map[used]store.Document
	parsed      map[used]*app.App
	plans       []planDocument
}

func (s *State) load(documents []store.Document) (*scheduler.Stored, error) {
	l := &loading{
		State: s, out: &scheduler.Stored{}, trees: make(map[app.Timestamp]store.Document),
		definitions: make(map[used]store.Document), parsed: make(map[used]*app.App),
	}
	for _, d := range documents {
		if err := l.document(d); err != nil {
			return nil, err
		}
	}
	for _, versions := range s.versions {
		slices.Sort(versions)
	}
	slices.Sort(s.trees)
	// What waits for its launch belongs to no framework yet: it may have been wanted before the first master was seen.
	launched := 0
	for _, i := range l.out.Instances {
		if i.Condition.Active() {
			launched++
		}
	}
	if launched > 0 && l.out.FrameworkID == "" {
		return nil, fmt.Errorf("%w: %d instances", ErrNoFramework, launched)
	}
	if err := l.tree(); err != nil {
		return nil, err
	}
	l.instanceDefinitions()
	l.deployments()
	return l.out, nil
}

// mark takes over a moment of Stored.Mark: the newest counts.
func (l *loading) mark(at time.Time) {
	if at.After(l.out.Mark) {
		l.out.Mark = at
	}
}

// document sorts one document in. Only what nothing makes sense without is an error.
func (l *loading) document(d store.Document) error {
	key := strings.TrimPrefix(d.Key, prefix)
	kind, rest, _ := strings.Cut(key, "/")
	switch kind + "/" {
	case framework[len(prefix):] + "/":
		var f frameworkDocument
		if err := json.Unmarshal(d.Data, &f); err != nil || f.ID == "" {
			return fmt.Errorf("%w: %s: no framework id in it", ErrDamaged, d.Key)
		}
		l.out.FrameworkID = f.ID
		l.mark(f.Mark)
	case current[len(prefix):] + "/":
		l.current = new(currentDocument)
		if err := json.Unmarshal(d.Data, l.current); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrDamaged, d.Key, err)
		}
		if l.current.Format != format {
			return fmt.Errorf("%w: it has format %d, and this program knows %d", ErrFormat, l.current.Format, format)
		}
	case callbacks[len(prefix):] + "/":
		var c callbacksDocument
		if err := json.Unmarshal(d.Data, &c); err != nil {
			// Whoever wants events subscribes anew; no task is in doubt.
			l.out.Problems = append(l.out.Problems, fmt.Sprintf("%s can't be read: %v", d.Key, err))
		}
		l.out.Callbacks = c.URLs
	case trees[len(prefix):]:
		v, err := parseStamp(rest)
		if err != nil {
			l.problem(d.Key, err)
			return nil
		}
		l.trees[v] = d
		l.State.trees = append(l.State.trees, v)
	case apps[len(prefix):]:
		id, v, err := parseAppKey(rest)
		if err != nil {
			l.problem(d.Key, err)
			return nil
		}
		l.definitions[used{id, v}] = d
		l.versions[id] = append(l.versions[id], v)
	case instances[len(prefix):]:
		l.instance(d, rest)
	case discards[len(prefix):]:
		discard := new(scheduler.Discard)
		if err := json.Unmarshal(d.Data, discard); err != nil || discard.Key() != rest {
			// What is not known to be released is found by its labels.
			l.out.Problems = append(l.out.Problems, fmt.Sprintf("%s can't be read: %v", d.Key, err))
			return nil
		}
		l.out.Discards = append(l.out.Discards, discard)
	case Restored[len(prefix):] + "/":
		// That it is there is enough of a doubt, whatever it says.
		var r restoredDocument
		if err := json.Unmarshal(d.Data, &r); err != nil {
			l.out.Problems = append(l.out.Problems, fmt.Sprintf("%s can't be read: %v", d.Key, err))
		}
		l.out.Doubt, l.out.Restored, l.out.RestoredAt = true, true, r.At
	case Settled[len(prefix):] + "/":
		var r restoredDocument
		if err := json.Unmarshal(d.Data, &r); err != nil {
			// Without it more is left alone.
			l.out.Problems = append(l.out.Problems, fmt.Sprintf("%s can't be read: %v", d.Key, err))
		}
		l.mark(r.At)
	case plans[len(prefix):]:
		var p planDocument
		if err := json.Unmarshal(d.Data, &p); err != nil || p.Plan == nil || p.Plan.ID != rest {
			l.problem(d.Key, fmt.Errorf("no deployment in it: %v", err))
			return nil
		}
		l.plans = append(l.plans, p)
	case failures[len(prefix):]:
		f := new(scheduler.Failure)
		if err := json.Unmarshal(d.Data, f); err != nil || f.App.Safe() != rest {
			// The last failure is for people; nothing is decided by it.
			l.out.Problems = append(l.out.Problems, fmt.Sprintf("%s can't be read: %v", d.Key, err))
			return nil
		}
		l.out.Failures = append(l.out.Failures, f)
	case history[len(prefix):]:
		one := new(scheduler.Ended)
		if err := json.Unmarshal(d.Data, one); err != nil || one.ID != rest {
			// What is over is for people, too.
			l.out.Problems = append(l.out.Problems, fmt.Sprintf("%s can't be read: %v", d.Key, err))
			return nil
		}
		l.out.History = append(l.out.History, one)
	default:
		l.problem(d.Key, fmt.Errorf("no such kind of document"))
	}
	return nil
}

// problem notes a document that can't be read. What it told is not known: that is a doubt.
func (l *loading) problem(key string, err error) {
	l.out.Doubt = true
	l.out.Problems = append(l.out.Problems, fmt.Sprintf("%s can't be read: %v", key, err))
}

func (l *loading) instance(d store.Document, key string) {
	i := new(scheduler.Instance)
	if err := json.Unmarshal(d.Data, i); err != nil {
		l.problem(d.Key, err)
		return
	}
	known := i.Goal == scheduler.GoalRunning || i.Goal == scheduler.GoalDecommissioned || i.Goal == scheduler.GoalStopped && i.Reservation != nil
	if i.ID.String() != key || !known || i.Condition == "" || (i.Condition.Active() && i.TaskID == "") {
		l.problem(d.Key, fmt.Errorf("no instance in it that makes sense"))
		return
	}
	l.out.Instances = append(l.out.Instances, i)
	l.use(key, used{i.ID.App, i.Version})
}

// tree puts the present tree together.
func (l *loading) tree() error {
	if l.current == nil {
		if len(l.out.Instances) > 0 || len(l.definitions) > 0 {
			return fmt.Errorf("%w: there are definitions or instances, and no %s", ErrDamaged, current)
		}
		l.out.Root = app.EmptyRoot()
		return nil
	}
	document, ok := l.trees[l.current.Version]
	if !ok {
		return fmt.Errorf("%w: no tree of version %s", ErrDamaged, l.current.Version)
	}
	var d treeDocument
	if err := json.Unmarshal(document.Data, &d); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, document.Key, err)
	}
	if d.Version != l.current.Version {
		// It reads, and is not what was written: with nothing in it, all that runs would be surplus.
		return fmt.Errorf("%w: %s says that it is version %s", ErrDamaged, document.Key, d.Version)
	}
	var missing []app.PathID
	l.out.Root, missing = d.tree(l.definition)
	l.present = l.current.Version
	for _, id := range missing {
		l.out.Quarantined = append(l.out.Quarantined, id)
		l.out.Problems = append(l.out.Problems, fmt.Sprintf("the definition of %s, version %s, can't be read", id, d.Apps[id]))
	}
	return nil
}

// definition reads one version of an app, once; nil where it can't be read.
func (l *loading) definition(id app.PathID, v app.Timestamp) *app.App {
	key := used{id, v}
	if a, ok := l.parsed[key]; ok {
		return a
	}
	var out *app.App
	if d, ok := l.definitions[key]; ok {
		a := new(app.App)
		if err := json.Unmarshal(d.Data, a); err == nil && a.ID == id && a.Version == v && a.Instances >= 0 {
			out = a
		}
	}
	l.parsed[key] = out
	return out
}

// instanceDefinitions collects what instances were launched with.
func (l *loading) instanceDefinitions() {
	for u := range l.uses {
		a := l.definition(u.app, u.version)
		if a != nil && l.out.Root.Spec(u.app) != a {
			l.out.Definitions = append(l.out.Definitions, a)
		}
	}
	slices.SortFunc(l.out.Definitions, func(a, b *app.App) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Version, b.Version))
	})
}

// deployments puts the deployments together. One whose definitions are not all there can't be resumed.
func (l *loading) deployments() {
	for _, p := range l.plans {
		plan := *p.Plan
		plan.Changes = nil
		for _, c := range p.Changes {
			change := deployment.Change{ID: c.ID}
			if c.Old != 0 {
				change.Old = l.definition(c.ID, c.Old)
			}
			if c.New != 0 {
				change.New = l.definition(c.ID, c.New)
			}
			if (c.Old != 0) != (change.Old != nil) || (c.New != 0) != (change.New != nil) {
				l.problem(plans+plan.ID, fmt.Errorf("the definition of %s is missing", c.ID))
				break
			}
			plan.Changes = append(plan.Changes, change)
		}
		if len(plan.Changes) != len(p.Changes) {
			continue
		}
		l.usePlan(plan.ID, p)
		l.out.Deployments = append(l.out.Deployments, &plan)
	}
	slices.SortFunc(l.out.Deployments, func(a, b *deployment.Plan) int {
		return cmp.Or(cmp.Compare(a.Version, b.Version), cmp.Compare(a.ID, b.ID))
	})
}
