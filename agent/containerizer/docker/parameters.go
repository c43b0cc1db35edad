package docker

import (
	"errors"
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"

	"github.com/docker/go-connections/nat"
	"github.com/docker/go-units"
)

// parameter does what `docker run --key=value` would: names, forms and defaults are that command's.
func (p *plan) parameter(key, value string) error {
	key = strings.TrimLeft(key, "-")
	if long, ok := short[key]; ok {
		key = long
	}
	if why, ok := refused[key]; ok {
		return errors.New("it is not allowed: " + why)
	}
	set, ok := parameters[key]
	if !ok {
		return errors.New("there is no such parameter, or it is not supported")
	}
	return set(p, value)
}

var parameters = map[string]func(*plan, string) error{
	"add-host":           func(p *plan, v string) error { return add(&p.Hosts, strings.Replace(v, "=", ":", 1)) },
	"annotation":         func(p *plan, v string) error { return pair(&p.Annotations, v) },
	"blkio-weight":       func(p *plan, v string) error { return weight(&p.BlkioWeight, v) },
	"cap-add":            func(p *plan, v string) error { return add(&p.CapAdd, v) },
	"cap-drop":           func(p *plan, v string) error { return add(&p.CapDrop, v) },
	"cgroup-parent":      func(p *plan, v string) error { return text(&p.CgroupParent, v) },
	"cgroupns":           func(p *plan, v string) error { return text(&p.CgroupNS, v) },
	"cpu-period":         func(p *plan, v string) error { return number(&p.Period, v) },
	"cpu-quota":          func(p *plan, v string) error { p.NanoCPUs = 0; return number(&p.Quota, v) },
	"cpu-shares":         func(p *plan, v string) error { return number(&p.Shares, v) },
	"cpus":               cpus,
	"cpuset-cpus":        func(p *plan, v string) error { return text(&p.CPUs, v) },
	"cpuset-mems":        func(p *plan, v string) error { return text(&p.Mems, v) },
	"device":             addDevice,
	"device-cgroup-rule": func(p *plan, v string) error { return add(&p.DeviceRules, v) },
	"dns":                func(p *plan, v string) error { return add(&p.DNS, v) },
	"dns-opt":            func(p *plan, v string) error { return add(&p.DNSOptions, v) },
	"dns-option":         func(p *plan, v string) error { return add(&p.DNSOptions, v) },
	"dns-search":         func(p *plan, v string) error { return add(&p.DNSSearch, v) },
	"domainname":         func(p *plan, v string) error { return text(&p.Domainname, v) },
	"entrypoint":         entrypoint,
	"env":                addVariable,
	"expose":             expose,
	"group-add":          func(p *plan, v string) error { return add(&p.Groups, v) },
	"hostname":           func(p *plan, v string) error { return text(&p.Hostname, v) },
	"init":               func(p *plan, v string) error { return optional(&p.Init, v) },
	"ip":                 func(p *plan, v string) error { return text(&p.IPv4, v) },
	"ip6":                func(p *plan, v string) error { return text(&p.IPv6, v) },
	"ipc":                func(p *plan, v string) error { return text(&p.IPC, v) },
	"label":              label,
	"link":               func(p *plan, v string) error { return add(&p.Links, v) },
	"log-driver":         func(p *plan, v string) error { return text(&p.LogDriver, v) },
	"log-opt":            func(p *plan, v string) error { return pair(&p.LogOptions, v) },
	"mac-address":        func(p *plan, v string) error { return text(&p.MAC, v) },
	"memory":             func(p *plan, v string) error { return size(&p.Memory, v) },
	"memory-reservation": func(p *plan, v string) error { return size(&p.Reservation, v) },
	"memory-swap":        func(p *plan, v string) error { return size(&p.MemoryPlus, v) },
	"memory-swappiness":  swappiness,
	"net":                func(p *plan, v string) error { return p.join(v) },
	"network":            func(p *plan, v string) error { return p.join(v) },
	"net-alias":          func(p *plan, v string) error { return add(&p.Aliases, v) },
	"network-alias":      func(p *plan, v string) error { return add(&p.Aliases, v) },
	"no-healthcheck":     func(p *plan, v string) error { return flag(&p.NoHealthcheck, v) },
	"oom-kill-disable":   func(p *plan, v string) error { return optional(&p.OOMKillDisable, v) },
	"oom-score-adj":      oomScore,
	"pid":                func(p *plan, v string) error { return text(&p.PID, v) },
	"pids-limit":         pidsLimit,
	"privileged":         func(p *plan, v string) error { return flag(&p.Privileged, v) },
	"publish":            publish,
	"publish-all":        func(p *plan, v string) error { return flag(&p.PublishAll, v) },
	"read-only":          func(p *plan, v string) error { return flag(&p.ReadOnly, v) },
	"restart":            restart,
	"runtime":            func(p *plan, v string) error { return text(&p.Runtime, v) },
	"security-opt":       securityOption,
	"shm-size":           func(p *plan, v string) error { return size(&p.ShmSize, v) },
	"stop-signal":        func(p *plan, v string) error { return text(&p.StopSignal, v) },
	"stop-timeout":       stopTimeout,
	"storage-opt":        func(p *plan, v string) error { return pair(&p.StorageOpt, v) },
	"sysctl":             func(p *plan, v string) error { return pair(&p.Sysctls, v) },
	"tmpfs":              tmpfs,
	"tty":                func(p *plan, v string) error { return flag(&p.TTY, v) },
	"ulimit":             addUlimit,
	"user":               func(p *plan, v string) error { return text(&p.User, v) },
	"userns":             func(p *plan, v string) error { return text(&p.Userns, v) },
	"uts":                func(p *plan, v string) error { return text(&p.UTS, v) },
	"volume":             volume,
	"volume-driver":      func(p *plan, v string) error { return text(&p.VolumeDriver, v) },
	"volumes-from":       func(p *plan, v string) error { return add(&p.VolumesFrom, v) },
	"workdir":            func(p *plan, v string) error { return text(&p.Workdir, v) },
}

