package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"starling/agent/containerizer"
	"starling/master/mesos"
)

// watchInterval, with what one look may take, bounds how late a problem with the containerizer is told.
const watchInterval = 2 * time.Second

// watchContainerizer looks from time to time whether the containerizer can do its work, if it can tell, until ctx ends;
// told is what is known of that already. Tasks go on while it can't.
func (a *Agent) watchContainerizer(ctx context.Context, told string) {
	checker, ok := a.cfg.Containerizer.(interface {
		Check(ctx context.Context) error
	})
	if !ok {
		return
	}
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		text := ""
		if err := checker.Check(ctx); err != nil {
			text = degradedText(err)
		}
		if text == told || ctx.Err() != nil {
			continue
		}
		told = text
		a.post(func() { a.degrade(text) })
	}
}

func degradedText(err error) string {
	if !errors.Is(err, containerizer.ErrDegraded) {
		err = fmt.Errorf("%w: %w", containerizer.ErrDegraded, err)
	}
	return err.Error()
}

// degrade notes why containers can't be started, or with an empty text that they can. The node's health in the mesh, the
// metrics and the log tell; tasks that come meanwhile are refused (admit).
func (a *Agent) degrade(why string) {
	switch {
	case a.degraded == "" && why != "":
		a.cfg.Log.Error("a containerizer does not answer: its tasks go on, new ones for it are refused", "err", why)
	case a.degraded != "" && why == "":
		a.cfg.Log.Info("all containerizers answer again")
	}
	a.degraded = why
	a.problem("containerizer check", why)
}

// useless tells whether no container of any kind can be started: then the node is not offered.
func (a *Agent) useless() bool {
	docker := &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum()}
	return a.degraded != "" && a.usable(nil) != nil && a.usable(docker) != nil
}
