package api

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"starling/marathon"
	"starling/marathon/app"
	"starling/marathon/deployment"
	"starling/marathon/scheduler"
	"starling/marathon/state"
)

// routeGroups finds what a path below /v2/groups means: an id and, to those who read, perhaps a view of it. So a group that
// is named like a view can be changed, and seen in the one above it.
func (a *api) routeGroups(rest []string) methods {
	get := a.getGroup(rest)
	if n := len(rest); n > 0 {
		switch {
		case rest[n-1] == "apps":
			get = a.getGroupApps(rest[:n-1])
		case rest[n-1] == "versions":
			get = a.getGroupVersions(rest[:n-1])
		case n > 1 && rest[n-2] == "versions":
			get = a.getGroupVersion(rest[:n-2], rest[n-1])
		}
	}
	return methods{
		fiber.MethodGet: get, fiber.MethodPost: a.postGroup(rest), fiber.MethodPut: a.putGroup(rest),
		fiber.MethodPatch: a.patchGroup(rest), fiber.MethodDelete: a.deleteGroup(rest),
	}
}

func noGroup(id string) error {
	return refusal(fiber.StatusNotFound, "Group '/%s' does not exist", strings.TrimPrefix(id, "/"))
}

// groupInfo is a group as the API shows it. Lists that are not embedded are empty.
type groupInfo struct {
	ID           app.PathID    `json:"id"`
	Apps         []appInfo     `json:"apps"`
	Pods         []*podStatus  `json:"pods"`
	Groups       []groupInfo   `json:"groups"`
	Dependencies []app.PathID  `json:"dependencies"`
	Version      app.Timestamp `json:"version"`
	// EnforceRole is shown where it is true alone: marathon-python refuses groups with fields that it does not know.
	EnforceRole bool `json:"enforceRole,omitempty"`
}

// groupEmbed says which parts of a group are shown.
type groupEmbed struct {
	apps, pods, groups bool
	status             embed
}

func groupEmbedOf(c *fiber.Ctx) groupEmbed {
	e := groupEmbed{status: embedOf(c)}
	values := queryAll(c, "embed")
	for _, value := range values {
		switch strings.TrimPrefix(value, "group.") {
		case "apps":
			e.apps = true
		case "pods":
			e.pods = true
		case "groups":
			e.groups = true
		}
	}
	if len(values) == 0 {
		e.apps, e.pods, e.groups = true, true, true
	}
	return e
}

func groupOf(group *app.Group, e groupEmbed, info func(*app.App) appInfo, status func(*app.App) *podStatus) groupInfo {
	out := groupInfo{
		ID: group.ID, Apps: []appInfo{}, Pods: []*podStatus{}, Groups: []groupInfo{}, Dependencies: group.Dependencies,
		Version: group.Version, EnforceRole: group.EnforceRole != nil && *group.EnforceRole,
	}
	if out.Dependencies == nil {
		out.Dependencies = []app.PathID{}
	}
	if e.apps {
		for _, id := range slices.Sorted(maps.Keys(group.Apps)) {
			out.Apps = append(out.Apps, info(group.Apps[id]))
		}
	}
	if e.pods {
		for _, id := range slices.Sorted(maps.Keys(group.Pods)) {
			out.Pods = append(out.Pods, status(group.Pods[id]))
		}
	}
	if e.groups {
		for _, id := range slices.Sorted(maps.Keys(group.Groups)) {
			out.Groups = append(out.Groups, groupOf(group.Groups[id], e, info, status))
		}
	}
	return out
}

func (a *api) getGroup(rest []string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		e := groupEmbedOf(c)
		var out groupInfo
		found, err := a.readGroup(rest, func(v scheduler.View, now time.Time, group *app.Group) {
			out = groupOf(group, e, func(def *app.App) appInfo { return infoOf(v, now, def, e.status) },
				func(pod *app.App) *podStatus { return podStatusOf(v, now, pod, false) })
		})
		if err != nil {
			return err
		}
		if !found {
			return noGroup(strings.Join(rest, "/"))
		}
		return writeJSON(c, fiber.StatusOK, out)
	}
}

func (a *api) getGroupApps(rest []string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		e := embedOf(c)
		apps := []appInfo{}
		found, err := a.readGroup(rest, func(v scheduler.View, now time.Time, group *app.Group) {
			for def := range group.All() {
				apps = append(apps, infoOf(v, now, def, e))
			}
		})
		if err != nil {
			return err
		}
		if !found {
			return noGroup(strings.Join(rest, "/"))
		}
		return writeJSON(c, fiber.StatusOK, apps)
	}
}

func (a *api) getGroupVersions(rest []string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		found, err := a.readGroup(rest, func(scheduler.View, time.Time, *app.Group) {})
		if err != nil {
			return err
		}
		if !found {
			return noGroup(strings.Join(rest, "/"))
		}
		versions, err := a.m.TreeVersions()
		if err != nil {
			return err
		}
		if versions == nil {
			versions = []app.Timestamp{}
		}
		return writeJSON(c, fiber.StatusOK, versions)
	}
}

func (a *api) getGroupVersion(rest []string, text string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		version, err := parseVersion(text)
		if err != nil {
			return err
		}
		path := strings.Join(rest, "/")
		id, err := pathID(rest)
		if err != nil {
			return noGroup(path)
		}
		ctx, cancel := a.context(c)
		defer cancel()
		tree, err := a.m.TreeVersion(ctx, version)
		if err != nil && !errors.Is(err, state.ErrNoVersion) {
			return err
		}
		if err != nil || tree.Group(id) == nil {
			return refusal(fiber.StatusNotFound, "Group '%s' does not exist in version %s", id, version)
		}
		all := groupEmbed{apps: true, pods: true, groups: true}
		return writeJSON(c, fiber.StatusOK, groupOf(tree.Group(id), all, func(def *app.App) appInfo { return appInfo{App: def} }, pastPod))
	}
}

