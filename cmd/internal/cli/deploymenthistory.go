package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"starling/cmd/internal/flags"
	"starling/marathon/scheduler"
)

// deploymentHistory is "deployment history".
type deploymentHistory struct{ limit int }

func (h *deploymentHistory) register(s *flags.Set) {
	s.IntVar(&h.limit, "limit", 20, "show the newest `number` of deployments; 0 shows all")
}

// outcomeTexts say how a deployment ended.
var outcomeTexts = map[scheduler.Outcome]string{
	scheduler.Succeeded: "done", scheduler.Cancelled: "cancelled", scheduler.RolledBack: "rolled back",
	scheduler.Overdue: "past its deadline",
}

func (h *deploymentHistory) run(ctx context.Context, c *call) error {
	if h.limit < 0 {
		return usagef("--limit %d is negative", h.limit)
	}
	var list []json.RawMessage
	if _, err := c.marathon.get(ctx, "/v2/deployments/history", &list); err != nil {
		return err
	}
	more := 0
	if h.limit > 0 && len(list) > h.limit {
		list, more = list[:h.limit], len(list)-h.limit
	}
	if c.print.json {
		return c.print.value(list)
	}
	rows := make([][]string, len(list))
	for i, one := range list {
		var e scheduler.Ended
		if err := json.Unmarshal(one, &e); err != nil {
			return fmt.Errorf("cannot read what Marathon remembers: %w", err)
		}
		rows[i] = []string{
			e.ID, e.EndedAt.String(), ago(e.EndedAt.Time().Sub(e.StartedAt.Time()).Seconds()), endedActions(&e), cmp.Or(e.StartedBy, "-"),
			cmp.Or(outcomeTexts[e.Outcome], string(e.Outcome)), endedWhy(&e),
		}
	}
	if err := c.print.table([]string{"ID", "ENDED", "TOOK", "WHAT", "BY", "HOW", "WHY"}, rows); err != nil || more == 0 {
		return err
	}
	return c.print.text(fmt.Sprintf("%d more; --limit 0 shows all", more))
}

// endedActions names the first few things that a deployment was to do.
func endedActions(e *scheduler.Ended) string {
	list := make([]action, len(e.Actions))
	for i, a := range e.Actions {
		list[i] = action{Action: a.Action, App: string(a.App), Pod: string(a.Pod)}
	}
	if len(list) == 0 && e.MoreActions == 0 {
		return ""
	}
	text := actionsText(list)
	if e.MoreActions > 0 {
		text += fmt.Sprintf(", and %d more", e.MoreActions)
	}
	return text
}

// endedWhy says what there is to say about the end.
func endedWhy(e *scheduler.Ended) string {
	text := e.Reason
	add := func(format string, args ...any) {
		if text != "" {
			text += "; "
		}
		text += fmt.Sprintf(format, args...)
	}
	if e.Undoes != "" {
		add("it undid %s", e.Undoes)
	}
	if e.UndoneBy != "" {
		add("undone by %s", e.UndoneBy)
	}
	if e.EndedBy != "" {
		add("asked for by %s", e.EndedBy)
	}
	if e.Outcome != scheduler.Succeeded {
		add("it had come to step %d of %d", e.Step, e.TotalSteps)
	}
	return text
}
