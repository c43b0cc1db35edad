package app

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// check applies every rule that concerns one finished app.
func (a *App) check(r Rules, p *place, f *faults) {
	a.checkCommand(p, f)
	a.checkEnvironment(p, f)
	a.checkResources(r, p, f)
	a.checkSecrets(r, p, f)
	a.checkRoles(r, p, f)
	a.checkNetworks(p, f)
	a.checkPorts(p, f)
	a.checkContainer(r, p.field("container"), f)
	checkFetch(a.Fetch, p.field("fetch"), f)
	a.checkHealthChecks(p.field("healthChecks"), f)
	a.checkCheck(p.field("check"), f)
	a.checkReadiness(p.field("readinessChecks"), f)
	a.checkStrategies(p, f)
	a.checkLabels(p, f)
	a.checkStarling(p, f)
}

func checkFetch(all []Fetch, p *place, f *faults) {
	for i, fetch := range all {
		if _, err := url.Parse(fetch.URI); err != nil {
			f.add(p.index(i).field("uri"), "is not a valid URI: %q", fetch.URI)
		}
	}
}

// checkID applies the rules for ids of apps. raw is the id as it was written.
func checkID(id PathID, raw string, p *place, f *faults) {
	p = p.field("id")
	if id == Root {
		f.add(p, "is not the id of an app: %q", raw)
		return
	}
	last := strings.TrimRight(raw, "/")
	last = last[strings.LastIndexByte(last, '/')+1:]
	for _, reserved := range []string{"restart", "tasks", "versions", ".", ".."} {
		if last == reserved || id.Base() == reserved {
			f.add(p, "must not end in any of the following reserved keywords: restart, tasks, versions, ., ..")
			return
		}
	}
}

func (a *App) checkCommand(p *place, f *faults) {
	runs := a.Cmd != "" && len(a.Args) == 0 || a.Cmd == "" && len(a.Args) > 0
	image := a.Cmd == "" && len(a.Args) == 0 && a.Container != nil && (a.Container.Docker != nil || a.Container.Type == Mesos)
	if !runs && !image {
		f.add(p, "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.")
	}
	checkPrintable(a.Cmd, p.field("cmd"), f)
	for i, arg := range a.Args {
		checkPrintable(arg, p.field("args").index(i), f)
	}
}

// checkPrintable refuses control characters other than white space: no process can be started with a NUL in its command,
// and the others are a slip.
func checkPrintable(text string, p *place, f *faults) {
	at := strings.IndexFunc(text, func(r rune) bool { return r < ' ' && r != '\t' && r != '\n' && r != '\r' })
	if at >= 0 {
		f.add(p, "must not contain control characters other than tab, newline and carriage return: %q at %d", text[at], at)
	}
}

// checkEnvironment refuses names and values that no process can be started with.
func (a *App) checkEnvironment(p *place, f *faults) {
	for _, name := range sortedKeys(a.Env) {
		switch {
		case name == "":
			f.add(p.field("env"), "the name of a variable must not be empty")
		case strings.ContainsAny(name, "=\x00"):
			f.add(p.field("env"), "the name of a variable must contain neither = nor NUL: %q", name)
		case strings.ContainsRune(a.Env[name].Value, 0):
			f.add(p.field("env").field(name), "must not contain NUL")
		}
	}
	checkVariableLabels(a.Labels, p.field("labels"), f)
}

// checkVariableLabels refuses labels that cannot be passed on as variables.
func checkVariableLabels(labels Labels, p *place, f *faults) {
	for _, name := range sortedKeys(labels) {
		if strings.ContainsRune(labels[name], 0) {
			f.add(p.field(name), "must not contain NUL")
		}
	}
}

