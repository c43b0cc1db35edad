package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"

	"starling/gossip/record"
	"starling/master/mesos/server"
)

// Event is one line of a watch.
type Event struct {
	// Time is when it was noticed, by the clock of the node that answers.
	Time time.Time `json:"time"`
	What What      `json:"what"`
	// Node is whom it happened to; for Begin the node that answers.
	Node string `json:"node,omitempty"`
	// Key, Version and Size are those of a key that was set, Summary its value in a few words. A key that was
	// deleted has its name alone.
	Key     string `json:"key,omitempty"`
	Version uint64 `json:"version,omitempty"`
	Size    int    `json:"size,omitempty"`
	Summary string `json:"summary,omitempty"`
	// State is that of a node which is new or changed its state, Was the one before.
	State string `json:"state,omitempty"`
	Was   string `json:"was,omitempty"`
	// Nodes is how many are known at the beginning.
	Nodes int `json:"nodes,omitempty"`
}

// What tells the kinds of events apart. Readers pass over those that they do not know.
type What string

// The values of What.
const (
	// Begin says that what follows is all that changes from now on: the first line, and the one after Lagged. Who wants
	// the state at that point reads the members after this line.
	Begin What = "begin"
	// Set and Delete tell of one key.
	Set    What = "set"
	Delete What = "delete"
	// New is a node that was not known before, State one that is seen otherwise now, Restart one that has started anew,
	// Reaped one that was forgotten.
	New     What = "new"
	State   What = "state"
	Restart What = "restart"
	Reaped  What = "reaped"
	// Lagged says that changes were lost because the reader was too slow.
	Lagged What = "lagged"
	// Heartbeat comes after every HeartbeatEvery in which nothing changed.
	Heartbeat What = "heartbeat"
	// Refused ends a watch that was one too many.
	Refused What = "refused"
)

// HeartbeatEvery is how long a watch is silent at most.
const HeartbeatEvery = 10 * time.Second

const (
	// maxWatchers bounds the watches of one node at one time; each may hold older states of records in memory.
	maxWatchers = 32
	// maxBatch is the size in bytes at which lines are sent.
	maxBatch = 32 << 10
)

func (a *api) watch(c *fiber.Ctx) error {
	if a.watchers.Load() >= maxWatchers {
		c.Set(fiber.HeaderRetryAfter, "10")
		return fiber.NewError(fiber.StatusServiceUnavailable, tooMany)
	}
	header := map[string]string{
		fiber.HeaderContentType: "application/x-ndjson", fiber.HeaderCacheControl: "no-store", fiber.HeaderXContentTypeOptions: "nosniff",
	}
	return server.Stream(c, header, func(ctx context.Context, out *server.StreamWriter) error {
		w := &watcher{mesh: a.mesh, out: out, now: time.Now}
		// Counted here, where it is sure to be uncounted; more may have come this far at the same time.
		defer a.watchers.Add(-1)
		if a.watchers.Add(1) > maxWatchers {
			w.tell(Event{What: Refused, Summary: tooMany})
			return w.send()
		}
		return w.run(ctx)
	})
}

var tooMany = fmt.Sprintf("%d others watch the mesh here already", maxWatchers)

// watcher tells one reader what changes. It remembers what it told of each node, as a feed may say of a node that much of
// it changed, and not what.
type watcher struct {
	mesh Mesh
	out  interface{ Write([]byte) (int, error) }
	now  func() time.Time
	told map[string]*record.Snapshot
	buf  bytes.Buffer
	err  error // of encoding or writing; nothing is written after one
}

// run follows the mesh until ctx ends or the reader can't be written to.
func (w *watcher) run(ctx context.Context) error {
	feed := w.mesh.Feed()
	w.begin()
	for {
		if err := w.send(); err != nil {
			return err
		}
		patience, cancel := context.WithTimeout(ctx, HeartbeatEvery)
		changes, err := feed.Next(patience)
		cancel()
		switch {
		case err == nil:
			for i := range changes {
				w.change(&changes[i])
			}
		case errors.Is(err, record.ErrLagged):
			w.tell(Event{What: Lagged})
			w.begin()
		case ctx.Err() != nil:
			return context.Cause(ctx)
		default:
			w.tell(Event{What: Heartbeat})
		}
	}
}

// begin starts from what is there now.
func (w *watcher) begin() {
	w.told = map[string]*record.Snapshot{}
	for s := range w.mesh.Snapshots() {
		w.told[s.Node()] = s
	}
	w.tell(Event{What: Begin, Node: w.mesh.Self(), Nodes: len(w.told)})
}

func (w *watcher) change(c *record.Change) {
	old, now := w.told[c.Node], c.Snapshot
	if now == nil {
		if old != nil {
			delete(w.told, c.Node)
			w.tell(Event{What: Reaped, Node: c.Node})
		}
		return
	}
	w.told[c.Node] = now
	switch {
	case old == nil:
		w.tell(Event{What: New, Node: c.Node, State: state(w.now(), now)})
		w.compare(nil, now)
	case c.Key == "":
		w.compare(old, now)
	default:
		w.key(now, c.Key)
	}
}

// compare tells everything in which two copies of a node's record differ.
func (w *watcher) compare(old, now *record.Snapshot) {
	if old != nil {
		if is, was := state(w.now(), now), state(w.now(), old); is != was {
			w.tell(Event{What: State, Node: now.Node(), State: is, Was: was})
		}
		if old.Generation() != 0 && now.Generation() != old.Generation() {
			w.tell(Event{What: Restart, Node: now.Node()})
		}
		for e := range old.Entries() {
			if _, ok := now.Get(e.Key); !ok {
				w.tell(Event{What: Delete, Node: now.Node(), Key: e.Key})
			}
		}
	}
	for e := range now.Entries() {
		if old != nil {
			if value, ok := old.Get(e.Key); ok && bytes.Equal(value, e.Value) {
				continue
			}
		}
		w.key(now, e.Key)
	}
}

// key tells of one key.
func (w *watcher) key(s *record.Snapshot, name string) {
	e, ok := s.Entry(name)
	if !ok {
		w.tell(Event{What: Delete, Node: s.Node(), Key: name})
		return
	}
	w.tell(Event{What: Set, Node: s.Node(), Key: name, Version: e.Version, Size: len(e.Value), Summary: key(e).says()})
}

// says is what there is to say of a value in a few words.
func (k Key) says() string {
	switch {
	case k.Summary != "":
		return k.Summary
	case k.Problem != "":
		return k.Problem
	}
	return strconv.Itoa(k.Size) + " bytes that this node does not understand"
}

// tell adds a line, and sends when there are enough.
func (w *watcher) tell(e Event) {
	if w.err != nil {
		return
	}
	e.Time = w.now().UTC()
	line, err := encode(e)
	if w.err = err; err == nil {
		w.buf.Write(line)
	}
	if w.buf.Len() >= maxBatch {
		_ = w.send() // w.err has it
	}
}

// send writes the lines that wait.
func (w *watcher) send() error {
	if w.err == nil && w.buf.Len() > 0 {
		_, w.err = w.out.Write(w.buf.Bytes())
		w.buf.Reset()
	}
	return w.err
}
