package task

import (
	"slices"
	"strings"

	"starling/marathon/app"
	"starling/master/mesos"
)

// containerOf makes the container of a task, nil for a task without one.
func containerOf(l Launch, s Settings) *mesos.ContainerInfo {
	a := l.App
	var info *mesos.ContainerInfo
	switch {
	case a.Container == nil && (a.TTY == nil || !*a.TTY):
		return nil
	case a.Container == nil:
		info = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum()}
	case a.Container.Type == app.Docker:
		info = dockerContainer(l)
	default:
		info = mesosContainer(l, s)
	}
	if a.TTY != nil && *a.TTY {
		info.TtyInfo = new(mesos.TTYInfo)
	}
	if a.Container != nil {
		for _, v := range a.Container.Volumes {
			addVolume(info, a, v)
		}
	}
	return info
}

func dockerContainer(l Launch) *mesos.ContainerInfo {
	docker := l.App.Container.Docker
	out := &mesos.ContainerInfo_DockerInfo{
		Image: new(docker.Image), Privileged: new(docker.Privileged), ForcePullImage: new(docker.ForcePullImage),
		Network: mesos.ContainerInfo_DockerInfo_HOST.Enum(),
	}
	for _, parameter := range docker.Parameters {
		out.Parameters = append(out.Parameters, &mesos.Parameter{Key: new(parameter.Key), Value: new(parameter.Value)})
	}
	// With this label the engine's own tools find the container of a task.
	out.Parameters = append(out.Parameters, &mesos.Parameter{Key: new("label"), Value: new("MESOS_TASK_ID=" + l.Task.String())})

	info := &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum(), Docker: out}
	if l.App.HostMode() {
		return info
	}
	out.Network = mesos.ContainerInfo_DockerInfo_BRIDGE.Enum()
	if n := l.App.Networks[0]; n.Mode == app.ContainerNetwork {
		out.Network = mesos.ContainerInfo_DockerInfo_USER.Enum()
		info.NetworkInfos = []*mesos.NetworkInfo{{Name: new(n.Name), Labels: labelsOf(n.Labels)}}
	}
	eachMapping(l, "", func(host, container uint32, protocol string) {
		out.PortMappings = append(out.PortMappings, &mesos.ContainerInfo_DockerInfo_PortMapping{
			HostPort: new(host), ContainerPort: new(container), Protocol: new(protocol),
		})
	})
	return info
}

func mesosContainer(l Launch, s Settings) *mesos.ContainerInfo {
	c := l.App.Container
	info := &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), LinuxInfo: linuxInfo(c.LinuxInfo)}
	if docker := c.Docker; docker != nil {
		image := &mesos.Image{
			Type: mesos.Image_DOCKER.Enum(), Cached: new(!docker.ForcePullImage), Docker: &mesos.Image_Docker{Name: new(docker.Image)},
		}
		if docker.PullConfig != nil {
			image.Docker.Config = secretOf(l.App, docker.PullConfig.Secret)
		}
		info.Mesos = &mesos.ContainerInfo_MesosInfo{Image: image}
	}
	info.NetworkInfos = networkInfos(l, s)
	return info
}

// networkInfos are the networks of a container that the agent itself isolates, with the ports that are mapped.
func networkInfos(l Launch, s Settings) []*mesos.NetworkInfo {
	if l.App.HostMode() {
		return nil
	}
	var networks []*mesos.NetworkInfo
	for _, n := range l.App.Networks {
		network := &mesos.NetworkInfo{
			Name: new(n.Name), Labels: labelsOf(n.Labels), IpAddresses: []*mesos.NetworkInfo_IPAddress{{}},
		}
		if n.Mode == app.BridgeNetwork {
			network.Name = new(s.MesosBridgeName)
		}
		eachMapping(l, n.Name, func(host, container uint32, protocol string) {
			network.PortMappings = append(network.PortMappings, &mesos.NetworkInfo_PortMapping{
				HostPort: new(host), ContainerPort: new(container), Protocol: new(protocol),
			})
		})
		networks = append(networks, network)
	}
	return networks
}

