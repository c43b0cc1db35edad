package deployment

import (
	"time"

	"starling/marathon/app"
)

// Origin is where a deployment comes from. It is set once, by whoever made the plan, before anybody else sees it.
type Origin struct {
	// Begun is when it was asked for; zero in plans that were stored before there was this field.
	Begun app.Timestamp `json:"begun,omitzero"`
	// By is who asked for it, for people; empty is nobody that is known.
	By string `json:"by,omitempty"`
	// Undoes is the deployment that it rolls back.
	Undoes string `json:"undoes,omitempty"`
}

// Start is when the deployment was asked for.
func (p *Plan) Start() app.Timestamp {
	if p.Begun == 0 {
		return p.Version // it was made at that moment
	}
	return p.Begun
}

// Deadline is until when the deployment has to be done, and which app wants that: the earliest that a definition asks for which
// it leads to. Zero is no deadline. What undoes another deployment has none: there is nothing better to go back to.
func (p *Plan) Deadline() (time.Time, app.PathID) {
	var least time.Duration
	var whose app.PathID
	for _, c := range p.Changes {
		if c.New == nil || p.Undoes != "" {
			continue
		}
		if d := c.New.DeploymentDeadline(); d > 0 && (least == 0 || d < least) {
			least, whose = d, c.ID
		}
	}
	if least == 0 {
		return time.Time{}, ""
	}
	return p.Start().Time().Add(least), whose
}
