package app

import (
	"reflect"
	"slices"
	"strings"
)

// checkPod applies every rule that concerns one finished pod. spec/marathon-pods.md 1-3.
func (a *App) checkPod(r Rules, f *faults) {
	a.checkPodEnvironment(a.Env, at("/environment"), f)
	checkVariableLabels(a.Labels, at("/labels"), f)
	a.checkNetworks(nil, f)
	a.checkPodSecrets(r, f)
	a.checkPodScheduling(r, f)
	checkExecutorResources(a.ExecutorResources, at("/executorResources"), f)
	checkLinuxInfo(a.Pod.LinuxInfo, at("/linuxInfo"), f)
	w := podWalk{a: a, settings: r.Settings, faults: f, endpoints: make(map[string]bool), container: make(map[int]bool), host: make(map[int]bool), mounted: make(map[string]bool)}
	names := make(map[string]bool)
	for i := range a.Pod.Containers {
		c := &a.Pod.Containers[i]
		p := at("/containers").index(i)
		if names[c.Name] {
			f.add(p.field("name"), "Container names must be unique: %q", c.Name)
		}
		names[c.Name] = true
		w.check(c, p)
	}
	w.volumes()
	if a.Daemon() {
		f.add(at("/starling/daemon"), "pods cannot be daemons")
	} else {
		a.checkStarling(nil, f)
	}
}

// checkPodEnvironment refuses names that no variable of a pod may have, and values that no process can be started with.
func (a *App) checkPodEnvironment(env map[string]EnvValue, p *place, f *faults) {
	for _, name := range sortedKeys(env) {
		entry := p.field(name)
		if !podVariable.MatchString(name) {
			f.add(entry, "must fully match regular expression '%s'", podVariable)
		}
		if strings.ContainsRune(env[name].Value, 0) {
			f.add(entry, "must not contain NUL")
		}
		if secret := env[name].Secret; secret != "" {
			if _, ok := a.Secrets[secret]; !ok {
				f.add(entry.field("secret"), "references an undefined secret")
			}
		}
	}
}

func (a *App) checkPodSecrets(r Rules, f *faults) {
	uses := func(env map[string]EnvValue) bool {
		for _, value := range env {
			if value.Secret != "" {
				return true
			}
		}
		return false
	}
	used := len(a.Secrets) > 0 || uses(a.Env)
	for _, name := range sortedKeys(a.Secrets) {
		if a.Secrets[name].Source == "" {
			f.add(at("/secrets").field(name).field("source"), "must not be empty")
		}
	}
	for _, c := range a.Pod.Containers {
		used = used || uses(c.Env) || c.Image != nil && c.Image.PullConfig != nil
	}
	used = used || slices.ContainsFunc(a.Pod.Volumes, func(v PodVolume) bool { return v.Secret != "" })
	if used && !r.Settings.Secrets {
		f.add(at("/secrets"), "feature secrets is not enabled: start Marathon with --enable_features secrets")
	}
}

func (a *App) checkPodScheduling(r Rules, f *faults) {
	if !slices.Contains(r.Roles.Allowed, a.Role) && a.Role != r.Roles.Default {
		f.add(at("/role"), "got %s, expected one of: %s", a.Role, strings.Join(unique(r.Roles.Allowed), ", "))
	}
	p := at("/scheduling")
	resident := a.Resident()
	roles := p.field("placement").field("acceptedResourceRoles")
	for _, role := range a.AcceptedResourceRoles {
		if role != "*" && role != a.Role {
			f.add(roles, "acceptedResourceRoles can only contain %s, got %s", strings.Join(unique([]string{"*", a.Role}), " and "), role)
		}
	}
	if resident {
		if a.Role == "*" {
			f.add(at("/role"), "Resident pods cannot have the role *")
		}
		if a.AcceptedResourceRoles != nil && !slices.Equal(a.AcceptedResourceRoles, []string{"*"}) {
			f.add(roles, "A resident pod must have `acceptedResourceRoles = [\"*\"]`.")
		}
		if !a.UnreachableStrategy.Disabled {
			f.add(p.field("unreachableStrategy"), "unreachableStrategy must be disabled for pods with persistent volumes")
		}
	}
	up := p.field("upgrade")
	checkShare(a.UpgradeStrategy.MinimumHealthCapacity, up.field("minimumHealthCapacity"), f)
	checkShare(a.UpgradeStrategy.MaximumOverCapacity, up.field("maximumOverCapacity"), f)
	if resident && a.UpgradeStrategy.MaximumOverCapacity != 0 {
		f.add(up.field("maximumOverCapacity"), "got %s, expected 0.0 for pods with persistent volumes", Decimal(a.UpgradeStrategy.MaximumOverCapacity))
	}
	if u := a.UnreachableStrategy; u.InactiveAfterSeconds > u.ExpungeAfterSeconds {
		f.add(p.field("unreachableStrategy").field("inactiveAfterSeconds"), "must be less than or equal to expungeAfterSeconds, got %d and %d",
			u.InactiveAfterSeconds, u.ExpungeAfterSeconds)
	}
}

