package agent

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/status"
	"starling/master/mesos"
	"starling/master/nodeapi"
)

const (
	reportTimeout = 10 * time.Second
	// reportMax is how many updates go in one report, reportBytes how much of them: executors may put much into one, and a
	// leader takes no more than nodeapi.MaxBody with all the rest.
	reportMax   = 512
	reportBytes = 8 << 20
	// onceMax bounds the updates that are sent once; the oldest are dropped.
	onceMax = 1024

	backoffFirst = 100 * time.Millisecond
	backoffMax   = 10 * time.Second
)

// reports is the state of sending to the leader. One report is under way at a time: order needs no more care, and what
// comes up meanwhile goes together.
type reports struct {
	sending bool
	// once are updates without uuid: told once, kept until a leader took them.
	once []*nodeapi.StatusUpdate
	// messages are from executors to frameworks, exits tell of executors that ended: both are sent once too.
	messages []*nodeapi.ExecutorMessage
	exits    []*nodeapi.ExecutorExit
	// version is that of the record when the leader last took a report; taken is set once it took one.
	version uint64
	taken   bool
	// backoff is the last pause after a failure, until the next try.
	backoff time.Duration
	until   time.Time
	wg      sync.WaitGroup
}

// sent is what a report told: updates of tasks, of operations, and those without uuid, with the record up to a version.
type sent struct {
	due, operations []status.Due
	once            []*nodeapi.StatusUpdate
	messages        []*nodeapi.ExecutorMessage
	exits           []*nodeapi.ExecutorExit
	version         uint64
}

// messageBytes bounds what of messages waits for the leader: to deliver them is best effort.
const messageBytes = 8 << 20

// message queues a message of an executor, unless too many wait.
func (r *reports) message(m *nodeapi.ExecutorMessage, counters *Counters) {
	size := len(m.GetData())
	for _, waiting := range r.messages {
		size += len(waiting.GetData())
	}
	if len(r.messages) == onceMax || size > messageBytes {
		counters.InvalidMessages++
		return
	}
	r.messages = append(r.messages, m)
}

// exit queues the news of the end of an executor; the oldest go first when there are too many.
func (r *reports) exit(e *nodeapi.ExecutorExit) {
	if len(r.exits) == onceMax {
		r.exits = append(r.exits[:0], r.exits[1:]...)
	}
	r.exits = append(r.exits, e)
}

// exitsAgain puts back what a leader did not take.
func (r *reports) exitsAgain(exits []*nodeapi.ExecutorExit) {
	r.exits = append(exits, r.exits...)
	r.exits = r.exits[max(0, len(r.exits)-onceMax):]
}

// reached forgets failures: there is a reason to believe that the next try works.
func (r *reports) reached() { r.backoff, r.until = 0, time.Time{} }

// failed returns when to try again: with a jitter, ever later, but never later than the longest pause.
func (r *reports) failed(now time.Time) time.Time {
	r.backoff = min(max(2*r.backoff, backoffFirst), backoffMax)
	r.until = now.Add(r.backoff/2 + rand.N(r.backoff/2+1))
	return r.until
}

// once queues an update that nobody acknowledges, about a task that this agent does not hold.
func (a *Agent) once(framework string, st *mesos.TaskStatus) {
	now := seconds(a.cfg.Now())
	st.AgentId, st.Timestamp = &mesos.AgentID{Value: &a.cfg.ID}, &now
	if len(a.reports.once) == onceMax {
		a.counters.DroppedUpdates++
		a.reports.once = append(a.reports.once[:0], a.reports.once[1:]...)
	}
	a.reports.once = append(a.reports.once, &nodeapi.StatusUpdate{
		FrameworkId: &mesos.FrameworkID{Value: &framework}, Status: st, LatestState: int32(st.GetState()),
	})
}

// room tells whether a report takes another update; it takes one in any case.
func room() func(status.Update) bool {
	updates, bytes := 0, 0
	return func(u status.Update) bool {
		bytes += proto.Size(u.Payload.(proto.Message))
		if updates == reportMax || updates > 0 && bytes > reportBytes {
			return false
		}
		updates++
		return true
	}
}

func (a *Agent) canSend() bool { return a.leader.addr != "" && !a.reports.sending }

