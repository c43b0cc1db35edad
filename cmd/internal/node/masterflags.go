package node

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"starling/cmd/internal/flags"
	"starling/master"
	"starling/master/allocator"
	"starling/master/mesos"
	"starling/master/mesos/codec"
	"starling/master/mesos/resources"
)

const masterPort = 5050

// masterFlags are the settings of a master.
type masterFlags struct {
	mesh            meshFlags
	port            flags.Port
	advertisePort   flags.Port // 0: the one that is listened on
	zk              zkFlag
	zkSession       flags.Duration
	roles           flags.List
	weights         flags.List
	offerTimeout    flags.Duration
	minAllocatable  string
	unfair          flags.List
	rootSubmissions bool
	filterGPUs      bool
	frameworkCounts bool
	pingTimeout     flags.Duration
	pings           int
	reregister      flags.Duration
	region, zone    string
	keepFrameworks  int
	keepTasks       int
	keepUnreachable int
	eventStreams    int
	logFile         flags.Path
}

// The bounds that Mesos sets.
const (
	minPingTimeout = time.Second
	maxPingTimeout = 15 * time.Minute
	minReregister  = 10 * time.Minute
	minZKSession   = time.Second
)

// register adds the settings that a master has in dev too.
func (m *masterFlags) register(s *flags.Set) {
	d := master.DefaultConfig()
	m.port = masterPort
	m.pingTimeout, m.pings, m.reregister = flags.Duration(15*time.Second), 5, flags.Duration(d.ReregisterTimeout)
	s.Var(&m.zk, "zk", "where masters are elected and keep their documents, as `zk://[user:password@]host:port,.../path` or file:///path of a file that says it; without it this master leads alone")
	s.Var(&m.roles, "roles", "the only `roles` that frameworks may use, besides *")
	s.Var(&m.weights, "weights", "`role=weight,...`: a role of weight 2 gets twice as much as one of 1; holds until operators set weights, which are kept")
	s.Var(&m.offerTimeout, "offer-timeout", "how long a framework may sit on an offer (0s: for ever)")
	s.StringVar(&m.minAllocatable, "min-allocatable-resources", "cpus:0.01|mem:32", "what an agent must have free to be offered, as `cpus:0.01|mem:32;disk:10`: | is or, ; is and")
	s.Var(&m.unfair, "fair-sharing-excluded-resource-names", "the `names` of resources that do not count when it is reckoned who has how much, as gpus")
	s.BoolVar(&m.rootSubmissions, "root-submissions", d.RootSubmissions, "let frameworks run as the user root")
	s.BoolVar(&m.filterGPUs, "filter-gpu-resources", d.FilterGPUResources, "keep agents with GPUs for frameworks that know about them")
	s.BoolVar(&m.frameworkCounts, "publish-per-framework-metrics", !d.HideFrameworkMetrics, "show numbers of each framework among the metrics")
	s.Var(&m.pingTimeout, "agent-ping-timeout", "times --max-agent-ping-timeouts: how long an agent that left may be away before its tasks are given up; where one of the two is set, also an agent that the mesh holds for dead, which else has 4s")
	s.IntVar(&m.pings, "max-agent-ping-timeouts", m.pings, "how `many` of --agent-ping-timeout")
	s.Var(&m.reregister, "agent-reregister-timeout", "the least time that frameworks of the last leader have to come back to the next one")
	s.IntVar(&m.keepFrameworks, "max-completed-frameworks", d.MaxCompletedFrameworks, "how `many` ended frameworks are remembered")
	s.IntVar(&m.keepTasks, "max-completed-tasks-per-framework", d.MaxCompletedTasks, "how `many` ended tasks of each are remembered")
	s.IntVar(&m.keepUnreachable, "max-unreachable-tasks-per-framework", d.MaxUnreachableTasks, "how `many` unreachable tasks of each are remembered")
	s.IntVar(&m.eventStreams, "max-operator-event-stream-subscribers", d.MaxOperatorStreams, "how `many` event streams operators may have open; one more ends the oldest")
	for name, old := range oldNamesOfMaster {
		s.Alias(strings.ReplaceAll(name, "_", "-"), old)
	}
}

// registerAlone adds those that only a master of its own has.
func (m *masterFlags) registerAlone(s *flags.Set) {
	m.zkSession = flags.Duration(10 * time.Second)
	s.Var(&m.zkSession, "zk-session-timeout", "after what time without a sign of life ZooKeeper gives up a master: so long does an election take at least when a leader dies")
	s.Var(&m.logFile, "external-log-file", "the `file` that standard error is written to, to be shown as /master/log")
	s.Var(&m.port, "port", "the `port` of the HTTP API")
	s.Var(&m.advertisePort, "advertise-port", "the `port` to tell others, where it differs from --port")
	s.StringVar(&m.region, "region", "", "the `name` of the region this node stands in")
	s.StringVar(&m.zone, "zone", "", "the `name` of the zone this node stands in")
	s.Var(domainFlag{&m.region, &m.zone}, "domain", "region and zone as `JSON`, in the way of Mesos: {\"fault_domain\":{\"region\":{\"name\":\"r\"},\"zone\":{\"name\":\"z\"}}}")
	s.Unused(unusedByBoth...)
	s.Unused(unusedByMaster...)
}

