package app

import (
	"slices"
	"strings"
)

// PodDraft is a pod as a user wrote it: well-formed and of the right types, with no rule applied yet.
type PodDraft struct {
	definition podDraft
}

// podDraft is what a body holds. What an absent field means depends on others, so those have pointers.
type podDraft struct {
	ID                  string              `json:"id"`
	Labels              Labels              `json:"labels"`
	User                string              `json:"user"`
	Env                 map[string]EnvValue `json:"environment"`
	Containers          []PodContainer      `json:"containers"`
	Secrets             map[string]Secret   `json:"secrets"`
	Volumes             []podVolumeDraft    `json:"volumes"`
	Networks            *[]Network          `json:"networks"`
	Scaling             *PodScaling         `json:"scaling"`
	Scheduling          podSchedulingDraft  `json:"scheduling"`
	ExecutorResources   *ExecutorResources  `json:"executorResources"`
	Role                string              `json:"role"`
	LinuxInfo           *LinuxInfo          `json:"linuxInfo"`
	LegacySharedCgroups bool                `json:"legacySharedCgroups"`
	Starling            *Starling           `json:"starling"`
}

type podSchedulingDraft struct {
	Backoff             *PodBackoff          `json:"backoff"`
	Upgrade             upgradeDraft         `json:"upgrade"`
	Placement           PodPlacement         `json:"placement"`
	KillSelection       KillSelection        `json:"killSelection"`
	UnreachableStrategy *UnreachableStrategy `json:"unreachableStrategy"`
}

type podVolumeDraft struct {
	PodVolume
	Host       *string               `json:"host"`
	Secret     *string               `json:"secret"`
	Persistent *persistentDefinition `json:"persistent"`
}

// ParsePod reads a pod. Errors are as those of ParseApp.
func ParsePod(body []byte) (*PodDraft, error) {
	d := new(PodDraft)
	if err := decode(body, podShape, &d.definition); err != nil {
		return nil, err
	}
	return d, nil
}

// ParseInstanceIDs reads a list of ids of instances. Errors are as those of ParseApp.
func ParseInstanceIDs(body []byte) ([]InstanceID, error) {
	var texts []string
	if err := decode(body, list(text()), &texts); err != nil {
		return nil, err
	}
	f := faults{message: MessageObject}
	ids := make([]InstanceID, len(texts))
	for i, text := range texts {
		var err error
		if ids[i], err = ParseInstanceID(text); err != nil {
			f.add((*place)(nil).index(i), "%v", err)
		}
	}
	return ids, f.err()
}

// ID is the id that the draft gives itself, which must be absolute. The error is an *Invalid at /id.
func (d *PodDraft) ID() (PathID, error) {
	raw := d.definition.ID
	if !strings.HasPrefix(raw, "/") {
		return "", refuse("/id", "Path needs to be absolute")
	}
	id, err := ParseID(raw, Root)
	if err != nil {
		return "", refuse("/id", "%v", err)
	}
	f := faults{message: MessageObject}
	if id == Root {
		f.add(at("/id"), "is not the id of a pod: %q", raw)
	} else {
		checkID(id, raw, nil, &f)
	}
	return id, f.err()
}

// Create makes a pod of the draft: defaults filled in, all rules applied. The pod that it takes the place of is old; nil is
// none. The id in the draft is ignored, and Version and VersionInfo are left to Commit. The error is an *Invalid with every
// rule that is broken.
func (d *PodDraft) Create(id PathID, old *App, r Rules) (*App, error) {
	f := faults{message: MessageObject}
	a := d.finish(id, r, &f)
	if err := f.err(); err != nil {
		return nil, err
	}
	if old != nil {
		checkPodUpdate(old, a, r, &f)
	}
	return a, f.err()
}

