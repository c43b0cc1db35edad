package api

import (
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"starling/marathon/app"
	"starling/marathon/scheduler"
)

// embed says which status is shown beside definitions.
type embed struct {
	tasks, counts, deployments, readiness, failure, stats bool
}

// embedOf reads the embed parameters. Every prefix that any endpoint knows is taken.
func embedOf(c *fiber.Ctx) embed {
	var e embed
	for _, value := range queryAll(c, "embed") {
		for _, prefix := range []string{"group.", "apps.", "app."} {
			value = strings.TrimPrefix(value, prefix)
		}
		switch value {
		case "tasks":
			e.tasks, e.deployments = true, true
		case "counts":
			e.counts = true
		case "deployments":
			e.deployments = true
		case "readiness":
			e.readiness = true
		case "lastTaskFailure":
			e.failure = true
		case "failures":
			e.failure, e.tasks, e.deployments = true, true, true
		case "taskStats":
			e.stats = true
		}
	}
	return e
}

// appInfo is a definition with what is to be shown of its status.
type appInfo struct {
	*app.App
	TasksStaged    *int               `json:"tasksStaged,omitempty"`
	TasksRunning   *int               `json:"tasksRunning,omitempty"`
	TasksHealthy   *int               `json:"tasksHealthy,omitempty"`
	TasksUnhealthy *int               `json:"tasksUnhealthy,omitempty"`
	Deployments    []idBody           `json:"deployments,omitzero"`
	Tasks          []taskInfo         `json:"tasks,omitzero"`
	Readiness      []readinessInfo    `json:"readinessCheckResults,omitzero"`
	Failure        *scheduler.Failure `json:"lastTaskFailure,omitempty"`
	TaskStats      *stats             `json:"taskStats,omitempty"`
}

// newInfo is what is shown of an app that was just made.
func newInfo(def *app.App, deployment string) appInfo {
	return appInfo{
		App: def, TasksStaged: new(0), TasksRunning: new(0), TasksHealthy: new(0), TasksUnhealthy: new(0),
		Deployments: []idBody{{deployment}}, Tasks: []taskInfo{},
	}
}

// infoOf collects what is to be shown of an app.
func infoOf(v scheduler.View, now time.Time, def *app.App, show embed) appInfo {
	info := appInfo{App: def}
	var instances []*scheduler.Instance
	if show.counts || show.tasks || show.stats || show.readiness {
		instances = v.Instances(def.ID)
	}
	if show.counts {
		n := countsOf(v, instances)
		info.TasksStaged, info.TasksRunning = &n.Staged, &n.Running
		info.TasksHealthy, info.TasksUnhealthy = &n.Healthy, &n.Unhealthy
	}
	if show.deployments {
		info.Deployments = []idBody{}
		if id := v.DeploymentOf(def.ID); id != "" {
			info.Deployments = append(info.Deployments, idBody{id})
		}
	}
	if show.tasks {
		info.Tasks = []taskInfo{}
		for _, i := range instances {
			if i.TaskID != "" {
				info.Tasks = append(info.Tasks, taskOf(v, i))
			}
		}
	}
	if show.failure {
		info.Failure = v.Failure(def.ID)
	}
	if show.readiness {
		info.Readiness = readinessOf(v, instances)
	}
	if show.stats {
		info.TaskStats = statsOf(v, now, def, instances)
	}
	return info
}

// counts are numbers of tasks.
type counts struct {
	Staged    int `json:"staged"`
	Running   int `json:"running"`
	Healthy   int `json:"healthy"`
	Unhealthy int `json:"unhealthy"`
}

func countsOf(v scheduler.View, instances []*scheduler.Instance) counts {
	var n counts
	for _, i := range instances {
		switch i.Condition {
		case scheduler.Provisioned, scheduler.Staging, scheduler.Starting:
			n.Staged++
		case scheduler.Running:
			n.Running++
			checks := v.Health(i).Checks
			switch {
			case len(checks) == 0:
			case slices.ContainsFunc(checks, func(c scheduler.CheckState) bool { return !c.Alive() }):
				n.Unhealthy++
			default:
				n.Healthy++
			}
		}
	}
	return n
}

// readinessInfo is a result of a readiness check.
type readinessInfo struct {
	Name         string        `json:"name"`
	TaskID       string        `json:"taskId"`
	Ready        bool          `json:"ready"`
	LastResponse *lastResponse `json:"lastResponse,omitempty"`
}

type lastResponse struct {
	Status      int    `json:"status"`
	ContentType string `json:"contentType"`
	Body        string `json:"body"`
}

func readinessOf(v scheduler.View, instances []*scheduler.Instance) []readinessInfo {
	results := []readinessInfo{}
	for _, i := range instances {
		for _, r := range v.Health(i).Readiness {
			one := readinessInfo{Name: r.Name, TaskID: i.TaskID, Ready: r.Ready}
			if r.Response != nil {
				last := lastResponse(*r.Response)
				one.LastResponse = &last
			}
			results = append(results, one)
		}
	}
	return results
}

// stats are numbers of tasks by how new they are. Each part is absent when it would cover no task.
type stats struct {
	StartedAfterLastScaling *statsPart `json:"startedAfterLastScaling,omitempty"`
	WithLatestConfig        *statsPart `json:"withLatestConfig,omitempty"`
	WithOutdatedConfig      *statsPart `json:"withOutdatedConfig,omitempty"`
	TotalSummary            *statsPart `json:"totalSummary,omitempty"`
}

type statsPart struct {
	Stats statsBody `json:"stats"`
}

type statsBody struct {
	Counts   counts    `json:"counts"`
	LifeTime *lifeTime `json:"lifeTime,omitempty"`
}

type lifeTime struct {
	AverageSeconds float64 `json:"averageSeconds"`
	MedianSeconds  float64 `json:"medianSeconds"`
}

func statsOf(v scheduler.View, now time.Time, def *app.App, instances []*scheduler.Instance) *stats {
	part := func(in func(*scheduler.Instance) bool) *statsPart {
		var chosen []*scheduler.Instance
		for _, i := range instances {
			if i.TaskID != "" && in(i) {
				chosen = append(chosen, i)
			}
		}
		if len(chosen) == 0 {
			return nil
		}
		return &statsPart{statsBody{Counts: countsOf(v, chosen), LifeTime: lifeTimeOf(now, chosen)}}
	}
	latest := def.VersionInfo.LastConfigChangeAt
	return &stats{
		StartedAfterLastScaling: part(func(i *scheduler.Instance) bool { return i.Version >= def.VersionInfo.LastScalingAt }),
		WithLatestConfig:        part(func(i *scheduler.Instance) bool { return i.Version >= latest }),
		WithOutdatedConfig:      part(func(i *scheduler.Instance) bool { return i.Version < latest }),
		TotalSummary:            part(func(*scheduler.Instance) bool { return true }),
	}
}

func lifeTimeOf(now time.Time, instances []*scheduler.Instance) *lifeTime {
	var ages []float64
	var sum float64
	for _, i := range instances {
		if !i.StartedAt.IsZero() {
			age := max(0, now.Sub(i.StartedAt).Seconds())
			ages, sum = append(ages, age), sum+age
		}
	}
	if len(ages) == 0 {
		return nil
	}
	slices.Sort(ages)
	median := ages[len(ages)/2]
	if len(ages)%2 == 0 {
		median = (ages[len(ages)/2-1] + median) / 2
	}
	return &lifeTime{AverageSeconds: sum / float64(len(ages)), MedianSeconds: median}
}
