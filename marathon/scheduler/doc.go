// Package scheduler is the core of Marathon: what happens goes in, what is to be done comes out.
//
// It is pure: no I/O, no goroutine, no clock, no chance but from the source that it is handed, so that a run can be
// replayed. The caller owes it this:
//
//	s := New(config, rng); s.Load(now, stored)     once
//	s.Handle(now, input)                           for everything that happens; or what somebody asks for: Deploy, Cancel,
//	                                               KillTasks, ResetDelay, LiftBrake, Adopt, Dismiss, SetCallbacks
//	for each decision of s.Ready(now): carry it out   after that, and when Wake says so
//
// Ready returns at most one Persist, first; nothing behind it may be done before all of it is on disk. That order is what
// the two promises hang on that matter most:
//
//   - A task id is never launched twice. The id is part of the instance that is stored before the launch goes out, and
//     the next launch of the instance takes the next number, whatever became of the one before. After a crash in between,
//     the master is asked about the id; it is never simply tried again.
//   - A status is acknowledged only when what follows from it is stored.
//
// Everything that is wanted is found by looking at the state as it is, after every round of inputs: how many instances an
// app lacks, what the running step of a deployment has still to do, whose kill is to be repeated. Nothing depends on having
// seen an event, so that a deployment goes on after a crash from its first step and arrives at the same place.
//
// Offers are used up in the round in which they come: the apps that wait take turns, and each instance goes to the agent that
// has fewest of its app. Of the instances that wait only some exist at a time, whatever number is wanted; the others are
// owed, and made as those are launched.
//
// In doubt nothing is killed: an app whose definition could not be read is left alone, and so are unknown tasks when any
// stored document could not be read, or when they are younger than all that was stored; after a restore nothing is killed
// for a while but what somebody asks for; when more than half of the agents seem dead, unreachable instances are not replaced
// until that is over.
//
// The rules themselves are those of Marathon: spec/marathon-runtime.md sections 4, 5, 7 and 8.
package scheduler
