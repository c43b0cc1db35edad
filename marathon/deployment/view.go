package deployment

import (
	"encoding/json"

	"starling/marathon/app"
)

// View is a running deployment as GET /v2/deployments lists it.
type View struct {
	ID             string          `json:"id"`
	Version        app.Timestamp   `json:"version"`
	AffectedApps   []app.PathID    `json:"affectedApps"`
	AffectedPods   []app.PathID    `json:"affectedPods"`
	Steps          []Step          `json:"steps"`
	CurrentActions []CurrentAction `json:"currentActions"`
	// CurrentStep counts from 1; 0 is a deployment that was accepted and has not begun.
	CurrentStep int `json:"currentStep"`
	TotalSteps  int `json:"totalSteps"`
}

// CurrentAction is an action of the step that runs, with the results of readiness checks as the caller encodes them.
type CurrentAction struct {
	Shown
	ReadinessCheckResults []json.RawMessage `json:"readinessCheckResults"`
}

// View returns what the API shows of the plan while that step, counted from 1, runs. readiness yields the results for an
// app; nil is none.
func (p *Plan) View(step int, readiness func(app.PathID) []json.RawMessage) View {
	v := View{
		ID: p.ID, Version: p.Version, AffectedApps: []app.PathID{}, AffectedPods: []app.PathID{}, Steps: p.Steps,
		CurrentActions: []CurrentAction{}, CurrentStep: step, TotalSteps: len(p.Steps),
	}
	for _, c := range p.Changes {
		if c.pod() {
			v.AffectedPods = append(v.AffectedPods, c.ID)
		} else {
			v.AffectedApps = append(v.AffectedApps, c.ID)
		}
	}
	if v.Steps == nil {
		v.Steps = []Step{}
	}
	if step < 1 || step > len(p.Steps) {
		return v
	}
	for _, a := range p.Steps[step-1].Actions {
		current := CurrentAction{Shown: a.Shown(), ReadinessCheckResults: []json.RawMessage{}}
		if readiness != nil {
			if results := readiness(a.App); results != nil {
				current.ReadinessCheckResults = results
			}
		}
		v.CurrentActions = append(v.CurrentActions, current)
	}
	return v
}

// Light is the form of a plan in events.
type Light struct {
	ID      string        `json:"id"`
	Steps   []Step        `json:"steps"`
	Version app.Timestamp `json:"version"`
	// Original and Target stand for the trees, which a plan in events no longer holds: clients that were written when it
	// did, such as marathon-python, cannot read one without them.
	Original Tree `json:"original"`
	Target   Tree `json:"target"`
}

// Tree names a root group without what is in it.
type Tree struct {
	ID      app.PathID    `json:"id"`
	Version app.Timestamp `json:"version,omitzero"`
}

// Light returns the form of the plan in events.
func (p *Plan) Light() Light {
	steps := p.Steps
	if steps == nil {
		steps = []Step{}
	}
	return Light{
		ID: p.ID, Steps: steps, Version: p.Version, Original: Tree{ID: app.Root}, Target: Tree{ID: app.Root, Version: p.Version},
	}
}
