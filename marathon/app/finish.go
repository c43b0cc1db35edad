package app

import (
	"slices"
	"strings"
)

// The defaults that are the same for every app.
const (
	defaultInstances             = 1
	defaultCPUs                  = 1
	defaultMem                   = 128
	defaultBackoffSeconds        = 1
	defaultBackoffFactor         = 1.15
	defaultMaxLaunchDelaySeconds = 300
	// defaultPortName names the one port that an app gets when it says nothing about ports.
	defaultPortName = "default"
)

// finish makes the app of a converted definition: defaults, ports by network mode, dependencies resolved; then it
// applies all rules of one app.
func (d *definition) finish(id PathID, r Rules, p *place, f *faults) *App {
	a := &App{
		ID:                         id,
		Cmd:                        or(d.Cmd, ""),
		Args:                       or(d.Args, nil),
		User:                       or(d.User, ""),
		Env:                        or(d.Env, nil),
		Instances:                  or(d.Instances, defaultInstances),
		CPUs:                       or(d.CPUs, defaultCPUs),
		Mem:                        or(d.Mem, defaultMem),
		Disk:                       or(d.Disk, 0),
		GPUs:                       or(d.GPUs, 0),
		ResourceLimits:             d.ResourceLimits,
		Executor:                   or(d.Executor, ""),
		Constraints:                parseConstraints(or(d.Constraints, nil), p.field("constraints"), f),
		AcceptedResourceRoles:      unique(or(d.AcceptedResourceRoles, nil)),
		Role:                       or(d.Role, ""),
		RequirePorts:               or(d.RequirePorts, false),
		Fetch:                      or(d.Fetch, nil),
		Check:                      d.Check,
		BackoffSeconds:             or(d.BackoffSeconds, defaultBackoffSeconds),
		BackoffFactor:              or(d.BackoffFactor, defaultBackoffFactor),
		MaxLaunchDelaySeconds:      or(d.MaxLaunchDelaySeconds, defaultMaxLaunchDelaySeconds),
		TaskKillGracePeriodSeconds: d.TaskKillGracePeriodSeconds,
		KillSelection:              or(d.KillSelection, YoungestFirst),
		Labels:                     or(d.Labels, nil),
		Secrets:                    or(d.Secrets, nil),
		TTY:                        d.TTY,
		Starling:                   finishStarling(d.Starling),
	}
	if a.Role == "" {
		a.Role = r.Roles.Default
	}
	if d.AcceptedResourceRoles != nil && len(a.AcceptedResourceRoles) == 0 {
		f.add(p.field("acceptedResourceRoles"), "must not be empty")
	}
	if customExecutor(a.Executor) {
		resources := or(d.ExecutorResources, ExecutorResources{CPUs: 0.1, Mem: 32, Disk: 10})
		a.ExecutorResources = &resources
	}
	a.Dependencies = d.resolveDependencies(r.Base, p.field("dependencies"), f)
	a.Networks = d.finishNetworks(r.Settings)
	a.Container = d.finishContainer(p.field("container"), f)
	d.finishPorts(a, p, f)
	d.finishChecks(a)
	d.finishStrategies(a)
	a.check(r, p, f)
	return a
}

func or[T any](value *T, def T) T {
	if value == nil {
		return def
	}
	return *value
}

