package api

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/scheduler"
)

// What pods and their instances are, for people. spec/marathon-pods.md 5
const (
	podPending  = "PENDING"
	podStaging  = "STAGING"
	podStable   = "STABLE"
	podDegraded = "DEGRADED"
	podTerminal = "TERMINAL"
)

// podStatus is a pod and how its instances are.
type podStatus struct {
	ID                 app.PathID           `json:"id"`
	Spec               *app.PodDefinition   `json:"spec"`
	Status             string               `json:"status"`
	StatusSince        app.Timestamp        `json:"statusSince"`
	Message            string               `json:"message,omitempty"`
	Instances          []podInstance        `json:"instances"`
	TerminationHistory []terminationHistory `json:"terminationHistory"`
	LastUpdated        app.Timestamp        `json:"lastUpdated"`
	LastChanged        app.Timestamp        `json:"lastChanged"`
}

type podInstance struct {
	ID            string            `json:"id"`
	Status        string            `json:"status"`
	StatusSince   app.Timestamp     `json:"statusSince"`
	Message       string            `json:"message,omitempty"`
	Conditions    []podCondition    `json:"conditions"`
	AgentHostname string            `json:"agentHostname,omitempty"`
	AgentID       string            `json:"agentId,omitempty"`
	AgentRegion   string            `json:"agentRegion,omitempty"`
	AgentZone     string            `json:"agentZone,omitempty"`
	Resources     app.PodResources  `json:"resources"`
	Networks      []podNetwork      `json:"networks"`
	Containers    []containerStatus `json:"containers"`
	SpecReference string            `json:"specReference"`
	LocalVolumes  []localVolume     `json:"localVolumes"`
	LastUpdated   app.Timestamp     `json:"lastUpdated"`
	LastChanged   app.Timestamp     `json:"lastChanged"`
	Role          string            `json:"role"`
}

type podNetwork struct {
	Name      string   `json:"name,omitempty"`
	Addresses []string `json:"addresses"`
}

type podCondition struct {
	Name        string        `json:"name"`
	Value       string        `json:"value"`
	Reason      string        `json:"reason"`
	LastChanged app.Timestamp `json:"lastChanged"`
	LastUpdated app.Timestamp `json:"lastUpdated"`
}

type containerStatus struct {
	Name        string            `json:"name"`
	Status      string            `json:"status"`
	StatusSince app.Timestamp     `json:"statusSince"`
	Message     string            `json:"message,omitempty"`
	Conditions  []podCondition    `json:"conditions"`
	ContainerID string            `json:"containerId,omitempty"`
	Endpoints   []endpointStatus  `json:"endpoints"`
	Resources   *app.PodResources `json:"resources,omitempty"`
	Termination *termination      `json:"termination,omitempty"`
	LastUpdated app.Timestamp     `json:"lastUpdated"`
	LastChanged app.Timestamp     `json:"lastChanged"`
}

type endpointStatus struct {
	Name              string `json:"name"`
	AllocatedHostPort *int   `json:"allocatedHostPort,omitempty"`
	Healthy           *bool  `json:"healthy,omitempty"`
}

type termination struct {
	ExitCode *int   `json:"exitCode,omitempty"`
	Message  string `json:"message,omitempty"`
}

type terminationHistory struct {
	InstanceID   string                `json:"instanceID"`
	StartedAt    app.Timestamp         `json:"startedAt"`
	TerminatedAt app.Timestamp         `json:"terminatedAt"`
	Message      string                `json:"message,omitempty"`
	Containers   []terminatedContainer `json:"containers"`
}

type terminatedContainer struct {
	ContainerID string `json:"containerId"`
	State       string `json:"lastKnownState"`
}

// podStatusOf tells how a pod is. leaving tells that a deployment removes it.
func podStatusOf(v scheduler.View, now time.Time, pod *app.App, leaving bool) *podStatus {
	s := &podStatus{
		ID: pod.ID, Spec: pod.PodDefinition(), Status: podDegraded, Instances: []podInstance{},
		TerminationHistory: terminated(v, pod.ID), LastUpdated: app.At(now),
	}
	stable := 0
	for _, i := range v.Instances(pod.ID) {
		if i.Incarnation == 0 {
			continue // it has never been launched
		}
		one := podInstanceOf(v, now, i)
		if one.Status == podStable {
			stable++
		}
		s.StatusSince = max(s.StatusSince, one.StatusSince)
		s.Instances = append(s.Instances, one)
	}
	switch {
	case leaving:
		s.Status = podTerminal
	case stable >= pod.Instances:
		s.Status = podStable
	}
	if len(s.Instances) == 0 {
		s.StatusSince = s.LastUpdated
	}
	s.LastChanged = s.StatusSince
	return s
}