// groupUpdate reads the body of a change to a group, and finds which group is meant.
func groupUpdate(c *fiber.Ctx, rest []string) (*app.GroupUpdate, app.PathID, error) {
	request, err := pathID(rest)
	if err != nil {
		return nil, "", invalidID(strings.Join(rest, "/"), err)
	}
	update, err := app.ParseGroup(c.Body())
	if err != nil {
		return nil, "", err
	}
	update.Force = flagOf(c, "force", false)
	id, err := update.ID(request)
	return update, id, err
}

func (a *api) postGroup(rest []string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		update, id, err := groupUpdate(c, rest)
		if err != nil {
			return err
		}
		settings := a.m.Config().App
		result, err := a.change(c, marathon.Change{
			Force: flagOf(c, "force", false), Group: id.Parent(),
			Edit: func(v scheduler.View) (marathon.Edited, error) {
				root := v.Root()
				switch {
				case root.Group(id) != nil:
					return marathon.Edited{}, refusal(fiber.StatusConflict, "Group %s is already created. Use PUT to change this group.", id)
				case root.Pod(id) != nil:
					return marathon.Edited{}, refusal(fiber.StatusConflict, "A pod with the path %s already exists.", id)
				case root.App(id) != nil:
					return marathon.Edited{}, refusal(fiber.StatusConflict, "An app with the path %s already exists.", id)
				}
				edited, err := update.Apply(root, id, settings)
				return marathon.Edited{Root: edited}, err
			},
		})
		if err != nil {
			return err
		}
		c.Set(fiber.HeaderLocation, string(id))
		return deployed(c, fiber.StatusCreated, result)
	}
}

func (a *api) putGroup(rest []string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		update, id, err := groupUpdate(c, rest)
		if err != nil {
			return err
		}
		edit, err := a.groupEdit(c, update, id)
		if err != nil {
			return err
		}
		dryRun := flagOf(c, "dryRun", false)
		result, err := a.change(c, marathon.Change{Force: flagOf(c, "force", false), Group: id.Parent(), Edit: edit, DryRun: dryRun})
		if err != nil {
			return err
		}
		if dryRun {
			return writeJSON(c, fiber.StatusOK, map[string]any{"steps": append([]deployment.Step{}, result.Plan.Steps...)})
		}
		return deployed(c, fiber.StatusOK, result)
	}
}

// groupEdit makes the edit that an update asks for. A version to go back to is read here, ahead of the change.
func (a *api) groupEdit(c *fiber.Ctx, update *app.GroupUpdate, id app.PathID) (func(scheduler.View) (marathon.Edited, error), error) {
	version, rollback, err := update.Rollback()
	if err != nil {
		return nil, err
	}
	if !rollback {
		settings := a.m.Config().App
		return func(v scheduler.View) (marathon.Edited, error) {
			edited, err := update.Apply(v.Root(), id, settings)
			return marathon.Edited{Root: edited}, err
		}, nil
	}
	ctx, cancel := a.context(c)
	defer cancel()
	older, err := a.m.TreeVersion(ctx, version)
	gone := refusal(fiber.StatusUnprocessableEntity, "Group %s not available in version %s", id, version)
	if errors.Is(err, state.ErrNoVersion) {
		return nil, gone
	}
	if err != nil {
		return nil, err
	}
	return func(v scheduler.View) (marathon.Edited, error) {
		restored, ok := v.Root().Restored(id, older)
		if !ok {
			return marathon.Edited{}, gone
		}
		return marathon.Edited{Root: restored}, nil
	}, nil
}

func (a *api) patchGroup(rest []string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		path := strings.Join(rest, "/")
		id, err := pathID(rest)
		if err != nil {
			return noGroup(path)
		}
		var body struct {
			EnforceRole *bool `json:"enforceRole"`
		}
		if err := readBody(c, &body); err != nil {
			return err
		}
		if body.EnforceRole == nil {
			return &app.Invalid{Message: app.MessageJSON, Details: []app.Detail{{Path: "/enforceRole", Errors: []string{"error.path.missing"}}}}
		}
		if _, err := a.change(c, marathon.Change{Group: id.Parent(), Edit: func(v scheduler.View) (marathon.Edited, error) {
			if v.Root().Group(id) == nil {
				return marathon.Edited{}, noGroup(path)
			}
			edited, err := v.Root().WithEnforceRole(id, *body.EnforceRole)
			return marathon.Edited{Root: edited}, err
		}}); err != nil {
			return err
		}
		c.Status(fiber.StatusOK)
		c.Context().Response.ResetBody()
		return nil
	}
}

func (a *api) deleteGroup(rest []string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		path := strings.Join(rest, "/")
		id, err := pathID(rest)
		if err != nil {
			return noGroup(path)
		}
		result, err := a.change(c, marathon.Change{
			Force: flagOf(c, "force", false), Group: id.Parent(),
			Edit: func(v scheduler.View) (marathon.Edited, error) {
				if v.Root().Group(id) == nil {
					return marathon.Edited{}, noGroup(path)
				}
				return marathon.Edited{Root: v.Root().WithoutGroup(id)}, nil
			},
		})
		if err != nil {
			return err
		}
		return deployed(c, fiber.StatusOK, result)
	}
}
