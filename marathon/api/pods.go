package api

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"starling/marathon"
	"starling/marathon/app"
	"starling/marathon/event"
	"starling/marathon/scheduler"
	"starling/marathon/state"
)

// routePods finds what a path below /v2/pods means. What is wanted of a pod stands behind its id and two colons.
func (a *api) routePods(what string, rest []string) methods {
	if what == "pods::status" && len(rest) == 0 {
		return methods{fiber.MethodGet: a.getPodStatuses}
	}
	if what != "pods" {
		return nil
	}
	n := len(rest)
	if n == 0 {
		return methods{fiber.MethodGet: a.getPods, fiber.MethodPost: a.postPod}
	}
	if n > 1 {
		id := strings.Join(rest[:n-1], "/")
		if id, ok := strings.CutSuffix(id, "::versions"); ok {
			return methods{fiber.MethodGet: a.getPodVersion(id, rest[n-1])}
		}
		if id, ok := strings.CutSuffix(id, "::instances"); ok {
			return methods{fiber.MethodDelete: a.deletePodInstance(id, rest[n-1])}
		}
	}
	id, want, _ := strings.Cut(strings.Join(rest, "/"), "::")
	switch want {
	case "":
		return methods{fiber.MethodGet: a.getPod(id), fiber.MethodPut: a.putPod(id), fiber.MethodDelete: a.deletePod(id)}
	case "status":
		return methods{fiber.MethodGet: a.getPodStatus(id)}
	case "versions":
		return methods{fiber.MethodGet: a.getPodVersions(id)}
	case "instances":
		return methods{fiber.MethodDelete: a.deletePodInstances(id)}
	case "restart": // ours: Marathon has none for pods
		return methods{fiber.MethodPost: a.restartPod(id)}
	}
	return nil
}

func noPod(id string) error {
	return refusal(fiber.StatusNotFound, "Pod '/%s' does not exist", strings.TrimPrefix(id, "/"))
}

// announcePod makes the event that tells who asked for something about a pod.
func announcePod(c *fiber.Ctx, make func(event.PodCall) event.Payload) func(*app.Group) event.Payload {
	call := event.PodCall{ClientIP: strings.Clone(c.IP()), URI: strings.Clone(c.Path())}
	return func(*app.Group) event.Payload { return make(call) }
}

// readPod looks at a pod. It returns the refusal where there is none.
func (a *api) readPod(path string, look func(v scheduler.View, now time.Time, pod *app.App)) error {
	id, err := app.ParseID("/"+path, app.Root)
	if err != nil {
		return noPod(path)
	}
	found := false
	if err := a.m.Read(func(v scheduler.View, now time.Time) {
		if pod := v.Root().Pod(id); pod != nil {
			found = true
			look(v, now, pod)
		}
	}); err != nil {
		return err
	}
	if !found {
		return noPod(path)
	}
	return nil
}

func (a *api) getPods(c *fiber.Ctx) error {
	pods := []*app.PodDefinition{}
	if err := a.m.Read(func(v scheduler.View, _ time.Time) {
		for pod := range v.Root().AllPods() {
			pods = append(pods, pod.PodDefinition())
		}
	}); err != nil {
		return err
	}
	return writeJSON(c, fiber.StatusOK, pods)
}

func (a *api) getPod(path string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		var definition *app.PodDefinition
		if err := a.readPod(path, func(_ scheduler.View, _ time.Time, pod *app.App) { definition = pod.PodDefinition() }); err != nil {
			return err
		}
		return writeJSON(c, fiber.StatusOK, definition)
	}
}

