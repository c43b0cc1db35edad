// Package allocator decides which framework is offered which resources. It is pure: no I/O, no goroutine, no clock of its
// own; who uses it hands in the time and the source of chance, and calls it from one goroutine.
//
// The model. An agent has free resources, as its record says; some of them are offered, some are held for launches that
// the record does not show yet, and the rest is available:
//
//	available = free - offered - pending
//
// A client is a framework in one of its roles. Clients sit in the tree of roles ("a/b" is below "a"), and a grant goes to
// the one with the least dominant share on its way down (Ghodsi et al.: Dominant Resource Fairness, 2011; hierarchically,
// with weights, as mesos-semantics.md section 1.2 has it). Each grant is one offer: one agent, one framework, one role,
// all that is available and that the client may have.
//
// A role at the top of the tree may have a quota. Each run has two stages: first roles get what they lack of their guarantees,
// then all get what is not kept for guarantees; no role gets more than its limit. What counts is all that is reserved for the
// role and those below it, used or not, and what they have of the rest, revocable resources aside. What is offered to others
// when a guarantee is set is the caller's to rescind: Short tells how much of it.
//
// The books are moved by the caller: SetFree when the record changed, Return when an offer was declined, rescinded or used
// in part, Consume when a launch is on its way, Settle once the record shows it (or never will). Each resource is in one
// place at a time, so nothing is offered twice; Check proves it.
//
// Allocate looks only at what changed. An agent is looked at when something became available on it; a client is looked at
// on all agents with something available when it was activated or revived; a client and an agent are looked at together
// when a filter between them ended. Everything else was refused before for a reason that still holds, and Explain says
// which. So one change on one agent costs one pass over the clients that want offers, and nothing that grows with the
// number of agents.
//
// Two deliberate differences from Mesos: there is no clock that batches runs, the caller does; and so a framework that
// declines without a filter would be offered the same at once and for ever, which Config.Burst bounds.
package allocator