// short are the one-letter forms of `docker run`.
var short = map[string]string{
	"c": "cpu-shares", "e": "env", "h": "hostname", "l": "label", "m": "memory", "p": "publish", "P": "publish-all",
	"t": "tty", "u": "user", "v": "volume", "w": "workdir",
}

// refused tells why a parameter is out of users' hands.
var refused = map[string]string{
	"cidfile":    "the engine would write it, on the node",
	"detach":     "the agent starts containers",
	"env-file":   "it would be read on the node; set variables of the command",
	"label-file": "it would be read on the node; use label",
	"name":       "the agent names containers",
	"rm":         "the agent removes containers, after --docker_remove_delay",
}

func add(list *[]string, v string) error {
	if v == "" {
		return errors.New("it is empty")
	}
	*list = append(*list, v)
	return nil
}

func text(s *string, v string) error {
	*s = v
	return nil
}

func pair(m *map[string]string, v string) error {
	key, value, _ := strings.Cut(v, "=")
	if key == "" {
		return errors.New("it is not of the form name=value")
	}
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[key] = value
	return nil
}

// label adds a label. Those of the agent are not for tasks: after its records were lost it believes them, as root.
func label(p *plan, v string) error {
	if strings.HasPrefix(v, labelPrefix) {
		return errors.New("labels that begin with " + labelPrefix + " are the agent's own")
	}
	return pair(&p.Labels, v)
}

func flag(b *bool, v string) error {
	if v == "" {
		*b = true
		return nil
	}
	on, err := strconv.ParseBool(v)
	if err != nil {
		return errors.New("it is neither true nor false")
	}
	*b = on
	return nil
}

func optional(b **bool, v string) error {
	*b = new(bool)
	return flag(*b, v)
}

func number(n *int64, v string) error {
	i, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return errors.New("it is not a whole number")
	}
	*n = i
	return nil
}

// size reads bytes with a unit, like 512m; -1 is no limit.
func size(n *int64, v string) error {
	if v == "-1" {
		*n = -1
		return nil
	}
	i, err := units.RAMInBytes(v)
	if err != nil {
		return errors.New("it is not a size like 512m")
	}
	*n = i
	return nil
}

func weight(w *uint16, v string) error {
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil {
		return errors.New("it is not a number from 0 to 65535")
	}
	*w = uint16(n)
	return nil
}

// cpus is a quota in another form; the engine does not take both.
func cpus(p *plan, v string) error {
	n, err := strconv.ParseFloat(v, 64)
	if err != nil || n < 0 || n > 1e6 || math.IsNaN(n) {
		return errors.New("it is not a number of CPUs")
	}
	p.NanoCPUs, p.Quota, p.Period = int64(math.Round(n*1e9)), 0, 0
	return nil
}

