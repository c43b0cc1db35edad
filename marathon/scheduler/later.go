package scheduler

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"starling/marathon/app"
	"starling/marathon/task"
)

// What was stored may go back underneath: a file of yesterday is put back, or a snapshot of the machine. What was launched and
// reserved since is unknown then, though nobody ever gave it up. The ids tell: they hold the time at which they were made. One that
// is later than all that was loaded, and not of this term, comes from what is lost. It is not killed and nothing of it is destroyed.

// newestOf is the newest moment that what was stored tells of.
func newestOf(st *Stored) time.Time {
	newest := st.Mark
	see := func(times ...time.Time) {
		for _, t := range times {
			newest = later(newest, t)
		}
	}
	seeID := func(id app.InstanceID) {
		at, _ := madeAt(id.UUID)
		see(at)
	}
	if st.Root != nil {
		see(st.Root.Version.Time())
	}
	for _, i := range st.Instances {
		seeID(i.ID)
		see(i.Since, i.StagedAt)
	}
	for _, d := range st.Discards {
		seeID(d.Instance)
	}
	for _, f := range st.Failures {
		see(f.Timestamp.Time())
	}
	return newest
}

// markForgotten remembers that what comes up again of an instance is not lost but was given up.
func (s *Scheduler) markForgotten(i *Instance) {
	at, _ := madeAt(i.ID.UUID)
	if at = later(at, i.Since); i.Incarnation > 0 && s.frameworkID != "" && at.After(s.mark) {
		s.mark = at
		s.out.write(Write{Kind: KindFramework, Key: s.frameworkID, Mark: at})
	}
}

// madeAt is when an id was made, as it says itself; false where it is of a kind that does not.
func madeAt(id uuid.UUID) (time.Time, bool) {
	if id.Version() != 1 {
		return time.Time{}, false
	}
	return time.Unix(id.Time().UnixTime()).UTC(), true
}

// isLater tells of an id that it comes from what is lost.
func (s *Scheduler) isLater(id uuid.UUID) bool {
	if s.firstTerm || s.ids.Made(id) {
		return false
	}
	at, ok := madeAt(id)
	return ok && at.After(s.newest)
}

// isLaterTask tells the same of a task that no instance has. The launches of an instance are counted, so a later one is
// plain to see.
func (s *Scheduler) isLaterTask(id app.TaskID) bool {
	if i := s.instances[id.Instance]; i != nil {
		return id.Incarnation > i.Incarnation && !s.firstTerm && !s.ids.Made(id.Instance.UUID)
	}
	return s.isLater(id.Instance.UUID)
}

// isLaterHolding tells the same of what is reserved for an instance, or of a volume in it.
func (s *Scheduler) isLaterHolding(id app.InstanceID, h task.Holding) bool {
	if s.instances[id] == nil && s.isLater(id.UUID) {
		return true
	}
	return slices.ContainsFunc(h.Volumes, func(v task.Volume) bool {
		made, err := uuid.Parse(v.ID[max(0, len(v.ID)-uuidLength):])
		return err == nil && s.isLater(made)
	})
}

// uuidLength is that of a uuid as text, with which the ids of volumes end.
const uuidLength = 36
