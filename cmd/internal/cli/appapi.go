package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"starling/marathon/app"
)

// appStatus is an app with its status, as Marathon tells it. The definition is read leniently, and only as far as it is shown.
type appStatus struct {
	ID              string      `json:"id"`
	Cmd             string      `json:"cmd"`
	Args            []string    `json:"args"`
	Instances       int         `json:"instances"`
	CPUs            float64     `json:"cpus"`
	Mem             float64     `json:"mem"`
	Disk            float64     `json:"disk"`
	GPUs            float64     `json:"gpus"`
	Role            string      `json:"role"`
	Version         string      `json:"version"`
	HealthChecks    []any       `json:"healthChecks"`
	ReadinessChecks []any       `json:"readinessChecks"`
	Dependencies    []string    `json:"dependencies"`
	VersionInfo     versionInfo `json:"versionInfo"`
	Container       *struct {
		Type   string
		Docker *struct{ Image string }
		// Volumes are those of the tasks; only what stays is shown.
		Volumes []shownVolume `json:"volumes"`
	} `json:"container"`
	Starling struct {
		Daemon bool `json:"daemon"`
	} `json:"starling"`

	Staged      int              `json:"tasksStaged"`
	Running     int              `json:"tasksRunning"`
	Healthy     int              `json:"tasksHealthy"`
	Unhealthy   int              `json:"tasksUnhealthy"`
	Deployments []deploymentName `json:"deployments"`
	Tasks       []appTask        `json:"tasks"`
	LastFailure *taskFailure     `json:"lastTaskFailure"`

	// Pod tells that it is a pod, and Containers are the names of its containers.
	Pod        bool     `json:"-"`
	Containers []string `json:"-"`
	// PodVolumes are those of a pod.
	PodVolumes []shownVolume `json:"-"`
}

type versionInfo struct {
	LastScalingAt      time.Time `json:"lastScalingAt"`
	LastConfigChangeAt time.Time `json:"lastConfigChangeAt"`
}

type deploymentName struct {
	ID string `json:"id"`
}

type appTask struct {
	ID        string        `json:"id"`
	Host      string        `json:"host"`
	State     string        `json:"state"`
	Ports     []int         `json:"ports"`
	StagedAt  time.Time     `json:"stagedAt"`
	StartedAt time.Time     `json:"startedAt"`
	Version   time.Time     `json:"version"`
	Health    []taskHealth  `json:"healthCheckResults"`
	Volumes   []localVolume `json:"localVolumes"`
}

type taskHealth struct {
	Alive bool   `json:"alive"`
	Cause string `json:"lastFailureCause"`
}

type taskFailure struct {
	Host      string    `json:"host"`
	Message   string    `json:"message"`
	State     string    `json:"state"`
	TaskID    string    `json:"taskId"`
	Timestamp time.Time `json:"timestamp"`
}

// health is "healthy", "unhealthy", or empty where nothing is known.
func (t *appTask) health() string {
	if t.State != "TASK_RUNNING" || len(t.Health) == 0 {
		return ""
	}
	for _, h := range t.Health {
		if !h.Alive {
			return "unhealthy"
		}
	}
	return "healthy"
}

// deploymentView is a deployment that runs.
type deploymentView struct {
	ID       string           `json:"id"`
	Version  string           `json:"version"`
	Apps     []string         `json:"affectedApps"`
	Pods     []string         `json:"affectedPods"`
	Current  []action         `json:"currentActions"`
	Step     int              `json:"currentStep"`
	Steps    int              `json:"totalSteps"`
	AllSteps []deploymentStep `json:"steps"`
}

type action struct {
	Action    string      `json:"action"`
	App       string      `json:"app"`
	Pod       string      `json:"pod"`
	Readiness []readiness `json:"readinessCheckResults"`
}

type readiness struct {
	Name         string `json:"name"`
	TaskID       string `json:"taskId"`
	Ready        bool   `json:"ready"`
	LastResponse *struct {
		Status int `json:"status"`
	} `json:"lastResponse"`
}

