package mastertest

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
)

// offerAll offers what is free, unless nobody wants it.
func (c *Cluster) offerAll() {
	if !c.connected {
		return
	}
	var offers []*mesos.Offer
	for _, id := range c.order {
		a := c.agents[id]
		if a == nil || a.lost || a.offer != nil {
			continue
		}
		role, ok := c.next(a)
		if !ok {
			continue
		}
		if offer := c.newOffer(a, role); offer != nil {
			a.offer = offer
			offers = append(offers, offer)
		}
	}
	if len(offers) > 0 {
		c.send(&scheduler.Event{Type: scheduler.Event_OFFERS.Enum(), Offers: &scheduler.Event_Offers{Offers: offers}})
	}
}

// Wake offers again where a filter has run out, as the master does by itself.
func (c *Cluster) Wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offerAll()
}

// NextOffer is when the next filter runs out; zero when none is set.
func (c *Cluster) NextOffer() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	var next time.Time
	for _, a := range c.agents {
		for role, until := range a.refused {
			if !c.suppressed[role] && (next.IsZero() || until.Before(next)) {
				next = until
			}
		}
	}
	return next
}

func (c *Cluster) newOffer(a *agent, role string) *mesos.Offer {
	cpus, mem, disk := a.free()
	reserved := a.freeMade().ReservedFor(role)
	if cpus < 0.01 && mem < 32 && reserved.Empty() {
		return nil
	}
	allocation := &mesos.Resource_AllocationInfo{Role: proto.String(role)}
	scalar := func(name string, value float64) *mesos.Resource {
		return &mesos.Resource{
			Name: proto.String(name), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(value)},
			Role: proto.String("*"), AllocationInfo: allocation,
		}
	}
	c.offers++
	offer := &mesos.Offer{
		Id:          &mesos.OfferID{Value: proto.String(fmt.Sprintf("m1-O%d", c.offers))},
		FrameworkId: &mesos.FrameworkID{Value: proto.String(c.framework)},
		AgentId:     &mesos.AgentID{Value: proto.String(a.ID)}, Hostname: proto.String(a.Host),
		Resources:      []*mesos.Resource{scalar("cpus", cpus), scalar("mem", mem), scalar("disk", disk)},
		AllocationInfo: allocation,
	}
	if ranges := a.freePorts(); len(ranges) > 0 {
		offer.Resources = append(offer.Resources, &mesos.Resource{
			Name: proto.String("ports"), Type: mesos.Value_RANGES.Enum(), Ranges: &mesos.Value_Ranges{Range: ranges},
			Role: proto.String("*"), AllocationInfo: allocation,
		})
	}
	offer.Resources = append(offer.Resources, reserved.AllocatedTo(role).ProtoPreRefinement()...)
	for _, name := range sortedKeys(a.Attributes) {
		offer.Attributes = append(offer.Attributes, &mesos.Attribute{
			Name: proto.String(name), Type: mesos.Value_TEXT.Enum(), Text: &mesos.Value_Text{Value: proto.String(a.Attributes[name])},
		})
	}
	if a.Region != "" {
		offer.Domain = &mesos.DomainInfo{FaultDomain: &mesos.DomainInfo_FaultDomain{
			Region: &mesos.DomainInfo_FaultDomain_RegionInfo{Name: proto.String(a.Region)},
			Zone:   &mesos.DomainInfo_FaultDomain_ZoneInfo{Name: proto.String(a.Zone)},
		}}
	}
	return offer
}

func (a *agent) free() (cpus, mem, disk float64) {
	cpus, mem, disk = a.CPUs, a.Mem, a.Disk
	cpus -= a.made.Scalar(resources.CPUs).Float()
	mem -= a.made.Scalar(resources.Mem).Float()
	disk -= a.made.Scalar(resources.Disk).Float()
	for _, r := range a.used() {
		c, m, d := scalars(r)
		cpus, mem, disk = cpus-c, mem-m, disk-d
	}
	return cpus, mem, disk
}

// holder is a task or an executor.
type holder interface{ GetResources() []*mesos.Resource }

// used are the tasks and, once each, the executors of groups.
func (a *agent) used() []holder {
	var all []holder
	executors := make(map[string]bool)
	for _, t := range a.tasks {
		all = append(all, t.info)
		if id := t.executor.GetExecutorId().GetValue(); id != "" && !executors[id] {
			executors[id] = true
			all = append(all, t.executor)
		}
	}
	return all
}

func (a *agent) usedPorts() map[uint64]bool {
	used := make(map[uint64]bool)
	for _, span := range a.made.Ports() {
		for p := span.Begin; p <= span.End; p++ {
			used[p] = true
		}
	}
	for _, r := range a.used() {
		for _, p := range ports(r) {
			used[p] = true
		}
	}
	return used
}