// unique drops what was there before, in place of refusing it.
func unique[E comparable](s []E) []E {
	var out []E
	for _, e := range s {
		if !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out
}

// customExecutor tells whether an executor is one that the app brings along.
func customExecutor(executor string) bool { return executor != "" && executor != "//cmd" }

func (d *definition) resolveDependencies(base PathID, p *place, f *faults) []PathID {
	if base == "" {
		base = Root
	}
	var ids []PathID
	for i, text := range or(d.Dependencies, nil) {
		id, err := ParseID(text, base)
		if err != nil {
			f.add(p.index(i), "%v", err)
			continue
		}
		ids = append(ids, id)
	}
	return unique(ids)
}

func (d *definition) finishNetworks(s Settings) []Network {
	if length(d.Networks) == 0 {
		return []Network{{Mode: HostNetwork}}
	}
	networks := slices.Clone(*d.Networks)
	for i := range networks {
		if networks[i].Mode == ContainerNetwork && networks[i].Name == "" {
			networks[i].Name = s.DefaultNetworkName
		}
		if len(networks[i].Labels) == 0 {
			networks[i].Labels = nil
		}
	}
	return networks
}

// finishContainer makes the container, without its port mappings.
func (d *definition) finishContainer(p *place, f *faults) *Container {
	if d.Container == nil {
		return nil
	}
	c := &Container{Type: d.Container.Type, LinuxInfo: d.Container.LinuxInfo, Volumes: []Volume{}}
	if docker := d.Container.Docker; docker != nil {
		image := docker.DockerImage
		if image.Parameters == nil {
			image.Parameters = []Parameter{}
		}
		c.Docker = &image
	}
	for i, v := range d.Container.Volumes {
		c.Volumes = append(c.Volumes, v.finish(p.field("volumes").index(i), f))
	}
	return c
}

func (d *volumeDefinition) finish(p *place, f *faults) Volume {
	v := Volume{
		ContainerPath: d.ContainerPath, Mode: d.Mode, HostPath: or(d.HostPath, ""), Secret: or(d.Secret, ""), External: d.External,
	}
	kinds := 0
	for _, set := range []bool{d.HostPath != nil, d.Persistent != nil, d.External != nil, d.Secret != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		f.add(p, "must have exactly one of hostPath, persistent, external and secret")
		return v
	}
	if d.HostPath != nil && *d.HostPath == "" {
		f.add(p.field("hostPath"), "must not be empty")
	}
	if d.Secret != nil && *d.Secret == "" {
		f.add(p.field("secret"), "must not be empty")
	}
	if d.Persistent != nil {
		v.Persistent = d.Persistent.finish(p.field("persistent"), f)
		if v.Mode == "" {
			v.Mode = "RW"
		}
	}
	return v
}

func (d *persistentDefinition) finish(p *place, f *faults) *PersistentVolume {
	persistent := d.PersistentVolume
	persistent.Constraints = parseConstraints(d.Constraints, p.field("constraints"), f)
	if persistent.Constraints == nil {
		persistent.Constraints = []Constraint{}
	}
	if persistent.Type == "" {
		persistent.Type = "root"
		if persistent.ProfileName != "" {
			persistent.Type = "mount"
		}
	}
	return &persistent
}

// finishPorts puts the ports where the network mode wants them, and refuses those of the other mode.
func (d *definition) finishPorts(a *App, p *place, f *faults) {
	var mappings *[]PortMapping
	if d.Container != nil {
		mappings = d.Container.PortMappings
	}
	if a.HostMode() {
		if length(mappings) > 0 {
			f.add(p.field("container").field("portMappings"), "portMappings are not allowed with host-networking")
		}
		a.PortDefinitions = d.hostPorts()
		return
	}
	a.RequirePorts = false
	if length(d.PortDefinitions) > 0 {
		f.add(p.field("portDefinitions"), "portDefinitions are only allowed with host-networking")
	}
	if a.Container == nil {
		a.Container = &Container{Type: Mesos, Volumes: []Volume{}}
	}
	a.Container.PortMappings = d.containerPorts(mappings, a.Networks[0].Mode == BridgeNetwork)
}

func (d *definition) hostPorts() []PortDefinition {
	definitions := []PortDefinition{}
	switch {
	case d.PortDefinitions != nil:
		definitions = append(definitions, *d.PortDefinitions...)
	case d.Ports != nil:
		for _, port := range *d.Ports {
			definitions = append(definitions, PortDefinition{Port: port, Protocol: "tcp"})
		}
	default:
		definitions = append(definitions, PortDefinition{Protocol: "tcp", Name: defaultPortName})
	}
	for i := range definitions {
		definitions[i].Protocol = normalProtocol(definitions[i].Protocol)
		if len(definitions[i].Labels) == 0 {
			definitions[i].Labels = nil
		}
	}
	return definitions
}

func (d *definition) containerPorts(given *[]PortMapping, bridge bool) []PortMapping {
	mappings := []PortMapping{}
	switch {
	case given != nil:
		mappings = append(mappings, *given...)
	case length(d.Ports) == 0:
		mappings = append(mappings, PortMapping{Name: defaultPortName})
	}
	for len(mappings) < length(d.Ports) {
		mappings = append(mappings, PortMapping{})
	}
	for i := range mappings {
		m := &mappings[i]
		m.Protocol = normalProtocol(m.Protocol)
		if m.Labels == nil {
			m.Labels = Labels{}
		}
		if bridge && m.HostPort == nil {
			m.HostPort = new(0)
		}
	}
	return mappings
}

func normalProtocol(protocol string) string {
	switch protocol {
	case "":
		return "tcp"
	case "tcp,udp":
		return "udp,tcp"
	}
	return protocol
}

func (d *definition) finishChecks(a *App) {
	hasPorts := len(a.Ports()) > 0
	for _, check := range or(d.HealthChecks, nil) {
		if check.Protocol == Command {
			check.PortIndex = nil
		} else if check.PortIndex == nil && check.Port == nil && hasPorts {
			check.PortIndex = new(0)
		}
		if check.Path != "" && !strings.HasPrefix(check.Path, "/") {
			check.Path = "/" + check.Path
		}
		if check.Protocol != HTTP && check.Protocol != HTTPS {
			check.IgnoreHTTP1xx = false
		}
		a.HealthChecks = append(a.HealthChecks, check)
	}
	for _, check := range or(d.ReadinessChecks, nil) {
		if len(check.HTTPStatusCodesForReady) == 0 {
			check.HTTPStatusCodesForReady = []int{200}
		}
		a.ReadinessChecks = append(a.ReadinessChecks, check)
	}
}

func (d *definition) finishStrategies(a *App) {
	resident := a.Resident()
	upgrade := UpgradeStrategy{MinimumHealthCapacity: 1, MaximumOverCapacity: 1}
	if resident || a.hasExternalVolume() {
		upgrade = UpgradeStrategy{MinimumHealthCapacity: 0.5, MaximumOverCapacity: 0}
	}
	if a.SingleInstance() {
		upgrade = UpgradeStrategy{}
	}
	a.UpgradeStrategy = or(d.UpgradeStrategy, upgradeDraft{}).finish(upgrade)
	a.UnreachableStrategy = or(d.UnreachableStrategy, UnreachableStrategy{Disabled: resident || a.Daemon()})
	if resident {
		residency := or(d.Residency, Residency{RelaunchEscalationTimeoutSeconds: 3600, TaskLostBehavior: "WAIT_FOREVER"})
		a.Residency = &residency
	}
}

func (a *App) hasExternalVolume() bool {
	return a.Container != nil && slices.ContainsFunc(a.Container.Volumes, func(v Volume) bool { return v.External != nil })
}