// finish makes the pod, and applies all rules of one pod.
func (d *PodDraft) finish(id PathID, r Rules, f *faults) *App {
	def := &d.definition
	a := &App{
		ID: id, Labels: none(def.Labels), User: def.User, Env: none(def.Env), Secrets: none(def.Secrets), Role: def.Role,
		Instances: defaultInstances, KillSelection: YoungestFirst, ExecutorResources: def.ExecutorResources,
		BackoffSeconds: defaultBackoffSeconds, BackoffFactor: defaultBackoffFactor, MaxLaunchDelaySeconds: defaultMaxLaunchDelaySeconds,
		Pod:      &Pod{LegacySharedCgroups: def.LegacySharedCgroups},
		Starling: finishStarling(def.Starling),
	}
	if a.Role == "" {
		a.Role = r.Roles.Default
	}
	if def.Scaling != nil {
		a.Instances = def.Scaling.Instances
	}
	if a.ExecutorResources == nil {
		a.ExecutorResources = &ExecutorResources{CPUs: 0.1, Mem: 32, Disk: 10}
	}
	if def.LinuxInfo != nil && def.LinuxInfo.IPCInfo != nil {
		a.Pod.LinuxInfo = def.LinuxInfo
	}
	a.Networks = (&definition{Networks: def.Networks}).finishNetworks(r.Settings)
	a.Pod.Containers = finishContainers(def.Containers, a.HostMode(), a.Networks[0].Mode == BridgeNetwork)
	a.Pod.Volumes = finishPodVolumes(def.Volumes, f)
	a.addUp()
	def.Scheduling.finish(a, f)
	a.checkPod(r, f)
	return a
}

// none is nil for an empty map, so that definitions which say the same are the same.
func none[M ~map[K]V, K comparable, V any](m M) M {
	if len(m) == 0 {
		return nil
	}
	return m
}

func (d *podSchedulingDraft) finish(a *App, f *faults) {
	if b := d.Backoff; b != nil {
		a.BackoffSeconds, a.BackoffFactor, a.MaxLaunchDelaySeconds = b.Backoff, b.BackoffFactor, b.MaxLaunchDelay
	}
	if d.KillSelection != "" {
		a.KillSelection = d.KillSelection
	}
	a.AcceptedResourceRoles = unique(d.Placement.AcceptedResourceRoles)
	upgrade := UpgradeStrategy{MinimumHealthCapacity: 1, MaximumOverCapacity: 1}
	if a.Resident() {
		upgrade = UpgradeStrategy{MinimumHealthCapacity: 0.5, MaximumOverCapacity: 0}
	}
	a.UpgradeStrategy = d.Upgrade.finish(upgrade)
	a.UnreachableStrategy = or(d.UnreachableStrategy, UnreachableStrategy{Disabled: a.Resident()})
	var lists [][]string
	for _, c := range d.Placement.Constraints {
		one := []string{c.FieldName, string(c.Operator)}
		if c.Value != nil {
			one = append(one, *c.Value)
		}
		lists = append(lists, one)
	}
	a.Constraints = parseConstraints(lists, at("/scheduling/placement/constraints"), f)
}

// finishContainers fills in what depends on the network, and makes one of the ways to say the same.
func finishContainers(given []PodContainer, host, bridge bool) []PodContainer {
	containers := slices.Clone(given)
	for i := range containers {
		c := &containers[i]
		c.Env, c.Labels = none(c.Env), none(c.Labels)
		c.Endpoints = slices.Clone(c.Endpoints)
		for j := range c.Endpoints {
			e := &c.Endpoints[j]
			e.Labels = none(e.Labels)
			if (host || bridge) && e.HostPort == nil {
				e.HostPort = new(0)
			}
		}
		if c.Image != nil {
			image := *c.Image
			image.Labels = none(image.Labels)
			c.Image = &image
		}
		for _, check := range []*EndpointCheck{healthHTTP(c), checkHTTP(c)} {
			if check != nil && check.Path != "" && !strings.HasPrefix(check.Path, "/") {
				check.Path = "/" + check.Path
			}
		}
	}
	return containers
}

func healthHTTP(c *PodContainer) *EndpointCheck {
	if c.HealthCheck == nil {
		return nil
	}
	return c.HealthCheck.HTTP
}

func checkHTTP(c *PodContainer) *EndpointCheck {
	if c.Check == nil {
		return nil
	}
	return c.Check.HTTP
}

func finishPodVolumes(given []podVolumeDraft, f *faults) []PodVolume {
	var volumes []PodVolume
	for i, d := range given {
		p := at("/volumes").index(i)
		v := PodVolume{Name: d.Name, Host: or(d.Host, ""), Secret: or(d.Secret, "")}
		kinds := 0
		for _, set := range []bool{d.Host != nil, d.Secret != nil, d.Persistent != nil} {
			if set {
				kinds++
			}
		}
		if kinds > 1 {
			f.add(p, "must have at most one of host, secret and persistent")
		}
		if d.Persistent != nil {
			v.Persistent = d.Persistent.finish(p.field("persistent"), f)
		}
		volumes = append(volumes, v)
	}
	return volumes
}
