package app

// Settings are the flags that what is accepted, and what is filled in, depend on.
type Settings struct {
	// DefaultRole is --mesos_role.
	DefaultRole string
	// DefaultNetworkName stands in for the name of a container network that has none; empty means that there is none.
	DefaultNetworkName string
	// MesosBridgeName is the network that MESOS containers in bridge mode join.
	MesosBridgeName string
	// ServicePortMin and ServicePortMax bound, both included, the service ports that are assigned.
	ServicePortMin, ServicePortMax int
	// NewGroupEnforceRole is what a new top-level group gets for enforceRole.
	NewGroupEnforceRole bool
	// MaxApps limits the number of apps; 0 does not.
	MaxApps int
	// The features of --enable_features that decide what is accepted.
	Secrets, ExternalVolumes, GPUResources bool
}

// DefaultSettings returns Marathon's own defaults.
func DefaultSettings() Settings {
	return Settings{DefaultRole: "*", MesosBridgeName: "mesos-bridge", ServicePortMin: 10000, ServicePortMax: 20000}
}

// Roles say under which role an app may run.
type Roles struct {
	// Default is the role of an app that names none.
	Default string
	// Allowed are the others that it may name; Default is among them.
	Allowed []string
}

// RolesFor returns the roles that an app of that id may have in the tree: the default role or the one named as its
// top-level group, and that one alone if the group enforces it. The role that the app already has stays allowed.
func (g *Group) RolesFor(id PathID, s Settings) Roles {
	role := s.DefaultRole
	if role == "" {
		role = "*"
	}
	roles := Roles{Default: role, Allowed: []string{role}}
	if id.Depth() > 1 {
		groupRole := id.Top()
		enforce := s.NewGroupEnforceRole
		if top := g.Group(Root.Child(groupRole)); top != nil {
			enforce = top.EnforceRole != nil && *top.EnforceRole
		}
		if enforce {
			roles = Roles{Default: groupRole, Allowed: []string{groupRole}}
		} else {
			roles.Allowed = append(roles.Allowed, groupRole)
		}
	}
	if current := g.Spec(id); current != nil && current.Role != "" {
		roles.Allowed = append(roles.Allowed, current.Role)
	}
	return roles
}
