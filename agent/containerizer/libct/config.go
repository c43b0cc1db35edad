package libct

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"starling/agent/image"
	"starling/agent/network"
	"starling/master/mesos"
)

// Config is what New takes.
type Config struct {
	// Dir is the folder of the containerizer, absolute; it is made if it lacks, and must stay the same for containers to be
	// found again.
	Dir string
	// Launcher is the argv that runs Main, without flags of Main: {"/usr/bin/starling", "container"}. The program is named by
	// an absolute path.
	Launcher []string
	// Isolation is what --isolation lists. Empty is posix/cpu,posix/mem.
	Isolation []string
	// SandboxDirectory is where a container with an image sees its sandbox; empty is /mnt/mesos/sandbox.
	SandboxDirectory string
	// ResolvConf is the file that containers with an image in the node's network see as /etc/resolv.conf; empty is the node's.
	ResolvConf string
	// AllowedHostPaths are the folders of the node that volumes may show; empty is all.
	AllowedHostPaths []string
	// ForbidPrivileged refuses capabilities beyond the default ones, containers without seccomp, devices, and the node's IPC
	// and PID namespaces where they are asked for.
	ForbidPrivileged bool
	// Images and Networks may be nil: then containers that need them are refused.
	Images   Images
	Networks Networks
	Log      *slog.Logger
}

// DefaultSandboxDirectory is where a container with an image sees its sandbox.
const DefaultSandboxDirectory = "/mnt/mesos/sandbox"

// Images keeps images.
type Images interface {
	// Prepare gets an image and pins it for a container until Release. Where layers can't be mounted over each other, it
	// makes a copy in dir.
	Prepare(ctx context.Context, container string, img *mesos.Image, dir string) (image.Prepared, error)
	Release(ctx context.Context, container string) error
	// Held lists the containers that hold images, those of an earlier life too.
	Held(ctx context.Context) ([]string, error)
}

// Networks makes networks.
type Networks interface {
	// Check tells, without touching anything, why a request can't be had.
	Check(req network.Request) error
	Attach(ctx context.Context, req network.Request) (network.Attachment, error)
	Get(id string) (network.Attachment, bool)
	Detach(ctx context.Context, id string) error
	Collect(ctx context.Context, keep func(id string) bool) error
}

// What --isolation may list. Those that mean something here beside being known are constants.
const (
	isolatePID        = "namespaces/pid"
	isolateIPC        = "namespaces/ipc"
	isolateFilesystem = "filesystem/linux"
	isolateCaps       = "linux/capabilities"
	isolateSeccomp    = "linux/seccomp"
	isolateNNP        = "linux/nnp"
	isolateDevices    = "cgroups/devices"
)

var isolators = []string{
	"posix/cpu", "posix/mem", "posix/rlimits", "disk/du", "disk/xfs", "posix/disk", "filesystem/posix", "filesystem/shared", isolateFilesystem,
	"cgroups/all", "cgroups/blkio", "cgroups/cpu", "cgroups/cpuset", isolateDevices, "cgroups/hugetlb", "cgroups/mem",
	"cgroups/net_cls", "cgroups/net_prio", "cgroups/perf_event", "cgroups/pids", "docker/runtime", "docker/volume",
	"volume/host_path", "volume/image", "volume/sandbox_path", "volume/secret", "environment_secret", "gpu/nvidia",
	isolateCaps, isolateSeccomp, isolateNNP, "linux/devices", isolateIPC, isolatePID, "network/cni", "network/ports",
}

// everyTask are the isolators that every task gets a container for.
var everyTask = []string{isolatePID, isolateIPC, isolateFilesystem, isolateCaps, isolateSeccomp, isolateNNP, isolateDevices}

// Validate tells all that is wrong with the configuration.
func (c *Config) Validate() error {
	var faults []error
	if !filepath.IsAbs(c.Dir) {
		faults = append(faults, fmt.Errorf("folder of containers %q is not absolute", c.Dir))
	}
	if len(c.Launcher) == 0 || !filepath.IsAbs(c.Launcher[0]) {
		faults = append(faults, fmt.Errorf("command of the launcher %q does not begin with an absolute path", c.Launcher))
	}
	for _, name := range c.Isolation {
		if !slices.Contains(isolators, name) {
			faults = append(faults, fmt.Errorf("unknown isolator %q", name))
		}
	}
	if c.SandboxDirectory != "" && (!filepath.IsAbs(c.SandboxDirectory) || filepath.Clean(c.SandboxDirectory) == "/") {
		faults = append(faults, fmt.Errorf("sandbox directory %q is not an absolute path below the root", c.SandboxDirectory))
	}
	for _, path := range c.AllowedHostPaths {
		if !filepath.IsAbs(path) {
			faults = append(faults, fmt.Errorf("allowed host path %q is not absolute", path))
		}
	}
	return errors.Join(faults...)
}

// isolates tells whether --isolation lists an isolator.
func (c *Config) isolates(name string) bool { return slices.Contains(c.Isolation, name) }

// asksEvery returns the isolators that every task gets a container for.
func (c *Config) asksEvery() string {
	var names []string
	for _, name := range c.Isolation {
		if slices.Contains(everyTask, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}
