package task

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"starling/marathon/app"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// BuildGroup makes the executor and the tasks of the launch of a pod's instance, one task a container, in their order. The
// pick must be of the launch's pod; the task of the launch is that of the first container. The messages are the caller's.
func BuildGroup(l Launch, s Settings) (*mesos.ExecutorInfo, []*mesos.TaskInfo) {
	// What containers share, ports and volumes, is the executor's.
	shared := func(r *mesos.Resource) bool { return r.GetName() == resources.Ports || r.Disk != nil }
	own := l.Pick.Task.Filter(func(r *mesos.Resource) bool { return !shared(r) })
	executor := &mesos.ExecutorInfo{
		Type:       mesos.ExecutorInfo_DEFAULT.Enum(),
		ExecutorId: &mesos.ExecutorID{Value: new(l.Task.GroupExecutorID())},
		Name:       new(l.App.ID.HostName()),
		Source:     new(l.App.ID.String()),
		Resources:  protoOf(l.Pick.Executor.Add(l.Pick.Task.Filter(shared)), s),
		Labels:     labelsOf(l.App.Labels),
		Container: &mesos.ContainerInfo{
			Type: mesos.ContainerInfo_MESOS.Enum(), LinuxInfo: linuxInfo(l.App.Pod.LinuxInfo), NetworkInfos: networkInfos(l, s),
		},
	}
	rest := &pool{entries: own.Proto()}
	containers := l.App.Pod.Containers
	tasks := make([]*mesos.TaskInfo, len(containers))
	for n := range containers {
		tasks[n] = groupTask(l, n, s)
		tasks[n].Resources = protoOf(rest.share(containers[n].Resources), s)
	}
	return executor, tasks
}

// share cuts what a container needs out of what was picked for all of them. The sum of the shares is what was picked, so
// there is always enough.
func (p *pool) share(need app.PodResources) resources.Resources {
	var taken []*mesos.Resource
	for _, one := range []struct {
		name   string
		amount float64
	}{{resources.CPUs, need.CPUs}, {resources.Mem, need.Mem}, {resources.Disk, need.Disk}, {resources.GPUs, float64(need.GPUs)}} {
		part, _ := p.take(one.name, one.amount)
		taken = append(taken, part...)
	}
	out, err := resources.FromProto(taken)
	if err != nil {
		return resources.Resources{} // cut out of checked resources, so it is fit to be read again
	}
	return out
}

// groupTask makes the task of the n-th container, without its resources.
func groupTask(l Launch, n int, s Settings) *mesos.TaskInfo {
	pod := l.App.Pod
	c := &pod.Containers[n]
	first := pod.EndpointsBefore(n)
	info := &mesos.TaskInfo{
		Name:      new(c.Name),
		TaskId:    &mesos.TaskID{Value: new(l.Task.Of(c.Name).String())},
		AgentId:   &mesos.AgentID{Value: new(l.AgentID)},
		Labels:    labelsOf(c.Labels),
		Limits:    limits(c.ResourceLimits),
		Discovery: discoveryOf(l, first, first+len(c.Endpoints)),
		Container: groupContainer(l, c),
		Command:   groupCommand(l, c, s),
	}
	if c.Lifecycle != nil && c.Lifecycle.KillGracePeriodSeconds != nil {
		grace := int64(math.Min(*c.Lifecycle.KillGracePeriodSeconds*float64(time.Second), math.MaxInt64/2))
		info.KillPolicy = &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: new(grace)}}
	}
	if h := c.HealthCheck; h != nil {
		info.HealthCheck = groupHealthCheck(h, l, c, first)
	}
	if k := c.Check; k != nil {
		info.Check = groupCheck(k, l, c, first)
	}
	return info
}

// groupCommand makes the command of a container. An argument vector is appended to the entry point of an image, unless it
// is to be overridden.
func groupCommand(l Launch, c *app.PodContainer, s Settings) *mesos.CommandInfo {
	command := &mesos.CommandInfo{Shell: new(false), Environment: groupEnvironment(l, c, s)}
	if exec := c.Exec; exec != nil {
		if exec.Command.Shell != "" {
			command.Shell, command.Value = new(true), new(exec.Command.Shell)
		} else {
			command.Arguments = slices.Clone(exec.Command.Argv)
			if c.Image == nil || exec.OverrideEntrypoint != nil && *exec.OverrideEntrypoint {
				command.Value = new(exec.Command.Argv[0])
			}
		}
	}
	if user := c.User; user != "" {
		command.User = new(user)
	} else if l.App.User != "" {
		command.User = new(l.App.User)
	}
	command.Uris = urisOf(c.Artifacts)
	return command
}

