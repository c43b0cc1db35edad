// Package resourceprovider is the calls and events between resource providers and agents; see the specification's
// mesos-operator-api.md. The code is generated.
package resourceprovider

//go:generate protoc -I../../.. --go_out=../../.. --go_opt=module=starling master/mesos/resourceprovider/resourceprovider.proto
