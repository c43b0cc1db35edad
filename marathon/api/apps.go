package api

import (
	"encoding/json"
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

// routeApps finds what a path below /v2/apps means: an id, and perhaps one of the reserved last segments.
func (a *api) routeApps(rest []string) methods {
	n := len(rest)
	if n == 0 {
		return methods{
			fiber.MethodGet: a.getApps, fiber.MethodPost: a.postApp,
			fiber.MethodPut: a.putApps(true), fiber.MethodPatch: a.putApps(false),
		}
	}
	id := strings.Join(rest, "/")
	one := methods{
		fiber.MethodGet: a.getApp(rest), fiber.MethodPut: a.putApp(id, true), fiber.MethodPatch: a.putApp(id, false),
		fiber.MethodDelete: a.deleteApp(id),
	}
	if n > 1 {
		above := strings.Join(rest[:n-1], "/")
		switch rest[n-1] {
		case "restart":
			one[fiber.MethodPost] = a.restartApp(above)
			return one
		case "versions":
			return methods{fiber.MethodGet: a.getVersions(above)}
		case "tasks":
			return methods{fiber.MethodGet: a.getAppTasks(rest[:n-1]), fiber.MethodDelete: a.deleteAppTasks(above)}
		}
	}
	if n > 2 {
		above := strings.Join(rest[:n-2], "/")
		switch rest[n-2] {
		case "versions":
			return methods{fiber.MethodGet: a.getVersion(above, rest[n-1])}
		case "tasks":
			if _, err := app.ParseInstanceID(rest[n-1]); err == nil {
				return methods{fiber.MethodDelete: a.deleteAppTask(above, rest[n-1])}
			}
			one[fiber.MethodDelete] = a.deleteAppOrTask(id, above, rest[n-1])
		}
	}
	return one
}

// deploymentResult is the answer to most changes.
type deploymentResult struct {
	Version      app.Timestamp `json:"version"`
	DeploymentID string        `json:"deploymentId"`
}

// deployed answers to a change that was made.
func deployed(c *fiber.Ctx, status int, r marathon.Result) error {
	c.Set("Marathon-Deployment-Id", r.Plan.ID)
	return writeJSON(c, status, deploymentResult{Version: r.Plan.Version, DeploymentID: r.Plan.ID})
}

// change has a change made.
func (a *api) change(c *fiber.Ctx, ch marathon.Change) (marathon.Result, error) {
	ctx, cancel := a.context(c)
	defer cancel()
	ch.By = a.askedBy(c)
	return a.m.Change(ctx, ch)
}

// announce makes the event that tells who asked for an app.
func announce(c *fiber.Ctx, id app.PathID) func(*app.Group) event.Payload {
	ip, uri := strings.Clone(c.IP()), strings.Clone(c.Path())
	return func(root *app.Group) event.Payload {
		definition, err := json.Marshal(root.App(id))
		if err != nil {
			definition = []byte("{}") // what came out of JSON goes back into it
		}
		return event.APIPost{ClientIP: ip, URI: uri, AppDefinition: definition}
	}
}

func (a *api) getApps(c *fiber.Ctx) error {
	selector, err := app.ParseSelector(query(c, "label"))
	if err != nil {
		return err
	}
	cmd, id := strings.ToLower(query(c, "cmd")), strings.ToLower(query(c, "id"))
	show := embedOf(c)
	show.counts, show.deployments = true, true
	apps := []appInfo{}
	err = a.m.Read(func(v scheduler.View, now time.Time) {
		for def := range v.Root().All() {
			if cmd != "" && !strings.Contains(strings.ToLower(def.Cmd), cmd) ||
				id != "" && !strings.Contains(string(def.ID), id) || !selector.Matches(def.Labels) {
				continue
			}
			apps = append(apps, infoOf(v, now, def, show))
		}
	})
	if err != nil {
		return err
	}
	return writeJSON(c, fiber.StatusOK, map[string]any{"apps": apps})
}

func (a *api) getApp(rest []string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		show := embedOf(c)
		show.counts, show.deployments, show.tasks, show.failure = true, true, true, true
		if rest[len(rest)-1] == "*" {
			return a.getAppsBelow(c, rest[:len(rest)-1], show)
		}
		path := strings.Join(rest, "/")
		id, err := pathID(rest)
		if err != nil {
			return noApp(path)
		}
		var info *appInfo
		if err := a.m.Read(func(v scheduler.View, now time.Time) {
			if def := v.Root().App(id); def != nil {
				one := infoOf(v, now, def, show)
				info = &one
			}
		}); err != nil {
			return err
		}
		if info == nil {
			return noApp(path)
		}
		return writeJSON(c, fiber.StatusOK, map[string]any{"app": info})
	}
}

