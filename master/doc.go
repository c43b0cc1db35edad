// Package master is the leader of a cluster, or a standby that could become one: a thin reader of what the agents say.
//
// The model: agents own the truth and write it into their records of the mesh; the master holds a copy of it, whether it
// leads or not. While it leads it adds three things of its own: who is subscribed (framework), what is offered to whom
// (offer), and which launches and operations are under way and not in a record yet (task, operation). Only the first
// survives it, as small documents in a store; the rest can be had again from the mesh, or by asking agents to describe
// themselves.
//
// One goroutine, the loop in master.go, owns all of that state. It never waits for a network or a disk: whatever may
// wait (calls to agents, writes to the store, streams to frameworks) runs in goroutines of its own and posts its result
// back to the loop as a function. Exported methods may be called from any goroutine; they post such a function and wait
// for it.
//
// What operators decide about agents and machines (drain.go, gone.go, maintenance.go) is a document before it has an effect, and
// is compared with what the agents' records say from then on: who was away is told when it is back. An agent that is gone for
// good, or whose machine is down, is no agent any more (outcast.go): it is on no list, and is told to end what it runs.
//
// How it fails: without a lease nothing is offered, launched, killed or acknowledged; streams end, offers vanish, and
// reads go on from the mesh copy. A launch whose fate is unknown is repeated under the same ids, which agents know to
// recognise, or left to the agent's record to tell; it is never given to another agent. What is not known is not told:
// reconciliation stays silent until the agent in question has been heard.
package master
