package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"starling/gossip/api"
)

func watch(ctx context.Context, c *call) error {
	return c.client.lines(ctx, api.PathWatch, 3*api.HeartbeatEvery, func(line []byte) error {
		var e api.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("the node does not answer as one of the mesh does: %w", err)
		}
		switch {
		case e.What == api.Heartbeat:
			return nil
		case e.What == api.Refused:
			return fmt.Errorf("the node refuses: %s", e.Summary)
		case c.print.json:
			return c.print.text(plainJSON(string(line)))
		}
		return c.print.text(clean(e.Time.UTC().Format(watchTime) + "  " + sentence(&e)))
	})
}

// watchTime is how the time of an event is written.
const watchTime = "2006-01-02T15:04:05.000Z07:00"

// sentence says what happened.
func sentence(e *api.Event) string {
	who := e.Node + "  "
	switch e.What {
	case api.Begin:
		return fmt.Sprintf("%d nodes are known to %s; changes from here on", e.Nodes, e.Node)
	case api.Lagged:
		return "changes came faster than they were read, and some are missing here"
	case api.New:
		return who + "is new, " + e.State
	case api.State:
		return who + "is " + e.State + ", was " + e.Was
	case api.Restart:
		return who + "has started anew"
	case api.Reaped:
		return who + "is forgotten"
	case api.Set:
		return who + e.Key + ": " + e.Summary
	case api.Delete:
		return who + e.Key + " is gone"
	}
	return strings.TrimSpace(who + string(e.What) + " " + e.Summary)
}