func (a *api) getAppsBelow(c *fiber.Ctx, rest []string, show embed) error {
	var apps []appInfo
	group, err := a.readGroup(rest, func(v scheduler.View, now time.Time, group *app.Group) {
		for def := range group.All() {
			apps = append(apps, infoOf(v, now, def, show))
		}
	})
	if err != nil {
		return err
	}
	if !group {
		return noGroup(strings.Join(rest, "/"))
	}
	if apps == nil {
		apps = []appInfo{}
	}
	return writeJSON(c, fiber.StatusOK, map[string]any{"*": apps})
}

// readGroup looks at a group; it reports false where there is none.
func (a *api) readGroup(rest []string, look func(v scheduler.View, now time.Time, group *app.Group)) (bool, error) {
	id, err := pathID(rest)
	if err != nil {
		return false, nil
	}
	found := false
	err = a.m.Read(func(v scheduler.View, now time.Time) {
		if group := v.Root().Group(id); group != nil {
			found = true
			look(v, now, group)
		}
	})
	return found, err
}

func (a *api) postApp(c *fiber.Ctx) error {
	draft, err := app.ParseApp(c.Body())
	if err != nil {
		return err
	}
	id, err := draft.ID(app.Root)
	if err != nil {
		return err
	}
	settings := a.m.Config().App
	result, err := a.change(c, marathon.Change{
		Force: flagOf(c, "force", false), Group: id.Parent(), Announce: announce(c, id),
		Edit: func(v scheduler.View) (marathon.Edited, error) {
			root := v.Root()
			def, err := draft.Create(id, root.RulesFor(id, settings))
			if err != nil {
				return marathon.Edited{}, err
			}
			if root.App(id) != nil {
				return marathon.Edited{}, refusal(fiber.StatusConflict, "An app with id [%s] already exists.", id)
			}
			return marathon.Edited{Root: root.WithApp(def)}, nil
		},
	})
	if err != nil {
		return err
	}
	c.Set("Marathon-Deployment-Id", result.Plan.ID)
	c.Set(fiber.HeaderLocation, string(id))
	return writeJSON(c, fiber.StatusCreated, newInfo(result.Root.App(id), result.Plan.ID))
}

func (a *api) putApp(path string, create bool) fiber.Handler {
	return func(c *fiber.Ctx) error {
		draft, err := app.ParseUpdate(c.Body())
		if err != nil {
			return err
		}
		id, err := app.ParseID("/"+path, app.Root)
		if err != nil || id == app.Root {
			return invalidID(path, err)
		}
		version, rollback, err := draft.Rollback()
		partial := !create || flagOf(c, "partialUpdate", true)
		if err != nil && partial && a.exists(id) {
			return err
		}
		if rollback && partial {
			return a.rollbackApp(c, id, version)
		}
		created := false
		settings := a.m.Config().App
		result, err := a.change(c, marathon.Change{
			Force: flagOf(c, "force", false), Group: id.Parent(), Announce: announce(c, id),
			Edit: func(v scheduler.View) (marathon.Edited, error) {
				root := v.Root()
				created = root.App(id) == nil
				if created && !create {
					return marathon.Edited{}, noApp(path)
				}
				def, err := updated(draft, root, id, changing{partial, flagOf(c, "force", false), settings})
				if err != nil {
					return marathon.Edited{}, err
				}
				return marathon.Edited{Root: root.WithApp(def)}, nil
			},
		})
		if err != nil {
			return err
		}
		if created {
			c.Set(fiber.HeaderLocation, string(id))
			return deployed(c, fiber.StatusCreated, result)
		}
		return deployed(c, fiber.StatusOK, result)
	}
}