func podInstanceOf(v scheduler.View, now time.Time, i *scheduler.Instance) podInstance {
	out := podInstance{
		ID: i.ID.String(), StatusSince: app.At(i.Since), Conditions: []podCondition{}, AgentHostname: i.Host, AgentID: i.AgentID,
		AgentRegion: i.Region, AgentZone: i.Zone, Networks: podNetworks(i), Containers: []containerStatus{},
		SpecReference: fmt.Sprintf("/v2/pods%s::versions/%s", i.ID.App, i.Version), LocalVolumes: volumesOf(i),
		LastUpdated: app.At(now), LastChanged: app.At(i.Since), Role: i.Role,
	}
	pod := v.Definition(i)
	if pod == nil || pod.Pod == nil {
		out.Status = podTerminal // of a version that is not known any more
		return out
	}
	if pod.ExecutorResources != nil && len(i.Containers) > 0 {
		out.Resources = app.PodResources{CPUs: pod.ExecutorResources.CPUs, Mem: pod.ExecutorResources.Mem, Disk: pod.ExecutorResources.Disk}
	}
	hostPorts := hostPortsOf(pod, i)
	for n, c := range i.Containers {
		def := pod.Pod.Container(c.Name)
		if def == nil {
			continue
		}
		status := containerStatusOf(now, &i.Containers[n], def, hostPorts)
		if status.Resources != nil {
			out.Resources.CPUs += status.Resources.CPUs
			out.Resources.Mem += status.Resources.Mem
			out.Resources.Disk += status.Resources.Disk
			out.Resources.GPUs += status.Resources.GPUs
		}
		out.Containers = append(out.Containers, status)
	}
	out.Resources.CPUs = milli(out.Resources.CPUs)
	out.Status, out.Message = instanceStatus(i.Condition, out.Containers)
	if out.Role == "" {
		out.Role = pod.Role
	}
	return out
}

// milli rounds what was added up to thousandths, as resources are counted in.
func milli(x float64) float64 { return float64(int64(x*1000+0.5)) / 1000 }

func instanceStatus(condition scheduler.Condition, containers []containerStatus) (status, message string) {
	switch condition {
	case scheduler.Scheduled, scheduler.Provisioned:
		return podPending, ""
	case scheduler.Staging, scheduler.Starting:
		return podStaging, ""
	case scheduler.Unreachable, scheduler.UnreachableInactive:
		return podDegraded, "pod instance has become unreachable"
	case scheduler.Running:
		for _, c := range containers {
			if slices.ContainsFunc(c.Conditions, func(p podCondition) bool { return p.Name == "healthy" && p.Value == "false" }) {
				return podDegraded, "at least one container is not healthy"
			}
		}
		return podStable, ""
	}
	return podTerminal, ""
}

func podNetworks(i *scheduler.Instance) []podNetwork {
	networks := []podNetwork{}
	seen := make(map[string]bool)
	for _, c := range i.Containers {
		for _, n := range c.Networks {
			if seen[n.Name] {
				continue // the containers share their networks
			}
			seen[n.Name] = true
			one := podNetwork{Name: n.Name, Addresses: []string{}}
			for _, address := range n.Addresses {
				one.Addresses = append(one.Addresses, address.IP)
			}
			networks = append(networks, one)
		}
	}
	return networks
}

// hostPortsOf are the host ports of the endpoints of an instance.
func hostPortsOf(pod *app.App, i *scheduler.Instance) map[string]int {
	ports := make(map[string]int)
	left := i.Ports
	for _, port := range pod.Ports() {
		if port.HostPort != nil && len(left) > 0 {
			ports[port.Name], left = left[0], left[1:]
		}
	}
	return ports
}

func containerStatusOf(now time.Time, c *scheduler.ContainerTask, def *app.PodContainer, hostPorts map[string]int) containerStatus {
	out := containerStatus{
		Name: c.Name, Status: c.Condition.TaskState(), StatusSince: app.At(c.Since), Message: c.Message,
		Conditions: []podCondition{}, ContainerID: c.TaskID, Endpoints: []endpointStatus{},
		LastUpdated: app.At(now), LastChanged: app.At(c.Since),
	}
	switch c.Condition {
	case scheduler.Staging, scheduler.Starting, scheduler.Running, scheduler.Unreachable, scheduler.Killing:
		resources := def.Resources
		out.Resources = &resources
	}
	if c.Condition.Terminal() {
		out.Termination = &termination{ExitCode: c.ExitCode, Message: c.Message}
	}
	if def.HealthCheck != nil && !c.StartedAt.IsZero() {
		healthy := podCondition{
			Name: "healthy", Value: "false", Reason: "health-unreported-by-mesos", LastChanged: app.At(c.StartedAt), LastUpdated: app.At(now),
		}
		if c.Healthy != nil {
			healthy.Value, healthy.Reason, healthy.LastChanged = fmt.Sprint(*c.Healthy), "health-reported-by-mesos", app.At(c.HealthSince)
		}
		out.Conditions = append(out.Conditions, healthy)
	}
	for _, e := range def.Endpoints {
		one := endpointStatus{Name: e.Name}
		if port, ok := hostPorts[e.Name]; ok {
			one.AllocatedHostPort = &port
		}
		if checks(def.HealthCheck, e.Name) {
			one.Healthy = c.Healthy
		}
		out.Endpoints = append(out.Endpoints, one)
	}
	return out
}

