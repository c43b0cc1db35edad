package api

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"

	"starling/master"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/mesos/server"
)

// health answers on any master.
func (a *api) health(c *fiber.Ctx) error { return c.Status(fiber.StatusOK).Send(nil) }

// redirect names the leader, also when that is this master.
func (a *api) redirect(c *fiber.Ctx) error {
	s := a.master.Standing()
	if s.Leader == nil {
		return a.fail(c, master.ErrNotLeading)
	}
	return server.RedirectRoot(c, server.HostPort(s.Leader.Hostname, s.Leader.Port))
}

func (a *api) flags(c *fiber.Ctx) error {
	return a.show(c, "/flags", func(w *jsonWriter, v *master.View) { writeFlags(w, v.Flags) })
}

var summaryStates = []mesos.TaskState{
	mesos.TaskState_TASK_STAGING, mesos.TaskState_TASK_STARTING, mesos.TaskState_TASK_RUNNING, mesos.TaskState_TASK_KILLING,
	mesos.TaskState_TASK_FINISHED, mesos.TaskState_TASK_KILLED, mesos.TaskState_TASK_FAILED, mesos.TaskState_TASK_LOST,
	mesos.TaskState_TASK_ERROR, mesos.TaskState_TASK_UNREACHABLE,
}

// tally counts tasks by state and collects whose, or where, they are.
type tally struct {
	states map[mesos.TaskState]int
	others map[string]bool
}

func (t *tally) add(state mesos.TaskState, other string) {
	if t.states == nil {
		t.states, t.others = make(map[mesos.TaskState]int), make(map[string]bool)
	}
	t.states[state]++
	t.others[other] = true
}

func (t *tally) write(w *jsonWriter, name string) {
	for _, s := range summaryStates {
		w.int(s.String(), t.states[s])
	}
	others := make([]string, 0, len(t.others))
	for id := range t.others {
		others = append(others, id)
	}
	slices.Sort(others)
	w.strings(name, others)
}

func (a *api) stateSummary(c *fiber.Ctx) error { return a.show(c, "/state-summary", writeSummary) }

func writeSummary(w *jsonWriter, v *master.View) {
	agents := make(map[string]*tally)
	frameworks := make(map[string]*tally)
	count := func(lists ...master.TaskList) {
		for _, list := range lists {
			for t := range list.All() {
				f, a := t.FrameworkID(), t.AgentID()
				if frameworks[f] == nil {
					frameworks[f] = new(tally)
				}
				if agents[a] == nil {
					agents[a] = new(tally)
				}
				frameworks[f].add(t.State, a)
				agents[a].add(t.State, f)
			}
		}
	}
	for i := range v.Frameworks {
		f := &v.Frameworks[i]
		count(f.Tasks, f.Unreachable, f.Completed)
	}
	of := func(m map[string]*tally, id string) *tally {
		if t := m[id]; t != nil {
			return t
		}
		return new(tally)
	}
	w.string("hostname", v.Info.GetHostname())
	if v.Cluster != "" {
		w.string("cluster", v.Cluster)
	}
	w.key("slaves")
	w.array(func() {
		for i := range v.Agents {
			w.element()
			w.object(func() {
				writeAgent(w, v.Agents[i])
				of(agents, v.Agents[i].Info.GetId().GetValue()).write(w, "framework_ids")
			})
		}
	})
	w.key("frameworks")
	w.array(func() {
		for i := range v.Frameworks {
			w.element()
			w.object(func() {
				writeFrameworkSummary(w, &v.Frameworks[i])
				of(frameworks, v.Frameworks[i].Info.GetId().GetValue()).write(w, "slave_ids")
			})
		}
	})
}

func (a *api) slaves(c *fiber.Ctx) error {
	id := queryCopy(c, "slave_id")
	return a.show(c, cacheKey("/slaves", id), func(w *jsonWriter, v *master.View) { writeSlaves(w, v, id) })
}

