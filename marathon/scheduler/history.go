package scheduler

import (
	"cmp"
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/deployment"
)

const (
	// historyKept is how many deployments that have ended are remembered.
	historyKept = 100
	// historyApps bounds the ids that one of them lists, in bytes, and historyText each of its texts: with historyKept that
	// bounds what is stored, and what one answer takes.
	historyApps = 4 << 10
	historyText = 500
)

// Outcome says how a deployment ended.
type Outcome string

// The outcomes.
const (
	Succeeded Outcome = "succeeded"
	// Cancelled left everything as it was by then, or another deployment took its place by force.
	Cancelled Outcome = "cancelled"
	// RolledBack was undone by another deployment.
	RolledBack Outcome = "rolledBack"
	// Overdue was not done by its deadline, and was undone by another deployment unless there was nothing to go back to.
	Overdue Outcome = "deadline"
)

// Ended is a deployment that has ended. Its JSON is how it is stored, and what the API shows.
type Ended struct {
	ID      string        `json:"id"`
	Version app.Timestamp `json:"version"`
	Outcome Outcome       `json:"outcome"`
	// Reason is a sentence for people, where there is more to say.
	Reason    string        `json:"reason,omitempty"`
	StartedAt app.Timestamp `json:"startedAt"`
	EndedAt   app.Timestamp `json:"endedAt"`
	// StartedBy and EndedBy are who asked for it, and for its end, as far as is known; nobody is Marathon itself.
	StartedBy string `json:"startedBy,omitempty"`
	EndedBy   string `json:"endedBy,omitempty"`
	// Undoes is the deployment that it rolled back, UndoneBy the one that rolled it back.
	Undoes   string `json:"undoes,omitempty"`
	UndoneBy string `json:"undoneBy,omitempty"`
	// Step is how far it came, of TotalSteps.
	Step       int `json:"currentStep"`
	TotalSteps int `json:"totalSteps"`
	// Actions are what it was to do, by app or pod; MoreActions counts those that are left out for their number.
	Actions     []deployment.Shown `json:"actions"`
	MoreActions int                `json:"moreActions,omitempty"`
}

// ending is why a deployment ends before it is done.
type ending struct {
	outcome  Outcome
	reason   string // for people
	by       string
	undoneBy string
	// event is the reason that the event tells; empty is that of Marathon.
	event string
}

// rememberEnd adds a deployment that has ended to the history.
func (s *Scheduler) rememberEnd(now time.Time, r *running, e ending) {
	plan := r.deployment.Plan
	if len(plan.Changes) == 0 {
		return // there was nothing to do, and nothing is told of it while it runs either
	}
	one := &Ended{
		ID: plan.ID, Version: plan.Version, Outcome: e.outcome, Reason: brief(e.reason), StartedAt: plan.Start(), EndedAt: app.At(now),
		StartedBy: brief(plan.By), EndedBy: brief(e.by), Undoes: plan.Undoes, UndoneBy: e.undoneBy,
		Step: r.deployment.Step, TotalSteps: len(plan.Steps), Actions: []deployment.Shown{},
	}
	room := historyApps
	for _, step := range plan.Steps {
		for _, action := range step.Actions {
			if action.Kind == deployment.Start {
				continue // a formality before the scaling, which follows
			}
			if room -= len(action.App); room < 0 {
				one.MoreActions++
				continue
			}
			one.Actions = append(one.Actions, action.Shown())
		}
	}
	s.history = append(s.history, one)
	s.out.write(Write{Kind: KindHistory, Key: one.ID, Ended: one})
	s.trimHistory()
}

// loadHistory takes over what was stored.
func (s *Scheduler) loadHistory(stored []*Ended) {
	s.history = slices.Clone(stored)
	slices.SortFunc(s.history, func(a, b *Ended) int { return cmp.Or(cmp.Compare(a.EndedAt, b.EndedAt), cmp.Compare(a.ID, b.ID)) })
	s.trimHistory()
}

func (s *Scheduler) trimHistory() {
	for len(s.history) > historyKept {
		s.out.write(Write{Kind: KindHistory, Key: s.history[0].ID})
		s.history = s.history[1:]
	}
}

// History returns the deployments that have ended, the newest first, up to a hundred. The slice is the caller's, what is in it is not.
func (v View) History() []*Ended {
	out := slices.Clone(v.s.history)
	slices.Reverse(out)
	return out
}

// brief cuts a text for the history.
func brief(text string) string { return cutTo(text, historyText) }