// checks tells whether a health check asks at an endpoint.
func checks(h *app.PodHealthCheck, endpoint string) bool {
	return h != nil && (h.HTTP != nil && h.HTTP.Endpoint == endpoint || h.TCP != nil && h.TCP.Endpoint == endpoint)
}

// terminated is the newest failure, as long as it is one of an instance that there still is.
func terminated(v scheduler.View, id app.PathID) []terminationHistory {
	out := []terminationHistory{}
	f := v.Failure(id)
	if f == nil {
		return out
	}
	task, err := app.ParseTaskID(f.TaskID)
	if err != nil || v.Instance(task.Instance) == nil {
		return out
	}
	started := f.StartedAt
	if started == 0 {
		started = f.Timestamp // it never ran
	}
	return append(out, terminationHistory{
		InstanceID: task.Instance.String(), StartedAt: started, TerminatedAt: f.Timestamp, Message: f.Message,
		Containers: []terminatedContainer{{ContainerID: f.TaskID, State: f.State}},
	})
}

// instanceInfo is an instance as the calls that kill it show it.
type instanceInfo struct {
	ID                  string                  `json:"instanceId"`
	State               instanceState           `json:"state"`
	Agent               *agentInfo              `json:"agentInfo,omitempty"`
	Version             app.Timestamp           `json:"runSpecVersion"`
	UnreachableStrategy app.UnreachableStrategy `json:"unreachableStrategy"`
}

type instanceState struct {
	Condition   scheduler.Condition `json:"condition"`
	Since       app.Timestamp       `json:"since"`
	ActiveSince app.Timestamp       `json:"activeSince,omitzero"`
	Healthy     *bool               `json:"healthy,omitempty"`
	Goal        scheduler.Goal      `json:"goal"`
}

type agentInfo struct {
	Host       string          `json:"host"`
	AgentID    string          `json:"agentId,omitempty"`
	Region     string          `json:"region,omitempty"`
	Zone       string          `json:"zone,omitempty"`
	Attributes []attributeInfo `json:"attributes"`
}

func instanceOf(v scheduler.View, i *scheduler.Instance) instanceInfo {
	out := instanceInfo{
		ID: i.ID.String(), Version: i.Version,
		State: instanceState{
			Condition: i.Condition, Since: app.At(i.Since), ActiveSince: app.At(i.StartedAt), Healthy: v.Health(i).Healthy, Goal: i.Goal,
		},
	}
	if i.Condition == scheduler.Scheduled || i.Condition == scheduler.Provisioned {
		out.State.Condition = scheduler.Staging // the others are our own affair
	}
	if pod := v.Definition(i); pod != nil {
		out.UnreachableStrategy = pod.UnreachableStrategy
	}
	if i.AgentID != "" {
		out.Agent = &agentInfo{Host: i.Host, AgentID: i.AgentID, Region: i.Region, Zone: i.Zone, Attributes: []attributeInfo{}}
		for _, name := range slices.Sorted(maps.Keys(i.Attributes)) {
			out.Agent.Attributes = append(out.Agent.Attributes, attributeInfo{Name: name, Text: new(i.Attributes[name])})
		}
	}
	return out
}

// podTasksOf are the tasks of a pod, one for each container that was launched.
func podTasksOf(v scheduler.View, pod *app.App) appTasks {
	out := appTasks{def: pod}
	for _, i := range v.Instances(pod.ID) {
		def := v.Definition(i)
		var ports map[string]int
		if def != nil {
			ports = hostPortsOf(def, i)
		}
		for n := range i.Containers {
			c := &i.Containers[n]
			t := taskOf(v, i)
			t.ID, t.State, t.StartedAt, t.CheckResult = c.TaskID, c.Condition.TaskState(), app.At(c.StartedAt), checkResultOf(c.Check)
			t.Ports, t.HealthResults = []int{}, []healthInfo{}
			if def != nil && def.Pod.Container(c.Name) != nil {
				for _, e := range def.Pod.Container(c.Name).Endpoints {
					if port, ok := ports[e.Name]; ok {
						t.Ports = append(t.Ports, port)
					}
				}
			}
			if state, ok := c.CheckState(); ok {
				t.HealthResults = append(t.HealthResults, healthOf(state, i.ID.String(), c.TaskID))
			}
			out.tasks = append(out.tasks, t)
		}
	}
	return out
}

// pastPod is a pod of a version of a group, of which there is no status.
func pastPod(pod *app.App) *podStatus {
	return &podStatus{
		ID: pod.ID, Spec: pod.PodDefinition(), Status: podTerminal, StatusSince: pod.Version, Instances: []podInstance{},
		TerminationHistory: []terminationHistory{}, LastUpdated: pod.Version, LastChanged: pod.Version,
	}
}
