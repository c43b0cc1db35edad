package docker

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"starling/agent/containerizer"
)

// recoverTimeout is how long Recover waits for the engine.
const recoverTimeout = 20 * time.Second

// lost is what is said of a container that the engine does not have any more.
const lost = "Container is not known to the Docker engine any more: it was removed by somebody else, or the engine lost it"

// Recover finds the containers of earlier lives. From an engine that does not answer it returns what was written down,
// and an error that is containerizer.ErrDegraded; the engine is looked for on and on.
func (c *Containerizer) Recover(ctx context.Context) ([]containerizer.Container, error) {
	if c.life != nil {
		return nil, errors.New("containerizer was recovered before")
	}
	records, damaged, err := c.files.load()
	if err != nil {
		return nil, err
	}
	if len(damaged) > 0 {
		c.log.Error("state of containers does not read, what the Docker engine knows of them has to do", "container_ids", damaged)
	}
	c.life, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	soon, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	found, err := c.recover(soon, records)
	if err != nil {
		if ctx.Err() != nil {
			c.stop()
			return nil, ctx.Err()
		}
		c.away, c.unsorted = err, true
		c.log.Error("Docker engine does not answer: its containers go on, none can be launched", "err", err)
		found = c.remember(records)
		err = fmt.Errorf("%w: %w", containerizer.ErrDegraded, err)
	}
	for _, k := range found {
		e := c.entries[k.ID]
		close(e.ready)
		c.wg.Go(func() { c.follow(e) })
		if k.Exit != nil {
			c.tell(e, *k.Exit)
		}
	}
	c.wg.Go(c.pump)
	c.wg.Go(c.watch)
	c.wg.Go(c.listen)
	return found, err
}

// recover asks the engine, and compares that with the records.
func (c *Containerizer) recover(ctx context.Context, records map[string]record) ([]containerizer.Container, error) {
	if err := c.engine.Ping(ctx); err != nil {
		return nil, err
	}
	list, err := c.engine.List(ctx, labelOwner+"="+c.owner)
	if err != nil {
		return nil, err
	}
	entries := make(map[string]*entry)
	removals := make(map[string]removal)
	var containers []containerizer.Container
	var clear []func()
	seen := make(map[string]bool)
	for _, l := range list {
		id := l.Labels[labelID]
		if l.Name != namePrefix+id {
			continue // somebody gave our labels to a container of theirs
		}
		r, recorded := records[id]
		if l.Labels[labelAgent] != c.cfg.AgentID {
			clear = append(clear, func() { c.orphan(l) })
			continue
		}
		seen[id] = true
		if recorded && r.Removed != nil {
			removals[id] = removal{l.ID, r.Removed.Add(c.cfg.RemoveDelay)}
			continue
		}
		i, err := c.engine.Inspect(ctx, l.ID)
		if errors.Is(err, errNotFound) {
			seen[id] = false
			continue
		}
		if err != nil {
			return nil, err
		}
		if i.Status == "created" || i.Started.IsZero() {
			// A launch that an earlier life did not bring to its end, or that failed.
			clear = append(clear, func() { c.wg.Go(func() { c.abandon(l.Name) }) })
			delete(records, id)
			_ = c.files.forget(id)
			continue
		}
		if !recorded {
			r = record{ID: id, Note: note(l.Labels), Stdout: l.Labels[labelStdout], Stderr: l.Labels[labelStderr]}
		}
		e := newEntry(id)
		e.record = r
		entries[id] = e
		c.learn(e, &i)
		if e.record.Exit == nil && i.ended() {
			exit := c.exitOf(e, &i)
			e.record.Exit = &exit
		}
		containers = append(containers, outside(e.record, &i))
	}
	for id, r := range records {
		if seen[id] || entries[id] != nil {
			continue
		}
		if r.Engine == "" || r.Removed != nil {
			if err := c.files.forget(id); err != nil {
				c.log.Warn("cannot remove the state of a container", "container_id", id, "err", err)
			}
			if r.Engine == "" {
				clear = append(clear, func() { c.wg.Go(func() { c.abandon(namePrefix + id) }) })
			}
			continue
		}
		e := newEntry(id)
		if r.Exit == nil {
			r.Exit = &containerizer.Exit{ID: id, At: time.Now(), Message: lost}
		}
		e.record = r
		entries[id] = e
		containers = append(containers, outside(r, nil))
	}
	c.entries, c.removals = entries, removals
	for _, f := range clear {
		f()
	}
	slices.SortFunc(containers, func(a, b containerizer.Container) int { return strings.Compare(a.ID, b.ID) })
	return containers, nil
}

// remember makes entries of the records alone.
func (c *Containerizer) remember(records map[string]record) []containerizer.Container {
	var containers []containerizer.Container
	c.entries, c.removals = make(map[string]*entry), make(map[string]removal)
	for id, r := range records {
		switch {
		case r.Removed != nil:
			c.removals[id] = removal{r.Engine, r.Removed.Add(c.cfg.RemoveDelay)}
			continue
		case r.Engine == "" || r.Started.IsZero():
			c.wg.Go(func() { c.abandon(namePrefix + id) })
			continue
		}
		e := newEntry(id)
		e.record = r
		if r.Exit == nil {
			e.handle = holdAgain(r.PID, r.Ticks)
		}
		c.entries[id] = e
		containers = append(containers, outside(r, nil))
	}
	slices.SortFunc(containers, func(a, b containerizer.Container) int { return strings.Compare(a.ID, b.ID) })
	return containers
}

// orphan ends a container of an agent that is no more: its id stood on it, in this folder of the same machine.
func (c *Containerizer) orphan(l listed) {
	log := c.log.With("container_id", l.Labels[labelID], "agent_id", l.Labels[labelAgent])
	if !c.cfg.KillOrphans {
		log.Warn("container of an earlier agent is left alone")
		return
	}
	log.Warn("container of an earlier agent is removed")
	c.wg.Go(func() { c.abandon(l.Name) })
}

func note(labels map[string]string) []byte {
	data, err := base64.StdEncoding.DecodeString(labels[labelNote])
	if err != nil || len(data) == 0 {
		return nil
	}
	return data
}
