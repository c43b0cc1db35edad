package node

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"starling/agent"
	agentapi "starling/agent/api"
	"starling/agent/checkpoint"
	"starling/agent/inventory"
	"starling/agent/sandbox"
	"starling/agent/supervisor"
	"starling/cmd/internal/flags"
	gossipapi "starling/gossip/api"
	"starling/master/nodeapi"
)

const agentPort = 5051

// supervisorIdle is how long a supervisor stays that has no task and no agent.
const supervisorIdle = time.Minute

// agentFlags are the settings of an agent.
type agentFlags struct {
	mesh                  meshFlags
	dns                   dnsFlags
	port                  flags.Port
	resources, attributes string
	reconfiguration       string
	defaultRole           string
	containers            containerFlags
	switchUser            bool
	gcDelay               flags.Duration
	gcHeadroom            float64
	logFile               flags.Path
	shutdownGrace         flags.Duration
	region, zone          string
}

func (a *agentFlags) register(s *flags.Set) {
	d := agent.DefaultConfig()
	a.port, a.defaultRole, a.reconfiguration = agentPort, "*", inventory.Any
	a.gcDelay, a.shutdownGrace = flags.Duration(d.GCDelay), flags.Duration(d.ShutdownGrace)
	s.StringVar(&a.resources, "resources", "", "what to offer, as `cpus:4;mem:4096;ports:[31000-32000]` or JSON; what is not named is found on the machine")
	s.StringVar(&a.attributes, "attributes", "", "what frameworks may place by, as `rack:r1;disks:2`")
	s.StringVar(&a.reconfiguration, "reconfiguration-policy", a.reconfiguration, "the `policy` for resources, attributes, hostname, port and domain that are others than when this agent ran last: equal (refuse), additive (only more), any")
	s.StringVar(&a.defaultRole, "default-role", a.defaultRole, "the `role` that resources are reserved for whose role --resources does not name")
	a.containers.register(s)
	s.BoolVar(&a.switchUser, "switch-user", d.SwitchUser, "run tasks as the user that they name, which takes root")
	s.Var(&a.gcDelay, "gc-delay", "how long the sandboxes of ended tasks are kept, while there is space")
	s.Float64Var(&a.gcHeadroom, "gc-disk-headroom", d.GCHeadroom, "the `part` of the disk to keep free of old sandboxes")
	s.Var(&a.shutdownGrace, "executor-shutdown-grace-period", "how long an executor may take to end")
	s.StringVar(&a.region, "region", "", "the `name` of the region this node stands in")
	s.StringVar(&a.zone, "zone", "", "the `name` of the zone this node stands in")
}

// agentSettings are all settings of an agent of its own.
func agentSettings() (*flags.Set, *common, *agentFlags) {
	set := flags.New("starling agent", "STARLING_", "MESOS_")
	set.EnvIgnore = []string{"MESOS_TASK_ID", "MESOS_SANDBOX", "MESOS_DIRECTORY"}
	c, a := &common{}, &agentFlags{}
	c.register(set, "agent")
	a.mesh.register(set)
	a.dns.register(set, dnsPort, "dns-config")
	a.register(set)
	set.Var(&a.port, "port", "the `port` of the HTTP API")
	set.Var(&a.logFile, "external-log-file", "the `file` that standard error is written to, to be shown as /slave/log")
	domain := set.Lookup("domain")
	domain.Value = eitherDomain{domain.Value, domainFlag{&a.region, &a.zone}}
	domain.Usage += "; or region and zone as JSON, in the way of Mesos: {\"fault_domain\":{\"region\":{\"name\":\"r\"},\"zone\":{\"name\":\"z\"}}}"
	set.Folder("attributes", "resources")
	set.Unused(unusedByBoth...)
	set.Unused(unusedByAgent...)
	return set, c, a
}

// eitherDomain is the domain of names, or, where the value is JSON, where the node stands: what mesos-agent means by it.
type eitherDomain struct {
	flag.Value
	place domainFlag
}

// Set tells the two apart.
func (d eitherDomain) Set(s string) error {
	if strings.HasPrefix(strings.TrimSpace(s), "{") {
		return d.place.Set(s)
	}
	return d.Value.Set(s)
}

