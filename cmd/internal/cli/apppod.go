package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"starling/marathon/app"
)

// Pods are asked for by the same commands as apps: where there is no app of an id there may be a pod.

// podView is a pod with its status, read leniently, and only as far as it is shown.
type podView struct {
	ID   string `json:"id"`
	Spec struct {
		Version string            `json:"version"`
		Labels  map[string]string `json:"labels"`
		Scaling struct {
			Instances int `json:"instances"`
		} `json:"scaling"`
		ExecutorResources podNeeds      `json:"executorResources"`
		Role              string        `json:"role"`
		Volumes           []shownVolume `json:"volumes"`
		Starling          struct {
			Daemon bool `json:"daemon"`
		} `json:"starling"`
		Containers []struct {
			Name        string          `json:"name"`
			Resources   podNeeds        `json:"resources"`
			HealthCheck json.RawMessage `json:"healthCheck"`
		} `json:"containers"`
	} `json:"spec"`
	Instances []struct {
		ID            string        `json:"id"`
		Status        string        `json:"status"`
		AgentHostname string        `json:"agentHostname"`
		SpecReference string        `json:"specReference"`
		Volumes       []localVolume `json:"localVolumes"`
		Containers    []struct {
			Name        string    `json:"name"`
			Status      string    `json:"status"`
			Since       time.Time `json:"statusSince"`
			ContainerID string    `json:"containerId"`
			Conditions  []struct {
				Name   string `json:"name"`
				Value  string `json:"value"`
				Reason string `json:"reason"`
			} `json:"conditions"`
			Endpoints []struct {
				HostPort int `json:"allocatedHostPort"`
			} `json:"endpoints"`
		} `json:"containers"`
	} `json:"instances"`
	History []struct {
		TerminatedAt time.Time `json:"terminatedAt"`
		Message      string    `json:"message"`
		Containers   []struct {
			ContainerID string `json:"containerId"`
			State       string `json:"lastKnownState"`
		} `json:"containers"`
	} `json:"terminationHistory"`
}

type podNeeds struct {
	CPUs float64 `json:"cpus"`
	Mem  float64 `json:"mem"`
	Disk float64 `json:"disk"`
	GPUs float64 `json:"gpus"`
}

// podPath is where a pod is, with more behind it.
func podPath(id, more string, query ...string) string {
	return specPath("/v2/pods/", id, more, query...)
}

// app is the pod as what is shown of an app: numbers are those of instances, tasks those of containers.
func (p *podView) app() *appStatus {
	a := &appStatus{
		ID: p.ID, Pod: true, Instances: p.Spec.Scaling.Instances, Role: p.Spec.Role, Version: p.Spec.Version,
		CPUs: p.Spec.ExecutorResources.CPUs, Mem: p.Spec.ExecutorResources.Mem, Disk: p.Spec.ExecutorResources.Disk,
	}
	a.PodVolumes = p.Spec.Volumes
	a.Starling.Daemon = p.Spec.Starling.Daemon
	for _, c := range p.Spec.Containers {
		a.CPUs, a.Mem, a.Disk, a.GPUs = a.CPUs+c.Resources.CPUs, a.Mem+c.Resources.Mem, a.Disk+c.Resources.Disk, a.GPUs+c.Resources.GPUs
		a.Containers = append(a.Containers, c.Name)
		if len(c.HealthCheck) > 0 {
			a.HealthChecks = append(a.HealthChecks, c.Name)
		}
	}
	for _, i := range p.Instances {
		_, text, _ := strings.Cut(i.SpecReference, "::versions/")
		version, _ := time.Parse(time.RFC3339Nano, text) // the zero time is none
		running, healthy, reported := len(i.Containers) > 0, true, true
		for _, c := range i.Containers {
			t := appTask{ID: c.ContainerID, Host: i.AgentHostname, Volumes: i.Volumes, State: c.Status, StartedAt: c.Since, Version: version}
			for _, e := range c.Endpoints {
				if e.HostPort > 0 {
					t.Ports = append(t.Ports, e.HostPort)
				}
			}
			for _, h := range c.Conditions {
				switch {
				case h.Name != "healthy":
				case h.Reason == "health-unreported-by-mesos":
					reported = false
				default:
					healthy = healthy && h.Value == "true"
					t.Health = append(t.Health, taskHealth{Alive: h.Value == "true"})
				}
			}
			running = running && (c.Status == "TASK_RUNNING" || c.Status == "TASK_FINISHED")
			a.Tasks = append(a.Tasks, t)
		}
		switch {
		case !running:
			if i.Status == "PENDING" && len(i.Containers) > 0 || i.Status == "STAGING" {
				a.Staged++
			}
			continue
		case len(a.HealthChecks) == 0 || !reported:
		case healthy:
			a.Healthy++
		default:
			a.Unhealthy++
		}
		a.Running++
	}
	for _, h := range p.History {
		f := &taskFailure{Message: h.Message, Timestamp: h.TerminatedAt}
		if len(h.Containers) > 0 {
			f.TaskID, f.State = h.Containers[0].ContainerID, h.Containers[0].State
		}
		a.LastFailure = f
	}
	return a
}

