// Package agent is the calls of operators to an agent and its answers; see the specification's mesos-operator-api.md. The
// code is generated.
package agent

//go:generate protoc -I../../../.. --go_out=../../../.. --go_opt=module=starling master/mesos/operator/agent/agent.proto