// Agent runs an agent.
func Agent(ctx context.Context, io Streams, args, environ []string) error {
	set, c, a := agentSettings()
	c.stderr = io.Err
	if err := parse(io, set, "An agent: joins the mesh, runs tasks, answers DNS.", args, environ); err != nil {
		return err
	}
	if err := a.dns.read(set); err != nil {
		return err
	}
	r, err := newRole("agent", set, c)
	if err != nil {
		return err
	}
	protect(r.log)
	if err := r.agent(a, agentOptions{dnsAside: !set.IsSet("dns-port"), httpAside: !set.IsSet("dns-http-port"), httpMoved: slog.LevelWarn}); err != nil {
		r.abandon()
		return err
	}
	return r.run(ctx, io)
}

// protect has the OOM killer take any task before this process, and this one before the supervisor; that takes root.
func protect(log *slog.Logger) {
	if os.Geteuid() != 0 {
		return
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-800"), 0); err != nil {
		log.Info("this process is not protected from the OOM killer", "err", err)
	}
}

// agentOptions are what dev decides differently.
type agentOptions struct {
	portAside, dnsAside, httpAside bool
	httpMoved                      slog.Level
	endTasks                       bool
}

// agent adds an agent with its membership in the mesh and its DNS server.
func (r *role) agent(a *agentFlags, o agentOptions) error {
	id, err := agentIdentity(r.place.dir, r.log)
	if err != nil {
		return err
	}
	if err := a.containers.check(); err != nil {
		return &UsageError{err}
	}
	gpus, err := a.containers.gpuDevices()
	if err != nil {
		return &UsageError{fmt.Errorf("--nvidia-gpu-devices: %w", err)}
	}
	looked := inventory.Config{
		Resources: a.resources, DefaultRole: a.defaultRole, WorkDir: r.place.dir, GPUs: a.containers.isolates("gpu/nvidia"), GPUDevices: gpus,
	}
	found, problems, err := inventory.ThisMachine().Detect(looked)
	if err != nil {
		return &UsageError{fmt.Errorf("--resources: %w", err)}
	}
	for _, problem := range problems {
		r.log.Warn("resources are not what they seem", "reason", problem)
	}
	attributes, err := inventory.ParseAttributes(a.attributes)
	if err != nil {
		return &UsageError{fmt.Errorf("--attributes: %w", err)}
	}
	l, port, err := r.listen("HTTP", int(a.port), o.portAside)
	if err != nil {
		return err
	}
	mesh, keys, err := r.mesh(&a.mesh, id, meshDir(r.place.dir))
	if err != nil {
		return err
	}
	if err := r.reconfigure(a, id, port, found, attributes); err != nil {
		return err
	}
	if err := r.containerDNS(&a.containers.networks, int(a.dns.port), a.dns.addresses); err != nil {
		return err
	}
	containers, err := r.containerizers(&a.containers, id, []uint16{uint16(port), uint16(a.mesh.port)})
	if err != nil {
		return err
	}
	fetch, err := r.fetcher(&a.containers.fetcher, id)
	if err != nil {
		return err
	}
	c := agent.DefaultConfig()
	c.NewID = newAgentID
	c.ID, c.WorkDir = id, r.place.dir
	c.Hostname, c.Address, c.Port = r.place.hostname, r.place.address, port
	c.Region, c.Zone, c.Version = a.region, a.zone, Version()
	c.Resources, c.Attributes, c.Problems = found, attributes, problems
	c.GPUs = r.gpus(looked)
	c.Mesh, c.Containerizer, c.Fetcher = mesh, containers.joined, fetch
	c.Reporter = nodeapi.NewClient(nodeapi.ClientConfig{Signer: nodeapi.NewSigner(keys, nil)})
	c.SwitchUser = a.switchUser && os.Geteuid() == 0
	if a.switchUser && !c.SwitchUser {
		c.OnlyUser = strconv.Itoa(os.Geteuid())
		if u, err := user.Current(); err == nil {
			c.OnlyUser = u.Username
		}
		r.log.Info("tasks run as the agent's user", "user", c.OnlyUser, "reason", "the agent does not run as root")
	}
	c.EndTasksAtStop, c.GCDelay, c.GCHeadroom = o.endTasks, a.gcDelay.Std(), a.gcHeadroom
	c.ShutdownGrace = a.shutdownGrace.Std()
	c.LogFile = string(a.logFile)
	a.containers.settle(&c)
	c.Flags, c.Log = shownFlags(r.set), r.log
	daemon, err := agent.New(c)
	if err != nil {
		return err
	}
	r.closers = append(r.closers, func() { daemon.Close() })
	r.add("fetcher", func(ctx context.Context) error { <-ctx.Done(); return fetch.Close() })
	r.add("containerizers", func(ctx context.Context) error { <-ctx.Done(); return containers.joined.Close() })
	r.add("gossip", mesh.Run)
	// Where containers are sent to port 53, DNS must not be at another.
	aside := o.dnsAside && !a.containers.networks.askNode
	if err := r.serveDNS(&a.dns, mesh, dnsOptions{portAside: aside, httpAside: o.httpAside, httpMoved: o.httpMoved}); err != nil {
		return err
	}
	r.addSlow("agent", c.StopTimeout+time.Second, daemon.Run)
	served := agentapi.Config{
		Verifier: nodeapi.NewVerifier(keys, nil), Metrics: r.metrics, Log: r.log, Level: r.level, Mount: gossipapi.Mount(mesh),
	}
	if containers.images != nil {
		served.PruneImages = containers.images.Prune
	}
	api, err := agentapi.New(daemon, served)
	if err != nil {
		return err
	}
	r.add("agent api", func(ctx context.Context) error { return api.Serve(ctx, l) })
	r.ready = append(r.ready, daemon.Ready)
	return nil
}

