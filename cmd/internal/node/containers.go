package node

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"starling/agent"
	"starling/agent/containerizer"
	"starling/agent/containerizer/docker"
	"starling/agent/containerizer/libct"
	"starling/agent/containerizer/process"
	"starling/agent/image"
	"starling/master/mesos"
)

// runtimes is what an agent runs containers with, and what they are made of.
type runtimes struct {
	joined *containerizer.Composite
	images *image.Store // nil where there are none
}

// containerizers makes what --containerizers names, joined into one. control are the ports of this node that are not for
// containers.
func (r *role) containerizers(f *containerFlags, id string, control []uint16) (*runtimes, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cannot find this program's file, which is the supervisor's too: %w", err)
	}
	made := &runtimes{}
	var parts []containerizer.Part
	fail := func(err error) (*runtimes, error) {
		containerizer.NewComposite(parts...).Close()
		return nil, err
	}
	for _, name := range f.containerizers {
		part := containerizer.Part{Name: name}
		switch name {
		case "mesos":
			part.Type = mesos.ContainerInfo_MESOS
			part.Containerizer, err = r.nativeContainers(f, made, self, control)
		case "docker":
			part.Type = mesos.ContainerInfo_DOCKER
			part.Containerizer, err = r.dockerContainers(f, id)
		}
		if err != nil {
			return fail(err)
		}
		parts = append(parts, part)
	}
	made.joined = containerizer.NewComposite(parts...)
	r.closers = append(r.closers, func() { made.joined.Close() })
	return made, nil
}

// nativeContainers makes the containerizer of plain processes and of libcontainer.
func (r *role) nativeContainers(f *containerFlags, made *runtimes, self string, control []uint16) (containerizer.Containerizer, error) {
	config := process.Config{
		Dir: supervisorDir(r.place.dir), Supervisor: []string{self, "supervisor"}, IdleExit: supervisorIdle,
		CgroupParent: f.cgroupsRoot, CPUQuota: f.cfs, NoSwap: f.limitSwap, Pids: f.pidsLimit, Log: r.log,
	}
	if err := config.Validate(); err != nil {
		return nil, &UsageError{err}
	}
	processes, err := process.New(config)
	if err != nil {
		return nil, err
	}
	c := libct.Config{
		Dir: filepath.Join(r.place.dir, "libct"), Launcher: []string{self, "container"}, Isolation: f.isolation,
		SandboxDirectory: f.sandboxDirectory, AllowedHostPaths: f.allowedHostPaths, ForbidPrivileged: f.forbidPrivileged, Log: r.log,
	}
	if runtime.GOOS == "linux" && os.Geteuid() == 0 {
		// Without root there are neither images nor networks, and the containerizer says so of tasks that ask for them.
		networks, err := r.networks(&f.networks, control...)
		if err != nil {
			return nil, err
		}
		c.Networks = networks
		if c.ResolvConf, err = r.resolvConf(&f.networks); err != nil {
			return nil, err
		}
		if made.images, err = r.images(f); err != nil {
			return nil, err
		}
		c.Images = made.images
	}
	return libct.New(c, processes)
}

// images opens the store of images, and has it collect garbage.
func (r *role) images(f *containerFlags) (*image.Store, error) {
	config, err := inline(string(f.images.config))
	if err != nil {
		return nil, &UsageError{fmt.Errorf("--docker-config: %w", err)}
	}
	c := image.DefaultConfig()
	c.Dir, c.Owner = string(f.images.storeDir), r.place.dir
	if c.Dir == "" {
		c.Dir = filepath.Join(r.place.dir, "store", "docker")
	}
	c.Registry, c.DockerConfig, c.Insecure, c.LinkLocal = f.images.registry, config, f.images.insecure, f.images.linkLocal
	c.Backend, c.PullTimeout, c.GCAge, c.Log = f.images.backend, f.docker.pullTimeout.Std(), f.images.gcAge.Std(), r.log
	if err := c.Validate(); err != nil {
		return nil, &UsageError{err}
	}
	store, err := image.New(c)
	if err != nil {
		return nil, err
	}
	r.closers = append(r.closers, func() { store.Close() })
	r.add("images", store.Run)
	return store, nil
}

// dockerContainers makes the containerizer of the Docker engine, which need not be there yet.
func (r *role) dockerContainers(f *containerFlags, id string) (containerizer.Containerizer, error) {
	config, err := inline(string(f.images.config))
	if err != nil {
		return nil, &UsageError{fmt.Errorf("--docker-config: %w", err)}
	}
	var auth docker.Auth
	if len(config) > 0 {
		if auth, err = docker.ParseAuth(config); err != nil {
			return nil, &UsageError{fmt.Errorf("--docker-config: %w", err)}
		}
	}
	host := ""
	if r.set.IsSet("docker-socket") {
		host = f.docker.socket // otherwise DOCKER_HOST may name another
	}
	dns, err := f.networks.nameServers()
	if err != nil {
		return nil, err
	}
	return docker.New(docker.Config{
		AgentID: id, Dir: filepath.Join(r.place.dir, "docker"), Host: host, SandboxDirectory: f.sandboxDirectory, Auth: auth,
		RemoveDelay: f.docker.removeDelay.Std(), KillOrphans: f.docker.killOrphans, StopTimeout: f.docker.stopTimeout.Std(),
		CPUQuota: f.cfs, LimitSwap: f.limitSwap, AllowedHostPaths: f.allowedHostPaths, ForbidPrivileged: f.forbidPrivileged,
		PullTimeout: f.docker.pullTimeout.Std(), DNS: dns, Log: r.log,
	})
}

// settle gives an agent's configuration what the flags say of containers.
func (f *containerFlags) settle(c *agent.Config) {
	c.DefaultContainer = f.defaultContainer.info
	c.ExecutorEnvironment, c.SandboxDirectory = f.environment, f.sandboxDirectory
	c.ExecutorRegistrationTimeout, c.ExecutorReregistrationTimeout = f.registration.Std(), f.reregister.Std()
	c.RecoveryTimeout = f.recovery.Std()
	c.LogMaxBytes, c.LogFiles = int64(f.logSize), f.logFiles
	c.EnforceDiskQuota, c.DiskQuotaInterval = f.diskQuota, f.diskQuotaInterval.Std()
	c.GCInterval, c.MaxCompletedExecutors = f.gcEvery.Std(), f.keepExecutors
}
