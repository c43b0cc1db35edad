// Package checkpoint keeps on disk what an agent must not forget when it, or its machine, dies:
//
//	<work_dir>/meta/
//	  lock                        held (flock) by the one agent that runs here; its content means nothing
//	  identity                    Identity: the agent id, the boot id
//	  epoch, epoch.copy           Epoch: the highest that was obeyed; the higher readable one counts
//	  drain                       Drain: the agent is drained
//	  gone                        Gone: the agent of that id is gone for good; it ends everything and takes another id
//	  resources, resources.copy   Resources: dynamic reservations, persistent volumes, and operations that ended; the newer
//	                              readable one counts
//	  ended                       digests of the ids of tasks that ended: such an id is never started again
//	  tasks/<container id>.task   Task: the intent to run a task, written before anything is started
//	  tasks/<container id>.state  State, one after another, of which the last counts: pid, status updates and what of
//	                              them is acknowledged, the order to end it
//	  executors/<container id>.executor   Executor: the intent to run an executor, written before anything of it is started
//	  executors/<container id>.run        Run: its pid, whether it has subscribed, the order to end it
//	  nested/<number>             Nested: a container that was launched over the API
//	  quarantine/<file>.<time>    files that did not read, kept for people; at most 64
//	  reserve                     16 MiB that mean nothing: given up when the disk is full, so that exits can be noted
//
// What is in the files, but for lock, ended and reserve, are frames (frame.go): magic, format version, kind, length,
// checksum, and a protobuf message. A file is written under a temporary name, synced, renamed, and its folder synced; a
// state that is there is appended to and synced, and made anew when it is long. An error or a crash at any point leaves
// what was there or what was to be there. A file that does not read (torn, empty, zeroed, flipped) is moved to
// quarantine and costs at most what it alone says: a task whose .task is lost goes on by its .state, one whose .state is
// lost by its .task, and a container that lost both is still known to have been a task by the name of the file. An executor
// whose .executor is lost is known by its tasks, and one whose .run is lost by its container.
//
// Writes go in groups: a Committer takes what was submitted while the disk was busy, syncs the files side by side and each
// folder once. An update of the same file that is still waiting is replaced by the newer one.
//
// The ids that ended are remembered in a bounded list, the newest EndedMax of them: a repeated order to launch travels for
// minutes at most, while the list lasts for days on a busy node.
package checkpoint

//go:generate protoc -I ../.. --go_out=../.. --go_opt=module=starling agent/checkpoint/checkpoint.proto agent/checkpoint/nested.proto