// eachMapping calls f for each protocol of each port that has a host port and belongs to the network.
func eachMapping(l Launch, network string, f func(host, container uint32, protocol string)) {
	for i, port := range l.App.Ports() {
		picked := l.Pick.Ports[i]
		if picked.Host == 0 || network != "" && len(port.NetworkNames) > 0 && !slices.Contains(port.NetworkNames, network) {
			continue
		}
		for protocol := range strings.SplitSeq(port.Protocol, ",") {
			f(uint32(picked.Host), uint32(containerPort(port, picked)), protocol)
		}
	}
}

func linuxInfo(info *app.LinuxInfo) *mesos.LinuxInfo {
	if info == nil {
		return nil
	}
	out := new(mesos.LinuxInfo)
	if info.Seccomp != nil {
		out.Seccomp = &mesos.SeccompInfo{Unconfined: new(info.Seccomp.Unconfined)}
		if info.Seccomp.ProfileName != "" {
			out.Seccomp.ProfileName = new(info.Seccomp.ProfileName)
		}
	}
	if info.IPCInfo != nil {
		out.IpcMode = mesos.LinuxInfo_PRIVATE.Enum()
		if info.IPCInfo.Mode == "SHARE_PARENT" {
			out.IpcMode = mesos.LinuxInfo_SHARE_PARENT.Enum()
		}
		if info.IPCInfo.ShmSize != nil {
			out.ShmSize = new(uint32(*info.IPCInfo.ShmSize))
		}
	}
	return out
}

// addVolume adds a volume to the container. A persistent one is not added: it comes with the task's resources.
func addVolume(info *mesos.ContainerInfo, a *app.App, v app.Volume) {
	volume := &mesos.Volume{ContainerPath: new(v.ContainerPath), Mode: mesos.Volume_RO.Enum()}
	if v.Mode == "RW" {
		volume.Mode = mesos.Volume_RW.Enum()
	}
	switch {
	case v.HostPath != "":
		volume.HostPath = new(v.HostPath)
	case v.Secret != "":
		volume.Source = &mesos.Volume_Source{Type: mesos.Volume_Source_SECRET.Enum(), Secret: secretOf(a, v.Secret)}
	case v.External != nil && v.External.Provider == "csi":
		volume.Source = csiSource(a, v.External)
	case v.External != nil:
		externalVolume(info, volume, v.External)
	default:
		return
	}
	info.Volumes = append(info.Volumes, volume)
}

// externalVolume fills in a volume of docker's plugins: docker itself takes the name for a path and the driver aside,
// MESOS containers take both as the source.
func externalVolume(info *mesos.ContainerInfo, volume *mesos.Volume, e *app.ExternalVolume) {
	driver, _ := e.Options["dvdi/driver"].(string)
	if info.Docker != nil {
		volume.HostPath = new(e.Name)
		info.Docker.VolumeDriver = new(driver)
		return
	}
	options := new(mesos.Parameters)
	for _, key := range sortedKeys(e.Options) {
		prefix, name, _ := strings.Cut(key, "/")
		if value, ok := e.Options[key].(string); ok && prefix == "dvdi" && name != "driver" {
			options.Parameter = append(options.Parameter, &mesos.Parameter{Key: new(name), Value: new(value)})
		}
	}
	if e.Size != nil {
		options.Parameter = append(options.Parameter, &mesos.Parameter{Key: new("size"), Value: new(decimal(*e.Size))})
	}
	volume.Source = &mesos.Volume_Source{
		Type: mesos.Volume_Source_DOCKER_VOLUME.Enum(),
		DockerVolume: &mesos.Volume_Source_DockerVolume{
			Driver: new(driver), Name: new(e.Name), DriverOptions: options,
		},
	}
}