func (a *api) postPod(c *fiber.Ctx) error {
	draft, err := app.ParsePod(c.Body())
	if err != nil {
		return err
	}
	id, err := draft.ID()
	if err != nil {
		return err
	}
	settings := a.m.Config().App
	result, err := a.change(c, marathon.Change{
		Force: flagOf(c, "force", false), Group: id.Parent(),
		Announce: announcePod(c, func(call event.PodCall) event.Payload { return event.PodCreated{PodCall: call} }),
		Edit: func(v scheduler.View) (marathon.Edited, error) {
			root := v.Root()
			pod, err := draft.Create(id, nil, root.RulesFor(id, settings))
			if err != nil {
				return marathon.Edited{}, err
			}
			switch {
			case root.Pod(id) != nil:
				return marathon.Edited{}, refusal(fiber.StatusConflict, "A pod with id [%s] already exists.", id)
			case root.App(id) != nil:
				return marathon.Edited{}, refusal(fiber.StatusConflict, "An app with id [%s] already exists.", id)
			}
			return marathon.Edited{Root: root.WithApp(pod)}, nil
		},
	})
	if err != nil {
		return err
	}
	c.Set("Marathon-Deployment-Id", result.Plan.ID)
	c.Set(fiber.HeaderLocation, string(id))
	return writeJSON(c, fiber.StatusCreated, result.Root.Pod(id).PodDefinition())
}

func (a *api) putPod(path string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		draft, err := app.ParsePod(c.Body())
		if err != nil {
			return err
		}
		own, err := draft.ID()
		if err != nil {
			return err
		}
		id, err := app.ParseID("/"+path, app.Root)
		if err != nil {
			return noPod(path)
		}
		if own != id {
			return refusal(fiber.StatusBadRequest, "'%s' does not match definition's id ('%s')", id, own)
		}
		force := flagOf(c, "force", false)
		settings := a.m.Config().App
		result, err := a.change(c, marathon.Change{
			Force: force, Group: id.Parent(),
			Announce: announcePod(c, func(call event.PodCall) event.Payload { return event.PodUpdated{PodCall: call} }),
			Edit: func(v scheduler.View) (marathon.Edited, error) {
				root := v.Root()
				old := root.Pod(id)
				if old == nil {
					return marathon.Edited{}, noPod(path)
				}
				rules := root.RulesFor(id, settings)
				rules.Force = force
				pod, err := draft.Create(id, old, rules)
				if err != nil {
					return marathon.Edited{}, err
				}
				return marathon.Edited{Root: root.WithApp(pod)}, nil
			},
		})
		if err != nil {
			return err
		}
		c.Set("Marathon-Deployment-Id", result.Plan.ID)
		return writeJSON(c, fiber.StatusOK, result.Root.Pod(id).PodDefinition())
	}
}

func (a *api) deletePod(path string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		id, err := app.ParseID("/"+path, app.Root)
		if err != nil {
			return noPod(path)
		}
		result, err := a.change(c, marathon.Change{
			Force: flagOf(c, "force", false), Group: id.Parent(),
			Announce: announcePod(c, func(call event.PodCall) event.Payload { return event.PodDeleted{PodCall: call} }),
			Edit: func(v scheduler.View) (marathon.Edited, error) {
				if v.Root().Pod(id) == nil {
					return marathon.Edited{}, noPod(path)
				}
				return marathon.Edited{Root: v.Root().WithoutApp(id)}, nil
			},
		})
		if err != nil {
			return err
		}
		c.Set("Marathon-Deployment-Id", result.Plan.ID)
		c.Set(fiber.HeaderLocation, result.Plan.ID)
		c.Status(fiber.StatusAccepted)
		c.Context().Response.ResetBody()
		return nil
	}
}

func (a *api) restartPod(path string) fiber.Handler {
	return a.restart(path, (*app.Group).Pod, noPod, func(c *fiber.Ctx) func(*app.Group) event.Payload {
		return announcePod(c, func(call event.PodCall) event.Payload { return event.PodUpdated{PodCall: call} })
	})
}

func (a *api) getPodVersions(path string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		var id app.PathID
		if err := a.readPod(path, func(_ scheduler.View, _ time.Time, pod *app.App) { id = pod.ID }); err != nil {
			return err
		}
		versions, err := a.m.AppVersions(id)
		if err != nil {
			return err
		}
		return writeJSON(c, fiber.StatusOK, versions)
	}
}