// pod asks for a pod and its status.
func (m *marathon) pod(ctx context.Context, id string) (*appStatus, []byte, error) {
	var p podView
	body, err := m.get(ctx, podPath(id, "::status"), &p)
	if err != nil {
		return nil, nil, err
	}
	running, _, err := m.deployments(ctx)
	if err != nil {
		return nil, nil, err
	}
	a := p.app()
	a.deployed(running)
	return a, body, nil
}

// deployed notes which deployments are at work on a pod: its status does not tell.
func (a *appStatus) deployed(running []deploymentView) {
	for _, d := range running {
		if slices.Contains(d.Pods, a.ID) {
			a.Deployments = append(a.Deployments, deploymentName{d.ID})
		}
	}
}

// pods asks for all pods with their status, and what Marathon has said. A Marathon that is too old to know any has none.
func (m *marathon) pods(ctx context.Context) ([]podView, []json.RawMessage, error) {
	var raw []json.RawMessage
	body, err := m.get(ctx, "/v2/pods::status", &raw)
	if isMarathonStatus(err, http.StatusNotFound) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	var views []podView
	if err := json.Unmarshal(body, &views); err != nil {
		return nil, nil, fmt.Errorf("the answer of Marathon to a question for pods makes no sense: %w", err)
	}
	return views, raw, nil
}

// isPod tells whether an id is that of a pod.
func (m *marathon) isPod(ctx context.Context, id string) (bool, error) {
	_, err := m.get(ctx, podPath(id, ""), nil)
	if isMarathonStatus(err, http.StatusNotFound) {
		return false, nil
	}
	return err == nil, err
}

// podInstances sets the number of instances of a pod: there is no other way than to replace its definition.
func (p *waitFlags) podInstances(ctx context.Context, c *call, id string, n int, done string) error {
	var fields map[string]json.RawMessage
	if _, err := c.marathon.get(ctx, podPath(id, ""), &fields); err != nil {
		return err
	}
	fields["scaling"] = json.RawMessage(fmt.Sprintf(`{"kind":"fixed","instances":%d}`, n))
	body, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	return p.change(ctx, c, done, http.MethodPut, podPath(id, "", "force", fmt.Sprint(p.force)), body)
}

// podVersions are the versions that are kept of a pod.
func (m *marathon) podVersions(ctx context.Context, id string) ([]string, error) {
	var versions []string
	_, err := m.get(ctx, podPath(id, "::versions"), &versions)
	return versions, err
}

// definition asks for one version of an app or pod.
func (m *marathon) definition(ctx context.Context, id, version string, pod bool) (*app.App, []byte, error) {
	if pod {
		definition := new(app.PodDefinition)
		body, err := m.get(ctx, podPath(id, "::versions/"+url.PathEscape(version)), definition)
		if err != nil {
			return nil, nil, err
		}
		return definition.App(), body, nil
	}
	definition := new(app.App)
	body, err := m.get(ctx, appPath(id, "/versions/"+url.PathEscape(version)), definition)
	return definition, body, err
}

// keepPodInstances is keepInstances for a pod.
func keepPodInstances(body json.RawMessage, root *app.Group) (json.RawMessage, error) {
	id, ok := idOf(body, app.Root)
	if !ok || root.Pod(id) == nil {
		return body, nil
	}
	var fields, scaling map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, err
	}
	if text := fields["scaling"]; text != nil && json.Unmarshal(text, &scaling) != nil {
		return body, nil // Marathon says what is wrong with it
	}
	if scaling["instances"] != nil {
		return body, nil
	}
	fields["scaling"] = json.RawMessage(fmt.Sprintf(`{"kind":"fixed","instances":%d}`, root.Pod(id).Instances))
	return json.Marshal(fields)
}

// applyPod makes the tree that the definition of a pod asks for.
func applyPod(body []byte, root *app.Group, settings app.Settings) (*app.Group, error) {
	draft, err := app.ParsePod(body)
	if err != nil {
		return nil, err
	}
	id, err := draft.ID()
	if err != nil {
		return nil, err
	}
	pod, err := draft.Create(id, root.Pod(id), root.RulesFor(id, settings))
	if err != nil {
		return nil, err
	}
	return root.WithApp(pod), nil
}
