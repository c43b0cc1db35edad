package app

import (
	"slices"
	"strings"
)

func (a *App) checkNetworks(p *place, f *faults) {
	at := p.field("networks")
	count := make(map[NetworkMode]int)
	names := make(map[string]bool)
	for i, n := range a.Networks {
		count[n.Mode]++
		entry := at.index(i)
		switch n.Mode {
		case HostNetwork:
			if n.Name != "" || len(n.Labels) > 0 {
				f.add(entry, "a host network has neither name nor labels")
			}
		case BridgeNetwork:
			if n.Name != "" {
				f.add(entry.field("name"), "a bridge network has no name")
			}
		case ContainerNetwork:
			switch {
			case n.Name == "":
				f.add(entry.field("name"), "Network name must be specified when container network is selected.")
			case len(n.Name) > 63 || !networkNamePattern.MatchString(n.Name):
				f.add(entry.field("name"), "must fully match regular expression '%s' and have at most 63 characters", networkNamePattern)
			case names[n.Name]:
				f.add(at, "Network names must be unique.")
			}
			names[n.Name] = true
		}
	}
	if len(count) > 1 || count[HostNetwork] > 1 || count[BridgeNetwork] > 1 {
		f.add(at, "Must have only host-networking, or only bridge-networking, or only container-networking, and no more than one host or bridge network.")
	}
	if count[ContainerNetwork] > 1 && a.Container != nil && a.Container.Type == Docker {
		f.add(at, "Docker containers may have at most one container network.")
	}
}

func (a *App) checkPorts(p *place, f *faults) {
	ports := a.Ports()
	at := p.field("portDefinitions")
	if !a.HostMode() {
		at = p.field("container").field("portMappings")
	}
	names, numbers := make(map[string]bool), make(map[int]bool)
	duplicateNames, duplicateNumbers := false, false
	for i, port := range ports {
		if port.Name != "" {
			duplicateNames = duplicateNames || names[port.Name]
			names[port.Name] = true
		}
		if a.HostMode() && port.Requested != 0 {
			duplicateNumbers = duplicateNumbers || numbers[port.Requested]
			numbers[port.Requested] = true
		}
		a.checkPortNetworks(port, at.index(i), f)
	}
	if duplicateNumbers {
		f.add(at, "Ports must be unique.")
	}
	if duplicateNames {
		f.add(at, "Port names must be unique.")
	}
}

func (a *App) checkPortNetworks(port Port, p *place, f *faults) {
	for i, name := range port.NetworkNames {
		if !slices.ContainsFunc(a.Networks, func(n Network) bool { return n.Name == name && name != "" }) {
			f.add(p.field("networkNames").index(i), "%q is not the name of a network of this app", name)
		}
	}
	if len(a.Networks) > 1 && port.HostPort != nil && len(port.NetworkNames) != 1 && a.Networks[0].Mode == ContainerNetwork {
		f.add(p, "a mapping with a hostPort must name exactly one network when the app has several")
	}
}

func (a *App) checkContainer(r Rules, p *place, f *faults) {
	c := a.Container
	if c == nil {
		return
	}
	if c.Docker != nil {
		a.checkImage(c.Docker, p.field("docker"), f)
	} else if c.Type == Docker {
		f.add(p.field("docker"), "must be defined for container type DOCKER")
	}
	if info := c.LinuxInfo; info != nil {
		at := p.field("linuxInfo")
		if c.Type != Mesos {
			f.add(at, "not allowed for container type DOCKER")
		}
		checkLinuxInfo(info, at, f)
	}
	external := make(map[string]bool)
	for i, v := range c.Volumes {
		at := p.field("volumes").index(i)
		if v.ContainerPath == "" {
			f.add(at.field("containerPath"), "must not be empty")
		}
		if v.Mode == "" && v.Secret == "" {
			f.add(at.field("mode"), "must be RO or RW")
		}
		switch {
		case v.Persistent != nil:
			checkPersistent(v, at, f)
		case v.External != nil:
			if name := v.External.Name; name != "" && external[name] {
				f.add(at.field("external").field("name"), "External volume names must be unique in an app: %q", name)
			}
			external[v.External.Name] = true
			a.checkExternal(v, r, at.field("external"), f)
		case v.Secret != "":
			if !r.Settings.Secrets {
				f.add(at.field("secret"), "feature secrets is not enabled: start Marathon with --enable_features secrets")
			}
			if _, ok := a.Secrets[v.Secret]; !ok {
				f.add(at.field("secret"), "references an undefined secret")
			}
		}
	}
}

