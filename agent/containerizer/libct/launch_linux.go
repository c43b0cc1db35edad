package libct

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"starling/agent/containerizer"
	"starling/agent/containerizer/process"
	"starling/agent/network"
)

// launchWithin is how long the launcher may take: it mounts and forks, and pulls nothing.
const launchWithin = 20 * time.Second

// Launch starts a container, as a plain process where nothing asks for more. Errors are sentences for people, with all
// that is wrong.
func (c *Containerizer) Launch(ctx context.Context, spec containerizer.Spec) (containerizer.Container, error) {
	if c.life == nil {
		return containerizer.Container{}, errors.New("containerizer is not recovered")
	}
	why := c.reasons(&spec)
	if len(why) == 0 {
		return c.process.Launch(ctx, spec)
	}
	if err := c.Usable(spec.Container); err != nil {
		return containerizer.Container{}, err
	}
	if lack := c.lacks(); lack != "" {
		return containerizer.Container{}, fmt.Errorf("%w: %s cannot be had: %s", containerizer.ErrUnsupported, strings.Join(why, ", "), lack)
	}
	if err := c.reserve(spec.ID); err != nil {
		return containerizer.Container{}, err
	}
	k, err := c.launch(ctx, &spec)
	if err != nil {
		c.giveBack(spec.ID)
		c.mu.Lock()
		delete(c.held, spec.ID)
		c.mu.Unlock()
	}
	return k, err
}

// reserve takes an id, which may be that of a plain process.
func (c *Containerizer) reserve(id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, taken := c.held[id]; taken {
		return fmt.Errorf("container %q: %w", id, containerizer.ErrExists)
	}
	if _, owed := c.owed[id]; owed {
		return fmt.Errorf("container %q: what an earlier one held is not given back yet: %w", id, containerizer.ErrExists)
	}
	c.held[id] = false
	return nil
}

// reasons tells what asks for more than a plain process; nothing if one will do.
func (c *Containerizer) reasons(spec *containerizer.Spec) []string {
	why := containerizer.Demands(spec.Container)
	if names := c.cfg.asksEvery(); names != "" {
		why = append(why, "isolation by "+names)
	}
	f := c.family(spec.Parent)
	if f.network != "" {
		why = append(why, "the network of its parent")
	}
	if f.privateIPC {
		why = append(why, "the IPC namespace of its parent")
	}
	return why
}

// family finds what a container may share with its parent.
func (c *Containerizer) family(parent string) family {
	if parent == "" {
		return family{}
	}
	f := family{}
	if c.cfg.Networks != nil {
		if at, ok := c.cfg.Networks.Get(parent); ok {
			f.network = at.Path
		}
	}
	if g, err := c.readGroup(parent); err == nil {
		f.sandbox, f.group, f.privateIPC = g.Dir, true, g.PrivateIPC
	} else if b, err := readBundle(c.folder(parent)); err == nil {
		f.sandbox = b.Sandbox
		for _, m := range b.Config.Mounts {
			if m.Destination == "/dev/shm" && m.Device == "bind" {
				f.shm = m.Source
			}
		}
		if f.network == "" {
			for _, ns := range b.Config.Namespaces {
				if ns.Type == "NEWNET" {
					f.network = ns.Path
				}
			}
		}
	}
	if !f.group && f.sandbox == "" {
		f.shm = "/dev/shm" // a plain process
	}
	if pid, ok := c.process.PID(parent); ok {
		f.pid = pid
	}
	return f
}

func (c *Containerizer) launch(ctx context.Context, spec *containerizer.Spec) (containerizer.Container, error) {
	p := &plan{cfg: &c.cfg, spec: spec, info: spec.Container, parent: c.family(spec.Parent)}
	folder := c.folder(spec.ID)
	if err := os.RemoveAll(folder); err != nil {
		return containerizer.Container{}, err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return containerizer.Container{}, fmt.Errorf("cannot make the folder of container %q: %w", spec.ID, err)
	}
	if img := spec.Container.GetMesos().GetImage(); img != nil {
		prepared, err := c.cfg.Images.Prepare(ctx, spec.ID, img, folder)
		if err != nil {
			return containerizer.Container{}, err
		}
		p.prepared = &prepared
	}
	if p.parent.group && p.sharesIPC() {
		ns, shm, err := c.shareIPC(spec.Parent)
		if err != nil {
			return containerizer.Container{}, err
		}
		p.parent.ipc, p.parent.shm = ns, shm
	}
	if p.parent.network == "" {
		at, err := c.attach(ctx, spec)
		if err != nil {
			return containerizer.Container{}, err
		}
		p.network = at
	} else if at, ok := c.attached(spec.Parent); ok {
		p.network = at
	}
	b, err := p.make()
	if err != nil {
		return containerizer.Container{}, err
	}
	k, err := c.process.LaunchBy(ctx, *spec, process.Launcher{
		Within: launchWithin,
		// A launcher lives for milliseconds: it has nothing to collect.
		Env: []string{"PATH=" + defaultPath, "GOMAXPROCS=2", "GOGC=off"},
		Prepare: func(_ context.Context, cgroups []string) ([]string, error) {
			b.Cgroups = cgroupPaths(cgroups)
			return append(c.cfg.Launcher[:len(c.cfg.Launcher):len(c.cfg.Launcher)], "run", folder), b.write(folder)
		},
	})
	k.Networks, k.Disk = p.network.Infos, c.disk(b)
	return k, err
}

// disk lists what holds what a container writes outside of its sandbox: what it has changed in its image, and its files about
// the network.
func (c *Containerizer) disk(b *bundle) (dirs []string) {
	if b.Image && b.Root == "" {
		dirs = append(dirs, filepath.Join(c.folder(b.ID), upperName))
	}
	if at, ok := c.attached(b.ID); ok && len(at.Files) > 0 {
		dirs = append(dirs, filepath.Dir(at.Files[0].Source))
	}
	return dirs
}

// attach makes the network that a container asks for, if it does.
func (c *Containerizer) attach(ctx context.Context, spec *containerizer.Spec) (network.Attachment, error) {
	if len(spec.Container.GetNetworkInfos()) == 0 {
		return network.Attachment{}, nil
	}
	if c.cfg.Networks == nil {
		for _, n := range spec.Container.GetNetworkInfos() {
			if n.GetName() != "" || len(n.GetPortMappings()) > 0 {
				return network.Attachment{}, fmt.Errorf("%w: there is no network %q on this agent", containerizer.ErrUnsupported, n.GetName())
			}
		}
		return network.Attachment{}, nil
	}
	return c.cfg.Networks.Attach(ctx, network.Request{ID: spec.ID, Container: spec.Container, Control: spec.Executor})
}

func (c *Containerizer) attached(id string) (network.Attachment, bool) {
	if c.cfg.Networks == nil {
		return network.Attachment{}, false
	}
	return c.cfg.Networks.Get(id)
}
