// Package marathon is the framework for long-running apps: it keeps as many instances of each app running as its
// definition says, and takes the cluster from one set of definitions to the next.
//
// A Marathon is three goroutines around a pure core. The loop owns the core (package scheduler): it takes work from an
// inbox in batches, lets the core decide, writes what is to be stored in one transaction, and only then lets the rest
// happen: calls go to the session's sender, events to the bus, answers to whoever waits. The session subscribes at the
// leading master, for ever and again with growing pauses, and feeds events to the loop; it uses nothing but the public v1
// API. The prober runs the health checks that are Marathon's own.
//
// State is kept in a store (package state); what can be read again from there or asked of the master is in memory. On
// start everything is loaded, deployments go on under their ids, and once there is a session the master is asked for all
// tasks; until then, and always when in doubt, nothing is killed.
//
// When the store fails, writes are tried again with pauses and nothing else happens meanwhile: whoever asks for a change
// gets an error when its own time runs out, and at once when that has lasted for long; Marathon is unhealthy then. Reads go
// on. A write that the store refuses for good is never tried again: whoever asked for it gets an error, and the term begins
// anew from the stored state, so that the core is never ahead of the store; tasks notice nothing. When the master goes away nothing happens to tasks; the session
// is opened again when it is back.
//
// Several Marathons may share one store: they stand for election, and one leads, for as long as it holds the lease of its
// session. When that ends all that it had in memory is dropped, its event streams end, and it stands again; nothing is
// sent any more, and nothing written: each write also changes a document that the next leader has claimed by then (see
// fence). The next one loads the state and goes on with the same framework id. What a leader is asked to do before the next
// one leads, to back up or restore the state, it leaves in the store.
//
// Run ends only with its context, or when going on would do harm: the stored state makes
// no sense, the framework was removed, or somebody else uses its id.
//
// It imports only its own parts and the master's shelf (mesos, store). Package api puts it on HTTP.
package marathon
