package agent

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/checkpoint"
	"starling/agent/sandbox"
	"starling/agent/status"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// reservations is what operations made of the node's resources: dynamic reservations and persistent volumes. The books
// (ledger) hold what comes of it; this is the part that is kept on disk.
type reservations struct {
	// doc is on disk. It is replaced, never modified.
	doc *checkpoint.Resources
	// sequence is the highest that was given away: one whose write failed may be on disk in one of the two copies.
	sequence uint64
	// edits wait for the write that is under way.
	edits   []edit
	writing bool
	// unfit is what of doc does not fit what the node has: it is neither shown nor given away nor forgotten.
	unfit resources.Resources
	// discarded are folders of destroyed volumes that an earlier life left.
	discarded []discarded
	// running are the operations under way, by uuid.
	running map[status.UUID]*operation
	// updates repeats the statuses that wait for an acknowledgement; the keys' tasks are uuids of operations.
	updates *status.Streams
}

type discarded struct{ root, name string }

// edit is a change of what is on disk. change modifies the document's own slices, done is called on the loop once that is
// on disk, or has failed.
type edit struct {
	change func(doc *checkpoint.Resources)
	done   func(error)
}

// edit changes the document. All edits that wait go with one write, in order.
func (a *Agent) edit(change func(*checkpoint.Resources), done func(error)) {
	a.made.edits = append(a.made.edits, edit{change, done})
	a.writeEdits()
}

func (a *Agent) writeEdits() {
	if a.made.writing || len(a.made.edits) == 0 {
		return
	}
	edits := a.made.edits
	a.made.edits = nil
	a.made.writing = true
	a.made.sequence++
	next := &checkpoint.Resources{
		Sequence: a.made.sequence, Made: a.made.doc.GetMade(), Destroyed: a.made.doc.GetDestroyed(),
		Pending: slices.Clone(a.made.doc.GetPending()), Applied: slices.Clone(a.made.doc.GetApplied()),
	}
	for _, e := range edits {
		e.change(next)
	}
	a.committer.Submit(checkpoint.PutResources(next), func(err error) {
		a.post(func() {
			a.made.writing = false
			if err == nil {
				a.made.doc = next
				a.diskWorks()
			} else {
				a.diskFails(err)
				// One of the copies may hold what was told to have failed: it is to be overwritten.
				a.timers.at(time.Now().Add(retrySave), func() { a.edit(func(*checkpoint.Resources) {}, func(error) {}) })
			}
			for _, e := range edits {
				e.done(err)
			}
			a.writeEdits()
		})
	})
}

// changeMade applies a conversion to a list on disk.
func changeMade(made []*mesos.Resource, c resources.Conversion) []*mesos.Resource {
	all, err := resources.FromProto(made)
	if err != nil {
		return made // cannot be: it was read or written by us
	}
	return all.Sub(c.Takes.Unallocated().Made()).Add(c.Gives.Unallocated().Made()).Proto()
}

// restoreReservations brings what operations made together with what the node has. What does not fit any more is kept and
// told: its disk, or its amount, may come back with the next configuration.
func (a *Agent) restoreReservations(doc *checkpoint.Resources) {
	if doc == nil {
		doc = &checkpoint.Resources{}
	}
	// The folder may have been that of an agent that is gone, and its frameworks know of that.
	doc.Pending = slices.DeleteFunc(doc.GetPending(), func(op *mesos.Operation) bool { return op.GetAgentId().GetValue() != a.cfg.ID })
	a.made.doc, a.made.sequence = doc, doc.GetSequence()
	left, total := a.cfg.Resources.Unallocated(), resources.Resources{}
	// Volumes first: they hold data.
	list := slices.Clone(doc.GetMade())
	slices.SortStableFunc(list, func(x, y *mesos.Resource) int {
		return boolOrder(x.GetDisk().GetPersistence() == nil) - boolOrder(y.GetDisk().GetPersistence() == nil)
	})
	for _, r := range list {
		one, err := resources.FromProto([]*mesos.Resource{r})
		if err != nil {
			a.problem("reservation "+r.GetName(), fmt.Sprintf("a reservation of %s did not read: %v", r.GetName(), err))
			continue
		}
		base := one.Base()
		if !left.Contains(base) {
			a.made.unfit = a.made.unfit.Add(one)
			text := fmt.Sprintf("%s was made of resources that this agent no longer has: it is kept, and not offered", one)
			a.problem("reservation "+one.String(), text)
			a.cfg.Log.Error("reservation does not fit the resources of the agent", "resources", one.String(), "total", a.cfg.Resources.String())
			continue
		}
		left, total = left.Sub(base), total.Add(one)
		if v, ok, err := a.volume(r); ok && (err != nil || !v.Exists()) {
			a.counters.RecoveryErrors++
			a.problem("volume "+v.ID, fmt.Sprintf("the folder of the persistent volume %s is gone: what was in it is lost, or its disk is not there", one))
			a.cfg.Log.Error("folder of a persistent volume is gone", "resources", one.String(), "path", v.Dir(), "err", err)
		}
	}
	a.ledger.SetTotal(left.Add(total))
	a.discardDestroyed()
	now := time.Now()
	for _, op := range doc.GetPending() {
		a.await(now, op)
	}
}

func boolOrder(b bool) int {
	if b {
		return 1
	}
	return 0
}