// changing is how an app is changed: its fields one by one or as a whole, and whether by force.
type changing struct {
	partial, force bool
	settings       app.Settings
}

// updated makes the definition that a draft asks for: a new app, or the old one with what the draft says.
func updated(draft *app.Draft, root *app.Group, id app.PathID, how changing) (*app.App, error) {
	rules := root.RulesFor(id, how.settings)
	rules.Force = how.force
	old := root.App(id)
	switch {
	case old == nil:
		return draft.Create(id, rules)
	case how.partial:
		return draft.Update(old, rules)
	default:
		return draft.Replace(old, rules)
	}
}

func (a *api) exists(id app.PathID) bool {
	found := false
	if err := a.m.Read(func(v scheduler.View, _ time.Time) { found = v.Root().App(id) != nil }); err != nil {
		return false
	}
	return found
}

// rollbackApp gives an app a definition that it had before.
func (a *api) rollbackApp(c *fiber.Ctx, id app.PathID, version app.Timestamp) error {
	if !a.exists(id) {
		return noApp(string(id))
	}
	old, err := a.version(c, id, version)
	if err != nil {
		return err
	}
	result, err := a.change(c, marathon.Change{
		Force: flagOf(c, "force", false), Group: id.Parent(), Announce: announce(c, id),
		Edit: func(v scheduler.View) (marathon.Edited, error) {
			if v.Root().App(id) == nil {
				return marathon.Edited{}, noApp(string(id))
			}
			return marathon.Edited{Root: v.Root().WithApp(old)}, nil
		},
	})
	if err != nil {
		return err
	}
	return deployed(c, fiber.StatusOK, result)
}

func invalidID(path string, err error) error {
	text := "'/' is the id of the root group, and cannot be that of an app"
	if err != nil {
		text = err.Error()
	} else if path != "" {
		text = "'/" + path + "' cannot be the id of an app"
	}
	return &app.Invalid{Message: app.MessageObject, Details: []app.Detail{{Path: "/id", Errors: []string{text}}}}
}

func (a *api) putApps(create bool) fiber.Handler {
	return func(c *fiber.Ctx) error {
		drafts, err := app.ParseUpdates(c.Body())
		if err != nil {
			return err
		}
		ids := make([]app.PathID, len(drafts))
		for i, draft := range drafts {
			ids[i], err = draft.ID(app.Root)
			if invalid, ok := errors.AsType[*app.Invalid](err); ok {
				err = (*app.Invalid)(nil).Join(invalid, i)
			}
			if err != nil {
				return err
			}
		}
		partial := !create || flagOf(c, "partialUpdate", true)
		settings := a.m.Config().App
		result, err := a.change(c, marathon.Change{
			Force: flagOf(c, "force", false), Group: app.Root,
			Edit: func(v scheduler.View) (marathon.Edited, error) {
				root := v.Root()
				var all *app.Invalid
				for i, draft := range drafts {
					if root.App(ids[i]) == nil && !create {
						return marathon.Edited{}, noApp(string(ids[i]))
					}
					def, err := updated(draft, root, ids[i], changing{partial, flagOf(c, "force", false), settings})
					if invalid, ok := errors.AsType[*app.Invalid](err); ok {
						all = all.Join(invalid, i)
						continue
					}
					if err != nil {
						return marathon.Edited{}, err
					}
					root = root.WithApp(def)
				}
				if all != nil {
					return marathon.Edited{}, all
				}
				return marathon.Edited{Root: root}, nil
			},
		})
		if err != nil {
			return err
		}
		return deployed(c, fiber.StatusOK, result)
	}
}

