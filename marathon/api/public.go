package api

import (
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// described is one path of the API for programs that read descriptions. {id} is an app's, pod's or group's, and may have slashes.
type described struct {
	path    string
	methods string // divided by spaces
	about   string
}

// description lists what is served, in the order of paths, but for single tasks, instances, versions and views of a group.
var description = []described{
	{"/health", "GET", "Whether requests are answered: 200, else 503."},
	{"/logging", "GET POST", "How much is logged, by component."},
	{"/metrics", "GET", "All numbers, in JSON."},
	{"/metrics/prometheus", "GET", "All numbers, for Prometheus."},
	{"/ping", "GET", "pong, by any instance that is alive."},
	{"/v2/apps", "GET POST PUT PATCH", "List apps, create one, change several."},
	{"/v2/apps/{id}", "GET PUT PATCH DELETE", "One app."},
	{"/v2/apps/{id}/restart", "POST", "Replace all tasks of an app."},
	{"/v2/apps/{id}/tasks", "GET DELETE", "The tasks of an app."},
	{"/v2/apps/{id}/versions", "GET", "The versions of an app that are kept."},
	{"/v2/brake", "GET DELETE", "Whether replacing is held back because most nodes seem dead; end that."},
	{"/v2/deployments", "GET", "The deployments that run."},
	{"/v2/deployments/{deployment}", "GET DELETE", "One deployment: look at it, undo or cancel it."},
	{"/v2/deployments/history", "GET", "How the last hundred deployments ended."},
	{"/v2/eventSubscriptions", "GET POST DELETE", "The URLs that events are posted to."},
	{"/v2/events", "GET", "A stream of events (text/event-stream)."},
	{"/v2/groups", "GET POST PUT PATCH DELETE", "The tree of groups and apps."},
	{"/v2/groups/{id}", "GET POST PUT PATCH DELETE", "One group."},
	{"/v2/handover", "GET", "What came of the last backup or restore."},
	{"/v2/info", "GET", "Versions and settings."},
	{"/v2/leader", "GET DELETE", "Who leads; have it give leadership up, and back up or restore the state."},
	{"/v2/orphans", "GET", "Tasks that belong to no instance, and are left alone."},
	{"/v2/orphans/adopt", "POST", "Make such tasks instances of their apps again."},
	{"/v2/orphans/dismiss", "POST", "Kill such tasks."},
	{"/v2/plugins", "GET", "The plugins: none."},
	{"/v2/pods", "GET POST", "List pods, create one."},
	{"/v2/pods/{id}", "GET PUT DELETE", "One pod."},
	{"/v2/pods/{id}::instances", "DELETE", "End instances of a pod."},
	{"/v2/pods/{id}::restart", "POST", "Replace all instances of a pod."},
	{"/v2/pods/{id}::status", "GET", "A pod with its instances."},
	{"/v2/pods/{id}::versions", "GET", "The versions of a pod that are kept."},
	{"/v2/pods::status", "GET", "All pods with their instances."},
	{"/v2/queue", "GET", "What waits for an offer, and why."},
	{"/v2/queue/{id}/delay", "DELETE", "End the backoff of an app."},
	{"/v2/schemas/{kind}", "GET", "The JSON Schema of an app, pod or group, as it is sent."},
	{"/v2/tasks", "GET", "The tasks of all apps."},
	{"/v2/tasks/delete", "POST", "Kill tasks."},
}

// descriptionPath is where the description is; Marathon has its own below /public/api too.
var descriptionPath = []string{"public", "api", "v2", "openapi.json"}

// getDescription answers with the description as OpenAPI.
func (a *api) getDescription(c *fiber.Ctx) error {
	paths := make(map[string]any, len(description))
	for _, d := range description {
		item := map[string]any{}
		var parameters []any
		for segment := range strings.SplitSeq(d.path, "/") {
			if _, rest, ok := strings.Cut(segment, "{"); ok {
				name, _, _ := strings.Cut(rest, "}") // "::status" may follow
				parameters = append(parameters, map[string]any{
					"name": name, "in": "path", "required": true, "schema": map[string]string{"type": "string"},
				})
			}
		}
		for method := range strings.FieldsSeq(d.methods) {
			operation := map[string]any{"summary": d.about, "responses": map[string]any{"default": map[string]string{"description": "JSON"}}}
			if parameters != nil {
				operation["parameters"] = parameters
			}
			item[strings.ToLower(method)] = operation
		}
		paths[d.path] = item
	}
	cfg := a.m.Config()
	return writeJSON(c, fiber.StatusOK, map[string]any{
		"openapi": "3.1.0", "info": map[string]string{"title": "Marathon", "version": "starling " + cfg.Version}, "paths": paths,
	})
}

// routePublic returns the handlers of a path below /public.
func (a *api) routePublic(path []string) methods {
	if slices.Equal(path, descriptionPath) {
		return methods{fiber.MethodGet: a.getDescription}
	}
	return nil
}
