package api

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"starling/marathon"
	"starling/marathon/app"
	"starling/marathon/scheduler"
)

// taskInfo is a task as the API shows it.
type taskInfo struct {
	ID            string              `json:"id"`
	AppID         app.PathID          `json:"appId"`
	Host          string              `json:"host"`
	AgentID       string              `json:"slaveId,omitempty"`
	State         string              `json:"state"`
	Ports         []int               `json:"ports"`
	ServicePorts  []int               `json:"servicePorts"`
	IPAddresses   []scheduler.Address `json:"ipAddresses"`
	StagedAt      app.Timestamp       `json:"stagedAt,omitzero"`
	StartedAt     app.Timestamp       `json:"startedAt,omitzero"`
	Version       app.Timestamp       `json:"version,omitzero"`
	HealthResults []healthInfo        `json:"healthCheckResults"`
	CheckResult   *checkInfo          `json:"checkResult,omitempty"`
	LocalVolumes  []localVolume       `json:"localVolumes"`
	Region        string              `json:"region,omitempty"`
	Zone          string              `json:"zone,omitempty"`
	Role          string              `json:"role,omitempty"`
}

// localVolume is a persistent volume as the API shows it.
type localVolume struct {
	RunSpecID     app.PathID `json:"runSpecId"`
	ContainerPath string     `json:"containerPath"`
	UUID          string     `json:"uuid"`
	PersistenceID string     `json:"persistenceId"`
}

func volumesOf(i *scheduler.Instance) []localVolume {
	volumes := []localVolume{}
	if i.Reservation == nil {
		return volumes
	}
	for _, v := range i.Reservation.Volumes {
		volumes = append(volumes, localVolume{RunSpecID: i.ID.App, ContainerPath: v.Path, UUID: v.UUID(), PersistenceID: v.ID})
	}
	return volumes
}

type healthInfo struct {
	Alive               bool          `json:"alive"`
	ConsecutiveFailures int           `json:"consecutiveFailures"`
	FirstSuccess        app.Timestamp `json:"firstSuccess,omitzero"`
	LastSuccess         app.Timestamp `json:"lastSuccess,omitzero"`
	LastFailure         app.Timestamp `json:"lastFailure,omitzero"`
	LastFailureCause    string        `json:"lastFailureCause,omitempty"`
	InstanceID          string        `json:"instanceId"`
	TaskID              string        `json:"taskId"`
}

type checkInfo struct {
	HTTP    *httpCheckInfo    `json:"http,omitempty"`
	TCP     *tcpCheckInfo     `json:"tcp,omitempty"`
	Command *commandCheckInfo `json:"command,omitempty"`
}

type httpCheckInfo struct {
	StatusCode int `json:"statusCode"`
}

type tcpCheckInfo struct {
	Succeeded bool `json:"succeeded"`
}

type commandCheckInfo struct {
	ExitCode int `json:"exitCode"`
}

func taskOf(v scheduler.View, i *scheduler.Instance) taskInfo {
	t := taskInfo{
		ID: i.TaskID, AppID: i.ID.App, Host: i.Host, AgentID: i.AgentID, State: i.Condition.TaskState(), Ports: i.Ports,
		ServicePorts: []int{}, IPAddresses: i.Addresses, HealthResults: []healthInfo{}, LocalVolumes: volumesOf(i),
		Region: i.Region, Zone: i.Zone, Role: i.Role,
		StagedAt: app.At(i.StagedAt), StartedAt: app.At(i.StartedAt), Version: i.Version,
	}
	if !i.Condition.Active() { // a place without a task, or whose last task is over
		t.Ports, t.StagedAt, t.Version = nil, 0, 0
	}
	if r := i.Reservation; r != nil && i.TaskID == "" {
		t.ID, t.Host, t.AgentID, t.Region, t.Zone, t.Role = i.ID.String(), r.Host, r.AgentID, r.Region, r.Zone, r.Role
	}
	if t.Ports == nil {
		t.Ports = []int{}
	}
	if t.IPAddresses == nil {
		t.IPAddresses = []scheduler.Address{}
	}
	for _, c := range v.Health(i).Checks {
		t.HealthResults = append(t.HealthResults, healthOf(c, i.ID.String(), i.TaskID))
	}
	t.CheckResult = checkResultOf(i.Check)
	return t
}