func groupEnvironment(l Launch, c *app.PodContainer, s Settings) *mesos.Environment {
	env := groupVariables(l, c, s)
	out := new(mesos.Environment)
	for _, name := range sortedKeys(env) {
		variable := &mesos.Environment_Variable{Name: new(name)}
		if secret := env[name].Secret; secret != "" {
			variable.Type, variable.Secret = mesos.Environment_Variable_SECRET.Enum(), secretOf(l.App, secret)
		} else {
			variable.Value = new(env[name].Value)
		}
		out.Variables = append(out.Variables, variable)
	}
	return out
}

// groupVariables are those of a container of a pod. Later kinds win: what the pod defines, what the container
// does, facts about the launch, labels, the endpoints of the whole pod, and the host.
func groupVariables(l Launch, c *app.PodContainer, s Settings) map[string]app.EnvValue {
	env := make(map[string]app.EnvValue, len(l.App.Env)+len(c.Env))
	maps.Copy(env, l.App.Env)
	maps.Copy(env, c.Env)
	facts := map[string]string{
		"MESOS_TASK_ID":                    l.Task.Of(c.Name).String(),
		"MESOS_EXECUTOR_ID":                l.Task.GroupExecutorID(),
		"MARATHON_APP_ID":                  l.App.ID.String(),
		"MARATHON_APP_VERSION":             l.App.Version.String(),
		"MARATHON_CONTAINER_ID":            c.Name,
		"MARATHON_CONTAINER_RESOURCE_CPUS": app.Decimal(c.Resources.CPUs),
		"MARATHON_CONTAINER_RESOURCE_MEM":  app.Decimal(c.Resources.Mem),
		"MARATHON_CONTAINER_RESOURCE_DISK": app.Decimal(c.Resources.Disk),
		"MARATHON_CONTAINER_RESOURCE_GPUS": strconv.Itoa(c.Resources.GPUs),
		"MARATHON_APP_ENFORCE_GROUP_ROLE":  strings.ToUpper(strconv.FormatBool(l.EnforceGroupRole)),
	}
	labels := maps.Clone(l.App.Labels)
	if labels == nil {
		labels = make(app.Labels, len(c.Labels))
	}
	maps.Copy(labels, c.Labels)
	addLabels(facts, labels)
	prefix := strings.ToUpper(s.EnvVarsPrefix)
	for i, port := range l.App.Ports() {
		addEndpoint(facts, prefix, l, port, l.Pick.Ports[i])
	}
	facts[prefix+"HOST"] = l.Hostname
	if l.Index != nil {
		facts["STARLING_INSTANCE_INDEX"] = strconv.Itoa(*l.Index)
	}
	for name, value := range facts {
		env[name] = app.EnvValue{Value: value}
	}
	return env
}

func addEndpoint(facts map[string]string, prefix string, l Launch, port app.Port, picked PickedPort) {
	name := strings.ToUpper(outsideVariable.ReplaceAllString(port.Name, "_"))
	number := picked.Host
	if !l.App.HostMode() {
		number = containerPort(port, picked)
		facts[prefix+"EP_CONTAINER_"+name] = strconv.Itoa(number)
	}
	facts[prefix+"ENDPOINT_"+name] = strconv.Itoa(number)
	if picked.Host != 0 {
		facts[prefix+"EP_HOST_"+name] = strconv.Itoa(picked.Host)
	}
}

// groupContainer makes the container of a task, nil for one that asks for nothing.
func groupContainer(l Launch, c *app.PodContainer) *mesos.ContainerInfo {
	info := &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), LinuxInfo: linuxInfo(c.LinuxInfo)}
	asks := info.LinuxInfo != nil
	if ownCgroups(l.App.Pod) {
		// Limits hold for a container that has cgroups of its own; then all of a group must have.
		if info.LinuxInfo == nil {
			info.LinuxInfo = new(mesos.LinuxInfo)
		}
		info.LinuxInfo.ShareCgroups, asks = new(false), true
	}
	if c.Image != nil {
		info.Mesos = &mesos.ContainerInfo_MesosInfo{Image: groupImage(l.App, c.Image)}
		asks = true
	}
	if c.TTY != nil && *c.TTY {
		info.TtyInfo, asks = new(mesos.TTYInfo), true
	}
	for _, mount := range c.VolumeMounts {
		info.Volumes = append(info.Volumes, groupVolume(l.App, mount))
		asks = true
	}
	if !asks {
		return nil
	}
	return info
}

func ownCgroups(pod *app.Pod) bool {
	return slices.ContainsFunc(pod.Containers, func(c app.PodContainer) bool { return c.ResourceLimits != nil })
}

