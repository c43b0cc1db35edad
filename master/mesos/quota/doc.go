// Package quota is the messages about what roles are guaranteed and limited to. The code is generated.
package quota

//go:generate protoc -I../../.. --go_out=../../.. --go_opt=module=starling master/mesos/quota/quota.proto
