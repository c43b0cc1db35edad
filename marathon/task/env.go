package task

import (
	"regexp"
	"strconv"
	"strings"

	"starling/marathon/app"
)

// Environment returns the variables of a launch. Later kinds win: facts about the app, its labels, the ports and the host,
// what the app itself defines. Variables whose value is a secret are left out.
func Environment(l Launch, s Settings) map[string]string {
	env := make(map[string]string)
	addContext(env, l)
	addLabels(env, l.App.Labels)
	env[s.EnvVarsPrefix+"HOST"] = l.Hostname
	addPorts(env, l, s.EnvVarsPrefix)
	for name, value := range l.App.Env {
		if value.Secret != "" {
			delete(env, name)
			continue
		}
		env[name] = value.Value
	}
	return env
}

func addContext(env map[string]string, l Launch) {
	a := l.App
	env["MESOS_TASK_ID"] = l.Task.String()
	env["MARATHON_APP_ID"] = a.ID.String()
	env["MARATHON_APP_VERSION"] = a.Version.String()
	env["MARATHON_APP_RESOURCE_CPUS"] = app.Decimal(a.CPUs)
	env["MARATHON_APP_RESOURCE_MEM"] = app.Decimal(a.Mem)
	env["MARATHON_APP_RESOURCE_DISK"] = app.Decimal(a.Disk)
	env["MARATHON_APP_RESOURCE_GPUS"] = strconv.Itoa(a.GPUs)
	env["MARATHON_APP_ENFORCE_GROUP_ROLE"] = strings.ToUpper(strconv.FormatBool(l.EnforceGroupRole))
	if l.Index != nil {
		env["STARLING_INSTANCE_INDEX"] = strconv.Itoa(*l.Index)
	}
	if c := a.Container; c != nil && c.Type == app.Docker && c.Docker != nil {
		env["MARATHON_APP_DOCKER_IMAGE"] = c.Docker.Image
	}
}

// Labels whose key or value is this long are not passed on, since an environment has its limits too.
const (
	labelKeyLimit   = 493
	labelValueLimit = 512
)

var outsideVariable = regexp.MustCompile(`[^A-Za-z0-9_]+`)

func addLabels(env map[string]string, labels app.Labels) {
	var keys []string
	for _, key := range sortedKeys(labels) {
		if len(key) >= labelKeyLimit || len(labels[key]) >= labelValueLimit {
			continue
		}
		escaped := strings.ToUpper(outsideVariable.ReplaceAllString(key, "_"))
		env["MARATHON_APP_LABEL_"+escaped] = labels[key]
		keys = append(keys, escaped)
	}
	env["MARATHON_APP_LABELS"] = strings.Join(keys, " ")
}

func addPorts(env map[string]string, l Launch, prefix string) {
	var hostPorts, madeUp []string
	for i, port := range l.App.Ports() {
		picked := l.Pick.Ports[i]
		value := strconv.Itoa(effectivePort(port, picked))
		env[prefix+"PORT"+strconv.Itoa(i)] = value
		if port.Requested != 0 {
			env[prefix+"PORT_"+strconv.Itoa(port.Requested)] = value
		} else {
			env[prefix+"PORT_"+value] = value
		}
		if port.Name != "" {
			env[prefix+"PORT_"+strings.ToUpper(port.Name)] = value
		}
		switch {
		case picked.Host != 0:
			hostPorts = append(hostPorts, value)
		case picked.MadeUp != 0:
			madeUp = append(madeUp, value)
		}
	}
	if listed := append(hostPorts, madeUp...); len(listed) > 0 {
		env[prefix+"PORT"] = listed[0]
		env[prefix+"PORTS"] = strings.Join(listed, ",")
	}
}

// effectivePort is the number under which the task itself is to be reached: the host port, else the port of the container.
func effectivePort(port app.Port, picked PickedPort) int {
	switch {
	case picked.Host != 0:
		return picked.Host
	case picked.MadeUp != 0:
		return picked.MadeUp
	}
	return port.Requested
}

// containerPort is the number of a mapping inside the container: its own, or the host port in place of 0.
func containerPort(port app.Port, picked PickedPort) int {
	if port.Requested != 0 {
		return port.Requested
	}
	return effectivePort(port, picked)
}
