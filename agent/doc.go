// Package agent is the daemon of a node: it owns the node's record in the mesh, its frameworks and its tasks, and is the
// only writer of the truth about them.
//
// One goroutine, the loop (agent.go), owns all state. Everything else hands it functions through one channel: calls of the
// leader (call.go), results of work (launches, signals, files synced), exits, the word of who leads. The loop never waits
// for a disk, a network or a containerizer: that work runs in bounded pools (pool.go), on the checkpoint's committer, and
// in one report at a time, and posts its result back. At the end of each turn the loop publishes what changed in one
// assignment to the mesh, answers the calls that are done, and sends what is due.
//
// The life of a task, one file a step:
//
//	call.go      Launch arrives: epoch, then each task is looked at, entered into the books or refused (launch.go)
//	launch.go    the intent goes to disk; then a worker makes the sandbox and starts the container
//	task.go      statuses: numbered, to disk, into the update stream; steps of the executor are carried out
//	end.go       kill; exit; the container destroyed, resources free; the last update acknowledged, the id used up
//	recover.go   the same from disk: what an earlier life began is found again, with the same pid; a container whose
//	             files were lost is a task again by the note that went with it
//	drain.go     the agent is drained: its tasks end, new ones are refused, until a leader takes that back
//	leave.go     the agent is gone for good: everything ends untold, and Run ends so that another id can begin here
//	watch.go     while the supervisor hangs: tasks go on, can be ended, are told; new ones are refused
//	operation.go operations on reservations and volumes: judged by the books, to disk, into the books; reported until
//	             acknowledged
//	reserve.go   what operations have made: on disk, brought together with the node's resources at a start; volumes
//	nested.go    containers that people launch over the API, nested in others or standalone; session.go processes that a client
//	             talks to; lookup.go finds containers of any kind by their ids
//	report.go    updates to the leader, whom leader.go finds in the mesh
//
// A command task is its own executor. All other executors are runs (executor.go): one at a time for each framework and
// executor id, with an intent on disk, a container id, a sandbox and resources of its own. There are two kinds:
//
//	executor.go         a run is found or made for a task, started, given limits and tasks
//	executorcall.go     executors of others, processes that speak the v1 executor API: subscription, updates, messages;
//	executorstream.go   what waits for such an executor, within bounds
//	nest.go             the default executor, which has no process: each task of its groups has a container within the run's group
//	executorend.go      shutdown, exit, the container destroyed, resources free, the framework told
//	recoverexecutor.go  the same from disk; an executor that does not subscribe again in time is ended
//
// Order is what makes a crash harmless. An intent is on disk before anything is started, so an id is started once at most:
// a repeated launch finds the task, or the mark that its id is used up. A status is on disk before it is sent, and its
// uuid is derived from the container and the place in the row, so it is told again under the same one. An exit is
// forgotten by the containerizer only when the terminal status is on disk. Nothing is ended because of a record, a
// missing file or a stopped agent: a task ends by itself, by an order under the highest epoch, by its own limits, or
// because it is no longer a task (its terminal status is known) and still has a process.
//
// What the agent cannot find again is out of its reach: with the whole work directory gone (or its folder "supervisor"),
// tasks run on with nobody to report or end them. They carry MESOS_EXECUTOR_ID (the task's id, but for those of other executors), MESOS_FRAMEWORK_ID and
// STARLING_SUPERVISOR in their environment; by these an operator finds and ends them.
//
// The package talks to others through what Config hands it: the mesh, a client for reports, a containerizer. It is served
// by agent/api.
package agent