func (a *App) checkResources(r Rules, p *place, f *faults) {
	if a.GPUs > 0 && !r.Settings.GPUResources {
		f.add(p.field("gpus"), "must be 0: feature gpu_resources is not enabled")
	}
	if a.GPUs > 0 && a.Container != nil && a.Container.Type == Docker {
		f.add(p.field("gpus"), "must be 0: GPUs are not available to container type DOCKER")
	}
	a.ResourceLimits.check(a.CPUs, a.Mem, p.field("resourceLimits"), f)
	a.checkInstances(p, f)
}

// check refuses limits below what is requested. Nil is no limit.
func (l *ResourceLimits) check(cpus, mem float64, p *place, f *faults) {
	if l == nil {
		return
	}
	if l.CPUs != nil && float64(*l.CPUs) < cpus {
		f.add(p.field("cpus"), "must be at least the %s that are requested", Decimal(cpus))
	}
	if l.Mem != nil && float64(*l.Mem) < mem {
		f.add(p.field("mem"), "must be at least the %s that are requested", Decimal(mem))
	}
}

func (a *App) checkInstances(p *place, f *faults) {
	if a.SingleInstance() && a.Instances > 1 {
		f.add(p, "Single instance app may only have one instance")
	}
}

// Decimal writes a number with at least one digit after the point: 0.5, 128.0.
func Decimal(x float64) string {
	s := strconv.FormatFloat(x, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

func (a *App) checkSecrets(r Rules, p *place, f *faults) {
	used := false
	for _, name := range sortedKeys(a.Env) {
		at := p.field("env").field(name)
		if secret := a.Env[name].Secret; secret != "" {
			used = true
			if _, ok := a.Secrets[secret]; !ok {
				f.add(at.field("secret"), "references an undefined secret")
			}
		}
	}
	for _, name := range sortedKeys(a.Secrets) {
		used = true
		if a.Secrets[name].Source == "" {
			f.add(p.field("secrets").field(name).field("source"), "must not be empty")
		}
	}
	if used && !r.Settings.Secrets {
		f.add(p.field("secrets"), "feature secrets is not enabled: start Marathon with --enable_features secrets")
	}
}

func (a *App) checkRoles(r Rules, p *place, f *faults) {
	if !slices.Contains(r.Roles.Allowed, a.Role) && a.Role != r.Roles.Default {
		f.add(p.field("role"), "got %s, expected one of: %s", a.Role, strings.Join(unique(r.Roles.Allowed), ", "))
	}
	resident := a.Resident()
	if resident && a.Role == "*" {
		f.add(p.field("role"), "Resident apps cannot have the role *")
	}
	roles := p.field("acceptedResourceRoles")
	for _, role := range a.AcceptedResourceRoles {
		if role != "*" && role != a.Role {
			f.add(roles, "acceptedResourceRoles can only contain %s, got %s", strings.Join(unique([]string{"*", a.Role}), " and "), role)
		}
	}
	if resident && a.AcceptedResourceRoles != nil && !slices.Equal(a.AcceptedResourceRoles, []string{"*"}) {
		f.add(roles, "A resident app must have `acceptedResourceRoles = [\"*\"]`.")
	}
}

func (a *App) checkStrategies(p *place, f *faults) {
	up := a.UpgradeStrategy
	at := p.field("upgradeStrategy")
	checkShare(up.MinimumHealthCapacity, at.field("minimumHealthCapacity"), f)
	checkShare(up.MaximumOverCapacity, at.field("maximumOverCapacity"), f)
	resident := a.Resident()
	if resident && up.MaximumOverCapacity != 0 {
		f.add(at.field("maximumOverCapacity"), "got %s, expected 0.0 for resident apps", Decimal(up.MaximumOverCapacity))
	}
	if a.SingleInstance() {
		if up.MinimumHealthCapacity != 0 {
			f.add(at.field("minimumHealthCapacity"), "got %s, expected 0.0 for single instance apps", Decimal(up.MinimumHealthCapacity))
		}
		if up.MaximumOverCapacity != 0 {
			f.add(at.field("maximumOverCapacity"), "got %s, expected 0.0 for single instance apps", Decimal(up.MaximumOverCapacity))
		}
	}
	unreachable := a.UnreachableStrategy
	at = p.field("unreachableStrategy")
	if resident && !unreachable.Disabled {
		f.add(at, "unreachableStrategy must be disabled for resident apps")
	}
	if unreachable.InactiveAfterSeconds > unreachable.ExpungeAfterSeconds {
		f.add(at.field("inactiveAfterSeconds"), "must be less than or equal to expungeAfterSeconds, got %d and %d",
			unreachable.InactiveAfterSeconds, unreachable.ExpungeAfterSeconds)
	}
}

func checkShare(share float64, p *place, f *faults) {
	if share < 0 || share > 1 {
		f.add(p, "got %s, expected between 0.0 and 1.0", Decimal(share))
	}
}

func (a *App) checkLabels(p *place, f *faults) {
	at := p.field("labels")
	if version := a.Labels["DCOS_MIGRATION_API_VERSION"]; version != "" {
		if version != "v1" {
			f.add(at.field("DCOS_MIGRATION_API_VERSION"), "must be v1")
		}
		for _, label := range []string{"DCOS_MIGRATION_API_PATH", "DCOS_PACKAGE_FRAMEWORK_NAME"} {
			if a.Labels[label] == "" {
				f.add(at.field(label), "must not be empty when DCOS_MIGRATION_API_VERSION is set")
			}
		}
	}
	if behaviour, ok := a.Labels["GPU_SCHEDULING_BEHAVIOR"]; ok && behaviour != "restricted" && behaviour != "unrestricted" {
		f.add(at.field("GPU_SCHEDULING_BEHAVIOR"), "must be restricted or unrestricted, got %q", behaviour)
	}
}

// isValue is what the operator IS compares with.
var isValue = regexp.MustCompile(`^[a-zA-Z0-9_/.-]*$`)

// parseConstraints reads the list form and applies the rules of each operator.
func parseConstraints(lists [][]string, p *place, f *faults) []Constraint {
	var constraints []Constraint
	for i, fields := range lists {
		c, fault := parseConstraint(fields)
		if fault != "" {
			f.add(p.index(i), "%s", fault)
			continue
		}
		constraints = append(constraints, c)
	}
	return constraints
}

// parseConstraint returns a constraint, or what is wrong with it in the words that the API has for it.
func parseConstraint(fields []string) (Constraint, string) {
	if len(fields) < 2 || len(fields) > 3 {
		return Constraint{}, "Each constraint must have either 2 or 3 fields"
	}
	c := Constraint{Field: fields[0], Operator: Operator(strings.ToUpper(fields[1]))}
	if len(fields) == 3 {
		c.Value, c.HasValue = fields[2], true
	}
	if c.Field == "" {
		return c, "missing field for constraint declaration"
	}
	switch c.Operator {
	case Unique:
		if c.HasValue {
			return c, "UNIQUE does not accept a value"
		}
	case Cluster:
		if c.Value == "" {
			c.HasValue = false
		}
	case GroupBy:
		if _, err := strconv.Atoi(c.Value); c.HasValue && err != nil {
			return c, "GROUP BY must define an integer value or else no value at all"
		}
	case MaxPer:
		if _, err := strconv.Atoi(c.Value); err != nil {
			return c, "MAX_PER requires an integer value"
		}
	case Like, Unlike:
		if c.Value == "" {
			return c, "LIKE and UNLIKE require a non-empty, regular expression value"
		}
		if _, err := regexp.Compile(c.Value); err != nil {
			return c, fmt.Sprintf("%q is not a valid regular expression: %v", c.Value, err)
		}
	case Is:
		if !isValue.MatchString(c.Value) {
			return c, fmt.Sprintf("IS only supports Mesos text and float values (letters, digits, and any of _ / . -), got %q", c.Value)
		}
	default:
		return c, "operator must be one of the following UNIQUE, CLUSTER, GROUP_BY, LIKE, MAX_PER, UNLIKE or IS"
	}
	return c, ""
}