func (a *App) checkImage(d *DockerImage, p *place, f *faults) {
	if d.Image == "" {
		f.add(p.field("image"), "must not be empty")
	}
	if a.Container.Type == Mesos {
		if d.Privileged {
			f.add(p.field("privileged"), "not allowed for container type MESOS")
		}
		if len(d.Parameters) > 0 {
			f.add(p.field("parameters"), "not allowed for container type MESOS")
		}
	}
	if d.PullConfig != nil {
		if a.Container.Type == Docker {
			f.add(p.field("pullConfig"), "not allowed for container type DOCKER")
		}
		if _, ok := a.Secrets[d.PullConfig.Secret]; !ok {
			f.add(p.field("pullConfig").field("secret"), "references an undefined secret")
		}
	}
}

func checkPersistent(v Volume, p *place, f *faults) {
	if path := v.ContainerPath; strings.Contains(path, "/") || path == "." || path == ".." {
		f.add(p.field("containerPath"), "must be one relative path segment, and not . or .., for a persistent volume: %q", path)
	}
	if v.Mode != "RW" {
		f.add(p.field("mode"), "must be RW for a persistent volume")
	}
	checkPersistentVolume(v.Persistent, p.field("persistent"), f)
}

func checkPersistentVolume(volume *PersistentVolume, at *place, f *faults) {
	if volume.Size <= 0 {
		f.add(at.field("size"), "must be greater than 0")
	}
	if volume.MaxSize != nil {
		if volume.Type != "mount" {
			f.add(at.field("maxSize"), "only allowed for type mount")
		}
		if *volume.MaxSize <= volume.Size {
			f.add(at.field("maxSize"), "must be greater than size")
		}
	}
	for i, c := range volume.Constraints {
		entry := at.field("constraints").index(i)
		if volume.Type == "root" {
			f.add(entry, "not allowed for type root")
		}
		if c.Field != "path" || c.Operator != Like && c.Operator != Unlike {
			f.add(entry, "only path with LIKE or UNLIKE is supported")
		}
	}
}

func (a *App) checkExternal(v Volume, r Rules, p *place, f *faults) {
	if !r.Settings.ExternalVolumes {
		f.add(p, "feature external_volumes is not enabled: start Marathon with --enable_features external_volumes")
		return
	}
	e := v.External
	if e.Name == "" {
		f.add(p.field("name"), "must not be empty")
	}
	if a.Instances > 1 && !e.Shared {
		f.add(p, "an app with an external volume that is not shared may only have one instance")
	}
	options := p.field("options")
	switch e.Provider {
	case "dvdi":
		if driver, _ := e.Options["dvdi/driver"].(string); driver == "" {
			f.add(options, `must have "dvdi/driver"`)
		}
		for _, key := range sortedKeys(e.Options) {
			if prefix, name, ok := strings.Cut(key, "/"); !ok || prefix == "" || name == "" {
				f.add(options.field(key), "the name of an option must have the form prefix/name")
			}
		}
		if e.Size != nil && a.Container.Type == Docker {
			f.add(p.field("size"), "not allowed for container type DOCKER")
		}
	case "csi":
		checkCSI(e, options, f)
	default:
		f.add(p.field("provider"), "must be dvdi or csi, got %q", e.Provider)
	}
}

func checkCSI(e *ExternalVolume, p *place, f *faults) {
	if plugin, _ := e.Options["pluginName"].(string); plugin == "" {
		f.add(p.field("pluginName"), "must not be empty")
	}
	capability, _ := e.Options["capability"].(map[string]any)
	modes := []string{
		"SINGLE_NODE_WRITER", "SINGLE_NODE_READER_ONLY", "MULTI_NODE_READER_ONLY", "MULTI_NODE_SINGLE_WRITER", "MULTI_NODE_MULTI_WRITER",
	}
	if mode, _ := capability["accessMode"].(string); !slices.Contains(modes, mode) {
		f.add(p.field("capability").field("accessMode"), "must be one of %s", strings.Join(modes, ", "))
	}
	if kind, _ := capability["accessType"].(string); kind != "block" && kind != "mount" {
		f.add(p.field("capability").field("accessType"), "must be block or mount")
	}
}
