// Package libct runs containers with namespaces, root file systems and limits of their own on libcontainer, and what needs
// none of that as plain processes: it stands upon package process, and the two are the containerizer called "mesos".
//
// # Who does what
//
// A container that asks for more than a process (see containerizer.Demands), or that --isolation asks more for, is
// prepared by the agent: its network is attached, the layers of its image are pinned, and all that is to be done goes into
// one file, the bundle. The supervisor then runs the launcher (Main with "run"), which mounts the root file system in a
// mount namespace of its own, has libcontainer make the container, and ends. So nothing is ever mounted on the node, the
// first process is a child of the supervisor, and recovery, exits, signals and kills are those of package process.
//
// When a container has ended, its network and its folder are given back before its exit is told: whoever hears of the
// exit finds the ports free. What a crash left is given back by the next Recover.
//
// # The first process
//
// There is no init process in a container: it would cost memory in each of them. A container has a pid namespace if it
// comes with an image, or if --isolation has namespaces/pid; in it, the task is process 1. The kernel spares such a
// process the signals that it has no handler for, and so the supervisor sends SIGKILL in their name. Two things stay as
// with any container without an init: orphans are not reaped unless the task does it, and a task cannot send itself a
// deadly signal.
//
// libcontainer finds the program by argv[0]. That is what the command says only where a search in the container's PATH is
// sure to come upon the same program; elsewhere it is the program's path.
//
// # Where our own program lives
//
// Each container is started by our own program, which libcontainer keeps from being written to by an overlay of the folder
// that the program is in. Where that folder holds Dir, as with /opt/starling and /opt/work, the kernel refuses that, and the
// program is copied to memory for each start. So the program belongs into a folder of programs, such as /usr/bin.
//
// # Folder
//
//	<dir>/c-<name>/           a container, name is its id or a hash of it
//	  bundle.json             what the launcher reads, see bundle
//	  root/                   where the launcher mounts the root file system
//	  upper/, work/           what the container changes in its image
//	  s/<name>/state.json     libcontainer's own
//	  console, exec-*         sockets of terminals
//	<dir>/g-<name>.json       a group
//	<dir>/trash-*             being removed
package libct