// supervisorDir and metaDir are the folders of the supervisor and of the checkpoints in an agent's work directory.
func supervisorDir(dir string) string { return filepath.Join(dir, "supervisor") }

func metaDir(dir string) string { return filepath.Join(dir, "meta") }

const fileAgentID = "agent-id"

// agentIdentity decides what an agent is called. Its checkpoints say so; the file agent-id is a copy for the case that
// these do not read, repaired when it is not as it should be, and the place where an operator can name the id. A folder in
// which no agent has left anything gets a new id. One in which tasks may be left never does: their framework would be told
// that they are gone while they run.
func agentIdentity(dir string, log *slog.Logger) (string, error) {
	path := filepath.Join(dir, fileAgentID)
	data, readErr := os.ReadFile(path)
	missing := errors.Is(readErr, os.ErrNotExist)
	kept := strings.TrimSpace(string(data))
	id, ok := checkpoint.AgentID(metaDir(dir))
	switch {
	case ok && kept != id:
		log.Warn("this agent's id is taken from its checkpoints, and its copy repaired", "agent_id", id, "path", path, "found", fmt.Sprintf("%.80q", kept))
	case ok:
	case validAgentID(kept):
		id = kept
	default:
		var err error
		if id, err = lostIdentity(dir, log); err != nil {
			return "", err
		}
		if !missing {
			log.Warn("the copy of this agent's id did not read", "agent_id", id, "path", path, "found", fmt.Sprintf("%.80q", kept))
		}
	}
	if kept != id {
		if err := writeDurably(path, []byte(id+"\n")); err != nil {
			// It is a copy, and the checkpoints say it too.
			log.Warn("cannot write the copy of this agent's id", "path", path, "err", err)
		}
	}
	return id, nil
}

// lostIdentity finds the id of an agent whose checkpoints do not say it and that has no copy: what else names it, or a new
// one where nothing is left that could run.
func lostIdentity(dir string, log *slog.Logger) (string, error) {
	ids, files, err := checkpoint.Agents(metaDir(dir))
	if err != nil {
		return "", fmt.Errorf("cannot find this agent's id: %w", err)
	}
	containers, err := supervisor.Read(supervisorDir(dir))
	if err != nil {
		return "", fmt.Errorf("cannot find this agent's id: %w", err)
	}
	if len(ids) == 0 {
		if ids, err = sandbox.Agents(dir); err != nil {
			return "", fmt.Errorf("cannot find this agent's id: %w", err)
		}
	}
	switch {
	case len(ids) == 1 && validAgentID(ids[0]):
		log.Warn("this agent's id did not read, and is taken from what is left of its tasks", "agent_id", ids[0])
		return ids[0], nil
	case files == 0 && len(containers) == 0:
		return newAgentID(), nil
	}
	return "", fmt.Errorf(`this agent's id is lost: neither %s nor %s reads, while %d checkpoints of tasks and %d containers are left, which name %s: `+
		`write the id, as the master has it, to %s; or, to begin as a new agent, end the tasks and remove %s`,
		filepath.Join(metaDir(dir), "identity"), filepath.Join(dir, fileAgentID), files, len(containers), listed(ids),
		filepath.Join(dir, fileAgentID), dir)
}

func listed(ids []string) string {
	if len(ids) == 0 {
		return "no agent"
	}
	return "the agents " + strings.Join(ids, ", ")
}

// validAgentID tells whether an id has the form of those that masters of Mesos give: what else is found in place of one is
// damage.
func validAgentID(id string) bool {
	master, number, ok := strings.Cut(id, "-S")
	_, err := strconv.ParseUint(number, 10, 64)
	return ok && validUUID(master) && err == nil
}
