package record

import "context"

// Feed follows the changes of a Map from the moment when it was made. It pulls: a reader that does not read costs the
// writer nothing. One goroutine at a time may use it.
type Feed struct {
	m    *Map
	next uint64 // number of the next change to read
}

// event is what the history keeps of a change. The value and the snapshot are looked up when it is read, so the
// history holds no old states in memory.
type event struct{ node, key string }

// history is a ring of the newest events, numbered from 0 on. It is guarded by the lock of the Map.
type history struct {
	ring []event // grows to limit, then wraps
	next uint64  // number of the next event
	max  int
	wake chan struct{} // closed by the next event; nil while nobody waits
}

func (h *history) add(node, key string) {
	if len(h.ring) < h.max {
		h.ring = append(h.ring, event{node, key})
	} else {
		h.ring[h.next%uint64(h.max)] = event{node, key}
	}
	h.next++
	if h.wake != nil {
		close(h.wake)
		h.wake = nil
	}
}

// Next waits until something has changed and returns all that did since the last call: for each node and key at most
// one Change, with the newest value, in the order in which the last of them happened. A Change without a key stands
// for all changes of its node. The error is ErrLagged or that of the context.
func (f *Feed) Next(ctx context.Context) ([]Change, error) {
	for {
		changes, wake, err := f.poll()
		if err != nil || len(changes) > 0 {
			return changes, err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// poll returns what there is without waiting, or else a channel that is closed when there is something.
func (f *Feed) poll() ([]Change, <-chan struct{}, error) {
	m := f.m
	m.mu.Lock()
	defer m.mu.Unlock()
	h := &m.history
	if f.next == h.next {
		if h.wake == nil {
			h.wake = make(chan struct{})
		}
		return nil, h.wake, nil
	}
	if h.next-f.next > uint64(len(h.ring)) {
		f.next = h.next
		return nil, nil, ErrLagged
	}
	n := int(h.next - f.next)
	events := make([]event, 0, n)
	seen := make(map[event]bool, n)
	for i := h.next; i > f.next; i-- {
		e := h.ring[(i-1)%uint64(h.max)]
		if seen[e] {
			continue
		}
		seen[e] = true
		events = append(events, e)
	}
	f.next = h.next
	changes := make([]Change, 0, len(events))
	for i := len(events) - 1; i >= 0; i-- {
		e := events[i]
		if e.key != "" && seen[event{node: e.node}] {
			continue
		}
		c := Change{Node: e.node, Key: e.key}
		if r := m.records[e.node]; r != nil {
			c.Snapshot = r.snap
			if e.key != "" {
				c.Value, _ = r.snap.Get(e.key)
			}
		}
		changes = append(changes, c)
	}
	return changes, nil, nil
}
