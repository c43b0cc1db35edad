package docker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

var errSocket = errors.New("who has the socket of the Docker engine owns the node")

// checkBind looks at a volume of the node; those of the task's own sandbox are resolved and lie within it.
func (c *Containerizer) checkBind(bind string) error {
	source, _, _ := strings.Cut(bind, ":")
	if !filepath.IsAbs(source) {
		return nil // a volume of the engine's
	}
	return c.checkFolder(source)
}

// checkFolder tells why a path of the node must not be in a container.
func (c *Containerizer) checkFolder(source string) error {
	real, err := filepath.EvalSymlinks(source)
	if err != nil {
		real = filepath.Clean(source) // the engine makes a folder there
	}
	if c.socket != "" && (holds(source, c.socket) || holds(real, c.realSocket())) {
		// An operator may name a folder above it, for tools that watch the whole node; the socket itself is for nobody.
		if real == c.realSocket() {
			return errSocket
		}
		if !slices.Contains(c.cfg.AllowedHostPaths, real) {
			return fmt.Errorf("%w: it is in %s, which --allowed-host-paths does not name", errSocket, real)
		}
	}
	if len(c.cfg.AllowedHostPaths) == 0 || slices.ContainsFunc(c.cfg.AllowedHostPaths, func(allowed string) bool { return holds(allowed, real) }) {
		return nil
	}
	return fmt.Errorf("on this node only what is in %s may be a volume", strings.Join(c.cfg.AllowedHostPaths, ", "))
}

// holds tells whether a path is a folder, or something in it.
func holds(folder, path string) bool {
	rel, err := filepath.Rel(folder, path)
	return err == nil && filepath.IsLocal(rel)
}

func (c *Containerizer) realSocket() string {
	if real, err := filepath.EvalSymlinks(c.socket); err == nil {
		return real
	}
	return c.socket
}

// localDriver is the volume driver of the engine itself. It mounts what its options say, as root: a folder of the node too.
const localDriver = "local"

// remote are the file systems whose device is no file of the node.
var remote = []string{"tmpfs", "nfs", "nfs4", "cifs", "smb3"}

// checkVolume looks at what a volume of the engine's is made of. What other drivers do is with whoever installed them.
func (c *Containerizer) checkVolume(driver string, options map[string]string) error {
	if driver != "" && driver != localDriver || len(options) == 0 {
		return nil
	}
	for _, o := range strings.Split(options["o"], ",") {
		if o = strings.TrimSpace(o); o == "bind" || o == "rbind" {
			// The kernel does not look at the type then.
			if device := options["device"]; filepath.IsAbs(device) {
				return c.checkFolder(device)
			}
			return fmt.Errorf("device %q is not an absolute path", options["device"])
		}
	}
	if len(c.cfg.AllowedHostPaths) == 0 || slices.Contains(remote, options["type"]) || options["type"] == "" && options["device"] == "" {
		return nil
	}
	return fmt.Errorf("on this node a volume of type %q may hold anything; only folders (o=bind) and %s may be volumes", options["type"], strings.Join(remote, ", "))
}

// checkKept looks at the volumes that the engine has by those names already, whose options count then, and not those of the
// task.
func (c *Containerizer) checkKept(ctx context.Context, p *plan) error {
	var names []string
	for _, m := range p.Mounts {
		names = append(names, m.Name)
	}
	for _, bind := range p.Binds {
		if name, _, _ := strings.Cut(bind, ":"); !filepath.IsAbs(name) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		driver, options, err := c.engine.Volume(ctx, name)
		if errors.Is(err, errNotFound) {
			continue
		}
		if err == nil {
			err = c.checkVolume(driver, options)
		}
		if err != nil {
			return fmt.Errorf("volume %q is not allowed: %w", name, err)
		}
	}
	return nil
}
