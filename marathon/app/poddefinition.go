package app

// PodDefinition is a pod as the API shows it. Read back by ParsePod it makes the same pod.
type PodDefinition struct {
	ID                  PathID              `json:"id"`
	Labels              Labels              `json:"labels,omitempty"`
	Version             Timestamp           `json:"version"`
	User                string              `json:"user,omitempty"`
	Env                 map[string]EnvValue `json:"environment,omitempty"`
	Containers          []PodContainer      `json:"containers"`
	Secrets             map[string]Secret   `json:"secrets,omitempty"`
	Volumes             []PodVolume         `json:"volumes,omitempty"`
	Networks            []Network           `json:"networks,omitempty"`
	Scaling             PodScaling          `json:"scaling"`
	Scheduling          PodScheduling       `json:"scheduling"`
	ExecutorResources   ExecutorResources   `json:"executorResources"`
	Role                string              `json:"role"`
	LinuxInfo           *LinuxInfo          `json:"linuxInfo,omitempty"`
	LegacySharedCgroups bool                `json:"legacySharedCgroups,omitempty"`
	Starling            *Starling           `json:"starling,omitempty"`
}

// PodScaling is how many instances there are to be. Its kind is "fixed".
type PodScaling struct {
	Kind      string `json:"kind"`
	Instances int    `json:"instances"`
}

// PodScheduling says where and how instances are launched and replaced.
type PodScheduling struct {
	Backoff             PodBackoff          `json:"backoff"`
	Upgrade             UpgradeStrategy     `json:"upgrade"`
	Placement           PodPlacement        `json:"placement"`
	KillSelection       KillSelection       `json:"killSelection"`
	UnreachableStrategy UnreachableStrategy `json:"unreachableStrategy"`
}

// PodBackoff holds launches back after failures. Times are in seconds.
type PodBackoff struct {
	Backoff        int     `json:"backoff"`
	BackoffFactor  float64 `json:"backoffFactor"`
	MaxLaunchDelay int     `json:"maxLaunchDelay"`
}

// PodPlacement says which agents will do.
type PodPlacement struct {
	Constraints           []PodConstraint `json:"constraints,omitempty"`
	AcceptedResourceRoles []string        `json:"acceptedResourceRoles,omitempty"`
}

// PodConstraint is a constraint, in the form that pods have for it.
type PodConstraint struct {
	FieldName string   `json:"fieldName"`
	Operator  Operator `json:"operator"`
	Value     *string  `json:"value,omitempty"`
}

// PodDefinition returns the pod as the API shows it; the receiver must be one. What it points to is the receiver's.
func (a *App) PodDefinition() *PodDefinition {
	d := &PodDefinition{
		ID: a.ID, Labels: a.Labels, Version: a.Version, User: a.User, Env: a.Env, Containers: a.Pod.Containers,
		Secrets: a.Secrets, Volumes: a.Pod.Volumes, Networks: a.Networks, Role: a.Role, LinuxInfo: a.Pod.LinuxInfo,
		Scaling: PodScaling{Kind: fixedScaling, Instances: a.Instances},
		Scheduling: PodScheduling{
			Backoff:       PodBackoff{a.BackoffSeconds, a.BackoffFactor, a.MaxLaunchDelaySeconds},
			Upgrade:       a.UpgradeStrategy,
			Placement:     PodPlacement{AcceptedResourceRoles: a.AcceptedResourceRoles},
			KillSelection: a.KillSelection, UnreachableStrategy: a.UnreachableStrategy,
		},
		LegacySharedCgroups: a.Pod.LegacySharedCgroups, Starling: a.Starling,
	}
	if a.ExecutorResources != nil {
		d.ExecutorResources = *a.ExecutorResources
	}
	for _, c := range a.Constraints {
		one := PodConstraint{FieldName: c.Field, Operator: c.Operator}
		if c.HasValue {
			one.Value = new(c.Value)
		}
		d.Scheduling.Placement.Constraints = append(d.Scheduling.Placement.Constraints, one)
	}
	return d
}

// App returns the pod that the definition shows. It trusts it: users' bodies go through ParsePod.
func (d *PodDefinition) App() *App {
	a := &App{
		ID: d.ID, Labels: d.Labels, Version: d.Version, User: d.User, Env: d.Env, Secrets: d.Secrets, Networks: d.Networks,
		Role: d.Role, Instances: d.Scaling.Instances, BackoffSeconds: d.Scheduling.Backoff.Backoff,
		BackoffFactor: d.Scheduling.Backoff.BackoffFactor, MaxLaunchDelaySeconds: d.Scheduling.Backoff.MaxLaunchDelay,
		UpgradeStrategy: d.Scheduling.Upgrade, UnreachableStrategy: d.Scheduling.UnreachableStrategy,
		KillSelection: d.Scheduling.KillSelection, AcceptedResourceRoles: d.Scheduling.Placement.AcceptedResourceRoles,
		ExecutorResources: &d.ExecutorResources, Starling: d.Starling,
		Pod: &Pod{
			Containers: d.Containers, Volumes: d.Volumes, LinuxInfo: d.LinuxInfo, LegacySharedCgroups: d.LegacySharedCgroups,
		},
	}
	for _, c := range d.Scheduling.Placement.Constraints {
		one := Constraint{Field: c.FieldName, Operator: c.Operator}
		if c.Value != nil {
			one.Value, one.HasValue = *c.Value, true
		}
		a.Constraints = append(a.Constraints, one)
	}
	a.addUp()
	return a
}