func (a *agent) freePorts() []*mesos.Value_Range {
	if a.LastPort == 0 {
		return nil
	}
	used := a.usedPorts()
	var ranges []*mesos.Value_Range
	for p := a.FirstPort; p <= a.LastPort; p++ {
		if used[p] {
			continue
		}
		if n := len(ranges); n > 0 && ranges[n-1].GetEnd() == p-1 {
			ranges[n-1].End = proto.Uint64(p)
		} else {
			ranges = append(ranges, &mesos.Value_Range{Begin: proto.Uint64(p), End: proto.Uint64(p)})
		}
	}
	return ranges
}

func scalars(info holder) (cpus, mem, disk float64) {
	for _, r := range info.GetResources() {
		if r.Reservation != nil {
			continue
		}
		switch r.GetName() {
		case "cpus":
			cpus += r.GetScalar().GetValue()
		case "mem":
			mem += r.GetScalar().GetValue()
		case "disk":
			disk += r.GetScalar().GetValue()
		}
	}
	return cpus, mem, disk
}

func ports(info holder) []uint64 {
	var numbers []uint64
	for _, r := range info.GetResources() {
		if r.GetName() != "ports" || r.Reservation != nil {
			continue
		}
		for _, span := range r.GetRanges().GetRange() {
			for p := span.GetBegin(); p <= span.GetEnd(); p++ {
				numbers = append(numbers, p)
			}
		}
	}
	return numbers
}

// refuse ends an offer and remembers for how long it is not wanted.
func (c *Cluster) refuse(offerID string, filters *mesos.Filters) *agent {
	for _, a := range c.agents {
		if a.offer != nil && a.offer.GetId().GetValue() == offerID {
			role := a.offer.GetAllocationInfo().GetRole()
			a.offer = nil
			seconds := 5.0
			if filters != nil {
				seconds = filters.GetRefuseSeconds()
			}
			a.refused[role] = c.now().Add(time.Duration(seconds * float64(time.Second)))
			return a
		}
	}
	return nil
}

func (c *Cluster) accept(accept *scheduler.Call_Accept) {
	var tasks []*mesos.TaskInfo
	executors := make(map[*mesos.TaskInfo]*mesos.ExecutorInfo)
	for _, op := range accept.GetOperations() {
		tasks = append(tasks, op.GetLaunch().GetTaskInfos()...)
		for _, info := range op.GetLaunchGroup().GetTaskGroup().GetTasks() {
			tasks = append(tasks, info)
			executors[info] = op.GetLaunchGroup().GetExecutor()
		}
	}
	var on *agent
	for _, id := range accept.GetOfferIds() {
		if on = c.refuse(id.GetValue(), accept.GetFilters()); on == nil {
			for _, info := range tasks {
				c.refuseTask(info, mesos.TaskState_TASK_DROPPED, mesos.TaskStatus_REASON_INVALID_OFFERS,
					"Task launched with invalid offers: Offer "+id.GetValue()+" is no longer valid")
			}
			return
		}
	}
	for _, op := range accept.GetOperations() {
		c.operate(on, op)
	}
	for _, info := range tasks {
		c.launches[info.GetTaskId().GetValue()]++
		if why := on.fits(info); why != "" {
			c.refuseTask(info, mesos.TaskState_TASK_ERROR, mesos.TaskStatus_REASON_TASK_INVALID, why)
			continue
		}
		t := &task{info: proto.Clone(info).(*mesos.TaskInfo), state: mesos.TaskState_TASK_STAGING, agent: on, executor: executors[info]}
		on.tasks[info.GetTaskId().GetValue()] = t
		if !c.stop {
			c.start(t)
		}
	}
	// What is left is refused for as long as the filter says, unless there is no filter to speak of.
	c.offerAll()
}

// fits says why a task does not fit, or nothing.
func (a *agent) fits(info *mesos.TaskInfo) string {
	if info.GetAgentId().GetValue() != a.ID {
		return "task names agent " + info.GetAgentId().GetValue() + " on an offer of " + a.ID
	}
	if kept := madeOf(info); !a.freeMade().Contains(kept) {
		return fmt.Sprintf("Task uses %s, and what is reserved is %s", kept, a.freeMade())
	}
	cpus, mem, disk := a.free()
	c, m, d := scalars(info)
	if c > cpus+1e-6 || m > mem+1e-6 || d > disk+1e-6 {
		return "Task uses more resources than available"
	}
	used := a.usedPorts()
	for _, p := range ports(info) {
		if used[p] || p < a.FirstPort || p > a.LastPort {
			return fmt.Sprintf("Task uses port %d, which is not free", p)
		}
	}
	return ""
}

func (c *Cluster) refuseTask(info *mesos.TaskInfo, state mesos.TaskState, reason mesos.TaskStatus_Reason, message string) {
	c.send(update(&mesos.TaskStatus{
		TaskId: info.GetTaskId(), AgentId: info.GetAgentId(), State: state.Enum(), Reason: reason.Enum(),
		Source: mesos.TaskStatus_SOURCE_MASTER.Enum(), Message: proto.String(message), Timestamp: c.timestamp(),
	}))
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
