package app

import (
	"encoding/json"
	"reflect"
)

// Draft is a definition as a user wrote it: well-formed and of the right types, with any field absent, old forms among
// them, and no rule applied yet.
type Draft struct {
	definition definition
}

// definition has a pointer for every field of an app, nil where it is absent. It is both what a body holds and, after
// conversion and merging, what an App is made of.
type definition struct {
	ID                         *string              `json:"id"`
	Cmd                        *string              `json:"cmd"`
	Args                       *[]string            `json:"args"`
	User                       *string              `json:"user"`
	Env                        *map[string]EnvValue `json:"env"`
	Instances                  *int                 `json:"instances"`
	CPUs                       *float64             `json:"cpus"`
	Mem                        *float64             `json:"mem"`
	Disk                       *float64             `json:"disk"`
	GPUs                       *int                 `json:"gpus"`
	ResourceLimits             *ResourceLimits      `json:"resourceLimits"`
	Executor                   *string              `json:"executor"`
	ExecutorResources          *ExecutorResources   `json:"executorResources"`
	Constraints                *[][]string          `json:"constraints"`
	AcceptedResourceRoles      *[]string            `json:"acceptedResourceRoles"`
	Role                       *string              `json:"role"`
	Container                  *containerDefinition `json:"container"`
	Networks                   *[]Network           `json:"networks"`
	PortDefinitions            *[]PortDefinition    `json:"portDefinitions"`
	RequirePorts               *bool                `json:"requirePorts"`
	Fetch                      *[]Fetch             `json:"fetch"`
	Dependencies               *[]string            `json:"dependencies"`
	HealthChecks               *[]HealthCheck       `json:"healthChecks"`
	Check                      *Check               `json:"check"`
	ReadinessChecks            *[]ReadinessCheck    `json:"readinessChecks"`
	BackoffSeconds             *int                 `json:"backoffSeconds"`
	BackoffFactor              *float64             `json:"backoffFactor"`
	MaxLaunchDelaySeconds      *int                 `json:"maxLaunchDelaySeconds"`
	TaskKillGracePeriodSeconds *int                 `json:"taskKillGracePeriodSeconds"`
	UpgradeStrategy            *upgradeDraft        `json:"upgradeStrategy"`
	UnreachableStrategy        *UnreachableStrategy `json:"unreachableStrategy"`
	KillSelection              *KillSelection       `json:"killSelection"`
	Labels                     *map[string]string   `json:"labels"`
	Secrets                    *map[string]Secret   `json:"secrets"`
	Residency                  *Residency           `json:"residency"`
	TTY                        *bool                `json:"tty"`
	Starling                   *Starling            `json:"starling"`
	Version                    *Timestamp           `json:"version"`
	URIs                       *[]string            `json:"uris"`
	Ports                      *[]int               `json:"ports"`
	IPAddress                  *ipAddressDefinition `json:"ipAddress"`
	StoreURLs                  *[]string            `json:"storeUrls"`
}

type containerDefinition struct {
	Type         ContainerType      `json:"type"`
	Docker       *dockerDefinition  `json:"docker"`
	Volumes      []volumeDefinition `json:"volumes"`
	PortMappings *[]PortMapping     `json:"portMappings"`
	LinuxInfo    *LinuxInfo         `json:"linuxInfo"`
}

type dockerDefinition struct {
	DockerImage
	Network      *string         `json:"network"`
	PortMappings *[]PortMapping  `json:"portMappings"`
	Credential   json.RawMessage `json:"credential"`
}

type volumeDefinition struct {
	Volume
	HostPath   *string               `json:"hostPath"`
	Secret     *string               `json:"secret"`
	Persistent *persistentDefinition `json:"persistent"`
}

type persistentDefinition struct {
	PersistentVolume
	Constraints [][]string `json:"constraints"`
}

type ipAddressDefinition struct {
	NetworkName string `json:"networkName"`
	Labels      Labels `json:"labels"`
	Discovery   *struct {
		Ports []struct {
			Number   int    `json:"number"`
			Name     string `json:"name"`
			Protocol string `json:"protocol"`
			Labels   Labels `json:"labels"`
		} `json:"ports"`
	} `json:"discovery"`
}

// ParseApp reads one app that must have an id. Errors are *Invalid: not JSON at all has Syntax set, wrong types and
// limits are listed with their paths.
func ParseApp(body []byte) (*Draft, error) { return parseDraft(body, appShape) }

// ParseUpdate reads one app of which any field, the id included, may be absent. Errors are as those of ParseApp.
func ParseUpdate(body []byte) (*Draft, error) { return parseDraft(body, updateShape) }

