package app

import "math"

// App is a complete definition of an app, or of a pod: one that came out of a Draft or out of the store. Its JSON is the app of the
// API, without status; the same JSON read back with json.Unmarshal gives the same app, which is how a store keeps it.
// It may be embedded in a larger answer. Nobody changes an App, or what it points to, once it was made.
type App struct {
	ID   PathID              `json:"id"`
	Cmd  string              `json:"cmd,omitempty"`
	Args []string            `json:"args,omitempty"`
	User string              `json:"user,omitempty"`
	Env  map[string]EnvValue `json:"env,omitempty"`

	Instances int `json:"instances"`
	// CPUs is in cores, Mem and Disk are in MiB.
	CPUs           float64         `json:"cpus"`
	Mem            float64         `json:"mem"`
	Disk           float64         `json:"disk"`
	GPUs           int             `json:"gpus"`
	ResourceLimits *ResourceLimits `json:"resourceLimits,omitempty"`

	// Executor is empty or "//cmd" for the command executor, or the path of another one.
	Executor          string             `json:"executor"`
	ExecutorResources *ExecutorResources `json:"executorResources,omitempty"`

	Constraints           []Constraint `json:"constraints,omitempty"`
	AcceptedResourceRoles []string     `json:"acceptedResourceRoles,omitempty"`
	Role                  string       `json:"role,omitempty"`

	Container *Container `json:"container,omitempty"`
	Networks  []Network  `json:"networks"`
	// PortDefinitions is nil unless the app is in host mode.
	PortDefinitions []PortDefinition `json:"portDefinitions,omitzero"`
	RequirePorts    bool             `json:"requirePorts"`

	Fetch        []Fetch  `json:"fetch,omitempty"`
	Dependencies []PathID `json:"dependencies,omitempty"`

	HealthChecks    []HealthCheck    `json:"healthChecks,omitempty"`
	Check           *Check           `json:"check,omitempty"`
	ReadinessChecks []ReadinessCheck `json:"readinessChecks,omitempty"`

	BackoffSeconds             int     `json:"backoffSeconds"`
	BackoffFactor              float64 `json:"backoffFactor"`
	MaxLaunchDelaySeconds      int     `json:"maxLaunchDelaySeconds"`
	TaskKillGracePeriodSeconds *int    `json:"taskKillGracePeriodSeconds,omitempty"`

	UpgradeStrategy     UpgradeStrategy     `json:"upgradeStrategy"`
	UnreachableStrategy UnreachableStrategy `json:"unreachableStrategy"`
	KillSelection       KillSelection       `json:"killSelection"`

	Labels    Labels            `json:"labels"`
	Secrets   map[string]Secret `json:"secrets,omitempty"`
	Residency *Residency        `json:"residency,omitempty"`
	TTY       *bool             `json:"tty,omitempty"`

	// Starling is what is asked for beyond Marathon; nil is nothing.
	Starling *Starling `json:"starling,omitempty"`
	// Pod is set for a pod, and holds what apps have not; see Pod for what the other fields are then. The API shows it as
	// PodDefinition.
	Pod *Pod `json:"pod,omitempty"`

	// Version names this definition; VersionInfo tells what about it changed when. Both are set by Commit.
	Version     Timestamp   `json:"version,omitzero"`
	VersionInfo VersionInfo `json:"versionInfo,omitzero"`
}

// VersionInfo tells when the number of instances changed last, and when anything else did.
type VersionInfo struct {
	LastScalingAt      Timestamp `json:"lastScalingAt"`
	LastConfigChangeAt Timestamp `json:"lastConfigChangeAt"`
}

// Labels are free pairs; nil is written as {}.
type Labels map[string]string

// EnvValue is a value, or the name of an entry of the app's secrets when Secret is not empty.
type EnvValue struct {
	Value  string
	Secret string
}

// Secret says where a secret comes from.
type Secret struct {
	Source string `json:"source"`
}

// Limit bounds a resource; Unlimited lifts the bound.
type Limit float64

// Unlimited is the limit that is none.
var Unlimited = Limit(math.Inf(1))

// ResourceLimits are what a task may use beyond what it asked for; nil is no word about it.
type ResourceLimits struct {
	CPUs *Limit `json:"cpus,omitempty"`
	Mem  *Limit `json:"mem,omitempty"`
}

// ExecutorResources are added to an app's demand when it names an executor by path. Units as in App.
type ExecutorResources struct {
	CPUs float64 `json:"cpus"`
	Mem  float64 `json:"mem"`
	Disk float64 `json:"disk"`
}

// Operator is one of the placement rules.
type Operator string

// The operators.
const (
	Unique  Operator = "UNIQUE"
	Cluster Operator = "CLUSTER"
	GroupBy Operator = "GROUP_BY"
	Like    Operator = "LIKE"
	Unlike  Operator = "UNLIKE"
	MaxPer  Operator = "MAX_PER"
	Is      Operator = "IS"
)

// Constraint says on which agents instances may run. It is comparable. In JSON it is a list of two or three texts.
type Constraint struct {
	// Field is "hostname", "@hostname", "@region", "@zone" or the name of an attribute.
	Field    string
	Operator Operator
	// Value counts only when HasValue is set.
	Value    string
	HasValue bool
}

// Fetch is something to put into the sandbox before the task starts.
type Fetch struct {
	URI        string `json:"uri"`
	Extract    bool   `json:"extract"`
	Executable bool   `json:"executable"`
	Cache      bool   `json:"cache"`
	DestPath   string `json:"destPath,omitempty"`
}

// UpgradeStrategy bounds how far a rolling restart may go below and above the number of instances, as shares of it.
type UpgradeStrategy struct {
	MinimumHealthCapacity float64 `json:"minimumHealthCapacity"`
	MaximumOverCapacity   float64 `json:"maximumOverCapacity"`
}

// UnreachableStrategy says when an instance on an agent that cannot be reached is replaced, and when it is forgotten. In
// JSON it is an object, or "disabled".
type UnreachableStrategy struct {
	Disabled             bool
	InactiveAfterSeconds int
	ExpungeAfterSeconds  int
}

// KillSelection says which instances go first.
type KillSelection string

// The kill selections.
const (
	YoungestFirst KillSelection = "YOUNGEST_FIRST"
	OldestFirst   KillSelection = "OLDEST_FIRST"
)

// Residency is kept for clients that send it; it has no effect.
type Residency struct {
	RelaunchEscalationTimeoutSeconds int    `json:"relaunchEscalationTimeoutSeconds"`
	TaskLostBehavior                 string `json:"taskLostBehavior"`
}

// Resident tells whether the app keeps persistent volumes, and so its place.
func (a *App) Resident() bool { return len(a.PersistentVolumes()) > 0 }

// PersistentVolumes lists the volumes that stay on their agent when a task ends, in the order of the definition.
func (a *App) PersistentVolumes() []Volume {
	if a.Pod != nil {
		return a.Pod.persistentVolumes()
	}
	if a.Container == nil {
		return nil
	}
	var out []Volume
	for _, v := range a.Container.Volumes {
		if v.Persistent != nil {
			out = append(out, v)
		}
	}
	return out
}

// SingleInstance tells whether a label forbids a second instance, even for a moment.
func (a *App) SingleInstance() bool { return a.Labels["MARATHON_SINGLE_INSTANCE_APP"] == "true" }

// WithInstances returns a copy of the app with that number of instances.
func (a *App) WithInstances(n int) *App {
	out := *a
	out.Instances = n
	return &out
}
