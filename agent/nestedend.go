package agent

import (
	"errors"
	"strings"
	"time"

	"starling/agent/checkpoint"
	"starling/agent/containerizer"
)

// exitedNested takes the exit of a container that was launched over the API; false is for all others.
func (a *Agent) exitedNested(exit containerizer.Exit) bool {
	n := a.nested[exit.ID]
	switch {
	case n == nil:
		return false
	case n.starting:
		n.early = &exit
	case n.exit == nil:
		a.endedNested(n, exit)
	}
	return true
}

// endedNested notes the end of a container; what it has left behind goes, and all that was nested in it.
func (a *Agent) endedNested(n *nested, exit containerizer.Exit) {
	n.exit = &exit
	a.tellEnd(n.name, exit)
	a.endNested(n.name)
	if n.session == nil {
		a.unbound(n.name, n.sandbox)
		released := make(chan struct{})
		n.released = released
		a.control.run(func() {
			ctx, cancel := a.workContext(controlTimeout)
			defer cancel()
			if err := a.cfg.Containerizer.Destroy(ctx, n.name); err != nil && !errors.Is(err, containerizer.ErrUnknownContainer) {
				a.cfg.Log.Warn("cannot end what a container has left behind", "container_id", n.name, "err", err)
			}
			a.collector.Release(n.sandbox, n.name)
			close(released)
			a.post(func() {
				if a.nested[n.name] == n {
					a.saveNested(n)
				}
			})
		})
	}
	if n.orphaned {
		a.forgetNested(n)
	}
}

// endNested ends and forgets all containers that are nested in one, directly or not.
func (a *Agent) endNested(name string) { a.endNestedIn(name + ".") }

// endNestedIn ends and forgets all containers that were launched over the API and whose names begin so.
func (a *Agent) endNestedIn(prefix string) {
	for _, n := range a.nested {
		if !strings.HasPrefix(n.name, prefix) {
			continue
		}
		n.orphaned = true
		switch {
		case n.exit != nil:
			a.forgetNested(n)
		case !n.starting:
			a.destroyNested(n)
		}
	}
}

// endAllNested ends all containers that were launched over the API.
func (a *Agent) endAllNested() {
	for _, n := range a.nested {
		if !n.starting {
			a.destroyNested(n)
		}
	}
}

// destroyNested ends a container, and tries that again until it has worked.
func (a *Agent) destroyNested(n *nested) {
	if n.ending || n.exit != nil {
		return
	}
	n.ending = true
	if n.session != nil {
		a.control.run(func() { _ = n.session.Close() })
		return
	}
	a.control.run(func() {
		ctx, cancel := a.workContext(controlTimeout)
		defer cancel()
		err := a.cfg.Containerizer.Destroy(ctx, n.name)
		a.post(func() {
			n.ending = false
			switch {
			case n.exit != nil:
			case errors.Is(err, containerizer.ErrUnknownContainer):
				a.endedNested(n, containerizer.Exit{ID: n.name, At: a.cfg.Now()})
			case err != nil:
				a.counters.DestroyErrors++
				a.timers.at(time.Now().Add(retryDestroy), func() { a.destroyNested(n) })
			}
		})
	})
}

// forgetNested forgets a container that does not run.
func (a *Agent) forgetNested(n *nested) {
	if a.nested[n.name] != n {
		return
	}
	delete(a.nested, n.name)
	if n.session != nil {
		return
	}
	a.committer.Submit(checkpoint.EndNested(n.sequence), func(err error) {
		if err != nil {
			a.cfg.Log.Warn("cannot forget container on disk", "container_id", n.name, "err", err)
		}
	})
	a.control.run(func() { a.removeOrphan(n.name) })
}
