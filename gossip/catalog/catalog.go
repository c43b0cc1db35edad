// Package catalog says what the keys of a node's record mean.
//
// A record is a map of keys to opaque values (package record); every value here is one small protobuf message of our
// own with plain scalars, so that neither the mesh nor DNS links the Mesos messages. The agent writes node, res, health
// and its tasks and executors; a leading master writes leader and frameworks; the mesh itself writes coord and keys; everyone else only reads. Nothing starts, ends
// or is deleted because of a record alone.
//
// A value that does not decode is to be treated as absent, and counted by the reader.
package catalog

import "strings"

//go:generate protoc -I ../.. --go_out=../.. --go_opt=module=starling gossip/catalog/catalog.proto

// The keys. Each holds the message of the same name; a task's key is made by TaskKey.
const (
	KeyNode      = "node"
	KeyResources = "res"
	KeyHealth    = "health"
	KeyLeader    = "leader"
	// KeyCoordinate and KeyKeys are written by the mesh itself.
	KeyCoordinate = "coord"
	KeyKeys       = "keys"
	// PrefixTask begins the key of every task.
	PrefixTask = "task/"
	// PrefixExecutor begins the key of every executor that is not a command task's own.
	PrefixExecutor = "exec/"
	// PrefixFramework begins the key of every framework, which ends with the framework's id, and is by itself the key of Frameworks.
	PrefixFramework = "fw/"
)

// The roles that a node may have.
const (
	RoleAgent  = "agent"
	RoleMaster = "master"
	RoleDNS    = "dns"
)

// TaskKey is the key of a task: a task id is unique within its framework only. Neither id may contain a slash, which the
// rules for Mesos ids guarantee.
func TaskKey(frameworkID, taskID string) string {
	return PrefixTask + frameworkID + "/" + taskID
}

// ExecutorKey is the key of an executor: as a task's, its id is unique within its framework only.
func ExecutorKey(frameworkID, executorID string) string {
	return PrefixExecutor + frameworkID + "/" + executorID
}

// ParseExecutorKey takes apart what ExecutorKey made; ok is false for any other key.
func ParseExecutorKey(key string) (frameworkID, executorID string, ok bool) {
	rest, ok := strings.CutPrefix(key, PrefixExecutor)
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, "/")
}

// ParseTaskKey takes apart what TaskKey made; ok is false for any other key.
func ParseTaskKey(key string) (frameworkID, taskID string, ok bool) {
	rest, ok := strings.CutPrefix(key, PrefixTask)
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, "/")
}

// MayWait tells whether changes of a key may be told later than those of others: all but what a task does, its end above all, and who
// leads.
func MayWait(key string) bool { return key != KeyLeader && !strings.HasPrefix(key, PrefixTask) }
