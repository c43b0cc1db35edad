package node

import (
	"context"
	"fmt"
	"net"
	"os/user"
	"path/filepath"
	"strconv"

	"starling/cmd/internal/flags"
	"starling/marathon"
	marathonapi "starling/marathon/api"
	"starling/marathon/scheduler"
	"starling/master/election/zkelection"
	"starling/master/mesos/server"
	"starling/master/store/boltstore"
)

const marathonPort = 8080

// marathonFlags are the settings of Marathon.
type marathonFlags struct {
	port            flags.Port
	address         flags.IP
	masters         mastersFlag
	zk              string
	frameworkName   string
	user, role      string
	failover        float64
	portMin         flags.Port
	portMax         flags.Port
	perOffer        int
	decline, revive flags.Millis
	reconcile       flags.Millis
	killRetry       flags.Millis
	deployments     int
	healthChecks    int
}

func (m *marathonFlags) register(s *flags.Set) {
	d := marathon.DefaultConfig()
	m.user = "root"
	if u, err := user.Current(); err == nil {
		m.user = u.Username
	}
	m.portMin, m.portMax = flags.Port(d.App.ServicePortMin), flags.Port(d.App.ServicePortMax)
	s.StringVar(&m.frameworkName, "framework-name", d.FrameworkName, "the `name` to register with; it is part of the tasks' DNS names")
	s.StringVar(&m.user, "mesos-user", m.user, "the `user` that tasks run as, where they name none")
	s.StringVar(&m.role, "mesos-role", d.Role, "the `role` to register with")
	s.Float64Var(&m.failover, "failover-timeout", d.FailoverTimeout.Seconds(), "how long the master keeps the tasks of a Marathon that is gone, in `seconds`")
	s.Var(&m.portMin, "local-port-min", "the first service `port` that is assigned")
	s.Var(&m.portMax, "local-port-max", "the last service `port` that is assigned")
	s.IntVar(&m.perOffer, "max-instances-per-offer", 0, "how `many` tasks are launched on one offer at most (0: 100)")
	s.Var(&m.decline, "decline-offer-duration", "for how long offers that serve nobody are declined, in `ms` (0: 120000)")
	s.Var(&m.revive, "min-revive-offers-interval", "between asking for offers again while nothing has changed, in `ms` (0: 5000)")
	s.Var(&m.reconcile, "reconciliation-interval", "between two reconciliations of all tasks, in `ms` (0: 600000)")
	s.Var(&m.killRetry, "kill-retry-timeout", "before a kill without effect is repeated, in `ms` (0: 30000)")
	s.IntVar(&m.deployments, "max-running-deployments", 0, "how `many` deployments may run (0: 100)")
	s.IntVar(&m.healthChecks, "max-concurrent-marathon-health-checks", d.HealthChecks, "how `many` health checks may run at the same time")
	s.Alias("max-instances-per-offer", "max_tasks_per_offer")
}

// Marathon runs Marathon.
func Marathon(ctx context.Context, io Streams, args, environ []string) error {
	set := flags.New("starling marathon", "STARLING_", "MARATHON_")
	set.EnvIgnore = []string{"MARATHON_APP_"}
	c := common{stderr: io.Err}
	m := marathonFlags{port: marathonPort, masters: mastersFlag{addresses: []string{"127.0.0.1:5050"}}}
	c.register(set, "marathon")
	m.register(set)
	set.Var(&m.port, "http-port", "the `port` of the HTTP API")
	set.Var(&m.address, "http-address", "the IP `address` to listen on; the same as --ip")
	set.Var(&m.masters, "master", "where masters are, as `http://host:port[,host:port]`, or zk://[user:password@]host:port,.../path where they are elected")
	set.StringVar(&m.zk, "zk", "", "where the state is kept for several instances, as `zk://host:port,.../path`; not built in yet: leave it out, and the state is in --work-dir")
	set.Ignore(ignoredByMarathon...)
	if err := parse(io, set, "Marathon: keeps long-running apps alive, and scales them over REST.", args, environ); err != nil {
		return err
	}
	if m.zk != "" {
		return usagef("--zk: state in ZooKeeper is not built in yet; leave it out, and the state is kept in --work-dir")
	}
	if m.address != "" {
		c.ip = m.address
	}
	r, err := newRole("marathon", set, &c)
	if err != nil {
		return err
	}
	r.place.found = false // it listens on all addresses and tells others its host name alone: to move costs it nothing
	if err := r.marathon(&m, false); err != nil {
		r.abandon()
		return err
	}
	return r.run(ctx, io)
}

// marathon adds Marathon with its store.
func (r *role) marathon(m *marathonFlags, portAside bool) error {
	c := marathon.DefaultConfig()
	if m.masters.zk.given() {
		client, err := r.zooKeeper(&m.masters.zk, 0)
		if err != nil {
			return err
		}
		c.Detector = zkelection.NewDetector(client, r.log)
	}
	c.Masters = m.masters.addresses
	l, port, err := r.listen("HTTP", int(m.port), portAside)
	if err != nil {
		return err
	}
	documents, err := boltstore.Open(filepath.Join(r.place.dir, "marathon.db"))
	if err != nil {
		return err
	}
	r.closers = append(r.closers, func() { documents.Close() })
	c.Hostname, c.HTTPPort, c.Address = r.place.hostname, port, net.JoinHostPort(r.place.hostname, strconv.Itoa(port))
	c.MasterFlag, c.Version = m.masters.String(), Version()
	c.Store, c.Log = documents, r.log
	c.FrameworkName, c.User, c.Role = m.frameworkName, m.user, m.role
	if c.FailoverTimeout, err = seconds(m.failover); err != nil {
		return &UsageError{fmt.Errorf("--failover-timeout: %w", err)}
	}
	c.App.DefaultRole, c.App.ServicePortMin, c.App.ServicePortMax = m.role, int(m.portMin), int(m.portMax)
	c.HealthChecks = m.healthChecks
	c.Scheduler = scheduler.Config{
		MaxInstancesPerOffer: m.perOffer, DeclineDuration: m.decline.Std(), MinReviveInterval: m.revive.Std(),
		ReconcileInterval: m.reconcile.Std(), KillRetry: m.killRetry.Std(), MaxRunningDeployments: m.deployments,
	}
	daemon, err := marathon.New(c)
	if err != nil {
		return err
	}
	api := marathonapi.New(marathonapi.Config{Marathon: daemon, Gatherer: r.metrics, Log: r.log})
	r.add("store", func(ctx context.Context) error { <-ctx.Done(); return documents.Close() })
	r.add("marathon", daemon.Run)
	r.add("marathon api", func(ctx context.Context) error { return server.Serve(ctx, api, l) })
	r.ready = append(r.ready, daemon.Ready)
	return nil
}