// ParseTaskIDs reads the body {"ids": [...]} that names tasks. Errors are as those of ParseApp.
func ParseTaskIDs(body []byte) ([]string, error) {
	var in struct {
		IDs []string `json:"ids"`
	}
	if err := decode(body, taskIDsShape, &in); err != nil {
		return nil, err
	}
	return in.IDs, nil
}

func parseDraft(body []byte, s *shape) (*Draft, error) {
	d := new(Draft)
	if err := decode(body, s, &d.definition); err != nil {
		return nil, err
	}
	return d, nil
}

// ParseUpdates reads a list of apps, each with an id. Errors are as those of ParseApp; paths begin with the index.
func ParseUpdates(body []byte) ([]*Draft, error) {
	var definitions []definition
	if err := decode(body, list(appShape), &definitions); err != nil {
		return nil, err
	}
	drafts := make([]*Draft, len(definitions))
	for i := range definitions {
		drafts[i] = &Draft{definition: definitions[i]}
	}
	return drafts, nil
}

// ID resolves the id that the draft gives itself against base. The error is an *Invalid at /id.
func (d *Draft) ID(base PathID) (PathID, error) {
	if d.definition.ID == nil {
		return "", &Invalid{Message: MessageJSON, Details: []Detail{{Path: "/id", Errors: []string{codeMissing}}}}
	}
	id, err := ParseID(*d.definition.ID, base)
	if err != nil {
		return "", refuse("/id", "%v", err)
	}
	f := faults{message: MessageObject}
	checkID(id, *d.definition.ID, nil, &f)
	return id, f.err()
}

// Rollback returns the version that the draft asks to go back to, if it does: then it holds a version and nothing else
// but, perhaps, an id. A version beside other fields is refused. It is for partial updates; full definitions may hold a
// version, which is ignored.
func (d *Draft) Rollback() (Timestamp, bool, error) {
	if d.definition.Version == nil {
		return 0, false, nil
	}
	rest := d.definition
	rest.ID, rest.Version = nil, nil
	if !reflect.ValueOf(rest).IsZero() {
		return 0, false, refuse("/", "The 'version' field may only be combined with the 'id' field.")
	}
	return *d.definition.Version, true, nil
}

// Rules are what a definition must fit to beside itself. RulesFor makes them from a tree.
type Rules struct {
	Settings Settings
	Roles    Roles
	// Base is what relative ids of dependencies are resolved against.
	Base PathID
	// Force lets a resident app change its role.
	Force bool
}

// RulesFor returns the rules for an app of that id in the tree; relative ids are resolved against the root.
func (g *Group) RulesFor(id PathID, s Settings) Rules {
	return Rules{Settings: s, Roles: g.RolesFor(id, s), Base: Root}
}

// Create makes a new app of the draft: old forms converted, defaults filled in, all rules applied. The id in the draft is
// ignored. Version, VersionInfo and missing service ports are left to Commit. The error is an *Invalid with every rule
// that is broken.
func (d *Draft) Create(id PathID, r Rules) (*App, error) {
	f := faults{message: MessageObject}
	a := d.create(id, r, nil, &f)
	return a, f.err()
}

func (d *Draft) create(id PathID, r Rules, p *place, f *faults) *App {
	def := d.definition
	before := len(f.details)
	def.checkOldForms(p, f)
	if len(f.details) > before {
		return nil
	}
	def.convert(r.Settings)
	return def.finish(id, r, p, f)
}

// Replace is Create for an app that exists: what the draft lacks gets its default, not the old value.
func (d *Draft) Replace(old *App, r Rules) (*App, error) {
	f := faults{message: MessageObject}
	a := d.replace(old, r, nil, &f)
	return a, f.err()
}

func (d *Draft) replace(old *App, r Rules, p *place, f *faults) *App {
	before := len(f.details)
	a := d.create(old.ID, r, p, f)
	if len(f.details) == before {
		checkResidentUpdate(old, a, r, p, f)
	}
	return a
}

// Update makes an app of the old one and the draft: each field of the draft takes the place of the old one as a whole,
// nothing is merged deeper. Ports of the old app that do not fit to the network mode of the draft are dropped, so that a
// change of mode need not spell that out.
func (d *Draft) Update(old *App, r Rules) (*App, error) {
	f := faults{message: MessageObject}
	def := d.definition
	def.checkOldForms(nil, &f)
	if err := f.err(); err != nil {
		return nil, err
	}
	def.convert(r.Settings)
	merged := def.over(old)
	a := merged.finish(old.ID, r, nil, &f)
	if err := f.err(); err != nil {
		return nil, err
	}
	checkResidentUpdate(old, a, r, nil, &f)
	return a, f.err()
}

