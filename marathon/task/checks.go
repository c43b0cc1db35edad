package task

import (
	"math"
	"slices"
	"strings"

	"starling/marathon/app"
	"starling/master/mesos"
)

// healthCheckOf makes the health check that the agent runs.
func healthCheckOf(check app.HealthCheck, l Launch) *mesos.HealthCheck {
	out := &mesos.HealthCheck{
		DelaySeconds:        new(float64(check.DelaySeconds)),
		IntervalSeconds:     new(float64(check.IntervalSeconds)),
		TimeoutSeconds:      new(float64(check.TimeoutSeconds)),
		GracePeriodSeconds:  new(float64(check.GracePeriodSeconds)),
		ConsecutiveFailures: new(consecutive(check.MaxConsecutiveFailures)),
	}
	family := mesos.NetworkInfo_IPv4.Enum()
	if check.IPProtocol == "IPv6" {
		family = mesos.NetworkInfo_IPv6.Enum()
	}
	port := uint32(CheckPort(l.App, l.Pick, check.PortIndex, check.Port))
	switch check.Protocol {
	case app.Command:
		out.Type = mesos.HealthCheck_COMMAND.Enum()
		out.Command = &mesos.CommandInfo{Shell: new(true), Value: new(check.Command.Value)}
	case app.MesosTCP:
		out.Type = mesos.HealthCheck_TCP.Enum()
		out.Tcp = &mesos.HealthCheck_TCPCheckInfo{Port: new(port), Protocol: family}
	default:
		scheme := strings.ToLower(strings.TrimPrefix(string(check.Protocol), "MESOS_"))
		out.Type = mesos.HealthCheck_HTTP.Enum()
		out.Http = &mesos.HealthCheck_HTTPCheckInfo{Port: new(port), Protocol: family, Scheme: new(scheme)}
		if check.Path != "" {
			out.Http.Path = new(check.Path)
		}
	}
	return out
}

// consecutive is a number of failures as Mesos takes it: 0 means never to us, and at once to Mesos.
func consecutive(failures int) uint32 {
	if failures == 0 {
		return math.MaxUint32
	}
	return uint32(failures)
}

// CheckPort is the number that a check of the agent connects to: the fixed one, else the container's port of that index,
// else the host port. index nil is the first port.
func CheckPort(a *app.App, pick Pick, index, fixed *int) int {
	if fixed != nil {
		return *fixed
	}
	i := 0
	if index != nil {
		i = *index
	}
	ports := a.Ports()
	if i >= len(ports) || i >= len(pick.Ports) {
		return 0
	}
	if a.HostMode() {
		return pick.Ports[i].Host
	}
	return containerPort(ports[i], pick.Ports[i])
}

// checkOf makes the check whose result is only reported.
func checkOf(l Launch) *mesos.CheckInfo {
	check := l.App.Check
	if check == nil {
		return nil
	}
	out := &mesos.CheckInfo{
		DelaySeconds:    new(float64(check.DelaySeconds)),
		IntervalSeconds: new(float64(check.IntervalSeconds)),
		TimeoutSeconds:  new(float64(check.TimeoutSeconds)),
	}
	switch {
	case check.HTTP != nil:
		out.Type = mesos.CheckInfo_HTTP.Enum()
		out.Http = &mesos.CheckInfo_Http{Port: new(uint32(CheckPort(l.App, l.Pick, check.HTTP.PortIndex, check.HTTP.Port)))}
		if check.HTTP.Path != "" {
			out.Http.Path = new(check.HTTP.Path)
		}
	case check.TCP != nil:
		out.Type = mesos.CheckInfo_TCP.Enum()
		out.Tcp = &mesos.CheckInfo_Tcp{Port: new(uint32(CheckPort(l.App, l.Pick, check.TCP.PortIndex, check.TCP.Port)))}
	case check.Exec != nil:
		out.Type = mesos.CheckInfo_COMMAND.Enum()
		out.Command = &mesos.CheckInfo_Command{Command: commandCheck(check.Exec.Command)}
	}
	return out
}

// commandCheck makes the command of a check.
func commandCheck(c app.ExecCommand) *mesos.CommandInfo {
	if len(c.Argv) > 0 {
		return &mesos.CommandInfo{Shell: new(false), Value: new(c.Argv[0]), Arguments: slices.Clone(c.Argv)}
	}
	return &mesos.CommandInfo{Shell: new(true), Value: new(c.Shell)}
}
