package mastertest

import (
	"strings"

	"starling/master/mesos/resources"
)

// Resize gives the agent other resources, such as "cpus:2;mem:512", under the tasks that it runs.
func (a *Agent) Resize(res string) error {
	total, err := resources.Parse(res, resources.AnyRole)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	since := a.own.Snapshot(a.ID).Version()
	a.total = total
	a.publish()
	a.spread(since)
	return nil
}

// Free is what no task uses.
func (a *Agent) Free() resources.Resources {
	a.mu.Lock()
	defer a.mu.Unlock()
	free := a.total
	for _, r := range a.used {
		free = free.Sub(r)
	}
	return free
}

// Running returns the ids of a framework's tasks that have not ended.
func (a *Agent) Running(framework string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var ids []string
	for key := range a.used {
		if key.framework == framework {
			ids = append(ids, key.task)
		}
	}
	return ids
}

// Host is its address without the port.
func (a *Agent) Host() string {
	host, _, _ := strings.Cut(a.addr, ":")
	return host
}
