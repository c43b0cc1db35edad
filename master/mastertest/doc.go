// Package mastertest holds what it takes to run a master without machines: agents that answer the node protocol and
// keep a record but start nothing, a mesh that is one map, an election on command, a store in memory, and frameworks
// that speak to the master directly.
//
// Nothing in it needs the network or the wall clock, so whole clusters run in a testing/synctest bubble; where a test is
// about HTTP, an Agent serves as an http.Handler and reports through a nodeapi.Client.
//
// What is not modelled: an agent forgets everything when it is dropped, runs no checks, and takes every task that fits.
package mastertest
