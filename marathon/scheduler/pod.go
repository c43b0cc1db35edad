package scheduler

import (
	"regexp"
	"slices"
	"strconv"
	"time"

	"starling/marathon/app"
	"starling/marathon/event"
	"starling/marathon/task"
	"starling/master/mesos"
)

// maxContainerMessage is how much of the message of one container's end is kept, in bytes: those of all containers are in one document.
const maxContainerMessage = 1000

// ContainerTask is the task of one container of a pod's instance, as far as is known.
type ContainerTask struct {
	Name   string `json:"name"`
	TaskID string `json:"taskId"`
	// Condition, and since when it is that; Provisioned as long as nothing was heard of the task.
	Condition Condition `json:"condition"`
	Since     time.Time `json:"since"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	// Healthy is the result of the container's health check, nil before the first; HealthSince is when it became that.
	Healthy     *bool              `json:"healthy,omitempty"`
	HealthSince time.Time          `json:"healthSince,omitzero"`
	Check       *CheckResult       `json:"check,omitempty"`
	Networks    []ContainerNetwork `json:"networks,omitempty"`
	// Message says how it ended, and ExitCode with what, where that is known.
	Message  string `json:"message,omitempty"`
	ExitCode *int   `json:"exitCode,omitempty"`
	// Heard tells that the task is known to have existed.
	Heard bool `json:"heard,omitempty"`
}

// ContainerNetwork is a network that a container is in.
type ContainerNetwork struct {
	Name      string    `json:"name,omitempty"`
	Addresses []Address `json:"addresses,omitempty"`
}

// Group is the launch of a pod's instance: an executor and one task for each container.
type Group struct {
	Executor *mesos.ExecutorInfo
	Tasks    []*mesos.TaskInfo
}

// launch adds the launch of an instance to what is done on the offer.
func (a *Accept) launch(l task.Launch, s task.Settings) {
	if l.App.Pod == nil {
		a.Tasks = append(a.Tasks, task.Build(l, s))
		return
	}
	executor, tasks := task.BuildGroup(l, s)
	a.Groups = append(a.Groups, Group{Executor: executor, Tasks: tasks})
}

// Launches is the number of instances that are launched.
func (a Accept) Launches() int { return len(a.Tasks) + len(a.Groups) }

// provision names the tasks of the instance's next launch, and returns the id of the first or only one.
func (i *Instance) provision(now time.Time, def *app.App) app.TaskID {
	if def.Pod == nil {
		id := i.ID.Task(i.Incarnation)
		i.TaskID = id.String()
		return id
	}
	id := i.ID.PodTask(def.Pod.Containers[0].Name, i.Incarnation)
	i.TaskID = id.String()
	i.Containers = make([]ContainerTask, len(def.Pod.Containers))
	for n, c := range def.Pod.Containers {
		i.Containers[n] = ContainerTask{Name: c.Name, TaskID: id.Of(c.Name).String(), Condition: Provisioned, Since: now}
	}
	return id
}

// Tasks are the ids of the tasks of the instance that are not over: one for an app, up to one a container for a pod.
func (i *Instance) Tasks() []string {
	if len(i.Containers) == 0 {
		if i.TaskID == "" {
			return nil
		}
		return []string{i.TaskID}
	}
	var ids []string
	for _, c := range i.Containers {
		if !c.Condition.Terminal() {
			ids = append(ids, c.TaskID)
		}
	}
	return ids
}

// Has tells whether a task is one of the instance's present launch.
func (i *Instance) Has(taskID string) bool {
	return i.TaskID == taskID || slices.ContainsFunc(i.Containers, func(c ContainerTask) bool { return c.TaskID == taskID })
}

// heard tells whether anything was heard of the present launch, other than that nobody knows of it.
func (i *Instance) heard() bool {
	if len(i.Containers) == 0 {
		return i.Condition != Provisioned
	}
	return slices.ContainsFunc(i.Containers, func(c ContainerTask) bool { return c.Heard })
}

// take takes a status in, and returns the condition that the instance has then, and whether anything is new.
func (i *Instance) take(now time.Time, status *mesos.TaskStatus) (Condition, bool) {
	if len(i.Containers) == 0 {
		changed := applyStatus(i, status)
		return told(conditionOf(status), i.Condition, i.StartedAt), changed
	}
	n := slices.IndexFunc(i.Containers, func(c ContainerTask) bool { return c.TaskID == status.GetTaskId().GetValue() })
	if n < 0 || i.Containers[n].Condition.Terminal() {
		return i.Condition, false // the end of a task is its last word
	}
	next := i.Containers[n]
	if !next.take(now, status) {
		return i.Condition, false
	}
	i.Containers = slices.Clone(i.Containers)
	i.Containers[n] = next
	if addresses := addressesOf(status); len(addresses) > 0 {
		i.Addresses = addresses // of all containers: they share their network
	}
	i.Draining = i.Draining || drains(status)
	i.AgentHealthy = i.podHealth()
	return i.podCondition(), true
}

// told is the condition that a status tells of. That a task is staged or starts is old news of one that has run, and nothing
// would tell again that it does.
func told(condition, before Condition, started time.Time) Condition {
	switch {
	case condition != Staging && condition != Starting || started.IsZero():
		return condition
	case before == Killing:
		return Killing
	}
	return Running
}

// take takes the status of a container in, and tells whether anything is new.
func (c *ContainerTask) take(now time.Time, status *mesos.TaskStatus) bool {
	condition := told(conditionOf(status), c.Condition, c.StartedAt)
	unheard := condition.Terminal() && status.Reason != nil && status.GetReason() == mesos.TaskStatus_REASON_RECONCILIATION
	changed := condition != c.Condition || !c.Heard && !unheard
	if condition != c.Condition {
		c.Condition, c.Since = condition, now
	}
	c.Heard = c.Heard || !unheard
	if condition == Running && c.StartedAt.IsZero() {
		c.StartedAt = now
	}
	if status.Healthy != nil && (c.Healthy == nil || *c.Healthy != status.GetHealthy()) {
		healthy := status.GetHealthy()
		c.Healthy, c.HealthSince, changed = &healthy, now, true
	}
	if check := checkOf(status); check != nil {
		c.Check, changed = check, true
	}
	if networks := networksOf(status); len(networks) > 0 && !slices.EqualFunc(networks, c.Networks, func(a, b ContainerNetwork) bool {
		return a.Name == b.Name && equalAddresses(a.Addresses, b.Addresses)
	}) {
		c.Networks, changed = networks, true
	}
	if condition.Terminal() {
		c.Message, c.ExitCode = cutTo(status.GetMessage(), maxContainerMessage), exitCode(status)
	}
	return changed
}

func networksOf(status *mesos.TaskStatus) []ContainerNetwork {
	var networks []ContainerNetwork
	for _, info := range status.GetContainerStatus().GetNetworkInfos() {
		networks = append(networks, ContainerNetwork{Name: info.GetName(), Addresses: addressesIn(info)})
	}
	return networks
}

// exited is how executors say what a command has ended with: no field of a status has that.
var exited = regexp.MustCompile(`exited with status (\d{1,3})`)

func exitCode(status *mesos.TaskStatus) *int {
	if m := exited.FindStringSubmatch(status.GetMessage()); m != nil {
		if code, err := strconv.Atoi(m[1]); err == nil {
			return &code
		}
	}
	if status.GetState() == mesos.TaskState_TASK_FINISHED {
		return new(0)
	}
	return nil
}

// worst orders conditions of containers, the worst first.
var worst = []Condition{
	Errored, Failed, Gone, Dropped, Unreachable, Killing, Starting, Staging, Unknown, Provisioned, Running, Finished, Killed,
}

// podCondition is the condition of an instance: the worst of its containers'. As long as some of them live after another has
// ended other than by itself and well, all are on their way out, and that is Killing: nothing may take their place yet.
func (i *Instance) podCondition() Condition {
	ended, alive := 0, 0
	unreachable := false
	sum := len(worst) - 1
	for _, c := range i.Containers {
		switch {
		case !c.Condition.Terminal():
			alive++
		case c.Condition != Finished:
			ended++
		}
		unreachable = unreachable || c.Condition == Unreachable
		if at := slices.Index(worst, c.Condition); at >= 0 {
			sum = min(sum, at)
		}
	}
	switch {
	case alive > 0 && unreachable:
		return Unreachable
	case alive > 0 && ended > 0:
		return Killing
	}
	return worst[sum]
}

// podHealth is the health of an instance: false if a container that runs is unhealthy, else nil while one does not run yet,
// else true if one is healthy.
func (i *Instance) podHealth() *bool {
	var health *bool
	for _, c := range i.Containers {
		if c.Condition == Running && c.Healthy != nil && !*c.Healthy {
			return new(false)
		}
	}
	for _, c := range i.Containers {
		switch {
		case c.Condition != Running && c.Condition != Finished:
			return nil
		case c.Condition == Running && c.Healthy != nil:
			health = new(true)
		}
	}
	return health
}

// podHealthy tells whether each container that runs and has a health check is healthy: that is what a deployment waits for.
func (i *Instance) podHealthy(pod *app.Pod) bool {
	for _, c := range i.Containers {
		if def := pod.Container(c.Name); def == nil || def.HealthCheck == nil || c.Condition != Running {
			continue
		}
		if c.Healthy == nil || !*c.Healthy {
			return false
		}
	}
	return true
}

// containerChanged does what follows from the change of one container beside what follows for its instance: its end, when it
// is a bad one, is that of the whole instance.
func (s *Scheduler) containerChanged(now time.Time, was, i *Instance, status *mesos.TaskStatus) {
	n := slices.IndexFunc(i.Containers, func(c ContainerTask) bool { return c.TaskID == status.GetTaskId().GetValue() })
	if n < 0 || n >= len(was.Containers) {
		return
	}
	before, c := was.Containers[n], i.Containers[n]
	if c.Healthy != nil && (before.Healthy == nil || *before.Healthy != *c.Healthy) {
		s.publish(event.HealthStatusChanged{
			AppID: string(i.ID.App), InstanceID: i.ID.String(), TaskID: c.TaskID, Version: i.Version.String(), Alive: *c.Healthy,
		})
	}
	if i.Condition == Killing && c.Condition.Terminal() && i.heard() {
		s.recordFailure(now, i, status)
		s.kill(now, i)
	}
}

// podHealthOf is what is known of the health of a pod's instance: one check for each container that has reported.
func podHealthOf(i *Instance) Health {
	out := Health{Healthy: i.AgentHealthy}
	for n := range i.Containers {
		if state, ok := i.Containers[n].CheckState(); ok {
			out.Checks = append(out.Checks, state)
		}
	}
	return out
}

// CheckState is the course of the container's health check, as far as it is kept; it reports false before the first result.
func (c *ContainerTask) CheckState() (CheckState, bool) {
	switch {
	case c.Healthy == nil:
		return CheckState{}, false
	case *c.Healthy:
		return CheckState{FirstSuccess: c.HealthSince, LastSuccess: c.HealthSince}, true
	}
	return CheckState{LastFailure: c.HealthSince, ConsecutiveFailures: 1}, true
}
