package node

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os/user"
	"path/filepath"
	"strconv"

	"starling/cmd/internal/flags"
	"starling/marathon"
	marathonapi "starling/marathon/api"
	"starling/master/election/zkelection"
	"starling/master/mesos/server"
	"starling/master/store/boltstore"
)

const marathonPort = 8080

// marathonFlags are the settings of Marathon.
type marathonFlags struct {
	port          flags.Port
	address       flags.IP
	masters       mastersFlag
	zk            marathonZK
	frameworkName string
	user, role    string
	failover      float64
	portMin       flags.Port
	portMax       flags.Port
	healthChecks  int
	launch        marathonLaunch
	http          marathonHTTP
	metrics       marathonMetrics
}

func (m *marathonFlags) register(s *flags.Set) {
	d := marathon.DefaultConfig()
	m.http, m.metrics = defaultMarathonHTTP(), defaultMarathonMetrics()
	m.metrics.register(s)
	m.launch.register(s)
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
	s.IntVar(&m.healthChecks, "max-concurrent-marathon-health-checks", d.HealthChecks, "how `many` health checks may run at the same time")
}

// Marathon runs Marathon.
func Marathon(ctx context.Context, io Streams, args, environ []string) error {
	set := flags.New("starling marathon", "STARLING_", "MARATHON_")
	set.EnvIgnore = []string{"MARATHON_APP_"}
	c := common{stderr: io.Err}
	m := marathonFlags{port: marathonPort, masters: mastersFlag{addresses: []string{"127.0.0.1:5050"}}}
	c.register(set, "marathon")
	m.register(set)
	m.http.register(set)
	set.Var(&m.port, "http-port", "the `port` of the HTTP API")
	set.Var(&m.address, "http-address", "the IP `address` to listen on; the same as --ip")
	set.Var(&m.masters, "master", "where masters are, as `http://host:port[,host:port]`, or zk://[user:password@]host:port,.../path where they are elected")
	m.zk.register(set)
	set.Ignore(ignoredByMarathon...)
	if err := parse(io, set, "Marathon: keeps long-running apps alive, and scales them over REST.", args, environ); err != nil {
		return err
	}
	if err := m.http.environment(set, environ); err != nil {
		return err
	}
	if m.address != "" {
		c.ip = m.address
	}
	if err := startHook(ctx, io, environ); err != nil {
		return err
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
	c.Masters, c.Distances = m.masters.addresses, askDistances
	pushers, err := m.metrics.pushers(r.place.hostname)
	if err != nil {
		return err
	}
	l, err := r.reach(&m.http, int(m.port), portAside)
	if err != nil {
		return err
	}
	c.Hostname, c.HTTPPort, c.Address = r.place.hostname, l.port, net.JoinHostPort(r.place.hostname, strconv.Itoa(l.port))
	if m.zk.zk.given() {
		err = r.marathonElected(&m.zk, &c, l.port)
	} else {
		err = r.marathonAlone(&c)
	}
	if err != nil {
		return err
	}
	if c.Backups, err = filepath.Abs(cmp.Or(string(m.zk.backups), filepath.Join(r.place.dir, "backups"))); err != nil {
		return err
	}
	if err := m.zk.apply(&c); err != nil {
		return err
	}
	c.Memory = frameworkFile(filepath.Join(r.place.dir, "marathon-framework"))
	if m.zk.versions > 0 {
		c.KeepVersions = m.zk.versions
	}
	c.Scheme, c.HTTPSPort, c.MetricsPrefix = l.scheme, l.httpsPort, m.metrics.prefix
	c.Callbacks = m.http.callbacks()
	c.MasterFlag, c.Version = m.masters.String(), Version()
	c.Log = r.log
	c.FrameworkName, c.User, c.Role = m.frameworkName, m.user, m.role
	if c.FailoverTimeout, err = seconds(m.failover); err != nil {
		return &UsageError{fmt.Errorf("--failover-timeout: %w", err)}
	}
	c.App.DefaultRole, c.App.ServicePortMin, c.App.ServicePortMax = m.role, int(m.portMin), int(m.portMax)
	c.HealthChecks = m.healthChecks
	if err := m.launch.apply(&c, m.role); err != nil {
		return err
	}
	daemon, err := marathon.New(c)
	if err != nil {
		return err
	}
	proxy, err := m.zk.proxy(m.http.cert)
	if err != nil {
		return err
	}
	api := marathonapi.New(marathonapi.Config{
		Marathon: daemon, Gatherer: r.metrics, Log: r.log, HTTP: m.http.api(), HidePrometheus: !m.metrics.prometheus,
		Logging: r.levels, Flags: shownFlags(r.set),
		Proxy: proxy,
	})
	r.push(pushers, daemon)
	r.add("marathon", daemon.Run)
	r.add("marathon api", func(ctx context.Context) error { return server.Serve(ctx, api, l) })
	r.ready = append(r.ready, daemon.Ready)
	return nil
}

// marathonAlone makes a Marathon one without others, with its state in a file of its own.
func (r *role) marathonAlone(c *marathon.Config) error {
	documents, err := boltstore.Open(filepath.Join(r.place.dir, "marathon.db"))
	if err != nil {
		return err
	}
	r.closers = append(r.closers, func() { documents.Close() })
	r.add("store", func(ctx context.Context) error { <-ctx.Done(); return documents.Close() })
	c.Store = documents
	return nil
}
