package app

// badPortIndex is the text for every kind of check that points nowhere.
const badPortIndex = "Health check port indices must address an element of the ports array or container port mappings."

func (a *App) checkHealthChecks(p *place, f *faults) {
	ports := len(a.Ports())
	byAgent, commands := 0, 0
	for i, check := range a.HealthChecks {
		at := p.index(i)
		if check.Protocol.ByAgent() && check.Protocol != Command {
			byAgent++
		}
		if check.Protocol == Command {
			commands++
			if check.Command == nil {
				f.add(at.field("command"), "must be defined for protocol COMMAND")
			}
		} else {
			if check.Command != nil {
				f.add(at.field("command"), "only allowed with protocol COMMAND, got %s", check.Protocol)
			}
			if !pointsAtPort(check.PortIndex, check.Port, ports) {
				f.add(at, badPortIndex)
			}
		}
		if check.IPProtocol == "IPv6" {
			mesos := check.Protocol.ByAgent() && check.Protocol != Command
			if !mesos || a.Container == nil || a.Container.Type != Docker {
				f.add(at.field("ipProtocol"), "IPv6 is only supported by MESOS_* protocols with container type DOCKER")
			}
		}
	}
	if byAgent > 1 || byAgent == 1 && commands > 0 {
		f.add(p, "can contain at most one Mesos health check")
	}
}

// pointsAtPort tells whether a check finds its port: by a fixed number, or by an index into the app's ports.
func pointsAtPort(index, fixed *int, ports int) bool {
	if index != nil {
		return *index < ports
	}
	return fixed != nil || ports == 1
}

func (a *App) checkCheck(p *place, f *faults) {
	c := a.Check
	if c == nil {
		return
	}
	kinds := 0
	ports := len(a.Ports())
	if c.HTTP != nil {
		kinds++
		if !pointsAtPort(c.HTTP.PortIndex, c.HTTP.Port, ports) {
			f.add(p.field("http"), badPortIndex)
		}
	}
	if c.TCP != nil {
		kinds++
		if !pointsAtPort(c.TCP.PortIndex, c.TCP.Port, ports) {
			f.add(p.field("tcp"), badPortIndex)
		}
	}
	if c.Exec != nil {
		kinds++
		if (c.Exec.Command.Shell != "") == (len(c.Exec.Command.Argv) > 0) {
			f.add(p.field("exec").field("command"), "must have exactly one of shell and argv")
		}
	}
	if kinds != 1 {
		f.add(p, "must have exactly one of http, tcp and exec")
	}
	if a.Container != nil && a.Container.Type == Docker {
		f.add(p, "not supported for container type DOCKER")
	}
}

func (a *App) checkReadiness(p *place, f *faults) {
	if len(a.ReadinessChecks) > 1 {
		f.add(p, "may not have more than 1 readiness check")
	}
	for i, check := range a.ReadinessChecks {
		at := p.index(i)
		found := false
		for _, port := range a.Ports() {
			found = found || port.Name == check.PortName
		}
		if !found {
			f.add(at.field("portName"), "No port definition reference for portName %s", check.PortName)
		}
		if check.TimeoutSeconds >= check.IntervalSeconds {
			f.add(at.field("timeoutSeconds"), "must be less than intervalSeconds, got %d and %d", check.TimeoutSeconds, check.IntervalSeconds)
		}
	}
}