func (a *api) deleteApp(path string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		id, err := app.ParseID("/"+path, app.Root)
		if err != nil {
			return noApp(path)
		}
		result, err := a.change(c, marathon.Change{
			Force: flagOf(c, "force", true), Group: id.Parent(),
			Edit: func(v scheduler.View) (marathon.Edited, error) {
				if v.Root().App(id) == nil {
					return marathon.Edited{}, noApp(path)
				}
				return marathon.Edited{Root: v.Root().WithoutApp(id)}, nil
			},
		})
		if err != nil {
			return err
		}
		return deployed(c, fiber.StatusOK, result)
	}
}

// deleteAppOrTask is asked for a path that may name an app of a group "tasks" and, where there is none of that id, can only
// be meant for a task, though nobody has such tasks.
func (a *api) deleteAppOrTask(path, above, task string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		if id, err := app.ParseID("/"+path, app.Root); err == nil && a.exists(id) {
			return a.deleteApp(path)(c)
		}
		if id, err := app.ParseID("/"+above, app.Root); err != nil || !a.exists(id) {
			return a.orNotReady(noApp(above))
		}
		return noTask(task)
	}
}

func (a *api) restartApp(path string) fiber.Handler {
	return a.restart(path, (*app.Group).App, noApp, nil)
}

// restart has all instances of what find finds replaced; none says that there is no such thing.
func (a *api) restart(path string, find func(*app.Group, app.PathID) *app.App, none func(string) error,
	announce func(*fiber.Ctx) func(*app.Group) event.Payload,
) fiber.Handler {
	return func(c *fiber.Ctx) error {
		id, err := app.ParseID("/"+path, app.Root)
		if err != nil {
			return none(path)
		}
		change := marathon.Change{
			Force: flagOf(c, "force", false), Group: id.Parent(),
			Edit: func(v scheduler.View) (marathon.Edited, error) {
				if find(v.Root(), id) == nil {
					return marathon.Edited{}, none(path)
				}
				return marathon.Edited{Root: v.Root(), Restart: []app.PathID{id}}, nil
			},
		}
		if announce != nil {
			change.Announce = announce(c)
		}
		result, err := a.change(c, change)
		if err != nil {
			return err
		}
		return deployed(c, fiber.StatusOK, result)
	}
}

func (a *api) getVersions(path string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		id, err := app.ParseID("/"+path, app.Root)
		if err != nil || !a.exists(id) {
			return a.orNotReady(noApp(path))
		}
		versions, err := a.m.AppVersions(id)
		if err != nil {
			return err
		}
		return writeJSON(c, fiber.StatusOK, map[string]any{"versions": slices.Grow(versions, 0)})
	}
}

// orNotReady is the error, unless nothing can be known yet.
func (a *api) orNotReady(err error) error {
	if !a.m.Loaded() {
		return marathon.ErrNotReady
	}
	return err
}

func (a *api) getVersion(path, text string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		version, err := parseVersion(text)
		if err != nil {
			return err
		}
		id, err := app.ParseID("/"+path, app.Root)
		if err != nil || !a.exists(id) {
			return a.orNotReady(noApp(path))
		}
		def, err := a.version(c, id, version)
		if err != nil {
			return err
		}
		return writeJSON(c, fiber.StatusOK, def)
	}
}

func parseVersion(text string) (app.Timestamp, error) {
	version, err := app.ParseTimestamp(text)
	if err != nil {
		return 0, refusal(fiber.StatusUnprocessableEntity, "%v", err)
	}
	return version, nil
}

// version reads a stored definition.
func (a *api) version(c *fiber.Ctx, id app.PathID, version app.Timestamp) (*app.App, error) {
	ctx, cancel := a.context(c)
	defer cancel()
	def, err := a.m.AppVersion(ctx, id, version)
	if errors.Is(err, state.ErrNoVersion) {
		return nil, refusal(fiber.StatusNotFound, "App '%s' does not exist in version %s", id, version)
	}
	return def, err
}
