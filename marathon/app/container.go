package app

// ContainerType says who isolates the task.
type ContainerType string

// The container types.
const (
	Docker ContainerType = "DOCKER"
	Mesos  ContainerType = "MESOS"
)

// Container is what a task is wrapped in.
type Container struct {
	Type    ContainerType `json:"type"`
	Docker  *DockerImage  `json:"docker,omitempty"`
	Volumes []Volume      `json:"volumes"`
	// PortMappings is nil in host mode.
	PortMappings []PortMapping `json:"portMappings,omitzero"`
	LinuxInfo    *LinuxInfo    `json:"linuxInfo,omitempty"`
}

// DockerImage is the image and how to run it. Privileged and Parameters are for type DOCKER alone.
type DockerImage struct {
	Image          string      `json:"image"`
	ForcePullImage bool        `json:"forcePullImage"`
	Privileged     bool        `json:"privileged"`
	Parameters     []Parameter `json:"parameters"`
	PullConfig     *PullConfig `json:"pullConfig,omitempty"`
}

// Parameter is passed to docker as --key=value; keys may repeat.
type Parameter struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// PullConfig names the secret that holds a docker config.json.
type PullConfig struct {
	Secret string `json:"secret"`
}

// LinuxInfo are the rarer switches of a MESOS container.
type LinuxInfo struct {
	Seccomp *Seccomp `json:"seccomp,omitempty"`
	IPCInfo *IPCInfo `json:"ipcInfo,omitempty"`
}

// Seccomp names a profile or lifts confinement.
type Seccomp struct {
	ProfileName string `json:"profileName,omitempty"`
	Unconfined  bool   `json:"unconfined"`
}

// IPCInfo says whether IPC is private, and how much shared memory it has (MiB).
type IPCInfo struct {
	Mode    string `json:"mode"`
	ShmSize *int   `json:"shmSize,omitempty"`
}

// Volume is exactly one of: a path of the host, a persistent, an external or a secret volume, by the one that is set.
type Volume struct {
	ContainerPath string            `json:"containerPath"`
	HostPath      string            `json:"hostPath,omitempty"`
	Mode          string            `json:"mode,omitempty"` // RO or RW
	Persistent    *PersistentVolume `json:"persistent,omitempty"`
	External      *ExternalVolume   `json:"external,omitempty"`
	Secret        string            `json:"secret,omitempty"`
}

// PersistentVolume stays on its agent. Sizes are in MiB.
type PersistentVolume struct {
	Type        string       `json:"type,omitempty"`
	Size        int64        `json:"size"`
	MaxSize     *int64       `json:"maxSize,omitempty"`
	ProfileName string       `json:"profileName,omitempty"`
	Constraints []Constraint `json:"constraints"`
}

// ExternalVolume is provided by a plugin. Size is in GiB.
type ExternalVolume struct {
	Name     string         `json:"name,omitempty"`
	Provider string         `json:"provider,omitempty"`
	Size     *int           `json:"size,omitempty"`
	Options  map[string]any `json:"options"`
	Shared   bool           `json:"shared,omitempty"`
}

// NetworkMode is how a task is attached.
type NetworkMode string

// The network modes.
const (
	HostNetwork      NetworkMode = "host"
	BridgeNetwork    NetworkMode = "container/bridge"
	ContainerNetwork NetworkMode = "container"
)

// Network is one attachment of a task.
type Network struct {
	Mode   NetworkMode `json:"mode"`
	Name   string      `json:"name,omitempty"`
	Labels Labels      `json:"labels,omitempty"`
}

// PortDefinition is a port of an app in host mode. Port is the service port and, with requirePorts, the port on the host.
type PortDefinition struct {
	Port     int    `json:"port"`
	Protocol string `json:"protocol"` // tcp, udp or udp,tcp
	Name     string `json:"name,omitempty"`
	Labels   Labels `json:"labels,omitempty"`
}

// PortMapping is a port of an app that has a network of its own.
type PortMapping struct {
	// ContainerPort 0 means the number of the host port.
	ContainerPort int `json:"containerPort"`
	// HostPort is nil for none, 0 for any.
	HostPort     *int     `json:"hostPort,omitempty"`
	ServicePort  int      `json:"servicePort"`
	Protocol     string   `json:"protocol"`
	Name         string   `json:"name,omitempty"`
	Labels       Labels   `json:"labels"`
	NetworkNames []string `json:"networkNames,omitempty"`
}

// HostMode tells whether the app's tasks share the network of their host.
func (a *App) HostMode() bool {
	return len(a.Networks) == 0 || a.Networks[0].Mode == HostNetwork
}

// Port is what the two kinds of ports have in common.
type Port struct {
	// Requested is the number in the definition: the containerPort of a mapping, else the port of a definition.
	Requested int
	// HostPort is nil when no port of the host is wanted, 0 for any, else exactly that one.
	HostPort    *int
	ServicePort int
	Protocol    string
	Name        string
	Labels      Labels
	// NetworkNames narrow a mapping to some of the app's networks.
	NetworkNames []string
}

// Ports returns the app's ports in the order of their indices, whatever the mode.
func (a *App) Ports() []Port {
	if a.Pod != nil {
		return a.Pod.ports()
	}
	if !a.HostMode() {
		if a.Container == nil {
			return nil
		}
		ports := make([]Port, 0, len(a.Container.PortMappings))
		for _, m := range a.Container.PortMappings {
			ports = append(ports, Port{
				Requested: m.ContainerPort, HostPort: m.HostPort, ServicePort: m.ServicePort,
				Protocol: m.Protocol, Name: m.Name, Labels: m.Labels, NetworkNames: m.NetworkNames,
			})
		}
		return ports
	}
	ports := make([]Port, 0, len(a.PortDefinitions))
	for _, d := range a.PortDefinitions {
		hostPort := 0
		if a.RequirePorts {
			hostPort = d.Port
		}
		ports = append(ports, Port{
			Requested: d.Port, HostPort: &hostPort, ServicePort: d.Port,
			Protocol: d.Protocol, Name: d.Name, Labels: d.Labels,
		})
	}
	return ports
}

// ServicePorts returns the service port of each port, 0 where none is assigned yet. Pods have none.
func (a *App) ServicePorts() []int {
	if a.Pod != nil {
		return []int{}
	}
	ports := a.Ports()
	numbers := make([]int, len(ports))
	for i, p := range ports {
		numbers[i] = p.ServicePort
	}
	return numbers
}
