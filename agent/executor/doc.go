// Package executor holds the executors that are built into the agent. So far that is the command executor: one task, one
// command, one container; its executor id is the task's.
//
// Command is the life of one such task as a pure state machine: the agent's loop tells it what happened (the process
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
