// Package maintenance is the messages about when machines are out of service. The code is generated.
package maintenance

//go:generate protoc -I../../.. --go_out=../../.. --go_opt=module=starling master/mesos/maintenance/maintenance.proto