func healthOf(c scheduler.CheckState, instance, task string) healthInfo {
	return healthInfo{
		Alive: c.Alive(), ConsecutiveFailures: c.ConsecutiveFailures, FirstSuccess: app.At(c.FirstSuccess),
		LastSuccess: app.At(c.LastSuccess), LastFailure: app.At(c.LastFailure), LastFailureCause: c.LastFailureCause,
		InstanceID: instance, TaskID: task,
	}
}

func checkResultOf(c *scheduler.CheckResult) *checkInfo {
	if c == nil {
		return nil
	}
	out := &checkInfo{}
	switch {
	case c.HTTPStatus != nil:
		out.HTTP = &httpCheckInfo{*c.HTTPStatus}
	case c.TCPOpen != nil:
		out.TCP = &tcpCheckInfo{*c.TCPOpen}
	case c.ExitCode != nil:
		out.Command = &commandCheckInfo{*c.ExitCode}
	}
	return out
}

// appTasks are the tasks of one app.
type appTasks struct {
	def   *app.App
	tasks []taskInfo
}

func tasksOf(v scheduler.View, def *app.App) appTasks {
	if def.Pod != nil {
		return podTasksOf(v, def)
	}
	out := appTasks{def: def}
	for _, i := range v.Instances(def.ID) {
		if i.TaskID != "" {
			out.tasks = append(out.tasks, taskOf(v, i))
		}
	}
	return out
}

// writeTasks answers with tasks, as JSON or, to those who like it better, in lines for load balancers of old.
func writeTasks(c *fiber.Ctx, list []appTasks) error {
	plain, either := wantsPlain(c.Get(fiber.HeaderAccept))
	if !either {
		return refusal(fiber.StatusNotAcceptable, "Tasks are listed as application/json or text/plain")
	}
	if plain {
		c.Set(fiber.HeaderContentType, fiber.MIMETextPlainCharsetUTF8)
		return c.SendString(plainTasks(list))
	}
	tasks := []taskInfo{}
	for _, one := range list {
		tasks = append(tasks, one.tasks...)
	}
	return writeJSON(c, fiber.StatusOK, map[string]any{"tasks": tasks})
}

// plainTasks has one line for each app and service port: the id, the port, and the addresses of the running tasks.
func plainTasks(list []appTasks) string {
	var out strings.Builder
	for _, one := range list {
		var running []taskInfo
		for _, t := range one.tasks {
			if t.State == "TASK_RUNNING" {
				running = append(running, t)
			}
		}
		line := func(port string, address func(taskInfo) string) {
			addresses := make([]string, len(running))
			for i, t := range running {
				addresses[i] = address(t)
			}
			slices.Sort(addresses)
			fmt.Fprintf(&out, "%s\t%s\t", one.def.ID.Safe(), port)
			for _, address := range addresses {
				out.WriteString(address + "\t")
			}
			out.WriteString("\n")
		}
		servicePorts := one.def.ServicePorts()
		if len(servicePorts) == 0 {
			line(" ", func(t taskInfo) string { return t.Host })
		}
		for n, port := range servicePorts {
			line(strconv.Itoa(port), func(t taskInfo) string {
				host := 0
				if n < len(t.Ports) {
					host = t.Ports[n]
				}
				return net.JoinHostPort(t.Host, strconv.Itoa(host))
			})
		}
	}
	return out.String()
}

