package agent

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/executor"
	"starling/agent/sandbox"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// What a container writes has bounds: its output, which is rotated (sandbox.Rotator), and, where the operator wants that, its
// disk: what the sandbox with its root file system, and each of its persistent volumes, hold is measured (sandbox.Meter), and a
// task that holds more than it was given is ended.

// newBounds makes what bounds containers; nil for each that is not wanted.
func (a *Agent) newBounds() {
	a.rotator = sandbox.NewRotator(sandbox.RotatorConfig{MaxBytes: a.cfg.LogMaxBytes, Files: a.cfg.LogFiles, Log: a.cfg.Log})
	if a.cfg.EnforceDiskQuota {
		a.meter = sandbox.NewMeter(sandbox.MeterConfig{
			Interval: a.cfg.DiskQuotaInterval, Log: a.cfg.Log,
			Over: func(id string, used, limit int64) { a.post(func() { a.overDisk(id, used, limit) }) },
		})
	}
}

// bound begins to bound what a running container writes; its sandbox is dir. Doing it again does no harm.
func (a *Agent) bound(container, dir string) { a.rotator.Watch(container, dir) }

// unbound ends that, once the container has ended.
func (a *Agent) unbound(container, dir string) { a.rotator.Unwatch(container, dir) }

// OutputHead is what a follower of an output file of a container needs to know of its rotation.
func (a *Agent) OutputHead(container, path string) *sandbox.Head {
	return a.rotator.Head(container, path)
}

// volumeMark is between the id of a container and the path of one of its volumes, in the ids of what is measured.
const volumeMark = "\x00"

// boundTask bounds what a task with a container of its own writes.
func (a *Agent) boundTask(t *task) {
	a.bound(t.container, t.sandbox)
	if a.meter == nil {
		return
	}
	own := t.res.Sub(t.res.Volumes())
	if _, asked := scalar(own.Proto(), "disk"); asked {
		a.meter.Watch(t.container, t.sandbox, int64(own.Scalar("disk").Float()*(1<<20)), t.disk...)
	}
	for _, r := range t.res.Volumes().Proto() {
		if v, ok, err := a.volume(r); ok && err == nil {
			id := t.container + volumeMark + r.GetDisk().GetVolume().GetContainerPath()
			a.meter.Watch(id, v.Dir(), int64(r.GetScalar().GetValue()*(1<<20)))
		}
	}
}

// boundRun bounds what an executor of others writes, its tasks included: they have no other place.
func (a *Agent) boundRun(r *run) {
	if r.builtin || r.clean || r.phase < runRegistering {
		return
	}
	a.bound(r.container, r.sandbox)
	if a.meter == nil {
		return
	}
	sum, asked := 0.0, false
	add := func(res resources.Resources) {
		own := res.Sub(res.Volumes())
		if _, some := scalar(own.Proto(), "disk"); some {
			sum, asked = sum+own.Scalar("disk").Float(), true
		}
	}
	add(r.res)
	for t := range r.tasks {
		if !t.cmd.Ended() {
			add(t.res)
		}
	}
	if !asked {
		a.meter.Unwatch(r.container)
	} else if limit := int64(sum * (1 << 20)); limit != r.diskLimit {
		r.diskLimit = limit
		a.meter.Watch(r.container, r.sandbox, limit, r.disk...)
	}
}

// unboundRun ends that, once the executor has ended.
func (a *Agent) unboundRun(r *run) {
	a.unbound(r.container, r.sandbox)
	if a.meter != nil {
		a.meter.Unwatch(r.container)
	}
}

// unboundTask ends that, once the task has ended.
func (a *Agent) unboundTask(t *task) {
	a.unbound(t.container, t.sandbox)
	if a.meter == nil {
		return
	}
	a.meter.Unwatch(t.container)
	for _, r := range t.res.Volumes().Proto() {
		a.meter.Unwatch(t.container + volumeMark + r.GetDisk().GetVolume().GetContainerPath())
	}
}

func scalar(rs []*mesos.Resource, name string) (float64, bool) {
	for _, r := range rs {
		if r.GetName() == name {
			return r.GetScalar().GetValue(), true
		}
	}
	return 0, false
}

// overDisk ends a task that holds more on disk than it was given.
func (a *Agent) overDisk(id string, used, limit int64) {
	container, volume, _ := strings.Cut(id, volumeMark)
	if r := a.runIDs[container]; r != nil {
		a.endRun(r, &executor.Refusal{
			State: mesos.TaskState_TASK_FAILED, Reason: mesos.TaskStatus_REASON_CONTAINER_LIMITATION_DISK,
			Message: fmt.Sprintf("Disk usage (%s) exceeds quota (%s)", executor.Bytes(used), executor.Bytes(limit)),
		})
		return
	}
	t := a.containers[container]
	if t == nil {
		return
	}
	life, ok := any(t.cmd).(interface {
		Exceed(now time.Time, excess executor.Excess) executor.Step
	})
	if !ok {
		return // its executor answers for it
	}
	what := "Disk usage"
	if volume != "" {
		what = fmt.Sprintf("Disk usage of the volume %q", volume)
	}
	a.perform(t, life.Exceed(time.Now(), executor.Excess{
		Message: fmt.Sprintf("%s (%s) exceeds quota (%s)", what, executor.Bytes(used), executor.Bytes(limit)),
		Limitation: &mesos.TaskResourceLimitation{Resources: []*mesos.Resource{{
			Name: proto.String("disk"), Type: mesos.Value_SCALAR.Enum(),
			Scalar: &mesos.Value_Scalar{Value: proto.Float64(float64(used/(1<<10)) / (1 << 10))},
		}}},
	}))
}

// DiskUsed returns what the sandbox of a container held when it was last measured, and what it may hold, in bytes; false where
// nobody measures it. It may be called from any goroutine.
func (a *Agent) DiskUsed(container string) (used, limit int64, ok bool) {
	if a.meter == nil {
		return 0, 0, false
	}
	return a.meter.Used(container)
}