// stops tells whether the action removes what it is about.
func (a *action) stops() bool { return a.Action == "StopApplication" || a.Action == "StopPod" }

// id is what the action is about.
func (a *action) id() string { return a.App + a.Pod }

// queued is an app that has instances to launch.
type queued struct {
	App   *deploymentName `json:"app"`
	Pod   *deploymentName `json:"pod"`
	Count int             `json:"count"`
	Role  string          `json:"role"`
	Since time.Time       `json:"since"`
	Delay struct {
		TimeLeft int  `json:"timeLeftSeconds"`
		Overdue  bool `json:"overdue"`
	} `json:"delay"`
	Summary struct {
		Processed int `json:"processedOffersCount"`
		Unused    int `json:"unusedOffersCount"`
	} `json:"processedOffersSummary"`
	Unused []unusedOffer `json:"lastUnusedOffers"`
	// HeldBack is what the brake on mass replacement keeps from being replaced; only our Marathon has it.
	HeldBack *struct {
		Count int    `json:"count"`
		Why   string `json:"why"`
	} `json:"heldBack"`
}

type unusedOffer struct {
	Offer struct {
		Hostname string `json:"hostname"`
		AgentID  string `json:"agentId"`
	} `json:"offer"`
	Reason []string `json:"reason"`
	// Why is the same in words; only our Marathon has it.
	Why []string `json:"why"`
}

func (q *queued) id() string {
	switch {
	case q.App != nil:
		return q.App.ID
	case q.Pod != nil:
		return q.Pod.ID
	}
	return ""
}

// deploymentResult is the answer to a change.
type deploymentResult struct {
	ID      string `json:"deploymentId"`
	Version string `json:"version"`
}

// appID makes an absolute id of what a user types.
func appID(text string) (string, error) {
	id, err := app.ParseID(text, app.Root)
	if err != nil || id == app.Root {
		return "", usagef("%q is not the id of an app", text)
	}
	return string(id), nil
}

// appPath is where an app is, with more behind it.
func appPath(id, more string, query ...string) string {
	return specPath("/v2/apps/", id, more, query...)
}

// specPath is where an app or pod is among those of its kind.
func specPath(all, id, more string, query ...string) string {
	segments := strings.Split(strings.TrimPrefix(id, "/"), "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return withQuery(all+strings.Join(segments, "/")+more, query...)
}

// withQuery adds pairs of names and values to a path.
func withQuery(path string, query ...string) string {
	values := url.Values{}
	for pair := range slices.Chunk(query, 2) {
		values.Add(pair[0], pair[1])
	}
	if len(values) == 0 {
		return path
	}
	return path + "?" + values.Encode()
}

// app asks for an app, or a pod, and its status.
func (m *marathon) app(ctx context.Context, id string) (*appStatus, []byte, error) {
	var answer struct {
		App *appStatus `json:"app"`
	}
	body, err := m.get(ctx, appPath(id, ""), &answer)
	if isMarathonStatus(err, http.StatusNotFound) {
		if pod, body, none := m.pod(ctx, id); !isMarathonStatus(none, http.StatusNotFound) {
			return pod, body, none
		}
	}
	if err == nil && answer.App == nil {
		err = fmt.Errorf("the answer to a question for app %q has none", id)
	}
	return answer.App, body, err
}

// deployments asks for those that run.
func (m *marathon) deployments(ctx context.Context) ([]deploymentView, []byte, error) {
	var list []deploymentView
	body, err := m.get(ctx, "/v2/deployments", &list)
	return list, body, err
}

// queue asks for the apps that wait, by id. Of those with several roles the one that waits longest counts.
func (m *marathon) queue(ctx context.Context) (map[string]*queued, error) {
	var answer struct{ Queue []*queued }
	if _, err := m.get(ctx, "/v2/queue?embed=lastUnusedOffers&embed=heldBack", &answer); err != nil {
		return nil, err
	}
	out := map[string]*queued{}
	for _, q := range answer.Queue {
		if before := out[q.id()]; before == nil || q.Since.Before(before.Since) {
			out[q.id()] = q
		}
	}
	return out, nil
}