func (a *api) getTasks(c *fiber.Ctx) error {
	wanted := make(map[string]bool)
	for _, status := range append(queryAll(c, "status"), queryAll(c, "status[]")...) {
		if status == "running" || status == "staging" {
			wanted[status] = true
		}
	}
	var list []appTasks
	if err := a.m.Read(func(v scheduler.View, _ time.Time) {
		for def := range v.Root().Specs() {
			one := tasksOf(v, def)
			one.tasks = slices.DeleteFunc(one.tasks, func(t taskInfo) bool {
				return len(wanted) > 0 && !(wanted["running"] && t.State == "TASK_RUNNING") &&
					!(wanted["staging"] && (t.State == "TASK_STAGING" || t.State == "TASK_STARTING"))
			})
			servicePorts := def.ServicePorts()
			for n := range one.tasks {
				one.tasks[n].ServicePorts = servicePorts
			}
			list = append(list, one)
		}
	}); err != nil {
		return err
	}
	return writeTasks(c, list)
}

func (a *api) getAppTasks(rest []string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		path := strings.Join(rest, "/")
		var list []appTasks
		if rest[len(rest)-1] == "*" {
			found, err := a.readGroup(rest[:len(rest)-1], func(v scheduler.View, _ time.Time, group *app.Group) {
				for def := range group.All() {
					list = append(list, tasksOf(v, def))
				}
			})
			if err != nil {
				return err
			}
			if !found {
				return noGroup(strings.TrimSuffix(strings.TrimSuffix(path, "*"), "/"))
			}
			return writeTasks(c, list)
		}
		id, err := pathID(rest)
		if err != nil {
			return noApp(path)
		}
		if err := a.m.Read(func(v scheduler.View, _ time.Time) {
			if def := v.Root().App(id); def != nil {
				list = []appTasks{tasksOf(v, def)}
			}
		}); err != nil {
			return err
		}
		if list == nil {
			return noApp(path)
		}
		return writeTasks(c, list)
	}
}

// killFlags are the switches of the calls that kill tasks.
type killFlags struct{ scale, wipe, force bool }

func killFlagsOf(c *fiber.Ctx) (killFlags, error) {
	f := killFlags{flagOf(c, "scale", false), flagOf(c, "wipe", false), flagOf(c, "force", false)}
	if f.scale && f.wipe {
		return f, refusal(fiber.StatusBadRequest, "You cannot use scale and wipe at the same time.")
	}
	return f, nil
}

// meant tells whether a call can mean an instance: one that has a task, or with wipe also one that only keeps a place.
func (f killFlags) meant(i *scheduler.Instance) bool {
	return i != nil && (i.Condition.Active() || f.wipe && i.Reservation != nil)
}

// host is where an instance runs or has its place.
func host(i *scheduler.Instance) string {
	if i.Host == "" && i.Reservation != nil {
		return i.Reservation.Host
	}
	return i.Host
}

// chosen are instances that a call names, and their tasks as they were before the call.
type chosen struct {
	ids   []app.InstanceID
	tasks []taskInfo
}

func (ch *chosen) add(v scheduler.View, i *scheduler.Instance) {
	ch.ids = append(ch.ids, i.ID)
	ch.tasks = append(ch.tasks, taskOf(v, i))
}

// kill ends the tasks of instances that choose picks. With scale their apps are scaled down by them; choose is then asked
// again, under the lock.
func (a *api) kill(c *fiber.Ctx, f killFlags, choose func(v scheduler.View) (chosen, error), answer func(chosen) any) error {
	if f.scale {
		result, err := a.change(c, marathon.Change{Force: f.force, Group: app.Root, Edit: func(v scheduler.View) (marathon.Edited, error) {
			ch, err := choose(v)
			if err != nil {
				return marathon.Edited{}, err
			}
			return scaleDown(v, ch)
		}})
		if err != nil {
			return err
		}
		return deployed(c, fiber.StatusOK, result)
	}
	var ch chosen
	var failed error
	if err := a.m.Read(func(v scheduler.View, _ time.Time) { ch, failed = choose(v) }); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	ctx, cancel := a.context(c)
	defer cancel()
	if err := a.m.KillTasks(ctx, ch.ids, f.wipe); err != nil {
		return err
	}
	if ch.tasks == nil {
		ch.tasks = []taskInfo{}
	}
	return writeJSON(c, fiber.StatusOK, answer(ch))
}

