package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"starling/agent"
	agentapi "starling/agent/api"
	"starling/agent/containerizer/process"
	"starling/agent/inventory"
	"starling/cmd/internal/flags"
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
	set.Ignore(ignoredByBoth...)
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
	id, err := identity(r.place.dir, "agent-id", newAgentID)
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
	mesh, key, err := r.mesh(&a.mesh, id, meshDir(r.place.dir))
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program's file, which is the supervisor's too: %w", err)
	}
	containers, err := process.New(process.Config{
		Dir: filepath.Join(r.place.dir, "supervisor"), Supervisor: []string{self, "supervisor"}, IdleExit: supervisorIdle, Log: r.log,
	})
	if err != nil {
		return err
	}
	r.closers = append(r.closers, func() { containers.Close() })
	c := agent.DefaultConfig()
	c.ID, c.WorkDir = id, r.place.dir
	c.Hostname, c.Address, c.Port = r.place.hostname, r.place.address, port
	c.Region, c.Zone, c.Version = a.region, a.zone, Version()
	c.Resources, c.Attributes, c.Problems = found, attributes, problems
	c.Mesh, c.Containerizer = mesh, containers
	c.Reporter = nodeapi.NewClient(nodeapi.ClientConfig{Signer: nodeapi.NewSigner(key, nil)})
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
	if err := r.serveDNS(&a.dns, mesh, o.dnsAside, o.httpAside); err != nil {
		return err
	}
	r.addSlow("agent", c.StopTimeout+time.Second, daemon.Run)
	api, err := agentapi.New(daemon, agentapi.Config{Verifier: nodeapi.NewVerifier(key, nil), Metrics: r.metrics, Log: r.log})
	if err != nil {
		return err
	}
	r.add("agent api", func(ctx context.Context) error { return api.Serve(ctx, l) })
	r.ready = append(r.ready, daemon.Ready)
	return nil
}
