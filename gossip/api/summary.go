package api

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/master/mesos"
)

// maxSummary bounds a summary in bytes.
const maxSummary = 300

// summary says in a few words what a message of the catalog holds.
func summary(msg proto.Message) string {
	text := ""
	switch m := msg.(type) {
	case *catalog.Node:
		text = words(strings.Join(m.GetRoles(), ","), m.GetHostname(), hostPort(m.GetAddress(), m.GetPort()), m.GetVersion(),
			named("region", m.GetRegion()), named("zone", m.GetZone()))
	case *catalog.Resources:
		text = resources(sum(m.GetFree()), sum(m.GetTotal()))
	case *catalog.Health:
		parts := m.GetProblems()
		if m.GetDraining() {
			parts = append([]string{"draining"}, parts...)
		}
		if text = strings.Join(parts, "; "); text == "" {
			text = "well"
		}
	case *catalog.Leader:
		text = words("leads with epoch "+strconv.FormatUint(m.GetEpoch(), 10), named("at", hostPort(m.GetAddress(), m.GetPort())))
	case *catalog.Coordinate:
		text = fmt.Sprintf("place in the network, unsure by %.0f %%", float64(m.GetError())/10)
	case *catalog.Keys:
		text = "step " + strconv.FormatUint(m.GetSerial(), 10) + ", sends with"
		for i, f := range m.GetFingerprints() {
			if i == 1 {
				text += ", accepts"
			}
			text += " " + hex.EncodeToString(f)
		}
	case *catalog.Task:
		text = task(m)
	}
	if len(text) > maxSummary {
		text = strings.ToValidUTF8(text[:maxSummary], "") + "..."
	}
	return text
}

func task(m *catalog.Task) string {
	health := ""
	if m.Healthy != nil {
		health = "unhealthy"
		if m.GetHealthy() {
			health = "healthy"
		}
	}
	ports := ""
	for _, p := range m.GetDiscovery().GetPorts() {
		ports += " " + strconv.FormatUint(uint64(p.GetNumber()), 10)
	}
	return words(mesos.TaskState(m.GetState()).String(), health, m.GetName(), named("of", m.GetFrameworkName()),
		strings.Join(m.GetAddresses(), " "), named("ports", strings.TrimSpace(ports)))
}

// resources says what is free of what there is.
func resources(free, total *Resources) string {
	text := "free: "
	for _, r := range []struct {
		name        string
		free, total float64
		unit        string
	}{
		{"cpus", free.CPUs, total.CPUs, ", "},
		{"gpus", free.GPUs, total.GPUs, ", "},
		{"mem", free.Mem, total.Mem, " MiB, "},
		{"disk", free.Disk, total.Disk, " MiB, "},
		{"ports", float64(free.Ports), float64(total.Ports), ""},
	} {
		if r.name != "gpus" || r.total != 0 {
			text += r.name + " " + number(r.free) + " of " + number(r.total) + r.unit
		}
	}
	return text
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func named(name, value string) string {
	if value == "" {
		return ""
	}
	return name + " " + value
}

// words joins what is not empty.
func words(parts ...string) string {
	var said []string
	for _, p := range parts {
		if p != "" {
			said = append(said, p)
		}
	}
	return strings.Join(said, " ")
}