// scaleDown lowers the number of instances of each app by those of it that are chosen and not on their way out already.
func scaleDown(v scheduler.View, ch chosen) (marathon.Edited, error) {
	kill := make(map[app.PathID][]app.InstanceID)
	for _, id := range ch.ids {
		i := v.Instance(id)
		if i != nil && i.Goal == scheduler.GoalRunning && i.Condition.Active() && i.Condition != scheduler.Killing {
			kill[id.App] = append(kill[id.App], id)
		}
	}
	root := v.Root()
	for _, id := range slices.SortedFunc(maps.Keys(kill), func(a, b app.PathID) int { return cmp.Compare(a, b) }) {
		if def := root.Spec(id); def != nil {
			if def.Daemon() {
				return marathon.Edited{}, refusal(fiber.StatusUnprocessableEntity,
					"%s is a daemon app, and cannot be scaled: it has one instance on every node that fits. Kill without scale to have it replaced.", id)
			}
			scaled := *def
			scaled.Instances = max(0, def.Instances-len(kill[id]))
			root = root.WithApp(&scaled)
		}
	}
	return marathon.Edited{Root: root, Kill: kill}, nil
}

func noTask(id string) error { return refusal(fiber.StatusNotFound, "Task '%s' does not exist", id) }

// noAppToKill is the answer where there is no app to kill tasks of; clients know it by two names.
func (f killFlags) noAppToKill(path string) error {
	if f.scale {
		return refusal(fiber.StatusNotFound, "Path '/%s' does not exist", strings.TrimPrefix(path, "/"))
	}
	return noApp(path)
}

func allTasks(ch chosen) any { return map[string]any{"tasks": ch.tasks} }

func (a *api) deleteAppTasks(path string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		f, err := killFlagsOf(c)
		if err != nil {
			return err
		}
		id, err := app.ParseID("/"+path, app.Root)
		if err != nil {
			return f.noAppToKill(path)
		}
		where := query(c, "host")
		return a.kill(c, f, func(v scheduler.View) (chosen, error) {
			var ch chosen
			if v.Root().App(id) == nil {
				return ch, f.noAppToKill(path)
			}
			for _, i := range v.Instances(id) {
				if f.meant(i) && (where == "" || where == "*" || where == host(i)) {
					ch.add(v, i)
				}
			}
			return ch, nil
		}, allTasks)
	}
}

func (a *api) deleteAppTask(path, task string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		f, err := killFlagsOf(c)
		if err != nil {
			return err
		}
		id, err := app.ParseID("/"+path, app.Root)
		if err != nil {
			return f.noAppToKill(path)
		}
		instance, err := app.ParseInstanceID(task)
		if err != nil {
			return noTask(task)
		}
		return a.kill(c, f, func(v scheduler.View) (chosen, error) {
			var ch chosen
			if v.Root().App(id) == nil {
				return ch, f.noAppToKill(path)
			}
			i := v.Instance(instance)
			switch {
			case f.meant(i) && i.ID.App == id:
				ch.add(v, i)
			case !f.scale:
				return ch, noTask(task)
			}
			return ch, nil
		}, func(ch chosen) any { return map[string]any{"task": ch.tasks[0]} })
	}
}

func (a *api) deleteTasks(c *fiber.Ctx) error {
	f, err := killFlagsOf(c)
	if err != nil {
		return err
	}
	ids, err := app.ParseTaskIDs(c.Body())
	if err != nil {
		return err
	}
	var wanted []app.InstanceID
	for _, text := range ids {
		id, err := app.ParseInstanceID(text)
		if err != nil {
			return refusal(fiber.StatusBadRequest, "Invalid task id '%s'. [%v]", text, err)
		}
		if !slices.Contains(wanted, id) {
			wanted = append(wanted, id)
		}
	}
	return a.kill(c, f, func(v scheduler.View) (chosen, error) {
		var ch chosen
		for _, id := range wanted {
			if i := v.Instance(id); f.meant(i) {
				ch.add(v, i)
			}
		}
		return ch, nil
	}, allTasks)
}
