package task

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"starling/marathon/app"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// Build makes the task of a launch. The pick must be of the launch's app. The message is the caller's.
func Build(l Launch, s Settings) *mesos.TaskInfo {
	a := l.App
	info := &mesos.TaskInfo{
		Name:      new(a.ID.HostName()),
		TaskId:    &mesos.TaskID{Value: new(l.Task.String())},
		AgentId:   &mesos.AgentID{Value: new(l.AgentID)},
		Resources: protoOf(l.Pick.Task, s),
		Labels:    labelsOf(a.Labels),
		Discovery: discovery(l),
		Limits:    limits(a.ResourceLimits),
		Container: containerOf(l, s),
		Check:     checkOf(l),
	}
	if grace := a.TaskKillGracePeriodSeconds; grace != nil {
		info.KillPolicy = &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{
			Nanoseconds: new(int64(*grace) * int64(time.Second)),
		}}
	}
	for _, check := range a.HealthChecks {
		if check.Protocol.ByAgent() {
			info.HealthCheck = healthCheckOf(check, l)
			break
		}
	}
	command := commandOf(l, s)
	if a.ExecutorResources != nil {
		info.Executor = executorOf(l, command, s)
	} else {
		info.Command = command
	}
	return info
}

func protoOf(r resources.Resources, s Settings) []*mesos.Resource {
	if s.Refined {
		return r.Proto()
	}
	return r.ProtoPreRefinement()
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func labelsOf(labels app.Labels) *mesos.Labels {
	if len(labels) == 0 {
		return nil
	}
	out := new(mesos.Labels)
	for _, key := range sortedKeys(labels) {
		out.Labels = append(out.Labels, &mesos.Label{Key: new(key), Value: new(labels[key])})
	}
	return out
}

func limits(r *app.ResourceLimits) map[string]*mesos.Value_Scalar {
	if r == nil {
		return nil
	}
	out := make(map[string]*mesos.Value_Scalar)
	for name, limit := range map[string]*app.Limit{resources.CPUs: r.CPUs, resources.Mem: r.Mem} {
		if limit != nil {
			value := float64(*limit)
			if *limit == app.Unlimited {
				value = math.Inf(1)
			}
			out[name] = &mesos.Value_Scalar{Value: new(value)}
		}
	}
	return out
}

// commandOf makes the command: a line for the shell, or an argument vector that is appended to the entry point of an image.
func commandOf(l Launch, s Settings) *mesos.CommandInfo {
	a := l.App
	command := &mesos.CommandInfo{Environment: environmentOf(l, s), Shell: new(a.Cmd != "")}
	switch {
	case a.Cmd != "":
		command.Value = new(a.Cmd)
	case len(a.Args) > 0:
		command.Arguments = slices.Clone(a.Args)
		if a.Container == nil || a.Container.Docker == nil {
			command.Value = new(a.Args[0]) // there is no entry point
		}
	}
	if a.User != "" {
		command.User = new(a.User)
	}
	command.Uris = urisOf(a.Fetch)
	return command
}

func urisOf(all []app.Fetch) []*mesos.CommandInfo_URI {
	var uris []*mesos.CommandInfo_URI
	for _, fetch := range all {
		uri := &mesos.CommandInfo_URI{
			Value: new(fetch.URI), Extract: new(fetch.Extract), Executable: new(fetch.Executable), Cache: new(fetch.Cache),
		}
		if fetch.DestPath != "" {
			uri.OutputFile = new(fetch.DestPath)
		}
		uris = append(uris, uri)
	}
	return uris
}

func environmentOf(l Launch, s Settings) *mesos.Environment {
	env := Environment(l, s)
	out := new(mesos.Environment)
	for _, name := range sortedKeys(env) {
		out.Variables = append(out.Variables, &mesos.Environment_Variable{Name: new(name), Value: new(env[name])})
	}
	for _, name := range sortedKeys(l.App.Env) {
		if secret := l.App.Env[name].Secret; secret != "" {
			out.Variables = append(out.Variables, &mesos.Environment_Variable{
				Name: new(name), Type: mesos.Environment_Variable_SECRET.Enum(), Secret: secretOf(l.App, secret),
			})
		}
	}
	return out
}

// secretOf refers to a secret of the app by its source.
func secretOf(a *app.App, name string) *mesos.Secret {
	return &mesos.Secret{
		Type: mesos.Secret_REFERENCE.Enum(), Reference: &mesos.Secret_Reference{Name: new(a.Secrets[name].Source)},
	}
}

// executorOf makes the executor that an app brings along; the command's environment and URIs are then the executor's.
func executorOf(l Launch, command *mesos.CommandInfo, s Settings) *mesos.ExecutorInfo {
	path := "'" + strings.ReplaceAll(l.App.Executor, "'", `'\''`) + "'"
	line := l.App.Cmd
	if line == "" {
		line = strings.Join(l.App.Args, " ")
	}
	command.Shell, command.Arguments = new(true), nil
	command.Value = new(strings.TrimRight("chmod ug+rx "+path+" && exec "+path+" "+line, " "))
	id := l.Task.CustomExecutorID()
	return &mesos.ExecutorInfo{
		Type:       mesos.ExecutorInfo_CUSTOM.Enum(),
		ExecutorId: &mesos.ExecutorID{Value: new(id)},
		Name:       new(l.App.ID.HostName()),
		Source:     new(l.App.ID.String()),
		Command:    command,
		Resources:  protoOf(l.Pick.Executor, s),
	}
}

// discovery lists the ports under which others find the task, one for each protocol.
func discovery(l Launch) *mesos.DiscoveryInfo { return discoveryOf(l, 0, len(l.App.Ports())) }

// discoveryOf lists the ports from one index to another.
func discoveryOf(l Launch, from, to int) *mesos.DiscoveryInfo {
	info := &mesos.DiscoveryInfo{
		Visibility: mesos.DiscoveryInfo_FRAMEWORK.Enum(), Name: new(l.App.ID.HostName()), Ports: new(mesos.Ports),
	}
	for i, port := range l.App.Ports() {
		if i < from || i >= to {
			continue
		}
		picked := l.Pick.Ports[i]
		for protocol := range strings.SplitSeq(port.Protocol, ",") {
			if l.App.HostMode() {
				info.Ports.Ports = append(info.Ports.Ports, discoveryPort(port, picked.Host, protocol, nil))
				continue
			}
			if picked.Host != 0 {
				scope := app.Labels{"network-scope": "host"}
				info.Ports.Ports = append(info.Ports.Ports, discoveryPort(port, picked.Host, protocol, scope))
				continue
			}
			for _, network := range networksOf(l.App, port) {
				scope := app.Labels{"network-scope": "container", "network-name": network}
				info.Ports.Ports = append(info.Ports.Ports, discoveryPort(port, containerPort(port, picked), protocol, scope))
			}
		}
	}
	return info
}

// networksOf names the networks of a mapping: those that it names, else all of the app.
func networksOf(a *app.App, port app.Port) []string {
	if len(port.NetworkNames) > 0 {
		return port.NetworkNames
	}
	names := make([]string, len(a.Networks))
	for i, n := range a.Networks {
		names[i] = n.Name
	}
	return names
}

func discoveryPort(port app.Port, number int, protocol string, scope app.Labels) *mesos.Port {
	labels := maps.Clone(port.Labels)
	if len(scope) > 0 {
		if labels == nil {
			labels = make(app.Labels, len(scope))
		}
		maps.Copy(labels, scope)
	}
	out := &mesos.Port{Number: new(uint32(number)), Protocol: new(protocol), Labels: labelsOf(labels)}
	if port.Name != "" {
		out.Name = new(port.Name)
	}
	return out
}
