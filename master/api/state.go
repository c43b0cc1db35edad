package api

import (
	"maps"
	"net"
	"slices"
	"strconv"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/utils"
	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// The older endpoints that show the state. Spec: mesos-http-endpoints.md sections 1 and 2; all names are the old ones.

// show answers with what write makes of the present view. key tells apart what the query asks for; an empty one is not
// kept.
func (a *api) show(c *fiber.Ctx, key string, write func(*jsonWriter, *master.View)) error {
	ctx, cancel := a.context(c)
	defer cancel()
	view, err := a.master.View(ctx)
	if err != nil {
		return a.fail(c, err)
	}
	encode := func(w *jsonWriter) { write(w, view) }
	var doc *document
	if key == "" {
		doc, err = newJSON().document(encode)
	} else {
		var hit bool
		if doc, hit, err = a.cache.get(key, view.Version, encode); hit {
			a.master.CountCacheHit()
		}
	}
	if err != nil {
		return err
	}
	return doc.send(c)
}

func (a *api) state(c *fiber.Ctx) error { return a.show(c, "/state", writeState) }

func writeState(w *jsonWriter, v *master.View) {
	writeBuild(w)
	w.time("start_time", v.Started)
	if v.Standing.Leading {
		w.time("elected_time", v.Elected)
	}
	writeSource(w, v)
	w.string("id", v.Info.GetId())
	w.string("pid", v.Info.GetPid())
	w.string("hostname", v.Info.GetHostname())
	w.strings("capabilities", names(v.Info.GetCapabilities()))
	active := 0
	for _, a := range v.Agents {
		if a.Active {
			active++
		}
	}
	w.float("activated_slaves", float64(active))
	w.float("deactivated_slaves", float64(len(v.Agents)-active))
	w.float("unreachable_slaves", float64(len(v.Unreachable)))
	if v.Info.Domain != nil {
		w.message("domain", v.Info.GetDomain())
	}
	if l := v.Standing.Leader; l != nil {
		pid := "master@" + net.JoinHostPort(l.Address, strconv.Itoa(l.Port))
		w.string("leader", pid)
		w.key("leader_info")
		w.object(func() {
			w.string("id", l.ID)
			w.string("pid", pid)
			w.int("port", l.Port)
			w.string("hostname", l.Hostname)
			if l.ID == v.Info.GetId() && v.Info.Domain != nil {
				w.message("domain", v.Info.GetDomain())
			}
		})
	}
	if v.Cluster != "" {
		w.string("cluster", v.Cluster)
	}
	for _, name := range []string{"log_dir", "external_log_file"} {
		if v.Flags[name] != "" {
			w.string(name, v.Flags[name])
		}
	}
	writeFlags(w, v.Flags)
	w.key("slaves")
	w.array(func() {
		for run := range slices.Chunk(v.Agents, agentRun) {
			w.agents(run, func(w *jsonWriter) {
				for _, a := range run {
					w.element()
					w.object(func() { writeAgent(w, a) })
				}
			})
		}
	})
	writeRecovered(w, v, nil)
	writeFrameworks(w, v, nil)
	w.key("orphan_tasks")
	w.array(func() {})
	w.key("unregistered_frameworks")
	w.array(func() {})
}

// writeFrameworks writes the two lists of those that keep says yes to; nil keeps all.
func writeFrameworks(w *jsonWriter, v *master.View, keep func(*master.FrameworkView) bool) {
	list := func(name string, frameworks []master.FrameworkView) {
		w.key(name)
		w.array(func() {
			for i := range frameworks {
				if keep == nil || keep(&frameworks[i]) {
					w.element()
					w.object(func() { writeFramework(w, &frameworks[i]) })
				}
			}
		})
	}
	list("frameworks", v.Frameworks)
	list("completed_frameworks", v.Completed)
}

func writeFlags(w *jsonWriter, flags map[string]string) {
	w.key("flags")
	w.object(func() {
		keys := make([]string, 0, len(flags))
		for name := range flags {
			keys = append(keys, name)
		}
		slices.Sort(keys)
		for _, name := range keys {
			w.string(name, flags[name])
		}
	})
}

// names lists capabilities by name.
func names[C interface{ GetType() E }, E interface{ String() string }](capabilities []C) []string {
	out := make([]string, 0, len(capabilities))
	for _, c := range capabilities {
		out = append(out, c.GetType().String())
	}
	return out
}

// writeResources writes a resource summary: numbers for scalars, text for ranges and sets.
func writeResources(w *jsonWriter, name string, r resources.Resources) {
	w.key(name)
	w.object(func() {
		plain, revocable := r.NonRevocable(), r.Revocable()
		known := map[string]resources.Milli{resources.CPUs: 0, resources.GPUs: 0, resources.Mem: 0, resources.Disk: 0}
		maps.Insert(known, plain.Scalars())
		keys := make([]string, 0, len(known))
		for scalar := range known {
			keys = append(keys, scalar)
		}
		slices.Sort(keys)
		for _, scalar := range keys {
			w.float(scalar, known[scalar].Float())
		}
		for _, other := range plain.Names() {
			if ranges := plain.Ranges(other); len(ranges) > 0 {
				w.string(other, resources.FormatRanges(ranges))
			} else if set := plain.Set(other); len(set) > 0 {
				w.string(other, resources.FormatSet(set))
			}
		}
		for scalar, amount := range revocable.Scalars() {
			w.float(scalar+"_revocable", amount.Float())
		}
	})
}

// agentRun is how many agents are encoded together.
const agentRun = 64

func writeAgent(w *jsonWriter, a *master.AgentView) {
	w.string("id", a.Info.GetId().GetValue())
	w.string("hostname", a.Info.GetHostname())
	w.int("port", int(a.Info.GetPort()))
	writeAttributes(w, a.Info.GetAttributes())
	w.string("pid", a.PID)
	if a.Info.Domain != nil {
		w.message("domain", a.Info.GetDomain())
	}
	w.time("registered_time", a.Registered)
	if !a.Reregistered.IsZero() {
		w.time("reregistered_time", a.Reregistered)
	}
	writeResources(w, "resources", a.Total)
	writeResources(w, "used_resources", a.Used)
	writeResources(w, "offered_resources", a.Offered)
	w.key("reserved_resources")
	w.object(func() {
		for _, role := range a.Total.ReservedRoles() {
			writeResources(w, role, a.Total.ReservedFor(role))
		}
	})
	writeResources(w, "unreserved_resources", a.Total.Unreserved())
	w.bool("active", a.Active)
	w.bool("deactivated", a.Deactivated)
	w.string("version", a.Version)
	w.strings("capabilities", names(a.Capabilities))
	if a.Drain != nil {
		w.message("drain_info", a.Drain)
	}
	if !a.DrainStart.IsZero() {
		w.int("estimated_drain_start_time_seconds", int(a.DrainStart.Unix()))
	}
}

// writeRecovered lists the agents that are remembered and not there yet; keep may be nil.
func writeRecovered(w *jsonWriter, v *master.View, keep func(*master.AgentView) bool) {
	w.key("recovered_slaves")
	w.array(func() {
		for _, a := range v.Recovered {
			if keep != nil && !keep(a) {
				continue
			}
			w.element()
			w.object(func() {
				w.string("id", a.Info.GetId().GetValue())
				w.string("hostname", a.Info.GetHostname())
				w.int("port", int(a.Info.GetPort()))
				writeAttributes(w, a.Info.GetAttributes())
				if a.Info.Domain != nil {
					w.message("domain", a.Info.GetDomain())
				}
			})
		}
	})
}

func writeAttributes(w *jsonWriter, attributes []*mesos.Attribute) {
	w.key("attributes")
	w.object(func() {
		for _, a := range attributes {
			switch a.GetType() {
			case mesos.Value_SCALAR:
				w.float(a.GetName(), a.GetScalar().GetValue())
			case mesos.Value_TEXT:
				w.string(a.GetName(), a.GetText().GetValue())
			case mesos.Value_RANGES:
				var ranges []resources.Range
				for _, r := range a.GetRanges().GetRange() {
					ranges = append(ranges, resources.Range{Begin: r.GetBegin(), End: r.GetEnd()})
				}
				w.string(a.GetName(), resources.FormatRanges(ranges))
			case mesos.Value_SET:
				w.string(a.GetName(), resources.FormatSet(a.GetSet().GetItem()))
			}
		}
	})
}

func writeFramework(w *jsonWriter, f *master.FrameworkView) {
	writeFrameworkSummary(w, f)
	w.string("user", f.Info.GetUser())
	w.float("failover_timeout", f.Info.GetFailoverTimeout())
	w.bool("checkpoint", f.Info.GetCheckpoint())
	w.time("registered_time", f.Registered)
	w.time("unregistered_time", f.Unregistered)
	if !f.Reregistered.IsZero() {
		w.time("reregistered_time", f.Reregistered)
	}
	if f.Info.GetPrincipal() != "" {
		w.string("principal", f.Info.GetPrincipal())
	}
	writeResources(w, "resources", f.Used.Unallocated().Add(f.Offered.Unallocated()))
	if multiRole(f.Info) {
		w.strings("roles", f.Info.GetRoles())
	} else {
		w.string("role", f.Info.GetRole())
	}
	writeTasks(w, "tasks", f.Tasks)
	writeTasks(w, "unreachable_tasks", f.Unreachable)
	writeTasks(w, "completed_tasks", f.Completed)
	w.key("offers")
	w.array(func() {
		if len(f.Offers) == 0 {
			return
		}
		w.elements(&f.Offers[0], func(w *jsonWriter) { // the list is the same until there is another offer, or one less
			for _, o := range f.Offers {
				w.element()
				w.object(func() {
					w.string("id", o.ID)
					w.string("framework_id", f.Info.GetId().GetValue())
					w.message("allocation_info", &mesos.Resource_AllocationInfo{Role: proto.String(o.Role)})
					w.string("slave_id", o.AgentID)
					writeResources(w, "resources", o.Resources)
				})
			}
		})
	})
	w.key("executors")
	w.array(func() {
		for i := range f.Executors {
			w.element()
			w.object(func() { writeExecutor(w, &f.Executors[i]) })
		}
	})
	writeLabels(w, f.Info.GetLabels())
	if f.Constraints != nil {
		w.message("offer_constraints", f.Constraints)
	} else {
		w.key("offer_constraints")
		w.object(func() {})
	}
}

func multiRole(info *mesos.FrameworkInfo) bool {
	return slices.ContainsFunc(info.GetCapabilities(), func(c *mesos.FrameworkInfo_Capability) bool {
		return c.GetType() == mesos.FrameworkInfo_Capability_MULTI_ROLE
	})
}

// writeFrameworkSummary writes the members that the summary has too. There is no "pid": an HTTP framework has none, and an
// empty one stops a DNS tool.
func writeFrameworkSummary(w *jsonWriter, f *master.FrameworkView) {
	w.string("id", f.Info.GetId().GetValue())
	w.string("name", f.Info.GetName())
	writeResources(w, "used_resources", f.Used)
	writeResources(w, "offered_resources", f.Offered)
	w.strings("capabilities", names(f.Info.GetCapabilities()))
	w.string("hostname", f.Info.GetHostname())
	w.string("webui_url", f.Info.GetWebuiUrl())
	w.bool("active", f.Active)
	w.bool("connected", f.Connected)
	w.bool("recovered", f.Recovered)
}

func writeTasks(w *jsonWriter, name string, tasks master.TaskList) {
	w.key(name)
	w.array(func() {
		for _, page := range tasks {
			w.elements(page, func(w *jsonWriter) {
				for _, t := range page.Tasks {
					w.element()
					w.object(func() { writeTask(w, t.Message()) })
				}
			})
		}
	})
}

func writeTask(w *jsonWriter, t *mesos.Task) {
	w.string("id", t.GetTaskId().GetValue())
	w.string("name", t.GetName())
	w.string("framework_id", t.GetFrameworkId().GetValue())
	w.string("executor_id", t.GetExecutorId().GetValue())
	w.string("slave_id", t.GetAgentId().GetValue())
	w.string("state", t.GetState().String())
	held, err := resources.FromProto(t.GetResources())
	if err != nil && w.err == nil {
		w.err = err
	}
	writeResources(w, "resources", held)
	if len(t.GetLimits()) > 0 {
		w.key("limits")
		w.object(func() {
			for _, name := range []string{resources.CPUs, resources.Mem} {
				if limit, ok := t.GetLimits()[name]; ok {
					w.float(name, limit.GetValue())
				}
			}
		})
	}
	role := "*"
	for _, r := range t.GetResources() {
		if r.GetAllocationInfo().GetRole() != "" {
			role = r.GetAllocationInfo().GetRole()
			break
		}
	}
	w.string("role", role)
	w.key("statuses")
	w.array(func() {
		for _, s := range t.GetStatuses() {
			w.element()
			w.object(func() { writeStatus(w, s) })
		}
	})
	if t.GetUser() != "" {
		w.string("user", t.GetUser())
	}
	writeLabels(w, t.GetLabels())
	if t.Discovery != nil {
		w.message("discovery", t.GetDiscovery())
	}
	if t.Container != nil {
		w.message("container", t.GetContainer())
	}
	if t.HealthCheck != nil {
		w.message("health_check", t.GetHealthCheck())
	}
}

func writeStatus(w *jsonWriter, s *mesos.TaskStatus) {
	w.string("state", s.GetState().String())
	w.float("timestamp", s.GetTimestamp())
	writeLabels(w, s.GetLabels())
	if s.ContainerStatus != nil {
		w.key("container_status")
		w.object(func() { writeContainerStatus(w, s.GetContainerStatus()) })
	}
	if s.Healthy != nil {
		w.bool("healthy", s.GetHealthy())
	}
}

func writeContainerStatus(w *jsonWriter, s *mesos.ContainerStatus) {
	if s.ContainerId != nil {
		w.message("container_id", s.GetContainerId())
	}
	if len(s.GetNetworkInfos()) > 0 {
		w.key("network_infos")
		w.array(func() {
			for _, n := range s.GetNetworkInfos() {
				w.element()
				w.object(func() { writeNetworkInfo(w, n) })
			}
		})
	}
	if s.CgroupInfo != nil {
		w.message("cgroup_info", s.GetCgroupInfo())
	}
}

func writeNetworkInfo(w *jsonWriter, n *mesos.NetworkInfo) {
	if len(n.GetGroups()) > 0 {
		w.strings("groups", n.GetGroups())
	}
	writeLabels(w, n.GetLabels())
	writeMessages(w, "ip_addresses", n.GetIpAddresses())
	if n.Name != nil {
		w.string("name", n.GetName())
	}
	writeMessages(w, "port_mappings", n.GetPortMappings())
}

// writeMessages writes a list, unless it is empty.
func writeMessages[M proto.Message](w *jsonWriter, name string, list []M) {
	if len(list) == 0 {
		return
	}
	w.key(name)
	w.array(func() {
		for _, m := range list {
			w.element()
			w.messageValue(m)
		}
	})
}

func writeLabels(w *jsonWriter, labels *mesos.Labels) {
	if labels == nil {
		return
	}
	w.key("labels")
	w.array(func() {
		for _, l := range labels.GetLabels() {
			w.element()
			w.messageValue(l)
		}
	})
}

func writeExecutor(w *jsonWriter, e *master.ExecutorView) {
	info := e.Info
	w.string("executor_id", info.GetExecutorId().GetValue())
	w.string("name", info.GetName())
	w.string("framework_id", info.GetFrameworkId().GetValue())
	w.key("command")
	w.object(func() {
		command := info.GetCommand()
		if command.GetShell() {
			w.bool("shell", true)
		}
		if command.GetValue() != "" {
			w.string("value", command.GetValue())
		}
		w.strings("argv", command.GetArguments())
		if command.GetEnvironment() != nil {
			w.message("environment", command.GetEnvironment())
		}
		w.key("uris")
		w.array(func() {
			for _, u := range command.GetUris() {
				w.element()
				w.object(func() {
					w.string("value", u.GetValue())
					w.bool("executable", u.GetExecutable())
				})
			}
		})
	})
	held, err := resources.FromProto(info.GetResources())
	if err != nil && w.err == nil {
		w.err = err
	}
	writeResources(w, "resources", held)
	if roles := held.Allocations(); len(roles) > 0 && roles[0] != "" {
		w.string("role", roles[0])
	}
	writeLabels(w, info.GetLabels())
	if info.Type != nil {
		w.string("type", info.GetType().String())
	}
	w.string("slave_id", e.AgentID)
}

func queryCopy(c *fiber.Ctx, name string) string { return utils.CopyString(c.Query(name)) }
