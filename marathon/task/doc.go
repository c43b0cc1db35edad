// Package task turns an app and an offer into a Mesos task.
//
// It is pure. Match decides whether an offer suits an app and picks resources and ports from it, or says all that is in
// the way, with the reasons that Marathon's queue shows. An app with persistent volumes keeps what it takes: Reserve makes a
// reservation of it with the volumes, Return launches on that, and Release ends it. Build makes the TaskInfo of a launch out of the app, the ids and
// the pick: the command, its environment, the container, ports to discover and checks. Given the same input, and the same
// random source, both give the same result.
package task

import (
	"starling/marathon/app"
)

// RoleBehavior says which resources an app accepts that does not say so itself.
type RoleBehavior string

// The behaviors of --accepted_resource_roles_default_behavior.
const (
	AnyRole    RoleBehavior = "any"        // reserved for the app's role, then unreserved
	Unreserved RoleBehavior = "unreserved" // unreserved
	Reserved   RoleBehavior = "reserved"   // reserved for the app's role
)

// Settings are the flags that matching and building depend on.
type Settings struct {
	// EnvVarsPrefix stands before the names of HOST and of the port variables.
	EnvVarsPrefix string
	// AcceptedRoles is AnyRole if empty.
	AcceptedRoles RoleBehavior
	// GPUsUnrestricted lets apps without GPUs onto agents that offer some.
	GPUsUnrestricted bool
	// MesosBridgeName is the network of MESOS containers in bridge mode.
	MesosBridgeName string
	// HomeRegion is that of the master; empty if it has none.
	HomeRegion string
	// Principal is that of the framework, which owns what it reserves; empty is none.
	Principal string
	// Refined is set by a framework with RESERVATION_REFINEMENT; it chooses the format of resources in tasks.
	Refined bool
}

// Launch is one launch of an instance on an agent.
type Launch struct {
	App  *app.App
	Task app.TaskID
	// AgentID and Hostname are those of the offer.
	AgentID  string
	Hostname string
	Pick     Pick
	// EnforceGroupRole tells what the app's top-level group says.
	EnforceGroupRole bool
	// Index is the number of the instance, nil where the app's have none.
	Index *int
}
