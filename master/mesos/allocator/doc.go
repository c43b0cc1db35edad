// Package allocator is the message about what frameworks answer to inverse offers. It carries the name that the protocol
// gives it, and has nothing to do with how offers are made. The code is generated.
package allocator

//go:generate protoc -I../../.. --go_out=../../.. --go_opt=module=starling master/mesos/allocator/allocator.proto
