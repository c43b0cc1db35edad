// Package mesos is the messages of the Mesos v1 API that all its parts share: frameworks, offers, tasks, resources. The
// definitions are ours, written from the specification's mesos-messages.md; the Go code is generated. Calls and events
// are in the packages below, one for each endpoint.
//
// The messages know nothing of how they travel: package codec does, and knows Mesos' own JSON. Resources are counted by
// package resources and nowhere else.
package mesos

//go:generate protoc -I../.. --go_out=../.. --go_opt=module=starling master/mesos/mesos.proto
