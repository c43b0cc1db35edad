package api

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"starling/marathon"
	"starling/marathon/app"
	"starling/marathon/deployment"
	"starling/marathon/scheduler"
	"starling/marathon/task"
	"starling/master/mesos"
)

func viewOf(v scheduler.View, d *scheduler.Deployment) deployment.View {
	return d.Plan.View(d.Step, func(id app.PathID) []json.RawMessage {
		var out []json.RawMessage
		for _, r := range readinessOf(v, v.Instances(id)) {
			if encoded, err := json.Marshal(r); err == nil { // texts and numbers always can be
				out = append(out, encoded)
			}
		}
		return out
	})
}

func (a *api) getDeployments(c *fiber.Ctx) error {
	list := []deployment.View{}
	if err := a.m.Read(func(v scheduler.View, _ time.Time) {
		for _, d := range v.Deployments() {
			list = append(list, viewOf(v, d))
		}
	}); err != nil {
		return err
	}
	return writeJSON(c, fiber.StatusOK, list)
}

func noDeployment(id string) error {
	return refusal(fiber.StatusNotFound, "DeploymentPlan %s does not exist", id)
}

func (a *api) getDeployment(id string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		var view *deployment.View
		if err := a.m.Read(func(v scheduler.View, _ time.Time) {
			if d := v.Deployment(id); d != nil {
				one := viewOf(v, d)
				view = &one
			}
		}); err != nil {
			return err
		}
		if view == nil {
			return noDeployment(id)
		}
		return writeJSON(c, fiber.StatusOK, view)
	}
}

func (a *api) deleteDeployment(id string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		ctx, cancel := a.context(c)
		defer cancel()
		if flagOf(c, "force", false) {
			err := a.m.CancelDeployment(ctx, id, a.askedBy(c))
			if errors.Is(err, scheduler.ErrNoDeployment) {
				return noDeployment(id)
			}
			if err != nil {
				return err
			}
			c.Status(fiber.StatusAccepted)
			c.Context().Response.ResetBody()
			return nil
		}
		result, err := a.m.RevertDeployment(ctx, id, a.askedBy(c))
		if errors.Is(err, scheduler.ErrNoDeployment) {
			return noDeployment(id)
		}
		if err != nil {
			return err
		}
		return deployed(c, fiber.StatusOK, result)
	}
}

// queueItem is an app that has instances waiting for an offer.
type queueItem struct {
	App   *app.App           `json:"app,omitempty"`
	Pod   *app.PodDefinition `json:"pod,omitempty"`
	Count int                `json:"count"`
	// Role is left out where it is *: marathon-python refuses items with fields that it does not know.
	Role    string        `json:"role,omitempty"`
	Delay   queueDelay    `json:"delay"`
	Since   app.Timestamp `json:"since"`
	Summary queueSummary  `json:"processedOffersSummary"`
	Unused  []unusedOffer `json:"lastUnusedOffers,omitzero"`
	// HeldBack is ours: how many instances the brake on mass replacement keeps from being replaced, and why.
	HeldBack *heldBack `json:"heldBack,omitempty"`
}

type heldBack struct {
	Count int    `json:"count"`
	Why   string `json:"why"`
}

type queueDelay struct {
	TimeLeftSeconds int  `json:"timeLeftSeconds"`
	Overdue         bool `json:"overdue"`
}

type queueSummary struct {
	Processed  int              `json:"processedOffersCount"`
	Unused     int              `json:"unusedOffersCount"`
	LastUnused app.Timestamp    `json:"lastUnusedOfferAt,omitzero"`
	LastUsed   app.Timestamp    `json:"lastUsedOfferAt,omitzero"`
	LastOffers []task.FunnelRow `json:"rejectSummaryLastOffers"`
	Attempt    []task.FunnelRow `json:"rejectSummaryLaunchAttempt"`
}

type unusedOffer struct {
	Offer     offerInfo     `json:"offer"`
	Reason    []task.Reason `json:"reason"`
	Timestamp app.Timestamp `json:"timestamp"`
	// Why is ours: the same in words.
	Why []string `json:"why"`
}

type offerInfo struct {
	ID         string          `json:"id"`
	Hostname   string          `json:"hostname"`
	AgentID    string          `json:"agentId"`
	Resources  []resourceInfo  `json:"resources"`
	Attributes []attributeInfo `json:"attributes"`
}

type resourceInfo struct {
	Name   string      `json:"name"`
	Role   string      `json:"role"`
	Scalar *float64    `json:"scalar,omitempty"`
	Ranges []rangeInfo `json:"ranges,omitempty"`
	Set    []string    `json:"set,omitempty"`
}

type rangeInfo struct {
	Begin uint64 `json:"begin"`
	End   uint64 `json:"end"`
}

