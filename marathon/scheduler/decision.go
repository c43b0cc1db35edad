package scheduler

import (
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/event"
	"starling/master/mesos"
)

// Decision is something that the scheduler wants done. Decisions are carried out in the order in which Ready returned them;
// those behind a Persist must wait until everything in it is on disk.
type Decision interface{ decision() }

// Persist asks for all of its writes, as one transaction. Ready returns at most one, and returns it first.
type Persist struct{ Writes []Write }

// Write is one document. With all pointers nil it deletes the document of that kind and key.
type Write struct {
	Kind Kind
	// Key is the instance id, the deployment id or the app id.
	Key string

	Instance   *Instance
	Deployment *Deployment
	Failure    *Failure
	Tree       *Tree
	Callbacks  []string
	Discard    *Discard
	Ended      *Ended
	Mark       time.Time // of a KindFramework: Stored.Mark
}

// Kind is the kind of a document.
type Kind uint8

// The kinds of documents.
const (
	KindInstance Kind = iota
	KindDeployment
	KindFailure
	// KindTree is the tree of definitions; it has one document of definitions a version and one index, and no key.
	KindTree
	// KindApp stands for all definitions of an app; it is only ever deleted, once nothing of the app is left.
	KindApp
	// KindFramework is the framework id, which is the Key.
	KindFramework
	// KindDiscard is something that is reserved for an instance which is no more.
	KindDiscard
	// KindCallbacks is the list of URLs that events are posted to; it has no key.
	KindCallbacks
	// KindHistory is a deployment that has ended, by its id.
	KindHistory
)

// Tree is a change of the definitions: the new tree, and those definitions in it that are new.
type Tree struct {
	Root *app.Group
	// Changed are the definitions in it that are new.
	Changed []*app.App
}

// Failure is the newest failure of an app's tasks.
type Failure struct {
	App       app.PathID    `json:"appId"`
	Host      string        `json:"host"`
	Message   string        `json:"message"`
	State     string        `json:"state"`
	TaskID    string        `json:"taskId"`
	Timestamp app.Timestamp `json:"timestamp"`
	Version   app.Timestamp `json:"version"`
	AgentID   string        `json:"slaveId,omitempty"`
	// StartedAt is when the task began to run, if it did; it is kept for pods.
	StartedAt app.Timestamp `json:"startedAt,omitzero"`
}

// Accept launches tasks on the agent of an offer; what they leave of it is refused for a while.
type Accept struct {
	OfferID string
	AgentID string
	// Prepare are operations on reservations and volumes; they come before the launches.
	Prepare []*mesos.Offer_Operation
	Tasks   []*mesos.TaskInfo
	// Groups are instances of pods.
	Groups []Group
	Refuse time.Duration
}

// empty tells that nothing is done on the offer.
func (a Accept) empty() bool { return len(a.Prepare) == 0 && a.Launches() == 0 }

// Operations are all that is done on the offer, in order.
func (a Accept) Operations() []*mesos.Offer_Operation {
	operations := slices.Clone(a.Prepare)
	if len(a.Tasks) > 0 {
		operations = append(operations, &mesos.Offer_Operation{
			Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: &mesos.Offer_Operation_Launch{TaskInfos: a.Tasks},
		})
	}
	for _, g := range a.Groups {
		operations = append(operations, &mesos.Offer_Operation{
			Type: mesos.Offer_Operation_LAUNCH_GROUP.Enum(), LaunchGroup: &mesos.Offer_Operation_LaunchGroup{
				Executor: g.Executor, TaskGroup: &mesos.TaskGroupInfo{Tasks: g.Tasks},
			},
		})
	}
	return operations
}

// Decline gives offers back, not to see them again for a while.
type Decline struct {
	OfferIDs []string
	Refuse   time.Duration
}

// Revive asks for offers for some roles, whatever was declined before.
type Revive struct{ Roles []string }

// Suppress asks for no more offers for some roles.
type Suppress struct{ Roles []string }

// Subscription changes the roles of the framework.
type Subscription struct{ Roles []string }

// Kill ends a task.
type Kill struct {
	TaskID  string
	AgentID string
}

// Acknowledge tells that a status is safe here.
type Acknowledge struct {
	TaskID  string
	AgentID string
	UUID    []byte
}

// Reconcile asks for the states of the named tasks or, with none named, of all tasks.
type Reconcile struct{ Tasks []TaskRef }

// TaskRef names a task and the agent where it was launched.
type TaskRef struct {
	TaskID  string
	AgentID string
}

// Publish tells the world.
type Publish struct{ Payload event.Payload }

// Probe begins to check a task from here, as its app says, until Unprobe. A second Probe of an instance replaces the first.
type Probe struct {
	Instance *Instance
	App      *app.App
}

// Unprobe ends the checks of an instance.
type Unprobe struct{ Instance app.InstanceID }

func (Persist) decision()      {}
func (Accept) decision()       {}
func (Decline) decision()      {}
func (Revive) decision()       {}
func (Suppress) decision()     {}
func (Subscription) decision() {}
func (Kill) decision()         {}
func (Acknowledge) decision()  {}
func (Reconcile) decision()    {}
func (Publish) decision()      {}
func (Probe) decision()        {}
func (Unprobe) decision()      {}
