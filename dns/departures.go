package dns

import (
	"log/slog"
	"time"

	"starling/gossip/record"
)

// departures logs when the names of nodes leave and come back, for those who ask at night why a service was gone. When a network breaks many
// do at once; then the log says how many more there were.
type departures struct {
	gone map[string]time.Time // since when names of nodes are, by node
	// since is when the lines were last counted anew, told how many there were since then, held how many were kept back.
	since      time.Time
	told, held int
}

// At most so many lines are logged in so much time.
const (
	departureLines  = 20
	departureWindow = time.Minute
)

// tell is called when a node has begun or ceased to be answered for. A node that is new, and one without tasks, is no news.
func (d *departures) tell(log *slog.Logger, n *node, tasks int) {
	now := time.Now()
	since, was := d.gone[n.name]
	if n.live {
		delete(d.gone, n.name)
	} else if tasks > 0 {
		if d.gone == nil {
			d.gone = map[string]time.Time{}
		}
		d.gone[n.name] = now
	}
	if n.live && !was || !n.live && tasks == 0 {
		return
	}
	d.flush(log, now)
	if d.told >= departureLines {
		d.held++
		return
	}
	d.told++
	what := []any{"host", n.info.GetHostname(), "peer", n.name, "tasks", tasks, "state", n.liveness.String()}
	switch {
	case n.live:
		log.Info("names of a node are back", append(what, "dur", now.Sub(since).Round(time.Millisecond))...)
	case n.liveness == record.Left:
		log.Info("names of a node leave with it, at once where others have them too, otherwise soon", append(what, "dur", returnPatience)...)
	default:
		log.Warn("names of a node left", what...)
	}
}

// flush says what was kept back once it is time for new lines.
func (d *departures) flush(log *slog.Logger, now time.Time) {
	if now.Sub(d.since) < departureWindow {
		return
	}
	if d.held > 0 {
		log.Warn("names of more nodes left or came back than were logged", "nodes", d.held)
	}
	d.since, d.told, d.held = now, 0, 0
}
