// Package docker runs containers by a Docker engine, through its API.
//
// The engine holds the containers; this package holds what the engine cannot know: which of them are this agent's (by
// labels), how far their output was copied, the exits that were told, and what was removed (a small file a container in
// Config.Dir). It never trusts the engine to be there. Every call has a deadline and none is made under a lock; while the
// engine does not answer launches fail at once with the reason, and signals and ends go straight to the first process, which
// is held by a handle of its own as long as it is on this machine. What ended meanwhile is told with the status that the
// kernel gives.
//
// Exits come from the engine's events and, as those can be missed, from a look at the list of containers every few
// seconds. A container's exit is told after its output has reached the files, or soon after if that takes longer.
//
// A container belongs to the agent whose Config.Dir its label names, and is an orphan when the label of the agent's id is
// another one. Containers without these labels are not looked at. Nothing of the engine's is given to containers: its
// socket as a volume is refused, and its interface for files in containers is not used.
//
// New makes no call and no goroutine; Recover does, and Close ends the goroutines and leaves the containers alone.
package docker