func (a *api) getPodVersion(path, text string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		version, err := parseVersion(text)
		if err != nil {
			return err
		}
		var id app.PathID
		if err := a.readPod(path, func(_ scheduler.View, _ time.Time, pod *app.App) { id = pod.ID }); err != nil {
			return err
		}
		ctx, cancel := a.context(c)
		defer cancel()
		pod, err := a.m.AppVersion(ctx, id, version)
		if errors.Is(err, state.ErrNoVersion) || err == nil && pod.Pod == nil {
			return refusal(fiber.StatusNotFound, "Pod '%s' does not exist in version %s", id, version)
		}
		if err != nil {
			return err
		}
		return writeJSON(c, fiber.StatusOK, pod.PodDefinition())
	}
}

func (a *api) getPodStatuses(c *fiber.Ctx) error {
	statuses := []*podStatus{}
	if err := a.m.Read(func(v scheduler.View, now time.Time) {
		for pod := range v.Root().AllPods() {
			statuses = append(statuses, podStatusOf(v, now, pod, false))
		}
		for _, pod := range leavingPods(v) {
			statuses = append(statuses, podStatusOf(v, now, pod, true))
		}
	}); err != nil {
		return err
	}
	return writeJSON(c, fiber.StatusOK, statuses)
}

func (a *api) getPodStatus(path string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		id, err := app.ParseID("/"+path, app.Root)
		if err != nil {
			return noPod(path)
		}
		var status *podStatus
		if err := a.m.Read(func(v scheduler.View, now time.Time) {
			if pod := v.Root().Pod(id); pod != nil {
				status = podStatusOf(v, now, pod, false)
				return
			}
			for _, pod := range leavingPods(v) {
				if pod.ID == id {
					status = podStatusOf(v, now, pod, true)
				}
			}
		}); err != nil {
			return err
		}
		if status == nil {
			return noPod(path)
		}
		return writeJSON(c, fiber.StatusOK, status)
	}
}

// leavingPods are those that running deployments remove.
func leavingPods(v scheduler.View) []*app.App {
	var pods []*app.App
	for _, d := range v.Deployments() {
		for _, change := range d.Plan.Changes {
			if change.New == nil && change.Old != nil && change.Old.Pod != nil && v.Root().Spec(change.ID) == nil {
				pods = append(pods, change.Old)
			}
		}
	}
	return pods
}

func (a *api) deletePodInstances(path string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		ids, err := app.ParseInstanceIDs(c.Body())
		if err != nil {
			return err
		}
		killed, err := a.killInstances(c, path, ids)
		if err != nil {
			return err
		}
		return writeJSON(c, fiber.StatusOK, killed)
	}
}

func (a *api) deletePodInstance(path, text string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		none := refusal(fiber.StatusNotFound, "Instance '%s' does not exist", text)
		id, err := app.ParseInstanceID(text)
		if err != nil {
			return none
		}
		killed, err := a.killInstances(c, path, []app.InstanceID{id})
		if err != nil {
			return err
		}
		if len(killed) == 0 {
			return none
		}
		return writeJSON(c, fiber.StatusOK, killed[0])
	}
}

// killInstances ends the tasks of those instances that are of the pod and have some, with wipe also the places of those that have
// none, and returns how they were before.
func (a *api) killInstances(c *fiber.Ctx, path string, ids []app.InstanceID) ([]instanceInfo, error) {
	flags := killFlags{wipe: flagOf(c, "wipe", false)}
	killed := []instanceInfo{}
	var chosen []app.InstanceID
	if err := a.readPod(path, func(v scheduler.View, _ time.Time, pod *app.App) {
		for _, id := range ids {
			if i := v.Instance(id); flags.meant(i) && id.App == pod.ID && !slices.Contains(chosen, id) {
				chosen = append(chosen, id)
				killed = append(killed, instanceOf(v, i))
			}
		}
	}); err != nil {
		return nil, err
	}
	ctx, cancel := a.context(c)
	defer cancel()
	return killed, a.m.KillTasks(ctx, chosen, flags.wipe)
}
