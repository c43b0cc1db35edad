// Package validation says what is wrong with what frameworks send: their calls, descriptions, tasks and operations. It is
// pure, and never changes what it is shown.
//
// Each function checks in the order of mesos-semantics.md section 3 and mesos-scheduler-api.md sections 1 and 2, and returns
// the first fault, as the protocol has it. Texts begin with capitals and speak of fields the way Mesos does, because
// frameworks match on parts of them. What an error means is the caller's to say: a status, an ERROR event, TASK_ERROR with
// REASON_TASK_INVALID, OPERATION_ERROR.
//
// What depends on the state of the master comes in a Context; what depends on its flags (roles, root) is the master's.
package validation
