package app

// Protocol says what a health check speaks and, by its prefix, who speaks it.
type Protocol string

// The protocols. The first three are spoken by Marathon itself, the others by the agent.
const (
	HTTP       Protocol = "HTTP"
	HTTPS      Protocol = "HTTPS"
	TCP        Protocol = "TCP"
	Command    Protocol = "COMMAND"
	MesosHTTP  Protocol = "MESOS_HTTP"
	MesosHTTPS Protocol = "MESOS_HTTPS"
	MesosTCP   Protocol = "MESOS_TCP"
)

// ByAgent tells whether the agent runs checks of this protocol.
func (p Protocol) ByAgent() bool {
	return p == Command || p == MesosHTTP || p == MesosHTTPS || p == MesosTCP
}

// HealthCheck tells a healthy instance from others.
type HealthCheck struct {
	Protocol Protocol `json:"protocol"`
	Path     string   `json:"path,omitempty"`
	// PortIndex points into App.Ports; Port is a fixed number and wins.
	PortIndex              *int          `json:"portIndex,omitempty"`
	Port                   *int          `json:"port,omitempty"`
	GracePeriodSeconds     int           `json:"gracePeriodSeconds"`
	IntervalSeconds        int           `json:"intervalSeconds"`
	TimeoutSeconds         int           `json:"timeoutSeconds"`
	MaxConsecutiveFailures int           `json:"maxConsecutiveFailures"` // 0 never kills
	DelaySeconds           int           `json:"delaySeconds"`
	IgnoreHTTP1xx          bool          `json:"ignoreHttp1xx"`
	IPProtocol             string        `json:"ipProtocol"`
	Command                *CommandCheck `json:"command,omitempty"`
}

// CommandCheck is a line for the shell.
type CommandCheck struct {
	Value string `json:"value"`
}

// Check is looked at and reported, and has no consequence.
type Check struct {
	HTTP            *HTTPCheck `json:"http,omitempty"`
	TCP             *TCPCheck  `json:"tcp,omitempty"`
	Exec            *ExecCheck `json:"exec,omitempty"`
	IntervalSeconds int        `json:"intervalSeconds"`
	TimeoutSeconds  int        `json:"timeoutSeconds"`
	DelaySeconds    int        `json:"delaySeconds"`
}

// HTTPCheck asks for a path.
type HTTPCheck struct {
	PortIndex *int   `json:"portIndex,omitempty"`
	Port      *int   `json:"port,omitempty"`
	Path      string `json:"path,omitempty"`
	Scheme    string `json:"scheme"`
}

// TCPCheck connects.
type TCPCheck struct {
	PortIndex *int `json:"portIndex,omitempty"`
	Port      *int `json:"port,omitempty"`
}

// ExecCheck runs a command.
type ExecCheck struct {
	Command ExecCommand `json:"command"`
}

// ExecCommand is a line for the shell, or an argument vector.
type ExecCommand struct {
	Shell string   `json:"shell,omitempty"`
	Argv  []string `json:"argv,omitempty"`
}

// ReadinessCheck holds a deployment up until an instance says that it is ready.
type ReadinessCheck struct {
	Name                    string `json:"name"`
	Protocol                string `json:"protocol"` // HTTP or HTTPS
	Path                    string `json:"path"`
	PortName                string `json:"portName"`
	IntervalSeconds         int    `json:"intervalSeconds"`
	TimeoutSeconds          int    `json:"timeoutSeconds"`
	HTTPStatusCodesForReady []int  `json:"httpStatusCodesForReady"`
	PreserveLastResponse    bool   `json:"preserveLastResponse"`
}
