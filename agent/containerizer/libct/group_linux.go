package libct

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"starling/agent/containerizer"
	"starling/master/mesos"
)

// group is what is kept of a group on disk.
type group struct {
	ID  string `json:"id"`
	Dir string `json:"dir"`
	// PrivateIPC is set where the executor asked for an IPC namespace of its own, ShmSize how large its /dev/shm is to be, in
	// MiB; zero leaves that to us.
	PrivateIPC bool   `json:"private_ipc,omitempty"`
	ShmSize    uint32 `json:"shm_size,omitempty"`
}

func (c *Containerizer) groupFile(id string) string {
	return filepath.Join(c.cfg.Dir, groupPrefix+safeName(id)+".json")
}

func (c *Containerizer) readGroup(id string) (group, error) {
	var g group
	text, err := os.ReadFile(c.groupFile(id))
	if err == nil {
		err = json.Unmarshal(text, &g)
	}
	return g, err
}

// OpenGroup makes cgroups over the containers of a group, and its network if it asks for one.
func (c *Containerizer) OpenGroup(ctx context.Context, g containerizer.Group) ([]*mesos.NetworkInfo, error) {
	if c.life == nil {
		return nil, errors.New("containerizer is not recovered")
	}
	spec := &containerizer.Spec{ID: g.ID, Container: g.Container}
	if len(g.Container.GetNetworkInfos()) > 0 {
		if err := c.Usable(&mesos.ContainerInfo{Type: g.Container.Type, NetworkInfos: g.Container.NetworkInfos}); err != nil {
			return nil, err
		}
	}
	linux := g.Container.GetLinuxInfo()
	if err := checkGroup(linux); err != nil {
		return nil, err
	}
	private := linux.GetIpcMode() == mesos.LinuxInfo_PRIVATE
	if lack := c.lacks(); private && lack != "" {
		return nil, fmt.Errorf("%w: an IPC namespace for a task group cannot be had: %s", containerizer.ErrUnsupported, lack)
	}
	// One that was there keeps its containers, whatever cannot be had of it now.
	there := slices.Contains(c.groupIDs(), g.ID)
	undo := func(err error) ([]*mesos.NetworkInfo, error) {
		if there {
			return nil, err
		}
		return nil, errors.Join(err, c.CloseGroup(context.WithoutCancel(ctx), g.ID))
	}
	if err := os.MkdirAll(c.cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	text, err := json.Marshal(group{ID: g.ID, Dir: g.Dir, PrivateIPC: private, ShmSize: linux.GetShmSize()})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(c.groupFile(g.ID), text, 0o600); err != nil {
		return nil, fmt.Errorf("cannot note group %q: %w", g.ID, err)
	}
	if err := c.process.MakeGroup(g.ID, g.Limits); there && err != nil {
		c.log.Warn("cannot give a group its limits again", "container_id", g.ID, "err", err)
	} else if err != nil {
		return undo(err)
	}
	at, err := c.attach(ctx, spec)
	if err != nil {
		return undo(err)
	}
	return at.Infos, nil
}

// CloseGroup ends the containers of a group and gives back what it holds.
func (c *Containerizer) CloseGroup(ctx context.Context, id string) error {
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	for _, member := range c.process.Members(id) {
		wg.Go(func() {
			if err := c.process.Destroy(ctx, member); err != nil && !errors.Is(err, containerizer.ErrUnknownContainer) {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := c.process.RemoveGroup(ctx, id); err != nil {
		return fmt.Errorf("cannot remove the cgroups of group %q: %w", id, err)
	}
	if c.cfg.Networks != nil {
		if err := c.cfg.Networks.Detach(ctx, id); err != nil {
			return err
		}
	}
	c.ipc.Lock()
	defer c.ipc.Unlock()
	if err := dropIPC(c.ipcFolder(id)); err != nil {
		return err
	}
	if err := os.Remove(c.groupFile(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// ListGroups lists the groups that are there.
func (c *Containerizer) ListGroups(context.Context) ([]string, error) { return c.groupIDs(), nil }

func (c *Containerizer) groupIDs() []string {
	ids := c.process.GroupIDs()
	entries, _ := os.ReadDir(c.cfg.Dir)
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), groupPrefix) {
			continue
		}
		var g group
		text, err := os.ReadFile(filepath.Join(c.cfg.Dir, entry.Name()))
		if err == nil && json.Unmarshal(text, &g) == nil && g.ID != "" && !slices.Contains(ids, g.ID) {
			ids = append(ids, g.ID)
		}
	}
	return ids
}