// config makes the settings those of a master; all faults are joined. set tells what was given.
func (m *masterFlags) config(set *flags.Set) (master.Config, error) {
	c := master.DefaultConfig()
	var faults []error
	fault := func(flag string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("--%s: %w", flag, err))
		}
	}
	var err error
	c.Weights, err = parseWeights(m.weights)
	fault("weights", err)
	c.MinAllocatable, err = allocator.ParseMinAllocatable(m.minAllocatable)
	fault("min-allocatable-resources", err)
	if c.MinAllocatable == nil {
		c.MinAllocatable = []allocator.Quantities{} // whatever is free
	}
	for _, role := range m.roles {
		fault("roles", resources.CheckRole(role))
	}
	c.ExcludedResources = m.unfair
	fault("agent-ping-timeout", within(m.pingTimeout.Std(), minPingTimeout, maxPingTimeout))
	if m.pings < 1 || m.pings > 10_000 {
		fault("max-agent-ping-timeouts", fmt.Errorf("%d is not between 1 and 10000", m.pings))
	}
	fault("agent-reregister-timeout", within(m.reregister.Std(), minReregister, math.MaxInt64))
	c.LeaveTimeout = m.pingTimeout.Std() * time.Duration(max(m.pings, 0))
	if set.IsSet("agent-ping-timeout") || set.IsSet("max-agent-ping-timeouts") {
		c.UnreachableAfter = c.LeaveTimeout
	}
	c.ReregisterTimeout = m.reregister.Std()
	fault("offer-timeout", within(m.offerTimeout.Std(), 0, math.MaxInt64))
	for flag, n := range map[string]int{
		"max-completed-frameworks": m.keepFrameworks, "max-completed-tasks-per-framework": m.keepTasks,
		"max-unreachable-tasks-per-framework": m.keepUnreachable,
	} {
		if n < 0 {
			fault(flag, fmt.Errorf("%d is negative", n))
		}
	}
	if m.eventStreams < 1 {
		fault("max-operator-event-stream-subscribers", fmt.Errorf("%d is not above 0", m.eventStreams))
	}
	if set.IsSet("zk-session-timeout") {
		fault("zk-session-timeout", within(m.zkSession.Std(), minZKSession, time.Hour))
	}
	c.Roles, c.OfferTimeout, c.RootSubmissions, c.FilterGPUResources = m.roles, m.offerTimeout.Std(), m.rootSubmissions, m.filterGPUs
	c.HideFrameworkMetrics = !m.frameworkCounts
	c.MaxCompletedFrameworks, c.MaxCompletedTasks, c.MaxUnreachableTasks = m.keepFrameworks, m.keepTasks, m.keepUnreachable
	c.MaxOperatorStreams = m.eventStreams
	c.Region, c.Zone = m.region, m.zone
	return c, errors.Join(faults...)
}

func within(d, least, most time.Duration) error {
	switch {
	case d < least:
		return fmt.Errorf("%v is less than %v", d, least)
	case d > most:
		return fmt.Errorf("%v is more than %v", d, most)
	}
	return nil
}

func parseWeights(list []string) (map[string]float64, error) {
	weights := map[string]float64{}
	for _, item := range list {
		role, text, ok := strings.Cut(item, "=")
		w, err := strconv.ParseFloat(text, 64)
		if !ok || role == "" || err != nil || !(w > 0) {
			return nil, fmt.Errorf("%q is not role=weight with a weight above 0", item)
		}
		if err := resources.CheckRole(role); err != nil {
			return nil, err
		}
		weights[role] = w
	}
	return weights, nil
}

// domainFlag sets region and zone from Mesos' DomainInfo.
type domainFlag struct{ region, zone *string }

// String returns nothing: what it sets is shown as region and zone.
func (d domainFlag) String() string { return "" }

// Set parses JSON.
func (d domainFlag) Set(s string) error {
	var info mesos.DomainInfo
	if err := codec.JSON.Unmarshal([]byte(s), &info); err != nil {
		return err
	}
	fault := info.GetFaultDomain()
	if fault.GetRegion().GetName() == "" || fault.GetZone().GetName() == "" {
		return errors.New("a domain has a region and a zone, with a name each")
	}
	*d.region, *d.zone = fault.GetRegion().GetName(), fault.GetZone().GetName()
	return nil
}