// writeSlaves writes the agents, or the one of an id.
func writeSlaves(w *jsonWriter, v *master.View, id string) {
	asked := func(a *master.AgentView) bool { return id == "" || a.Info.GetId().GetValue() == id }
	w.key("slaves")
	w.array(func() {
		for _, agent := range v.Agents {
			if !asked(agent) {
				continue
			}
			w.element()
			w.object(func() {
				writeAgent(w, agent)
				w.key("reserved_resources_full")
				w.object(func() {
					for _, role := range agent.Total.ReservedRoles() {
						writeFull(w, role, agent.Total.ReservedFor(role))
					}
				})
				writeFull(w, "unreserved_resources_full", agent.Total.Unreserved())
				writeFull(w, "used_resources_full", agent.Used)
				writeFull(w, "offered_resources_full", agent.Offered)
			})
		}
	})
	writeRecovered(w, v, asked)
}

// cacheKey keeps the encodings of whole lists, not those of parts of them.
func cacheKey(path, query string) string {
	if query != "" {
		return ""
	}
	return path
}

func writeFull(w *jsonWriter, name string, r resources.Resources) {
	w.key(name)
	w.array(func() {
		for _, p := range r.ProtoEndpoint() {
			w.element()
			w.messageValue(p)
		}
	})
}

func (a *api) frameworks(c *fiber.Ctx) error {
	id := queryCopy(c, "framework_id")
	return a.show(c, cacheKey("/frameworks", id), func(w *jsonWriter, v *master.View) { writeFrameworkLists(w, v, id) })
}

// writeFrameworkLists writes the frameworks, or the one of an id.
func writeFrameworkLists(w *jsonWriter, v *master.View, id string) {
	writeFrameworks(w, v, func(f *master.FrameworkView) bool { return id == "" || f.Info.GetId().GetValue() == id })
	w.key("unregistered_frameworks")
	w.array(func() {})
}

func (a *api) tasks(c *fiber.Ctx) error {
	q := taskQuery{framework: queryCopy(c, "framework_id"), task: queryCopy(c, "task_id"), oldestFirst: queryCopy(c, "order") == "asc"}
	var err error
	if q.limit, err = count(c, "limit", 100); err != nil {
		return err
	}
	if q.offset, err = count(c, "offset", 0); err != nil {
		return err
	}
	return a.show(c, "", q.write)
}

// taskQuery is which tasks are asked for; empty ids ask for all.
type taskQuery struct {
	framework, task string
	oldestFirst     bool
	limit, offset   int
}

func (q taskQuery) write(w *jsonWriter, v *master.View) {
	var tasks []*master.TaskView
	for _, frameworks := range [][]master.FrameworkView{v.Frameworks, v.Completed} {
		for i := range frameworks {
			f := &frameworks[i]
			if q.framework != "" && f.Info.GetId().GetValue() != q.framework {
				continue
			}
			for _, list := range []master.TaskList{f.Tasks, f.Unreachable, f.Completed} {
				for t := range list.All() {
					if q.task == "" || t.ID() == q.task {
						tasks = append(tasks, t)
					}
				}
			}
		}
	}
	slices.SortStableFunc(tasks, func(x, y *master.TaskView) int {
		if q.oldestFirst {
			x, y = y, x
		}
		return cmp.Compare(y.FirstSeen(), x.FirstSeen())
	})
	tasks = tasks[min(q.offset, len(tasks)):]
	writeTasks(w, "tasks", master.TaskList{{Tasks: tasks[:min(q.limit, len(tasks))]}})
}

// count reads a query parameter that is a number of things.
func count(c *fiber.Ctx, name string, usual int) (int, error) {
	text := c.Query(name)
	if text == "" {
		return usual, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, server.Errorf(fiber.StatusBadRequest, "Failed to parse query parameter '%s': expecting a number that is not negative, got '%s'", name, strings.Clone(text))
	}
	return n, nil
}

// teardown is the older form of the operator call.
func (a *api) teardown(c *fiber.Ctx) error {
	if c.Method() != fiber.MethodPost {
		return notAllowed(c, fiber.MethodPost)
	}
	form, err := url.ParseQuery(string(c.Body()))
	if err != nil {
		return server.Errorf(fiber.StatusBadRequest, "Unable to decode query string: %v", err)
	}
	id := form.Get("frameworkId")
	if id == "" {
		return server.Errorf(fiber.StatusBadRequest, "Missing 'frameworkId' query parameter in the request body")
	}
	ctx, cancel := a.context(c)
	defer cancel()
	if err := a.master.Teardown(ctx, id); err != nil {
		return a.fail(c, err)
	}
	return c.Status(fiber.StatusOK).Send(nil)
}
