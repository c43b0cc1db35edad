package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"starling/agent"
	agentapi "starling/agent/api"
	"starling/agent/checkpoint"
	"starling/agent/containerizer/process"
	"starling/agent/inventory"
	"starling/agent/sandbox"
	"starling/agent/supervisor"
	"starling/cmd/internal/flags"
	dnsapi "starling/dns/api"
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
	containerizers        flags.List
	switchUser            bool
	gcDelay               flags.Duration
	gcHeadroom            float64
	shutdownGrace         flags.Duration
	region, zone          string
}

func (a *agentFlags) register(s *flags.Set) {
	d := agent.DefaultConfig()
	a.port, a.containerizers = agentPort, flags.List{"mesos"}
	a.gcDelay, a.shutdownGrace = flags.Duration(d.GCDelay), flags.Duration(d.ShutdownGrace)
	s.StringVar(&a.resources, "resources", "", "what to offer, as `cpus:4;mem:4096;ports:[31000-32000]` or JSON; what is not named is found on the machine")
	s.StringVar(&a.attributes, "attributes", "", "what frameworks may place by, as `rack:r1;disks:2`")
	s.Var(&a.containerizers, "containerizers", "how tasks are isolated, in order of preference: `mesos`, docker")
	s.BoolVar(&a.switchUser, "switch-user", d.SwitchUser, "run tasks as the user that they name, which takes root")
	s.Var(&a.gcDelay, "gc-delay", "how long the sandboxes of ended tasks are kept, while there is space")
	s.Float64Var(&a.gcHeadroom, "gc-disk-headroom", d.GCHeadroom, "the `part` of the disk to keep free of old sandboxes")
	s.Var(&a.shutdownGrace, "executor-shutdown-grace-period", "how long an executor may take to end")
	s.StringVar(&a.region, "region", "", "the `name` of the region this node stands in")
	s.StringVar(&a.zone, "zone", "", "the `name` of the zone this node stands in")
}

// Agent runs an agent.
func Agent(ctx context.Context, io Streams, args, environ []string) error {
	set := flags.New("starling agent", "STARLING_", "MESOS_")
	set.EnvIgnore = []string{"MESOS_TASK_ID", "MESOS_SANDBOX", "MESOS_DIRECTORY"}
	var c common
	var a agentFlags
	c.stderr = io.Err
	c.register(set, "agent")
	a.mesh.register(set)
	a.dns.register(set, dnsPort)
	a.register(set)
	set.Var(&a.port, "port", "the `port` of the HTTP API")
	set.Unused(unusedByBoth...)
	set.Unused(unusedByAgent...)
	set.Ignore(ignoredByAgent...)
	if err := parse(io, set, "An agent: joins the mesh, runs tasks, answers DNS.", args, environ); err != nil {
		return err
	}
	r, err := newRole("agent", set, &c)
	if err != nil {
		return err
	}
	if err := r.agent(&a, agentOptions{dnsAside: !set.IsSet("dns-port"), httpAside: !set.IsSet("dns-http-port")}); err != nil {
		r.abandon()
		return err
	}
	return r.run(ctx, io)
}

// agentOptions are what dev decides differently.
type agentOptions struct {
	portAside, dnsAside, httpAside bool
	endTasks                       bool
}

// agent adds an agent with its membership in the mesh and its DNS server.
func (r *role) agent(a *agentFlags, o agentOptions) error {
	id, err := agentIdentity(r.place.dir, r.log)
	if err != nil {
		return err
	}
	for _, name := range a.containerizers {
		switch name {
		case "mesos":
		case "docker":
			r.log.Warn("the docker containerizer is not built in; tasks that ask for it are refused with that reason")
		default:
			return usagef("--containerizers: unknown containerizer %q (mesos, docker)", name)
		}
	}
	found, problems, err := inventory.ThisMachine().Detect(inventory.Config{Resources: a.resources, WorkDir: r.place.dir})
	if err != nil {
		return &UsageError{fmt.Errorf("--resources: %w", err)}
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
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program's file, which is the supervisor's too: %w", err)
	}
	containers, err := process.New(process.Config{
		Dir: supervisorDir(r.place.dir), Supervisor: []string{self, "supervisor"}, IdleExit: supervisorIdle, Log: r.log,
	})
	if err != nil {
		return err
	}
	r.closers = append(r.closers, func() { containers.Close() })
	c := agent.DefaultConfig()
	c.NewID = newAgentID
	c.ID, c.WorkDir = id, r.place.dir
	c.Hostname, c.Address, c.Port = r.place.hostname, r.place.address, port
	c.Region, c.Zone, c.Version = a.region, a.zone, Version()
	c.Resources, c.Attributes, c.Problems = found, attributes, problems
	c.Mesh, c.Containerizer = mesh, containers
	c.Reporter = nodeapi.NewClient(nodeapi.ClientConfig{Signer: nodeapi.NewSigner(keys, nil)})
	c.SwitchUser = a.switchUser && os.Geteuid() == 0
	c.EndTasksAtStop, c.GCDelay, c.GCHeadroom = o.endTasks, a.gcDelay.Std(), a.gcHeadroom
	c.ShutdownGrace = a.shutdownGrace.Std()
	c.Flags, c.Log = shownFlags(r.set), r.log
	daemon, err := agent.New(c)
	if err != nil {
		return err
	}
	r.closers = append(r.closers, func() { daemon.Close() })
	r.add("containerizer", func(ctx context.Context) error { <-ctx.Done(); return containers.Close() })
	r.add("gossip", mesh.Run)
	if err := r.serveDNS(&a.dns, mesh, dnsapi.Config{}, o.dnsAside, o.httpAside); err != nil {
		return err
	}
	r.addSlow("agent", c.StopTimeout+time.Second, daemon.Run)
	api, err := agentapi.New(daemon, agentapi.Config{
		Verifier: nodeapi.NewVerifier(keys, nil), Metrics: r.metrics, Log: r.log, Mount: gossipapi.Mount(mesh),
	})
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
