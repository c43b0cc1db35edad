package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/event"
	"starling/marathon/task"
	"starling/master/mesos"
)

// restoredQuiet is for how long after a restore nothing is killed but what somebody asks for: time to look at what the backup
// does not know.
const restoredQuiet = 10 * time.Minute

// maxOrphans bounds the orphans that are remembered; those above are left alone just so.
const maxOrphans = 10_000

// Orphan is a task of this framework that no instance has, and that is left alone since what was stored is in doubt: it was
// launched after a backup was made that has been restored since, or its app can't be read.
type Orphan struct {
	TaskID, AgentID string
	App             app.PathID
	// State is the newest that was heard of it, Since when it was heard of first.
	State string
	Since time.Time
}

// orphanOf notes that a task is left alone.
func (s *Scheduler) orphanOf(now time.Time, id app.TaskID, status *mesos.TaskStatus) {
	taskID := status.GetTaskId().GetValue()
	o, known := s.orphans[taskID]
	if !known {
		if len(s.orphans) >= maxOrphans {
			return
		}
		o = Orphan{TaskID: taskID, App: id.Instance.App, Since: now}
		s.orphaned[id.Instance]++
		s.seen[id.Instance] = max(s.seen[id.Instance], id.Incarnation)
	}
	o.State = status.GetState().String()
	if agent := status.GetAgentId().GetValue(); agent != "" {
		o.AgentID = agent
	}
	s.orphans[taskID] = o
}

// dropOrphan forgets an orphan that is over, or is none any more. An instance that waited for its end is launched.
func (s *Scheduler) dropOrphan(taskID string, id app.InstanceID) {
	if _, ok := s.orphans[taskID]; !ok {
		return
	}
	delete(s.orphans, taskID)
	if s.orphaned[id]--; s.orphaned[id] == 0 {
		delete(s.orphaned, id)
		s.wantAnew(id.App)
	}
}

// Orphans lists the tasks that are left alone for being unknown, in the order of their ids.
func (v View) Orphans() []Orphan {
	return slices.SortedFunc(maps.Values(v.s.orphans), func(a, b Orphan) int { return cmp.Compare(a.TaskID, b.TaskID) })
}

// OrphanCount is the number of tasks that Orphans lists.
func (v View) OrphanCount() int { return len(v.s.orphans) }

// RestoredAt is when the state of a backup was restored that nobody has settled yet; the zero time for none.
func (v View) RestoredAt() time.Time { return v.s.restoredAt }

// Adoption is an orphan with what the master knows of it.
type Adoption struct {
	TaskID       string
	Host         string
	Region, Zone string
	Attributes   map[string]string
	Role         string
	Ports        []int
	Volumes      []string // the ids of the persistent volumes that it has
	Running      bool
	StartedAt    time.Time
}

// Adopt makes orphans instances of their apps again, each in the place of one that waits for an offer where there is one. The error
// says of each that could not be adopted why; the others are. An app has more instances than it wants then, which stay until it is
// scaled or the doubt is settled.
func (s *Scheduler) Adopt(now time.Time, all []Adoption) (adopted []string, refused map[string]string) {
	refused = make(map[string]string)
	for _, a := range all {
		if err := s.adoptOrphan(now, a); err != nil {
			refused[a.TaskID] = err.Error()
			continue
		}
		adopted = append(adopted, a.TaskID)
	}
	return adopted, refused
}

func (s *Scheduler) adoptOrphan(now time.Time, a Adoption) error {
	o, ok := s.orphans[a.TaskID]
	if !ok {
		return fmt.Errorf("no such orphan")
	}
	id, err := app.ParseTaskID(a.TaskID)
	if err != nil {
		return err
	}
	sp := s.specs[id.Instance.App]
	there := s.instances[id.Instance]
	switch {
	case sp != nil && sp.quarantined: // it has no definition then, and can't be given one
		return fmt.Errorf("the stored definition of %s can't be read", id.Instance.App)
	case sp == nil || sp.def == nil:
		return fmt.Errorf("there is no app %s; define it first", id.Instance.App)
	case sp.def.Pod != nil:
		return fmt.Errorf("%s is a pod, whose tasks belong together and can't be adopted one by one", id.Instance.App)
	case sp.def.Resident() && !there.keeps(o.AgentID, a.Volumes):
		return fmt.Errorf("%s has volumes, and those of this task are not what its instance is known to keep", id.Instance.App)
	case there != nil && there.Condition.Active():
		return fmt.Errorf("its instance has another task, %s", there.TaskID)
	case there == nil:
		s.giveWay(sp)
	}
	i := &Instance{
		ID: id.Instance, Goal: GoalRunning, Condition: Staging, Since: now, Version: sp.def.Version, Incarnation: id.Incarnation,
		TaskID: a.TaskID, AgentID: o.AgentID, Host: a.Host, Region: a.Region, Zone: a.Zone, Attributes: a.Attributes, Role: a.Role,
		Ports: a.Ports, StagedAt: a.StartedAt,
	}
	if there != nil {
		i.Incarnation = max(i.Incarnation, there.Incarnation)
		i.Index, i.Reservation = there.Index, there.Reservation
	}
	if a.Running {
		i.Condition, i.StartedAt = Running, a.StartedAt
	}
	s.dropOrphan(a.TaskID, id.Instance)
	s.put(i)
	if i.Condition == Running {
		s.remember(now, i, sp.def)
		s.probe(i, sp.def)
	}
	s.publish(event.OrphanAdopted{TaskID: a.TaskID, AppID: string(sp.id)})
	return nil
}

// keeps tells whether the instance has its place on an agent, with all of these volumes and no others.
func (i *Instance) keeps(agent string, volumes []string) bool {
	if i == nil || i.Reservation == nil || i.Reservation.AgentID != agent || len(volumes) != len(i.Reservation.Volumes) {
		return false
	}
	return !slices.ContainsFunc(i.Reservation.Volumes, func(v task.Volume) bool { return !slices.Contains(volumes, v.ID) })
}

// giveWay forgets one instance that waits for an offer, in whose place another one comes.
func (s *Scheduler) giveWay(sp *spec) {
	at := slices.IndexFunc(sp.instances, (*Instance).waits)
	if at >= 0 {
		s.forget(sp.instances[at])
	}
}

// Dismiss kills orphans, and goes on doing so until they are gone. It returns those that are none.
func (s *Scheduler) Dismiss(ids []string) (unknown []string) {
	for _, id := range ids {
		o, ok := s.orphans[id]
		if !ok {
			unknown = append(unknown, id)
			continue
		}
		s.dismissed[id] = struct{}{}
		s.out.act(Kill{TaskID: o.TaskID, AgentID: o.AgentID})
	}
	return unknown
}

// quietUntil is before when nothing is killed that nobody has asked for; the zero time where there is no such time.
func (s *Scheduler) quietUntil() time.Time {
	if s.restoredAt.IsZero() {
		return time.Time{}
	}
	return s.restoredAt.Add(restoredQuiet)
}
