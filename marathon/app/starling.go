package app

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Starling is what an app may ask for beyond Marathon. Its fields are one object of a definition, so that they are in nobody's
// way; an app that asks for nothing of it has none.
type Starling struct {
	MaxLatency *MaxLatency `json:"maxLatencyMs,omitempty"`
	// Daemon asks for one instance on every node that fits.
	Daemon bool `json:"daemon,omitempty"`
	// DeploymentDeadlineSeconds is after what time a deployment of this definition that is not done is rolled back; 0 is never.
	DeploymentDeadlineSeconds int `json:"deploymentDeadlineSeconds,omitempty"`
	// LabelsWithoutRestart makes a change of labels alone a new version for whose sake no task is replaced.
	LabelsWithoutRestart bool `json:"labelsWithoutRestart,omitempty"`
	// InstanceIndex gives each instance a number of its own, from 0, in the variable STARLING_INSTANCE_INDEX.
	InstanceIndex bool `json:"instanceIndex,omitempty"`
}

// MaxLatency keeps an app near to something: it runs on agents only from which the estimated round trip is no longer than that.
type MaxLatency struct {
	// To is the absolute id of an app, the nearest running instance of which counts, or the name of a node: its host name, its
	// agent id, or its name in the mesh.
	To string `json:"to"`
	// Milliseconds is the longest round trip.
	Milliseconds float64 `json:"ms"`
}

// mostLatency bounds MaxLatency in milliseconds, and mostDeadline a deadline in seconds.
const (
	mostLatency  = 60_000
	mostDeadline = 30 * 24 * 3600
)

// App is the app that is to be near, if it is one.
func (m *MaxLatency) App() (PathID, bool) {
	if !strings.HasPrefix(m.To, "/") {
		return "", false
	}
	id, err := ParseID(m.To, Root)
	return id, err == nil
}

// Duration is the longest round trip.
func (m *MaxLatency) Duration() time.Duration {
	return time.Duration(m.Milliseconds * float64(time.Millisecond))
}

// Daemon tells whether the app has one instance on every node that fits. Its number of instances is 1 then, or 0 while it is
// suspended.
func (a *App) Daemon() bool { return a.Starling != nil && a.Starling.Daemon }

// Indexed tells whether the instances of the app are numbered.
func (a *App) Indexed() bool { return a.Starling != nil && a.Starling.InstanceIndex }

// MaxLatency is what the app has to be near to; nil is nothing.
func (a *App) MaxLatency() *MaxLatency {
	if a.Starling == nil {
		return nil
	}
	return a.Starling.MaxLatency
}

// DeploymentDeadline is after what time a deployment of the definition is rolled back; 0 is never.
func (a *App) DeploymentDeadline() time.Duration {
	if a.Starling == nil {
		return 0
	}
	return time.Duration(a.Starling.DeploymentDeadlineSeconds) * time.Second
}

// starlingShape fits that object. Unlike everything else in a definition it knows all of its fields: a slip is told.
func starlingShape() *shape {
	return onlyKnown(object(map[string]*shape{
		"maxLatencyMs": onlyKnown(object(map[string]*shape{
			"to": text().length(1, 0), "ms": number().between(0, mostLatency),
		}, "to", "ms")),
		"daemon":                    boolean(),
		"deploymentDeadlineSeconds": integer().between(0, mostDeadline),
		"labelsWithoutRestart":      boolean(),
		"instanceIndex":             boolean(),
	}))
}

// onlyKnown has an object refused that has fields which the shape does not name.
func onlyKnown(s *shape) *shape {
	fit := s.fit
	s.closed = true
	s.fit = func(s *shape, v any, p *place, f *faults) any {
		if in, ok := v.(map[string]any); ok {
			for _, name := range sortedKeys(in) {
				if s.fields[name] == nil {
					f.add(p.field(name), "is not known here: the fields are %s", strings.Join(slices.Sorted(maps.Keys(s.fields)), ", "))
				}
			}
		}
		return fit(s, v, p, f)
	}
	return s
}

// finishStarling returns the object as an app keeps it: none where nothing is asked for.
func finishStarling(s *Starling) *Starling {
	if s == nil || *s == (Starling{}) {
		return nil
	}
	return s
}

// checkStarling applies the rules for what is beyond Marathon.
func (a *App) checkStarling(p *place, f *faults) {
	if near := a.MaxLatency(); near != nil {
		a.checkLatency(near, p.field("starling").field("maxLatencyMs"), f)
	}
	a.checkDaemonInstances(p, f)
	if !a.Daemon() {
		return
	}
	if !a.UnreachableStrategy.Disabled {
		f.add(p.field("unreachableStrategy"), "must be \"disabled\" for a daemon app: its instance on a node that can't be reached waits for the node, and no other node gets one in its place")
	}
	at := p.field("starling").field("daemon")
	if a.Resident() {
		f.add(at, "a daemon app cannot have persistent volumes")
	}
	if a.SingleInstance() {
		f.add(at, "a daemon app cannot have the label MARATHON_SINGLE_INSTANCE_APP")
	}
}

func (a *App) checkLatency(near *MaxLatency, p *place, f *faults) {
	if near.Milliseconds <= 0 {
		f.add(p.field("ms"), "must be above 0, got %s", Decimal(near.Milliseconds))
	}
	at := p.field("to")
	if !strings.HasPrefix(near.To, "/") {
		if strings.ContainsAny(near.To, "/ \t\r\n") {
			f.add(at, "must be the absolute id of an app, such as /shop/db, or the name of a node, got %q", near.To)
		}
		return
	}
	id, err := ParseID(near.To, Root)
	switch {
	case err != nil:
		f.add(at, "%v", err)
	case id == Root:
		f.add(at, "must be an app: / is the root group")
	case id == a.ID:
		f.add(at, "must be another app: the first instance would have none to be near to")
	}
}

// checkDaemonInstances refuses a number of instances that is not a daemon's to have.
func (a *App) checkDaemonInstances(p *place, f *faults) {
	if a.Daemon() && a.Instances != 0 && a.Instances != 1 {
		f.add(p.field("instances"), "a daemon app cannot be scaled: it has one instance on every node that fits, for which instances is 1 (or absent), or is suspended with 0; got %d", a.Instances)
	}
}

// quiet returns the definition without what may change while its tasks stay as they are: with labels that is said of the labels,
// too.
func (a *App) quiet(labels bool) *App {
	out := *a
	if s := a.Starling; s != nil {
		rest := *s
		rest.DeploymentDeadlineSeconds, rest.LabelsWithoutRestart = 0, false
		out.Starling = finishStarling(&rest)
	}
	if labels {
		out.Labels = nil
	}
	return &out
}

// labelsAlone tells whether a change of labels that leads to the definition is nothing to restart for.
func (a *App) labelsAlone() bool { return a.Starling != nil && a.Starling.LabelsWithoutRestart }

// settleDaemon drops from the fields of an app those that do not go with a draft which makes it a daemon app, or makes it none any
// more, so that such a change need not spell them out.
func (d *definition) settleDaemon(base *definition, a *App) {
	if d.Starling == nil || d.Starling.Daemon == a.Daemon() {
		return
	}
	base.UnreachableStrategy = nil
	if d.Starling.Daemon {
		base.Instances = nil
	}
}
