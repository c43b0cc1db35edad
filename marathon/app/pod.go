package app

import (
	"math"
	"strings"
)

// Pod is what makes a pod of a run spec: containers that start together on one agent, share a network and may share
// volumes. What a pod has in common with an app stands in the App that holds it: CPUs, Mem, Disk and GPUs are those of all
// containers together, ExecutorResources come on top of them. spec/marathon-pods.md
type Pod struct {
	Containers []PodContainer `json:"containers"`
	Volumes    []PodVolume    `json:"volumes,omitempty"`
	// LinuxInfo holds what concerns IPC alone.
	LinuxInfo           *LinuxInfo `json:"linuxInfo,omitempty"`
	LegacySharedCgroups bool       `json:"legacySharedCgroups,omitempty"`
}

// PodContainer is one container of a pod, and one task of each instance.
type PodContainer struct {
	Name           string              `json:"name"`
	Exec           *PodExec            `json:"exec,omitempty"` // nil runs what the image says
	Resources      PodResources        `json:"resources"`
	ResourceLimits *ResourceLimits     `json:"resourceLimits,omitempty"`
	Endpoints      []Endpoint          `json:"endpoints,omitempty"`
	Image          *PodImage           `json:"image,omitempty"`
	Env            map[string]EnvValue `json:"environment,omitempty"`
	Labels         Labels              `json:"labels,omitempty"`
	User           string              `json:"user,omitempty"`
	HealthCheck    *PodHealthCheck     `json:"healthCheck,omitempty"`
	Check          *PodCheck           `json:"check,omitempty"`
	VolumeMounts   []VolumeMount       `json:"volumeMounts,omitempty"`
	Artifacts      []Fetch             `json:"artifacts,omitempty"`
	Lifecycle      *Lifecycle          `json:"lifecycle,omitempty"`
	LinuxInfo      *LinuxInfo          `json:"linuxInfo,omitempty"`
	TTY            *bool               `json:"tty,omitempty"`
}

// PodExec is the command of a container.
type PodExec struct {
	Command ExecCommand `json:"command"`
	// OverrideEntrypoint runs an argument vector as it is, not behind the entry point of the image.
	OverrideEntrypoint *bool `json:"overrideEntrypoint,omitempty"`
}

// PodResources are what a container needs. CPUs is in cores, Mem and Disk are in MiB.
type PodResources struct {
	CPUs float64 `json:"cpus"`
	Mem  float64 `json:"mem"`
	Disk float64 `json:"disk"`
	GPUs int     `json:"gpus"`
}

// Endpoint is a port of a container that others may use. Its name is unique in the pod.
type Endpoint struct {
	Name string `json:"name"`
	// ContainerPort is nil in host mode; 0 means the number of the host port.
	ContainerPort *int `json:"containerPort,omitempty"`
	// HostPort is nil for none, 0 for any.
	HostPort     *int     `json:"hostPort,omitempty"`
	Protocol     []string `json:"protocol,omitempty"`
	Labels       Labels   `json:"labels,omitempty"`
	NetworkNames []string `json:"networkNames,omitempty"`
}

// PodImage is what a container is made of. Its kind is DOCKER.
type PodImage struct {
	Kind       string      `json:"kind"`
	ID         string      `json:"id"`
	ForcePull  *bool       `json:"forcePull,omitempty"`
	PullConfig *PullConfig `json:"pullConfig,omitempty"`
	Labels     Labels      `json:"labels,omitempty"`
}

// PodHealthCheck is a check that the agent makes; exactly one of HTTP, TCP and Exec is set.
type PodHealthCheck struct {
	HTTP                   *EndpointCheck `json:"http,omitempty"`
	TCP                    *TCPEndpoint   `json:"tcp,omitempty"`
	Exec                   *ExecCheck     `json:"exec,omitempty"`
	GracePeriodSeconds     int            `json:"gracePeriodSeconds"`
	IntervalSeconds        int            `json:"intervalSeconds"`
	MaxConsecutiveFailures int            `json:"maxConsecutiveFailures"`
	TimeoutSeconds         int            `json:"timeoutSeconds"`
	DelaySeconds           int            `json:"delaySeconds"`
}

