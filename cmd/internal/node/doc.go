// Package node builds the roles out of the components: it is the only place that chooses implementations.
//
// Each role has a struct of settings (agent.go, master.go, marathon.go, dns.go; dev.go has several), which registers its
// flags in one set and is turned into components by start. A component is a name and a function that runs until its
// context ends; the lifecycle stops them in the opposite order to that in which they were started, each bounded in time.
// Listeners are bound before anything runs, so that a taken port is an error at the start and ":0" works.
package node