// send begins a report if there is a leader, something due, and no other report under way.
func (a *Agent) send(now time.Time) {
	if !a.canSend() || now.Before(a.reports.until) {
		return
	}
	due := a.streams.Take(now, room())
	once := a.reports.once
	operations := a.made.updates.Take(now, room())
	messages, exits := a.reports.messages, a.reports.exits
	if len(due) == 0 && len(once) == 0 && len(operations) == 0 && len(messages) == 0 && len(exits) == 0 {
		return
	}
	if a.reports.taken && !a.leader.called && a.otherLeader.called && slices.ContainsFunc(due, again) {
		// Who only claims to lead takes what it is told, and nothing comes of it: who has called may lead still.
		a.swapLeaders()
	}
	report := &nodeapi.Report{Epoch: a.epoch.obeyed, AgentId: a.cfg.ID, Updates: once, Messages: messages, Exits: exits}
	for _, d := range due {
		update := &nodeapi.StatusUpdate{
			FrameworkId: &mesos.FrameworkID{Value: &d.Key.Framework}, Status: d.Update.Payload.(*mesos.TaskStatus),
		}
		update.LatestState = int32(update.Status.GetState())
		if t := a.tasks[d.Key]; t != nil {
			update.LatestState = int32(t.state)
		}
		report.Updates = append(report.Updates, update)
	}
	for _, d := range operations {
		report.Operations = append(report.Operations, d.Update.Payload.(*mesos.Operation))
	}
	version := a.version()
	if version > a.reports.version {
		report.Delta = a.cfg.Mesh.Delta(a.reports.version)
	}
	a.reports.once, a.reports.messages, a.reports.exits = nil, nil, nil
	a.reports.sending = true
	to := a.leader
	a.reports.wg.Go(func() {
		ctx, cancel := context.WithTimeout(a.work, reportTimeout)
		defer cancel()
		err := a.cfg.Reporter.Report(ctx, to.addr, report)
		a.post(func() { a.reported(to, sent{due, operations, once, messages, exits, version}, err) })
	})
}

// reported goes on after a report. What a leader took is repeated only when no acknowledgement comes; what it did not take
// is due again after a pause, or at once if there is another leader by now.
func (a *Agent) reported(to leader, sent sent, err error) {
	a.reports.sending = false
	now := time.Now()
	if err == nil {
		a.counters.Reports++
		if to.is(a.leader) {
			a.reports.version, a.reports.taken = max(a.reports.version, sent.version), true
		}
		a.reports.reached()
		return
	}
	a.counters.FailedReports++
	if errors.Is(err, nodeapi.ErrNotLeading) {
		// It may lead and not know this node yet, as after a restart: then it needs the whole record.
		a.reports.version = 0
	}
	next := now
	if to.addr == a.leader.addr {
		next = a.reports.failed(now)
		a.timers.at(next, func() {})
	}
	if errors.Is(err, nodeapi.ErrMalformed) || errors.Is(err, nodeapi.ErrTooLarge) {
		// Sending the same again is useless, so what is sent once is given up, and the rest waits for its usual time.
		a.cfg.Log.Error("leader refused a report", "addr", to.addr, "err", err)
		a.counters.DroppedUpdates += uint64(len(sent.once))
		if errors.Is(err, nodeapi.ErrTooLarge) {
			// It was for the rest.
			a.reports.exitsAgain(sent.exits)
		}
		return
	}
	a.cfg.Log.Debug("cannot report to the leader", "addr", to.addr, "err", err)
	a.reports.messages = append(sent.messages, a.reports.messages...)
	a.reports.messages = a.reports.messages[:min(len(a.reports.messages), onceMax)]
	a.reports.exitsAgain(sent.exits)
	a.reports.once = append(sent.once, a.reports.once...)
	if extra := len(a.reports.once) - onceMax; extra > 0 {
		a.counters.DroppedUpdates += uint64(extra)
		a.reports.once = a.reports.once[extra:]
	}
	for _, d := range sent.due {
		a.streams.Retry(next, d.Key, d.Update.UUID)
	}
	for _, d := range sent.operations {
		a.made.updates.Retry(next, d.Key, d.Update.UUID)
	}
	if to.is(a.leader) && a.otherLeader.addr != "" {
		// The hint was wrong, or came early; or it was right, and the one that had called is gone.
		a.swapLeaders()
	}
}

// again tells whether an update was sent before, and not acknowledged.
func again(d status.Due) bool { return d.Attempt > 1 }