// checkExecutorResources refuses what no master launches an executor of a group with.
func checkExecutorResources(r *ExecutorResources, p *place, f *faults) {
	if r.CPUs < 0.01 {
		f.add(p.field("cpus"), "must be at least 0.01: that is what the executor itself needs")
	}
	if r.Mem < 32 {
		f.add(p.field("mem"), "must be at least 32: that is what the executor itself needs")
	}
	if r.Disk <= 0 {
		f.add(p.field("disk"), "must be greater than 0: the executor writes")
	}
}

func checkLinuxInfo(info *LinuxInfo, p *place, f *faults) {
	if info == nil {
		return
	}
	if s := info.Seccomp; s != nil && s.Unconfined && s.ProfileName != "" {
		f.add(p.field("seccomp"), "profileName and unconfined exclude each other")
	}
	if ipc := info.IPCInfo; ipc != nil && ipc.ShmSize != nil && ipc.Mode != "PRIVATE" {
		f.add(p.field("ipcInfo").field("shmSize"), "only allowed with mode PRIVATE")
	}
}

// podWalk goes from container to container, and remembers what must not come twice.
type podWalk struct {
	a               *App
	settings        Settings
	faults          *faults
	endpoints       map[string]bool
	container, host map[int]bool // ports
	mounted         map[string]bool
}

func (w *podWalk) check(c *PodContainer, p *place) {
	f := w.faults
	if c.Exec == nil && c.Image == nil {
		f.add(p, "must have exec, or an image that says what to run")
	}
	if c.Exec != nil {
		checkCommand(c.Exec.Command, p.field("exec").field("command"), f)
	}
	w.a.checkPodEnvironment(c.Env, p.field("environment"), f)
	checkVariableLabels(c.Labels, p.field("labels"), f)
	w.resources(c, p)
	for j := range c.Endpoints {
		w.endpoint(&c.Endpoints[j], p.field("endpoints").index(j))
	}
	if image := c.Image; image != nil && image.PullConfig != nil {
		if _, ok := w.a.Secrets[image.PullConfig.Secret]; !ok {
			f.add(p.field("image").field("pullConfig").field("secret"), "references an undefined secret")
		}
	}
	if h := c.HealthCheck; h != nil {
		checkPodCheck(c, h.HTTP, h.TCP, h.Exec, h.TimeoutSeconds, h.IntervalSeconds, p.field("healthCheck"), f)
	}
	if k := c.Check; k != nil {
		checkPodCheck(c, k.HTTP, k.TCP, k.Exec, k.TimeoutSeconds, k.IntervalSeconds, p.field("check"), f)
	}
	paths := make(map[string]bool)
	for j, m := range c.VolumeMounts {
		entry := p.field("volumeMounts").index(j)
		if !slices.ContainsFunc(w.a.Pod.Volumes, func(v PodVolume) bool { return v.Name == m.Name }) {
			f.add(entry.field("name"), "%q is not the name of a volume of this pod", m.Name)
		}
		if paths[m.MountPath] {
			f.add(entry.field("mountPath"), "another volume is mounted there: %q", m.MountPath)
		}
		paths[m.MountPath], w.mounted[m.Name] = true, true
	}
	checkFetch(c.Artifacts, p.field("artifacts"), f)
	checkLinuxInfo(c.LinuxInfo, p.field("linuxInfo"), f)
}

func (w *podWalk) resources(c *PodContainer, p *place) {
	f := w.faults
	if c.Resources.GPUs > 0 && !w.settings.GPUResources {
		f.add(p.field("resources").field("gpus"), "must be 0: feature gpu_resources is not enabled")
	}
	limits := p.field("resourceLimits")
	if c.ResourceLimits != nil && w.a.Pod.LegacySharedCgroups {
		f.add(limits, "not allowed when legacySharedCgroups is true")
	}
	c.ResourceLimits.check(c.Resources.CPUs, c.Resources.Mem, limits, f)
}