// over returns a definition that has the fields of d and, where d lacks one, those of the app.
func (d *definition) over(a *App) *definition {
	base := definitionOf(a)
	hostMode := a.HostMode()
	if d.Networks != nil {
		hostMode = len(*d.Networks) == 0 || (*d.Networks)[0].Mode == HostNetwork
	}
	if hostMode && base.Container != nil {
		base.Container.PortMappings = nil
	}
	if !hostMode || d.Ports != nil {
		base.PortDefinitions = nil
	}
	d.settleDaemon(base, a)
	to, from := reflect.ValueOf(base).Elem(), reflect.ValueOf(d).Elem()
	for i := range to.NumField() {
		if !from.Field(i).IsNil() {
			to.Field(i).Set(from.Field(i))
		}
	}
	return base
}

// definitionOf turns an app back into a definition that makes the same app.
func definitionOf(a *App) *definition {
	d := &definition{
		Cmd: &a.Cmd, Args: &a.Args, User: &a.User, Env: &a.Env, Instances: &a.Instances, CPUs: &a.CPUs, Mem: &a.Mem,
		Disk: &a.Disk, GPUs: &a.GPUs, ResourceLimits: a.ResourceLimits, Executor: &a.Executor,
		ExecutorResources: a.ExecutorResources, Role: &a.Role, Networks: &a.Networks, RequirePorts: &a.RequirePorts,
		Fetch: &a.Fetch, HealthChecks: &a.HealthChecks, Check: a.Check, ReadinessChecks: &a.ReadinessChecks,
		BackoffSeconds: &a.BackoffSeconds, BackoffFactor: &a.BackoffFactor, MaxLaunchDelaySeconds: &a.MaxLaunchDelaySeconds,
		TaskKillGracePeriodSeconds: a.TaskKillGracePeriodSeconds, UpgradeStrategy: upgradeOf(a.UpgradeStrategy),
		UnreachableStrategy: &a.UnreachableStrategy, KillSelection: &a.KillSelection, Labels: (*map[string]string)(&a.Labels),
		Secrets: &a.Secrets, Residency: a.Residency, TTY: a.TTY, Starling: a.Starling,
		Constraints: new(constraintLists(a.Constraints)),
	}
	if a.AcceptedResourceRoles != nil {
		d.AcceptedResourceRoles = &a.AcceptedResourceRoles
	}
	if a.PortDefinitions != nil {
		d.PortDefinitions = &a.PortDefinitions
	}
	dependencies := make([]string, len(a.Dependencies))
	for i, id := range a.Dependencies {
		dependencies[i] = string(id)
	}
	d.Dependencies = &dependencies
	if c := a.Container; c != nil {
		d.Container = &containerDefinition{Type: c.Type, LinuxInfo: c.LinuxInfo}
		if c.PortMappings != nil {
			d.Container.PortMappings = &c.PortMappings
		}
		if c.Docker != nil {
			d.Container.Docker = &dockerDefinition{DockerImage: *c.Docker}
		}
		for _, v := range c.Volumes {
			d.Container.Volumes = append(d.Container.Volumes, volumeDefinitionOf(v))
		}
	}
	return d
}

func volumeDefinitionOf(v Volume) volumeDefinition {
	d := volumeDefinition{Volume: v}
	if v.HostPath != "" {
		d.HostPath = &v.HostPath
	}
	if v.Secret != "" {
		d.Secret = &v.Secret
	}
	if v.Persistent != nil {
		d.Persistent = &persistentDefinition{PersistentVolume: *v.Persistent, Constraints: constraintLists(v.Persistent.Constraints)}
	}
	return d
}

func constraintLists(constraints []Constraint) [][]string {
	lists := make([][]string, len(constraints))
	for i, c := range constraints {
		lists[i] = []string{c.Field, string(c.Operator)}
		if c.HasValue {
			lists[i] = append(lists[i], c.Value)
		}
	}
	return lists
}

// upgradeDraft is an upgrade strategy of which either half may be left to its default.
type upgradeDraft struct {
	MinimumHealthCapacity *float64 `json:"minimumHealthCapacity"`
	MaximumOverCapacity   *float64 `json:"maximumOverCapacity"`
}

// finish fills in what is absent.
func (d upgradeDraft) finish(def UpgradeStrategy) UpgradeStrategy {
	return UpgradeStrategy{
		MinimumHealthCapacity: or(d.MinimumHealthCapacity, def.MinimumHealthCapacity),
		MaximumOverCapacity:   or(d.MaximumOverCapacity, def.MaximumOverCapacity),
	}
}

func upgradeOf(s UpgradeStrategy) *upgradeDraft {
	return &upgradeDraft{MinimumHealthCapacity: &s.MinimumHealthCapacity, MaximumOverCapacity: &s.MaximumOverCapacity}
}
