// Package master is the calls of operators to a master, its answers, and the events that it streams to them; see the
// specification's mesos-operator-api.md. The code is generated.
package master

//go:generate protoc -I../../../.. --go_out=../../../.. --go_opt=module=starling master/mesos/operator/master/master.proto
