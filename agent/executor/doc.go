// Package executor holds what executors do for their tasks, as far as the agent does it: the command executor (one task, one
// command, one container; its executor id is the task's), the default executor (Nested: each task of its groups is a command
// task within the executor's group), and what is left to the agent where the executor is a process of others (Remote, CheckCall).
//
// Command is the life of a task with a container of its own as a pure state machine: the agent's loop tells it what happened (the process
// runs, the process ended, a kill was asked for, a time has come, a check failed) and carries out the Step that comes
// back: statuses to report, a signal to send, a container to destroy. Nothing here does any I/O or reads a clock, so that
// every order of events can be tested.
//
//	launching --Launched--> running --Kill--> killing --Exited--> ended
//	    |                      \________________Exited_____________^
//	    \__LaunchFailed / Exited__________________________________/
//
// What users see of it (states, messages, grace periods) follows the Mesos command executor; Spec makes the environment
// that Mesos gives to an executor and its tasks. An exit whose status nobody could learn is a failure that says so, and
// never a success.
package executor