func groupImage(a *app.App, given *app.PodImage) *mesos.Image {
	image := &mesos.Image{
		Type: mesos.Image_DOCKER.Enum(), Docker: &mesos.Image_Docker{Name: new(given.ID)},
		Cached: new(given.ForcePull == nil || !*given.ForcePull),
	}
	if given.PullConfig != nil {
		image.Docker.Config = secretOf(a, given.PullConfig.Secret)
	}
	return image
}

// groupVolume mounts a volume of the pod. One that is neither of the host nor a secret is a folder in the sandbox of the
// executor, which all containers see.
func groupVolume(a *app.App, mount app.VolumeMount) *mesos.Volume {
	volume := &mesos.Volume{ContainerPath: new(mount.MountPath), Mode: mesos.Volume_RW.Enum()}
	if mount.ReadOnly != nil && *mount.ReadOnly {
		volume.Mode = mesos.Volume_RO.Enum()
	}
	n := slices.IndexFunc(a.Pod.Volumes, func(v app.PodVolume) bool { return v.Name == mount.Name })
	if n < 0 {
		return volume // a definition with such a mount is refused
	}
	switch v := a.Pod.Volumes[n]; {
	case v.Host != "":
		volume.HostPath = new(v.Host)
	case v.Secret != "":
		volume.Source = &mesos.Volume_Source{Type: mesos.Volume_Source_SECRET.Enum(), Secret: secretOf(a, v.Secret)}
	default:
		volume.Source = &mesos.Volume_Source{
			Type: mesos.Volume_Source_SANDBOX_PATH.Enum(),
			SandboxPath: &mesos.Volume_Source_SandboxPath{
				Type: mesos.Volume_Source_SandboxPath_PARENT.Enum(), Path: new(v.Name),
			},
		}
	}
	return volume
}

// endpointPort is the number that the agent's checks connect to: that of the container or, in host mode, of the host. first
// is where the endpoints of the container begin among the ports.
func endpointPort(l Launch, c *app.PodContainer, first int, name string) uint32 {
	n := slices.IndexFunc(c.Endpoints, func(e app.Endpoint) bool { return e.Name == name })
	if n < 0 {
		return 0 // a definition with such a check is refused
	}
	return uint32(CheckPort(l.App, l.Pick, new(first+n), nil))
}

func groupHealthCheck(h *app.PodHealthCheck, l Launch, c *app.PodContainer, first int) *mesos.HealthCheck {
	out := &mesos.HealthCheck{
		DelaySeconds:        new(float64(h.DelaySeconds)),
		IntervalSeconds:     new(float64(h.IntervalSeconds)),
		TimeoutSeconds:      new(float64(h.TimeoutSeconds)),
		GracePeriodSeconds:  new(float64(h.GracePeriodSeconds)),
		ConsecutiveFailures: new(consecutive(h.MaxConsecutiveFailures)),
	}
	switch {
	case h.HTTP != nil:
		out.Type = mesos.HealthCheck_HTTP.Enum()
		out.Http = &mesos.HealthCheck_HTTPCheckInfo{
			Port: new(endpointPort(l, c, first, h.HTTP.Endpoint)), Scheme: new(strings.ToLower(h.HTTP.Scheme)),
		}
		if h.HTTP.Path != "" {
			out.Http.Path = new(h.HTTP.Path)
		}
	case h.TCP != nil:
		out.Type = mesos.HealthCheck_TCP.Enum()
		out.Tcp = &mesos.HealthCheck_TCPCheckInfo{Port: new(endpointPort(l, c, first, h.TCP.Endpoint))}
	case h.Exec != nil:
		out.Type = mesos.HealthCheck_COMMAND.Enum()
		out.Command = commandCheck(h.Exec.Command)
	}
	return out
}

func groupCheck(k *app.PodCheck, l Launch, c *app.PodContainer, first int) *mesos.CheckInfo {
	out := &mesos.CheckInfo{
		DelaySeconds:    new(float64(k.DelaySeconds)),
		IntervalSeconds: new(float64(k.IntervalSeconds)),
		TimeoutSeconds:  new(float64(k.TimeoutSeconds)),
	}
	switch {
	case k.HTTP != nil:
		out.Type = mesos.CheckInfo_HTTP.Enum()
		out.Http = &mesos.CheckInfo_Http{Port: new(endpointPort(l, c, first, k.HTTP.Endpoint))}
		if k.HTTP.Path != "" {
			out.Http.Path = new(k.HTTP.Path)
		}
	case k.TCP != nil:
		out.Type = mesos.CheckInfo_TCP.Enum()
		out.Tcp = &mesos.CheckInfo_Tcp{Port: new(endpointPort(l, c, first, k.TCP.Endpoint))}
	case k.Exec != nil:
		out.Type = mesos.CheckInfo_COMMAND.Enum()
		out.Command = &mesos.CheckInfo_Command{Command: commandCheck(k.Exec.Command)}
	}
	return out
}
