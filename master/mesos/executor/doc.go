// Package executor is the calls and events between executors and agents; see the specification's
// mesos-executor-api.md. The code is generated.
package executor

//go:generate protoc -I../../.. --go_out=../../.. --go_opt=module=starling master/mesos/executor/executor.proto