func (w *podWalk) endpoint(e *Endpoint, p *place) {
	f := w.faults
	if w.endpoints[e.Name] {
		f.add(p.field("name"), "Endpoint names must be unique in a pod: %q", e.Name)
	}
	w.endpoints[e.Name] = true
	once := func(seen map[int]bool, port *int, name string) {
		if port == nil || *port == 0 {
			return
		}
		if seen[*port] {
			f.add(p.field(name), "%s must be unique in a pod: %d", name, *port)
		}
		seen[*port] = true
	}
	once(w.container, e.ContainerPort, "containerPort")
	once(w.host, e.HostPort, "hostPort")
	if len(unique(e.Protocol)) != len(e.Protocol) {
		f.add(p.field("protocol"), "protocols must be unique")
	}
	switch {
	case w.a.HostMode() && e.ContainerPort != nil:
		f.add(p.field("containerPort"), "is not allowed when using host networking")
	case !w.a.HostMode() && e.ContainerPort == nil:
		f.add(p.field("containerPort"), "is required when using container or bridge networking")
	}
	for i, name := range e.NetworkNames {
		if !slices.ContainsFunc(w.a.Networks, func(n Network) bool { return n.Name == name && name != "" }) {
			f.add(p.field("networkNames").index(i), "%q is not the name of a network of this pod", name)
		}
	}
	if len(w.a.Networks) > 1 && w.a.Networks[0].Mode == ContainerNetwork && e.HostPort != nil && len(e.NetworkNames) != 1 {
		f.add(p, "an endpoint with a hostPort must name exactly one network when the pod has several")
	}
}

func checkCommand(c ExecCommand, p *place, f *faults) {
	if (c.Shell != "") == (len(c.Argv) > 0) {
		f.add(p, "must have exactly one of shell and argv")
	}
	checkPrintable(c.Shell, p.field("shell"), f)
	for i, arg := range c.Argv {
		checkPrintable(arg, p.field("argv").index(i), f)
	}
}

// checkPodCheck applies the rules that a health check and a check of a container have in common.
func checkPodCheck(c *PodContainer, http *EndpointCheck, tcp *TCPEndpoint, exec *ExecCheck, timeout, interval int, p *place, f *faults) {
	kinds := 0
	endpoint := func(name string, p *place) {
		kinds++
		if !slices.ContainsFunc(c.Endpoints, func(e Endpoint) bool { return e.Name == name }) {
			f.add(p.field("endpoint"), "%q is not the name of an endpoint of this container", name)
		}
	}
	if http != nil {
		endpoint(http.Endpoint, p.field("http"))
	}
	if tcp != nil {
		endpoint(tcp.Endpoint, p.field("tcp"))
	}
	if exec != nil {
		kinds++
		checkCommand(exec.Command, p.field("exec").field("command"), f)
	}
	if kinds != 1 {
		f.add(p, "must have exactly one of http, tcp and exec")
	}
	if timeout >= interval {
		f.add(p, "timeoutSeconds must be less than intervalSeconds, got %d and %d", timeout, interval)
	}
}

func (w *podWalk) volumes() {
	f := w.faults
	names := make(map[string]bool)
	for i, v := range w.a.Pod.Volumes {
		p := at("/volumes").index(i)
		if names[v.Name] {
			f.add(p.field("name"), "Volume names must be unique: %q", v.Name)
		}
		names[v.Name] = true
		if !w.mounted[v.Name] {
			f.add(p, "volume must be referenced by at least one container")
		}
		if v.Secret != "" {
			if _, ok := w.a.Secrets[v.Secret]; !ok {
				f.add(p.field("secret"), "references an undefined secret")
			}
		}
		if v.Persistent != nil {
			checkPersistentVolume(v.Persistent, p.field("persistent"), f)
		}
	}
}

// checkPodUpdate applies the rules for a new definition of a pod with persistent volumes: what its reservation was made of stays.
func checkPodUpdate(old, updated *App, r Rules, f *faults) {
	if !old.Resident() {
		return
	}
	if !reflect.DeepEqual(old.PersistentVolumes(), updated.PersistentVolumes()) {
		f.add(nil, "Persistent volumes can not be changed!")
	}
	same := old.CPUs == updated.CPUs && old.Mem == updated.Mem && old.Disk == updated.Disk && old.GPUs == updated.GPUs &&
		*old.ExecutorResources == *updated.ExecutorResources && slices.Equal(hostPorts(old), hostPorts(updated))
	if !same {
		f.add(at("/containers"), "Resident Tasks may not change resource requirements!")
	}
	if old.Role != updated.Role && !r.Force {
		f.add(at("/role"), "the role of a pod with persistent volumes can only be changed with force=true")
	}
}