// await has the status of an operation repeated until it is acknowledged.
func (a *Agent) await(now time.Time, op *mesos.Operation) {
	key := status.Key{Framework: op.GetFrameworkId().GetValue(), Task: string(op.GetUuid().GetValue())}
	id := status.UUID(op.GetLatestStatus().GetUuid().GetValue())
	a.made.updates.Push(key, status.Update{UUID: id, Terminal: true, Payload: op})
	a.made.updates.Durable(now, key, id)
}

// volume returns where a persistent volume lies; ok is false for other resources. The error is for a disk that has no place.
func (a *Agent) volume(r *mesos.Resource) (v sandbox.Volume, ok bool, err error) {
	p := r.GetDisk().GetPersistence()
	if p == nil {
		return v, false, nil
	}
	v = sandbox.Volume{Root: a.cfg.WorkDir, ID: p.GetId()}
	if n := len(r.GetReservations()); n > 0 {
		v.Role = r.GetReservations()[n-1].GetRole()
	}
	root := ""
	switch source := r.GetDisk().GetSource(); source.GetType() {
	case mesos.Resource_DiskInfo_Source_MOUNT:
		v.Mount, root = true, source.GetMount().GetRoot()
		if root == "" {
			return v, true, errors.New("the MOUNT disk has no root")
		}
	case mesos.Resource_DiskInfo_Source_PATH:
		root = source.GetPath().GetRoot()
	}
	switch {
	case filepath.IsAbs(root):
		v.Root = filepath.Clean(root)
	case root != "":
		v.Root = filepath.Join(a.cfg.WorkDir, root)
	}
	return v, true, nil
}

// mount is a volume and where a task sees it.
type mount struct {
	sandbox.Volume
	path     string
	readOnly bool
}

// mounts lists the persistent volumes of a task.
func (a *Agent) mounts(res resources.Resources) ([]mount, error) {
	var out []mount
	for _, r := range res.Proto() {
		v, ok, err := a.volume(r)
		if err != nil {
			return nil, fmt.Errorf("volume %q: %w", v.ID, err)
		}
		if !ok {
			continue
		}
		shown := r.GetDisk().GetVolume()
		if err := sandbox.CheckContainerPath(shown.GetContainerPath()); err != nil {
			return nil, fmt.Errorf("volume %q: %w", v.ID, err)
		}
		out = append(out, mount{v, shown.GetContainerPath(), shown.GetMode() == mesos.Volume_RO})
	}
	return out, nil
}

// discardDestroyed finishes, after a crash, what destroyed volumes are on their way to: they are out of the way before any
// operation can make new ones in their place. What is left to remove is noted for removeDestroyed.
func (a *Agent) discardDestroyed() {
	roots := map[string]bool{a.cfg.WorkDir: true}
	for i, r := range a.elsewhere(a.made.doc.GetDestroyed(), a.made.doc.GetMade()) {
		v, _, err := a.volume(r)
		if err == nil {
			err = v.Discard(fmt.Sprintf("recovered.%d.%d", a.started.UnixNano(), i))
		}
		if err != nil {
			a.destroyFailed(err)
			return // the document still names them, for the next start
		}
		if !v.Mount {
			roots[v.Root] = true
		}
	}
	for root := range roots {
		names, err := sandbox.Discarded(root)
		if err != nil {
			a.destroyFailed(err)
			return
		}
		for _, name := range names {
			a.made.discarded = append(a.made.discarded, discarded{root, name})
		}
	}
}

// removeDestroyed removes what discardDestroyed found, which may take a while.
func (a *Agent) removeDestroyed() {
	left, volumes := a.made.discarded, a.made.doc.GetDestroyed()
	a.made.discarded = nil
	if len(left) == 0 && len(volumes) == 0 {
		return
	}
	a.control.run(func() {
		for _, d := range left {
			if err := sandbox.RemoveDiscarded(d.root, d.name); err != nil {
				a.post(func() { a.destroyFailed(err) })
				return
			}
		}
		a.post(func() { a.forgetDestroyed(volumes) })
	})
}

// destroyFailed tells that the data of destroyed volumes is still there. The next start tries again.
func (a *Agent) destroyFailed(err error) {
	a.problem("destroyed volumes", fmt.Sprintf("destroyed volumes still take space until the agent is restarted: %v", err))
	a.cfg.Log.Error("cannot remove destroyed volumes", "err", err)
}

// forgetDestroyed notes that folders are gone.
func (a *Agent) forgetDestroyed(volumes []*mesos.Resource) {
	a.edit(func(doc *checkpoint.Resources) { doc.Destroyed = without(doc.Destroyed, volumes) }, func(error) {})
}

// without leaves out of a list what is in another.
func without(list, gone []*mesos.Resource) []*mesos.Resource {
	return slices.DeleteFunc(slices.Clone(list), func(r *mesos.Resource) bool {
		return slices.ContainsFunc(gone, func(g *mesos.Resource) bool { return proto.Equal(r, g) })
	})
}

// elsewhere leaves out of a list of volumes those whose folders are those of others.
func (a *Agent) elsewhere(list, others []*mesos.Resource) []*mesos.Resource {
	return slices.DeleteFunc(slices.Clone(list), func(r *mesos.Resource) bool {
		return slices.ContainsFunc(others, func(o *mesos.Resource) bool { return a.folder(r) == a.folder(o) })
	})
}

// folder is where a volume lies; the root of the volumes for one that has no place.
func (a *Agent) folder(r *mesos.Resource) string {
	v, _, _ := a.volume(r) // who makes or links a volume looks at the error
	return v.Dir()
}
