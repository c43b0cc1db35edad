// Package supervisor is the parent of all tasks of a node: one small process that starts them, waits for them, signals
// them, and keeps what became of them until it is told to forget. It knows nothing of Mesos, of resources or of
// sandboxes, and imports nothing else of ours.
//
// # Model
//
// A container is one first process, leader of its own session and process group, and whatever descends from it. It is
// named by an id that the client chooses; a start is idempotent by that id. A container ends when its first process
// does: what the process leaves behind is killed, the exit status is written to disk, and only then is anybody told.
// The record stays, ended, until a client removes it. A client may leave a note in it that only clients understand.
//
// The client (usually the agent of the node) finds or starts the supervisor with [Ensure] and talks to it through a
// [Client] over a unix socket: length-prefixed JSON, requests and responses matched by a number, exits pushed to those
// who watch. The socket has mode 0600, in a folder of mode 0700, and the peer's credentials must be those of the
// supervisor's user or of root.
//
// The first process may also be started by a launcher, a program that makes namespaces and a root file system for it (see
// [Launcher]): a child of the supervisor that starts it, waits until it is written down, lets it run, and ends. The
// process is the supervisor's own child then. A launch that fails, or takes too long, or whose supervisor dies before
// the process is written down, leaves nothing.
//
// # What survives what
//
//   - The death of the agent, in any way: everything. The supervisor has its own session, was forked twice, holds no
//     pipe of the agent, and the outputs of tasks are files.
//   - The death of the supervisor, in any way: the tasks (no parent-death signal, no pipes of its own), and every exit
//     that happened before. The next supervisor reads the records, finds each process by pid, start time and boot id,
//     and waits for it through a pidfd. Linux 6.15 and later tell a pidfd's holder the true exit status though another
//     process reaped it; where that can't be had the exit is told as unknown, never as a success. An exit in the gap
//     between two supervisors is seen only by whoever held a pidfd then: a client may hold a [Handle] of its own and
//     complete the record with [Client.Amend].
//   - A re-execution ([Client.Upgrade]): everything. The process stays the same, its children stay its children, and
//     listener, lock and pidfds are handed over as open files.
//   - The loss of power: the exits that were told, since an exit is written, synced, renamed, and its folder synced
//     before anyone hears of it. The record of a start is written and renamed without a sync, to keep the disk out of
//     the way of a launch: all that it describes is gone after a loss of power anyway. It may come back empty, is
//     quarantined then, and its container is told as ended in an unknown way.
//   - A damaged record (each carries a checksum): the file moves to the folder quarantine, and the process is found
//     again by the mark in its environment, if it still runs. Only its own container is concerned.
//   - A full or failing disk: an exit that cannot be written is not told and its process not reaped; writing is tried
//     again, ever less often. Starts fail with the reason, and leave nothing behind. If the folder itself was removed,
//     exits are told without being written, and the supervisor ends with its last container: nobody can reach it.
//
// # How the processes of a container are found
//
// With a cgroup (the client makes it and names it in the [Spec]): all that are in it, exactly. Otherwise by session
// and process group while the first process exists, by descent, and by the mark that each task has in its
// environment ([MarkContainer] and [MarkSupervisor]); the supervisor is a child subreaper, so that what forks twice
// stays in reach. A process that left its session, lost its parent and cleared its environment is out of reach
// without a cgroup.
//
// A signal goes through a pidfd, or to a process group whose leader is known to be the right one: never to a bare
// number that another process may have got meanwhile.
//
// # Folder
//
//	<dir>/                    0700
//	  lock                    held with flock for the life of the supervisor; a second one ends at once
//	  supervisor.sock         0600
//	  supervisor.log          its log; the one before it is supervisor.log.1
//	  containers/<id>.c       one record a container, see record_linux.go
//	  containers/<id>.t       a record being written
//	  quarantine/             records that could not be read
//
// Linux 5.4 or later is needed (pidfd, waitid on it).
package supervisor