// PodCheck is a check whose result is only reported; exactly one of HTTP, TCP and Exec is set.
type PodCheck struct {
	HTTP            *EndpointCheck `json:"http,omitempty"`
	TCP             *TCPEndpoint   `json:"tcp,omitempty"`
	Exec            *ExecCheck     `json:"exec,omitempty"`
	IntervalSeconds int            `json:"intervalSeconds"`
	TimeoutSeconds  int            `json:"timeoutSeconds"`
	DelaySeconds    int            `json:"delaySeconds"`
}

// EndpointCheck asks for a path at an endpoint of the container.
type EndpointCheck struct {
	Endpoint string `json:"endpoint"`
	Path     string `json:"path,omitempty"`
	Scheme   string `json:"scheme"`
}

// TCPEndpoint connects to an endpoint of the container.
type TCPEndpoint struct {
	Endpoint string `json:"endpoint"`
}

// VolumeMount puts a volume of the pod into a container.
type VolumeMount struct {
	Name      string `json:"name"`
	MountPath string `json:"mountPath"`
	ReadOnly  *bool  `json:"readOnly,omitempty"`
}

// Lifecycle says how a container ends.
type Lifecycle struct {
	KillGracePeriodSeconds *float64 `json:"killGracePeriodSeconds,omitempty"`
}

// PodVolume is something that containers share: a folder that goes with the instance or, by the one field that is set, a
// path of the host, a secret or a persistent volume.
type PodVolume struct {
	Name       string            `json:"name"`
	Host       string            `json:"host,omitempty"`
	Secret     string            `json:"secret,omitempty"`
	Persistent *PersistentVolume `json:"persistent,omitempty"`
}

// persistentVolumes are those that stay on their agent. They are in the sandbox of the executor, under their names.
func (p *Pod) persistentVolumes() []Volume {
	var out []Volume
	for _, v := range p.Volumes {
		if v.Persistent != nil {
			out = append(out, Volume{ContainerPath: v.Name, Mode: "RW", Persistent: v.Persistent})
		}
	}
	return out
}

// HealthChecked tells whether any container has a health check.
func (p *Pod) HealthChecked() bool {
	for i := range p.Containers {
		if p.Containers[i].HealthCheck != nil {
			return true
		}
	}
	return false
}

// Container returns the container of that name, nil where there is none.
func (p *Pod) Container(name string) *PodContainer {
	for i := range p.Containers {
		if p.Containers[i].Name == name {
			return &p.Containers[i]
		}
	}
	return nil
}

// ports are the endpoints of all containers, in their order.
func (p *Pod) ports() []Port {
	var ports []Port
	for _, c := range p.Containers {
		for _, e := range c.Endpoints {
			protocol := strings.Join(e.Protocol, ",")
			if protocol == "" {
				protocol = "tcp"
			}
			port := Port{HostPort: e.HostPort, Protocol: protocol, Name: e.Name, Labels: e.Labels, NetworkNames: e.NetworkNames}
			if e.ContainerPort != nil {
				port.Requested = *e.ContainerPort
			}
			ports = append(ports, port)
		}
	}
	return ports
}

// EndpointsBefore counts the endpoints of the containers ahead of the n-th: that is where its own begin in Ports.
func (p *Pod) EndpointsBefore(n int) int {
	before := 0
	for _, c := range p.Containers[:n] {
		before += len(c.Endpoints)
	}
	return before
}

// addUp makes the resources of the whole out of those of the containers. They are counted in thousandths, as they are when
// they are dealt out, so that the parts are never more than the whole.
func (a *App) addUp() {
	var cpus, mem, disk float64
	a.GPUs = 0
	for _, c := range a.Pod.Containers {
		cpus += math.Round(c.Resources.CPUs * 1000)
		mem += math.Round(c.Resources.Mem * 1000)
		disk += math.Round(c.Resources.Disk * 1000)
		a.GPUs += c.Resources.GPUs
	}
	a.CPUs, a.Mem, a.Disk = cpus/1000, mem/1000, disk/1000
}