func addDevice(p *plan, v string) error {
	parts := strings.Split(v, ":")
	d := device{Host: parts[0], Container: parts[0], Permissions: "rwm"}
	switch {
	case !path.IsAbs(parts[0]) || len(parts) > 3:
		return errors.New("it is not of the form /dev/x[:/dev/y[:rwm]]")
	case len(parts) == 2 && !path.IsAbs(parts[1]):
		d.Permissions = parts[1]
	case len(parts) > 1:
		d.Container = parts[1]
	}
	if len(parts) == 3 {
		d.Permissions = parts[2]
	}
	if d.Permissions == "" || strings.Trim(d.Permissions, "rwm") != "" {
		return errors.New("permissions are letters of rwm")
	}
	p.Devices = append(p.Devices, d)
	return nil
}

func entrypoint(p *plan, v string) error {
	// An empty one takes away that of the image, which the engine is told by an empty word.
	p.Entrypoint = []string{v}
	return nil
}

func addVariable(p *plan, v string) error {
	if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
		return errors.New("it is not of the form NAME=value")
	}
	p.Env = environment(p.Env, v)
	return nil
}

func expose(p *plan, v string) error {
	proto, ports := nat.SplitProtoPort(v)
	first, last, err := nat.ParsePortRangeToInt(ports)
	if err != nil {
		return errors.New("it is not a port or a range of ports")
	}
	for n := first; n <= last; n++ {
		p.Exposed = append(p.Exposed, fmt.Sprintf("%d/%s", n, proto))
	}
	return nil
}

// join overrides the network.
func (p *plan) join(v string) error {
	if v == "" || strings.ContainsAny(v, "=,") {
		return errors.New("it is not the name of one network")
	}
	p.Network = v
	return nil
}

func publish(p *plan, v string) error {
	mappings, err := nat.ParsePortSpec(v)
	if err != nil {
		return errors.New("it is not of the form [[address:]host port:]container port[/protocol]")
	}
	for _, m := range mappings {
		p.Ports = append(p.Ports, port{IP: m.Binding.HostIP, Host: m.Binding.HostPort, Container: string(m.Port)})
	}
	return nil
}

func restart(_ *plan, v string) error {
	if v == "no" || v == "" {
		return nil
	}
	return errors.New("a task that ended is over; its framework starts another one")
}

func securityOption(p *plan, v string) error {
	name, value, ok := strings.Cut(v, "=")
	if !ok {
		name, value, _ = strings.Cut(v, ":")
	}
	if name == "seccomp" && value != "unconfined" && value != "builtin" {
		return errors.New("profiles of seccomp in files are not read; unconfined is what can be had beside the default")
	}
	return add(&p.SecurityOpt, v)
}

func swappiness(p *plan, v string) error {
	p.Swappiness = new(int64)
	return number(p.Swappiness, v)
}

func oomScore(p *plan, v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < -1000 || n > 1000 {
		return errors.New("it is not a number from -1000 to 1000")
	}
	p.OOMScore = n
	return nil
}

func pidsLimit(p *plan, v string) error {
	p.Pids = new(int64)
	return number(p.Pids, v)
}

func stopTimeout(p *plan, v string) error {
	n, err := strconv.Atoi(v)
	if err != nil {
		return errors.New("it is not a number of seconds")
	}
	p.StopTimeout = &n
	return nil
}

func tmpfs(p *plan, v string) error {
	target, options, _ := strings.Cut(v, ":")
	if !path.IsAbs(target) {
		return errors.New("it is not of the form /path[:options]")
	}
	if p.Tmpfs == nil {
		p.Tmpfs = map[string]string{}
	}
	p.Tmpfs[target] = options
	return nil
}

func addUlimit(p *plan, v string) error {
	u, err := units.ParseUlimit(v)
	if err != nil {
		return errors.New("it is not of the form name=soft[:hard]")
	}
	p.Ulimits = append(p.Ulimits, ulimit{u.Name, u.Soft, u.Hard})
	return nil
}

func volume(p *plan, v string) error {
	if !strings.Contains(v, ":") {
		if !path.IsAbs(v) {
			return errors.New("the path in the container is not absolute")
		}
		p.Volumes = append(p.Volumes, v)
		return nil
	}
	return add(&p.Binds, v)
}
