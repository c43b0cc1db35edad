// Package scheduler is the calls and events between frameworks and masters; see the specification's
// mesos-scheduler-api.md. The code is generated.
package scheduler

//go:generate protoc -I../../.. --go_out=../../.. --go_opt=module=starling master/mesos/scheduler/scheduler.proto