type attributeInfo struct {
	Name   string      `json:"name"`
	Scalar *float64    `json:"scalar,omitempty"`
	Text   *string     `json:"text,omitempty"`
	Ranges []rangeInfo `json:"ranges,omitempty"`
	Set    []string    `json:"set,omitempty"`
}

func (a *api) getQueue(c *fiber.Ctx) error {
	var queue []scheduler.Queued
	var now time.Time
	var brake scheduler.Brake
	if err := a.m.Read(func(v scheduler.View, at time.Time) { queue, brake, now = v.Queue(at), v.Brake(at), at }); err != nil {
		return err
	}
	embeds := queryAll(c, "embed")
	embedOffers := slices.Contains(embeds, "lastUnusedOffers")
	embedHeld := slices.Contains(embeds, "heldBack") // as ours it is for those who ask
	items := []queueItem{}
	for _, q := range queue {
		if q.Count == 0 && !embedHeld {
			continue
		}
		item := queueItem{
			Count: q.Count, Role: q.Role, Since: app.At(q.Since), Delay: queueDelay{Overdue: true},
			Summary: queueSummary{
				Processed: q.Processed, Unused: q.Unused, LastUnused: app.At(q.LastUnused), LastUsed: app.At(q.LastUsed),
			},
		}
		if q.App.Pod != nil {
			item.Pod = q.App.PodDefinition()
		} else {
			item.App = q.App
		}
		if item.Role == "*" {
			item.Role = ""
		}
		if q.Until.After(now) {
			item.Delay = queueDelay{TimeLeftSeconds: int((q.Until.Sub(now) + time.Second - 1) / time.Second)}
		}
		if q.HeldBack > 0 && embedHeld {
			item.HeldBack = &heldBack{Count: q.HeldBack, Why: brake.Reason()}
		}
		refusals := make([][]task.Refusal, len(q.Refusals))
		for i, r := range q.Refusals {
			refusals[i] = r.Reasons
		}
		item.Summary.LastOffers = task.Summary(refusals)
		item.Summary.Attempt = task.Rows(q.Attempt, q.Processed)
		if embedOffers {
			item.Unused = []unusedOffer{}
			for _, r := range q.Refusals {
				item.Unused = append(item.Unused, unusedOf(r))
			}
		}
		items = append(items, item)
	}
	return writeJSON(c, fiber.StatusOK, map[string]any{"queue": items})
}

func unusedOf(r scheduler.Refusal) unusedOffer {
	o := r.Offer
	out := unusedOffer{
		Offer: offerInfo{
			ID: o.GetId().GetValue(), Hostname: o.GetHostname(), AgentID: o.GetAgentId().GetValue(),
			Resources: []resourceInfo{}, Attributes: []attributeInfo{},
		},
		Timestamp: app.At(r.At),
	}
	for _, res := range o.GetResources() {
		info := resourceInfo{Name: res.GetName(), Role: res.GetRole(), Ranges: rangesOf(res.GetRanges()), Set: res.GetSet().GetItem()}
		if info.Role == "" {
			info.Role = "*"
		}
		if res.Scalar != nil {
			info.Scalar = new(res.GetScalar().GetValue())
		}
		out.Offer.Resources = append(out.Offer.Resources, info)
	}
	for _, attr := range o.GetAttributes() {
		info := attributeInfo{Name: attr.GetName(), Ranges: rangesOf(attr.GetRanges()), Set: attr.GetSet().GetItem()}
		if attr.Scalar != nil {
			info.Scalar = new(attr.GetScalar().GetValue())
		}
		if attr.Text != nil {
			info.Text = new(attr.GetText().GetValue())
		}
		out.Offer.Attributes = append(out.Offer.Attributes, info)
	}
	for _, reason := range r.Reasons {
		if !slices.Contains(out.Reason, reason.Reason) {
			out.Reason = append(out.Reason, reason.Reason)
		}
		out.Why = append(out.Why, reason.Why)
	}
	return out
}

func rangesOf(ranges *mesos.Value_Ranges) []rangeInfo {
	var out []rangeInfo
	for _, r := range ranges.GetRange() {
		out = append(out, rangeInfo{Begin: r.GetBegin(), End: r.GetEnd()})
	}
	return out
}

func (a *api) deleteDelay(rest []string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		none := refusal(fiber.StatusNotFound, "Application /%s not found in tasks queue.", strings.Join(rest, "/"))
		id, err := pathID(rest)
		if err != nil {
			return none
		}
		ctx, cancel := a.context(c)
		defer cancel()
		err = a.m.ResetDelay(ctx, id)
		if errors.Is(err, marathon.ErrNoInstance) {
			return none
		}
		if err != nil {
			return err
		}
		return c.SendStatus(fiber.StatusNoContent)
	}
}
