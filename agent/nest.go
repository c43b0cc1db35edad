package agent

import (
	"fmt"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/agent/executor"
	"starling/agent/sandbox"
	"starling/master/mesos"
)

// specOf returns the container of a task that has one of its own.
func (a *Agent) specOf(t *task) containerizer.Spec {
	r := t.run
	if r == nil {
		return a.executor.Spec(t.framework.info, t.info, t.res, t.container, t.sandbox)
	}
	place := executor.Place{Executor: r.key.executor, Address: a.cfg.Address}
	if r.grouped {
		place.Group = r.container
	}
	for _, n := range slices.Backward(r.networks) {
		for _, ip := range n.GetIpAddresses() {
			place.Address = ip.GetIpAddress()
		}
	}
	return a.executor.Nested(t.framework.info, t.info, t.res, t.container, t.sandbox, place)
}

// shared is a folder of an executor's sandbox that a task of it has as a volume.
type shared struct {
	source, target string
	// volume is the persistent volume of the executor's that the folder is; nil for none.
	volume *mount
}

// ofParent tells whether a volume is a folder of the executor's sandbox.
func ofParent(v *mesos.Volume) bool {
	path := v.GetSource().GetSandboxPath()
	return path != nil && path.GetType() == mesos.Volume_Source_SandboxPath_PARENT
}

// withoutShared returns a container without the volumes that are folders of the executor's sandbox: the agent sees to them.
func withoutShared(c *mesos.ContainerInfo) *mesos.ContainerInfo {
	if !slices.ContainsFunc(c.GetVolumes(), ofParent) {
		return c
	}
	c = proto.CloneOf(c)
	c.Volumes = slices.DeleteFunc(c.Volumes, ofParent)
	return c
}

// nest returns what makes the sandbox of a task within that of its executor. Volumes that are folders of the executor's
// sandbox become links where the task sees the node's files, and mounts where it does not. Where such a folder is a persistent
// volume of the executor's it is that which they lead to: in the sandbox there is but a link, which anyone might have put there.
func (a *Agent) nest(t *task, spec *containerizer.Spec) func(owner string) (string, error) {
	var shares []shared
	volumes, failed := a.mounts(t.run.res)
	for _, v := range spec.Container.GetVolumes() {
		if !ofParent(v) {
			continue
		}
		s := shared{source: v.GetSource().GetSandboxPath().GetPath(), target: v.GetContainerPath()}
		from := filepath.Join(t.run.sandbox, s.source)
		if n := slices.IndexFunc(volumes, func(m mount) bool { return filepath.Clean(m.path) == filepath.Clean(s.source) }); n >= 0 {
			s.volume = &volumes[n]
			from = s.volume.Dir()
		}
		if containerizer.OwnRoot(spec.Container) {
			if s.volume != nil && failed == nil {
				from, failed = filepath.EvalSymlinks(from)
			}
			spec.Mounts = append(spec.Mounts, containerizer.Mount{
				Source: from, Target: s.target, ReadOnly: v.GetMode() == mesos.Volume_RO,
			})
			s.target = ""
		}
		shares = append(shares, s)
	}
	spec.Container = withoutShared(spec.Container)
	parent, child, id := t.run.sandbox, ContainerIDOf(t.container).GetValue(), t.key.Task
	return func(owner string) (string, error) {
		if failed != nil {
			return "", fmt.Errorf("cannot use the volumes of the executor: %w", failed)
		}
		dir, err := a.layout.CreateNested(parent, child, owner)
		if err == nil {
			err = a.layout.LinkTask(parent, id, dir)
		}
		for i := 0; err == nil && i < len(shares); i++ {
			err = shares[i].show(parent, dir, child, owner)
		}
		return dir, err
	}
}

// show makes the folder be there, and a link to it in the sandbox of a task that sees the node's files.
func (s shared) show(parent, dir, child, owner string) error {
	switch {
	case s.volume == nil:
		_, err := sandbox.Share(parent, child, s.source, s.target, owner)
		return err
	case s.target == "":
		return nil // it is mounted
	default:
		return s.volume.Link(dir, s.target, owner)
	}
}

// networksOf returns the networks of a task's container: its own, or those of its executor.
func networksOf(t *task, c containerizer.Container) []*mesos.NetworkInfo {
	if len(c.Networks) == 0 && t.run != nil {
		return t.run.networks
	}
	return c.Networks
}
